//! The animated twins of an animation's stills.

use super::color::Conversion;
use super::decode::{self, DecodeRequest, Header};
use super::encode::Animation;
use super::geometry::Window;
use super::sizes::{Give, Size};
use super::{Control, Error, Recipe, Workspace};

/// The most pixels that the frames of all twins may have together, for encoding is what costs: 40
/// frames of 1024 × 1024.
const MAX_PIXELS: u64 = 42_000_000;

/// Makes an animated WebP of each variant, cropped as the stills are, with the upload's timing.
/// The largest variants are left out as far as all together would be too much.
///
/// # Errors
///
/// As [`super::process()`].
pub(super) fn make(
    bytes: &[u8],
    header: &Header,
    request: &DecodeRequest,
    recipe: &Recipe,
    control: &Control,
    workspace: &mut Workspace,
    give: &mut Give<'_>,
) -> Result<(), Error> {
    let sizes = choose(header, request, recipe);
    let Some(largest) = sizes.first().map(|size| size.edge_px) else {
        return Ok(());
    };
    let mut animations: Vec<Animation> = Vec::new();
    // The colours of all frames mean the same.
    let mut conversion = None;
    let window = Window::from(request.square);
    decode::animate(bytes, header, control, &mut |frame| {
        let resized = workspace.resize(frame.canvas, window, largest)?;
        let upright = header.orientation.apply(resized);
        let mut level = conversion
            .get_or_insert_with(|| Conversion::of(frame.colors, upright.layout))
            .apply(upright)?;
        for (index, size) in sizes.iter().enumerate() {
            control.check()?;
            if level.width > size.edge_px {
                level = workspace.resize(&level, Window::of(&level), size.edge_px)?;
            }
            if animations.len() == index {
                let animation = Animation::new(size.edge_px, frame.plays, recipe.webp_quality)?;
                animations.push(animation);
            }
            animations[index].add(&level, frame.duration_ms)?;
        }
        Ok(())
    })?;
    for (size, animation) in sizes.iter().zip(animations) {
        size.give_moving(animation.finish()?, give)?;
    }
    Ok(())
}

/// The sizes to make, from the largest.
pub(super) fn choose<'a>(
    header: &Header,
    request: &DecodeRequest,
    recipe: &'a Recipe,
) -> Vec<Size<'a>> {
    let mut sizes = Size::all(recipe, request.square.edge);
    let pixels = |size: &Size<'_>| u64::from(size.edge_px).pow(2) * u64::from(header.frames);
    let mut total: u64 = sizes.iter().map(pixels).sum();
    while let Some(largest) = sizes.first()
        && total > MAX_PIXELS
    {
        total -= pixels(largest);
        sizes.remove(0);
    }
    sizes
}
