//! Makes the animated renditions of an upload.

use super::color::Conversion;
use super::decode::{self, DecodeRequest, Header};
use super::encode::Animation;
use super::geometry::Window;
use super::sizes::{Emit, Size};
use super::{Control, Error, Recipe, Workspace};

/// The pixel limit for the frames of all animated renditions together, because encoding is the
/// costly part: 40 frames of 1024 × 1024.
const MAX_PIXELS: u64 = 42_000_000;

/// Makes an animated WebP of each variant, with the crop of the stills and the timing of the
/// upload. If all variants together exceed [`MAX_PIXELS`], the largest ones are left out.
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
    emit: &mut Emit<'_>,
) -> Result<(), Error> {
    let sizes = choose(header, request, recipe);
    let Some(largest) = sizes.first().map(|size| size.edge_px) else {
        return Ok(());
    };
    let mut animations: Vec<Animation> = Vec::new();
    // All frames have the same colour space.
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
        size.emit_animated(animation.finish()?, emit)?;
    }
    Ok(())
}

/// The sizes to make, from the largest to the smallest.
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
