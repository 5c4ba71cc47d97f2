//! Processes one picture, from its bytes to all outputs.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::color::Conversion;
use super::decode::{self, Chroma, Colors, DecodeRequest, Decoded, Header, OriginalRequest};
use super::executor::{BackgroundEncode, Executor, Inline};
use super::footprint::MemoryEstimate;
use super::geometry::{Square, Window};
use super::orientation::Orientation;
use super::planes::Picture;
use super::raster::{Layout, Raster};
use super::sizes::Size;
use super::{
    Control, Crop, Error, Limits, Output, Probe, Processed, Recipe, Workspace, animated, encode,
    placeholder,
};
use crate::{Format, Source};

/// Reads the headers of a picture without decoding it. The memory estimate assumes one variant as
/// large as the picture, in every format, and an original; [`probe_for`] is more exact.
///
/// # Errors
///
/// In this order: [`Error::UnsupportedFormat`] for bytes that are no picture or of a format that is
/// not accepted; [`Error::DimensionsTooLarge`] and [`Error::DimensionsTooSmall`], whatever else the
/// headers say; [`Error::UnsupportedFormat`] for an unsupported kind of the format;
/// [`Error::Corrupt`] for incomplete or damaged headers; [`Error::TooComplex`].
pub fn probe(bytes: &[u8], limits: &Limits) -> Result<Probe, Error> {
    let header = decode::header(bytes, limits)?;
    let edge = header.width.min(header.height);
    let request = DecodeRequest {
        square: Square { x: 0, y: 0, edge },
        edge_px: edge,
        original: Some(OriginalRequest::of(header.width, header.height)),
        chroma: Chroma::Whole,
    };
    Ok(describe(&header, &MemoryEstimate::all(&header, &request)))
}

/// Reads the headers of a picture for a recipe. [`Probe::memory_bytes`] is the estimate for the
/// outputs of the recipe.
///
/// # Errors
///
/// As [`probe`], then [`Error::TooManyFrames`] and [`Error::TooManyPixels`] if the recipe keeps the
/// frames, then [`Error::InvalidCrop`].
pub fn probe_for(bytes: &[u8], recipe: &Recipe, crop: Option<Crop>) -> Result<Probe, Error> {
    let header = header_for(bytes, recipe)?;
    let request = request(&header, recipe, crop)?;
    Ok(describe(
        &header,
        &MemoryEstimate::by(recipe, &header, &request),
    ))
}

/// Reads the headers of a picture and checks the limits of a recipe.
fn header_for(bytes: &[u8], recipe: &Recipe) -> Result<Header, Error> {
    let header = decode::header(bytes, &recipe.limits)?;
    if recipe.animated {
        decode::check_frames(&header, &recipe.limits)?;
    }
    Ok(header)
}

fn describe(header: &Header, made: &MemoryEstimate<'_>) -> Probe {
    let (width, height) = header.orientation.upright_size(header.width, header.height);
    Probe {
        format: header.format,
        width,
        height,
        frames: header.frames,
        memory_bytes: made.memory_bytes(),
    }
}

/// The part of a picture that a recipe needs.
fn request(header: &Header, recipe: &Recipe, crop: Option<Crop>) -> Result<DecodeRequest, Error> {
    let (width, height) = header.orientation.upright_size(header.width, header.height);
    let square = Square::choose(width, height, crop)?;
    let largest = recipe.variants.iter().map(|target| target.edge_px);
    let largest = largest.max().unwrap_or(1);
    let original = || OriginalRequest::of(header.width, header.height);
    Ok(DecodeRequest {
        square: header
            .orientation
            .to_stored(square, header.width, header.height),
        edge_px: largest.clamp(1, square.edge),
        original: recipe.keep_original.then(original),
        chroma: if recipe.keep_original || recipe.formats.contains(&Format::Png) {
            Chroma::Whole
        } else {
            Chroma::Halved
        },
    })
}

/// Makes all outputs of `recipe` from the picture in `bytes` and passes each to `emit` as soon as
/// it is encoded: the original first, then the variants from the largest to the smallest, then
/// animated renditions. A variant larger than the picture has the picture's own size. The same
/// input gives the same bytes.
///
/// # Errors
///
/// As [`probe_for`], then [`Error::Corrupt`] if any row of the picture is missing or damaged,
/// [`Error::TooComplex`] after the deadline of `control`, and [`Error::Cancelled`] if `control` or
/// `emit` ends the work. After an error, discard the outputs that were emitted before.
pub fn process(
    bytes: Bytes,
    recipe: &Recipe,
    crop: Option<Crop>,
    control: &Control,
    workspace: &mut Workspace,
    emit: &mut dyn FnMut(Output) -> ControlFlow<()>,
) -> Result<Processed, Error> {
    process_with(bytes, recipe, crop, control, workspace, &Inline, emit)
}

/// Processes a picture with an executor that may encode the largest variant in the background. That
/// variant may then come later than smaller ones.
pub fn process_with(
    bytes: Bytes,
    recipe: &Recipe,
    crop: Option<Crop>,
    control: &Control,
    workspace: &mut Workspace,
    executor: &dyn Executor,
    emit: &mut dyn FnMut(Output) -> ControlFlow<()>,
) -> Result<Processed, Error> {
    control.check()?;
    let header = header_for(&bytes, recipe)?;
    let (width, height) = header.orientation.upright_size(header.width, header.height);
    let request = request(&header, recipe, crop)?;
    let square = request.square;
    let source = Source {
        format: header.format,
        bytes: bytes.len() as u64,
        width,
        height,
        animated: header.frames > 1,
    };

    let decoded = decode::decode(&bytes, &header, &request, control)?;
    let moving = (recipe.animated && header.frames > 1).then(|| bytes.clone());
    drop(bytes);
    control.check()?;

    // Steps that cost time per pixel come after the picture is small. The large picture is dropped
    // before anything is encoded.
    let Decoded {
        raster,
        window,
        colors,
    } = decoded;
    let original = match &request.original {
        Some(original) => Some(resize_original(original, &raster, window, workspace)?),
        None => None,
    };
    let window = window.of_square(request.area(), square);
    let upright = workspace.resize_picture(&raster, window, header.orientation, request.edge_px)?;
    drop(raster);

    let mut emit = |output| match emit(output) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    };
    if let Some(original) = original {
        control.check()?;
        let original = Picture::Pixels(header.orientation.apply(original));
        let original = in_srgb(original, &colors)?.into_pixels();
        let (original, bytes) = encode::encode_original(&original)?;
        emit(Output::Original(original, bytes))?;
        control.check()?;
    }
    let level = in_srgb(upright, &colors)?;
    let mut level = Arc::new(level);
    let mut background = None;
    for (index, size) in Size::all(recipe, square.edge).into_iter().enumerate() {
        if level.width() > size.edge_px {
            level = Arc::new(shrink(&level, size.edge_px, workspace)?);
        }
        for (number, &format) in recipe.formats.iter().enumerate() {
            control.check()?;
            // The largest variant in the primary format takes longer than all later ones.
            if (index, number) == (0, 0) && recipe.formats.len() * recipe.variants.len() > 1 {
                let (level, recipe) = (Arc::clone(&level), recipe.clone());
                let work = move || encode::encode(&level, format, &recipe);
                background =
                    BackgroundEncode::begin(executor, work).map(|work| (size.clone(), work));
                if background.is_some() {
                    continue;
                }
            }
            size.emit_still(format, encode::encode(&level, format, recipe)?, &mut emit)?;
            if let Some((size, work)) = background.take() {
                match work.poll() {
                    Ok(file) => size.emit_still(recipe.formats[0], file?, &mut emit)?,
                    Err(work) => background = Some((size, work)),
                }
            }
        }
    }
    if let Some((size, work)) = background {
        size.emit_still(recipe.formats[0], work.wait()?, &mut emit)?;
    }
    if let Some(bytes) = moving {
        animated::make(
            &bytes, &header, &request, recipe, control, workspace, &mut emit,
        )?;
    }
    let small = match placeholder::MAX_EDGE_PX {
        edge if level.width() > edge => shrink(&level, edge, workspace)?,
        _ => Arc::unwrap_or_clone(level),
    };
    Ok(Processed {
        source,
        placeholder: placeholder::placeholder(&small.into_pixels()),
    })
}

/// Resizes the decoded picture to the size of its original. The result lies as the stored picture
/// does. Originals need all chroma, so the decoder gives pixels and not planes.
fn resize_original(
    original: &OriginalRequest,
    decoded: &Picture,
    window: Window,
    workspace: &mut Workspace,
) -> Result<Raster, Error> {
    match decoded {
        Picture::Pixels(raster) => workspace.resize_to(raster, window, original.size),
        Picture::Planes(_) => Err(Error::Internal {
            reason: "an original of planes".to_owned(),
        }),
    }
}

/// Converts an upright picture to sRGB: RGB, RGBA if any pixel is transparent, or planes.
fn in_srgb(upright: Picture, colors: &Colors) -> Result<Picture, Error> {
    let raster = match upright {
        Picture::Pixels(raster) => {
            let mut raster = Conversion::of(colors, raster.layout).apply(raster)?;
            raster.drop_opaque_alpha();
            raster.forget_hidden_colors();
            raster
        }
        Picture::Planes(planes) => {
            let conversion = Conversion::of(colors, Layout::Rgb);
            if conversion.is_none() {
                return Ok(Picture::Planes(planes));
            }
            conversion.apply(planes.to_rgb())?
        }
    };
    Ok(Picture::Pixels(raster))
}

/// Shrinks the square picture to `edge_px`, which is less than its own edge.
fn shrink(level: &Picture, edge_px: u32, workspace: &mut Workspace) -> Result<Picture, Error> {
    let raster = match level {
        Picture::Pixels(raster) => raster,
        Picture::Planes(planes) => &planes.luma,
    };
    workspace.resize_picture(level, Window::of(raster), Orientation::UPRIGHT, edge_px)
}

#[cfg(test)]
mod bitmaps;
#[cfg(test)]
mod crops;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod hostile;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod memory;
#[cfg(test)]
mod originals;
#[cfg(test)]
pub(super) mod tests;
