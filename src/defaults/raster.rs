//! Turns a drawing into pixels.

use tiny_skia::{FillRule, Mask, PathBuilder, Transform};

use super::drawing::Drawing;
use super::path::{EDGE, Path, Point, Step};

/// The side of a raster default in pixels: a step of a fixed ladder, so that few sizes are drawn
/// and cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RasterEdge(u16);

impl RasterEdge {
    /// The ladder, from the smallest step to the largest.
    pub const LADDER: [Self; 12] = [
        Self(16),
        Self(32),
        Self(48),
        Self(64),
        Self(80),
        Self(96),
        Self(128),
        Self(200),
        Self(256),
        Self(400),
        Self(512),
        Self(1024),
    ];

    /// The smallest step that covers a number of pixels, else the largest one.
    pub fn covering(px: u32) -> Self {
        let covers = |edge: &Self| edge.px() >= px;
        let [.., largest] = Self::LADDER;
        Self::LADDER.into_iter().find(covers).unwrap_or(largest)
    }

    /// The side in pixels.
    pub fn px(self) -> u32 {
        self.0.into()
    }
}

/// Draws at a multiple of small sizes and takes means, because the rasteriser knows only 16 levels
/// of coverage down a pixel.
fn oversampling(edge: RasterEdge) -> u32 {
    match edge.px() {
        0..=128 => 4,
        129..=512 => 2,
        _ => 1,
    }
}

/// The pixels of a drawing: three bytes each, in rows from the top.
///
/// # Errors
///
/// [`cameo_imaging::Error::Internal`] if the rasteriser cannot use the size or the outline, which is
/// a fault of this program.
pub(super) fn pixels(drawing: &Drawing, edge: RasterEdge) -> Result<Vec<u8>, cameo_imaging::Error> {
    let factor = oversampling(edge);
    let coverage = coverage(&drawing.path, edge.px() * factor)?;
    let (edge, factor) = (edge.px() as usize, factor as usize);
    let samples = u32::try_from(255 * factor * factor).unwrap_or(u32::MAX);
    let mut pixels = Vec::with_capacity(3 * edge * edge);
    for (row, column) in (0..edge).flat_map(|row| (0..edge).map(move |column| (row, column))) {
        let covered: u32 = (0..factor)
            .map(|line| ((row * factor + line) * edge + column) * factor)
            .flat_map(|start| &coverage[start..start + factor])
            .map(|level| u32::from(*level))
            .sum();
        for (ground, figure) in drawing.ground.0.into_iter().zip(drawing.figure.0) {
            let mixed = u32::from(ground) * (samples - covered) + u32::from(figure) * covered;
            pixels.push(((mixed + samples / 2) / samples) as u8);
        }
    }
    Ok(pixels)
}

/// The coverage of each pixel of a square by the figure, 0 to 255.
fn coverage(path: &Path, edge_px: u32) -> Result<Vec<u8>, cameo_imaging::Error> {
    let mut mask = Mask::new(edge_px, edge_px).ok_or_else(|| internal("size"))?;
    let scale = edge_px as f32 / f32::from(EDGE);
    let path = outline(path).ok_or_else(|| internal("outline"))?;
    mask.fill_path(
        &path,
        FillRule::Winding,
        true,
        Transform::from_scale(scale, scale),
    );
    Ok(mask.take())
}

/// Converts the path for the rasteriser; `None` if it is empty.
fn outline(path: &Path) -> Option<tiny_skia::Path> {
    let number = |point: Point| (f32::from(point.0), f32::from(point.1));
    let mut builder = PathBuilder::new();
    for step in path.steps() {
        match *step {
            Step::Move(to) => {
                let to = number(to);
                builder.move_to(to.0, to.1);
            }
            Step::Line(to) => {
                let to = number(to);
                builder.line_to(to.0, to.1);
            }
            Step::Quad(control, to) => {
                let (control, to) = (number(control), number(to));
                builder.quad_to(control.0, control.1, to.0, to.1);
            }
            Step::Cubic(first, second, to) => {
                let (first, second, to) = (number(first), number(second), number(to));
                builder.cubic_to(first.0, first.1, second.0, second.1, to.0, to.1);
            }
            Step::Close => builder.close(),
        }
    }
    builder.finish()
}

fn internal(part: &str) -> cameo_imaging::Error {
    cameo_imaging::Error::Internal {
        reason: format!("the rasteriser cannot use the {part} of a default"),
    }
}
