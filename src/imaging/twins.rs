//! The animated twins of an animation's stills.

use super::decode::{self, Header, Want};
use super::encode::Animation;
use super::geometry::Window;
use super::process::shrink;
use super::{Control, Error, Output, Recipe, Target, Workspace, color};
use crate::avatar::{Format, Rendition};

/// The most pixels that the frames of all twins may have together, for encoding is what costs: 40
/// frames of 1024 × 1024.
const MAX_PIXELS: u64 = 42_000_000;

/// Makes an animated WebP of each variant, cropped as the stills are, with the upload's timing.
/// The largest variants are left out as far as all together would be too much.
///
/// # Errors
///
/// As [`super::process`].
pub(super) fn make(
    bytes: &[u8],
    header: &Header,
    want: &Want,
    recipe: &Recipe,
    control: &Control,
    workspace: &mut Workspace,
    give: &mut dyn FnMut(Output) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut twins = choose(header, want, recipe);
    let Some(largest) = twins.first().map(|twin| twin.edge_px) else {
        return Ok(());
    };
    let window = Window::from(want.square);
    decode::animate(bytes, header, control, &mut |frame| {
        let resized = workspace.resize(frame.canvas, window, largest)?;
        let upright = header.orientation.apply(resized);
        let mut level = color::to_srgb(upright, frame.colors)?;
        for twin in &mut twins {
            control.check()?;
            level = shrink(level, twin.edge_px, workspace)?;
            let animation = match &mut twin.animation {
                Some(animation) => animation,
                none => none.insert(Animation::new(
                    twin.edge_px,
                    frame.plays,
                    recipe.webp_quality,
                )?),
            };
            animation.add(&level, frame.duration_ms)?;
        }
        Ok(())
    })?;
    for twin in twins {
        let Some(animation) = twin.animation else {
            continue;
        };
        let file = animation.finish()?;
        for target in twin.targets {
            let rendition = Rendition {
                variant: target.name.clone(),
                format: Format::Webp,
                width: twin.edge_px,
                height: twin.edge_px,
                bytes: file.len() as u64,
                animated: true,
            };
            give(Output::Rendition(rendition, file.clone()))?;
        }
    }
    Ok(())
}

/// One size that is made.
struct Twin<'a> {
    edge_px: u32,
    /// The variants of this size: several, where the picture is smaller than they are.
    targets: Vec<&'a Target>,
    animation: Option<Animation>,
}

/// The sizes to make, from the largest.
fn choose<'a>(header: &Header, want: &Want, recipe: &'a Recipe) -> Vec<Twin<'a>> {
    let mut targets: Vec<&Target> = recipe.variants.iter().collect();
    targets.sort_by_key(|target| target.edge_px);
    let mut twins: Vec<Twin<'a>> = Vec::new();
    let mut pixels = 0;
    for target in targets {
        let edge_px = target.edge_px.clamp(1, want.square.edge);
        match twins.last_mut() {
            Some(twin) if twin.edge_px == edge_px => twin.targets.insert(0, target),
            _ => {
                pixels += u64::from(edge_px).pow(2) * u64::from(header.frames);
                if pixels > MAX_PIXELS {
                    break;
                }
                twins.push(Twin {
                    edge_px,
                    targets: vec![target],
                    animation: None,
                });
            }
        }
    }
    twins.reverse();
    twins
}
