//! The way of one picture, from its bytes to everything that is made of it.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::decode::{self, Want};
use super::geometry::{Square, Window};
use super::raster::{Layout, Raster};
use super::{
    Control, Crop, Error, Limits, Output, Probe, Processed, Recipe, Target, Workspace, color,
    encode, placeholder,
};
use crate::avatar::{Format, Rendition, Source};

/// The longest side of a master in pixels.
const MASTER_EDGE_PX: u32 = 2048;

/// Reads what a picture's headers say, cheaply and without decoding.
///
/// # Errors
///
/// In this order: [`Error::UnsupportedFormat`] for what is no picture or of a kind that is not
/// taken; [`Error::Corrupt`] for headers that are not whole; [`Error::DimensionsTooLarge`],
/// [`Error::DimensionsTooSmall`]; [`Error::TooManyFrames`], [`Error::TooManyPixels`],
/// [`Error::TooComplex`].
pub fn probe(bytes: &[u8], limits: &Limits) -> Result<Probe, Error> {
    let header = decode::header(bytes, limits)?;
    let (width, height) = header.orientation.upright_size(header.width, header.height);
    Ok(Probe {
        format: header.format,
        width,
        height,
        frames: header.frames,
        memory_bytes: header.memory_bytes + RENDERING_BYTES,
    })
}

/// What resizing and encoding take at their peak beside the decoded picture: the largest variant
/// or master and its encoder's working space.
const RENDERING_BYTES: u64 = 32 << 20;

/// Makes everything that `recipe` asks for of the picture in `bytes` and hands each thing to
/// `emit` as soon as it is encoded: the master first, then the variants from the largest to the
/// smallest, each in every format in the recipe's order. A variant larger than the picture has the
/// picture's own size. The same input gives the same bytes.
///
/// # Errors
///
/// As [`probe`], then [`Error::InvalidCrop`], [`Error::Corrupt`] for a picture of which any row is
/// missing or damaged, [`Error::TooComplex`] past the deadline of `control`, and
/// [`Error::Cancelled`] where `control` or `emit` ends the work. What was given out before an error
/// stands for nothing.
pub fn process(
    bytes: Bytes,
    recipe: &Recipe,
    crop: Option<Crop>,
    control: &Control,
    workspace: &mut Workspace,
    emit: &mut dyn FnMut(Output) -> ControlFlow<()>,
) -> Result<Processed, Error> {
    control.check()?;
    let header = decode::header(&bytes, &recipe.limits)?;
    let (width, height) = header.orientation.upright_size(header.width, header.height);
    let square = Square::choose(width, height, crop)?;
    let source = Source {
        format: header.format,
        bytes: bytes.len() as u64,
        width,
        height,
        animated: header.frames > 1,
    };

    let mut targets: Vec<&Target> = recipe.variants.iter().collect();
    targets.sort_by_key(|target| std::cmp::Reverse(target.edge_px));
    let largest = targets.first().map_or(1, |target| target.edge_px);
    let master_edge = if recipe.keep_master {
        MASTER_EDGE_PX
    } else {
        0
    };
    let first_edge = largest.max(master_edge).min(square.edge);

    let want = Want {
        square: header
            .orientation
            .to_stored(square, header.width, header.height),
        edge_px: first_edge,
    };
    let decoded = decode::decode(&bytes, &header, &want, control)?;
    drop(bytes);
    control.check()?;

    // What is costly by the pixel comes after the picture has become small, and the large one goes
    // before anything is encoded.
    let resized = workspace.resize(&decoded.raster, decoded.window, first_edge)?;
    drop(decoded.raster);
    let upright = header.orientation.apply(resized);
    let mut level = color::to_srgb(upright, &decoded.colors)?;
    level.drop_opaque_alpha();

    let mut give = |output| match emit(output) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    };
    if recipe.keep_master {
        let edge = master_edge.min(square.edge);
        level = shrink(level, edge, workspace)?;
        control.check()?;
        let (format, bytes) = encode::encode_master(&level)?;
        give(Output::Master(format, bytes))?;
    }
    // The variant before, where the picture is too small for the two to differ.
    let mut last: Option<(u32, Files)> = None;
    for target in targets {
        let edge = target.edge_px.clamp(1, square.edge);
        let files = match last.take() {
            Some((last_edge, files)) if last_edge == edge => files,
            _ => {
                level = shrink(level, edge, workspace)?;
                let mut files = Vec::with_capacity(recipe.formats.len());
                for &format in &recipe.formats {
                    control.check()?;
                    files.push((format, encode::encode(&level, format, recipe)?));
                }
                files
            }
        };
        for (format, bytes) in &files {
            let rendition = Rendition {
                variant: target.name.clone(),
                format: *format,
                width: edge,
                height: edge,
                bytes: bytes.len() as u64,
                animated: false,
            };
            give(Output::Rendition(rendition, bytes.clone()))?;
        }
        last = Some((edge, files));
    }
    let small = shrink(level, placeholder::MAX_EDGE_PX.min(square.edge), workspace)?;
    Ok(Processed {
        source,
        placeholder: placeholder::placeholder(&small),
    })
}

/// One variant in each format.
type Files = Vec<(Format, Vec<u8>)>;

/// The square picture at `edge_px`, or as it is where it is no larger.
fn shrink(level: Raster, edge_px: u32, workspace: &mut Workspace) -> Result<Raster, Error> {
    if level.width <= edge_px {
        return Ok(level);
    }
    debug_assert!(matches!(level.layout, Layout::Rgb | Layout::Rgba));
    let whole = Window {
        x: 0.0,
        y: 0.0,
        edge: f64::from(level.width),
    };
    workspace.resize(&level, whole, edge_px)
}

#[cfg(test)]
mod tests;
