//! The silhouette: head and shoulders.

use super::colors::Tones;
use super::drawing::Drawing;
use super::path::{EDGE, Path, Step};

/// Draws head and shoulders in a pale colour on a strong ground.
pub(super) fn draw(colors: Tones) -> Drawing {
    let mut path = Path::default();
    ellipse(&mut path, (512, 396), (172, 180));
    shoulders(&mut path);
    Drawing {
        ground: colors.strong,
        figure: colors.pale,
        path,
    }
}

/// Shoulders that end at the lower edge.
fn shoulders(path: &mut Path) {
    path.push(Step::Move((160, EDGE)));
    path.push(Step::Cubic((160, 800), (310, 652), (512, 652)));
    path.push(Step::Cubic((714, 652), (864, 800), (864, EDGE)));
    path.push(Step::Close);
}

/// An ellipse of four cubic curves.
fn ellipse(path: &mut Path, (x, y): (i16, i16), (across, down): (i16, i16)) {
    // The distance of the control points at which a cubic curve is closest to a quarter circle.
    let handle = |radius: i16| (f32::from(radius) * 0.552_28) as i16;
    let (to_side, to_top) = (handle(across), handle(down));
    path.push(Step::Move((x, y - down)));
    path.push(Step::Cubic(
        (x + to_side, y - down),
        (x + across, y - to_top),
        (x + across, y),
    ));
    path.push(Step::Cubic(
        (x + across, y + to_top),
        (x + to_side, y + down),
        (x, y + down),
    ));
    path.push(Step::Cubic(
        (x - to_side, y + down),
        (x - across, y + to_top),
        (x - across, y),
    ));
    path.push(Step::Cubic(
        (x - across, y - to_top),
        (x - to_side, y - down),
        (x, y - down),
    ));
    path.push(Step::Close);
}
