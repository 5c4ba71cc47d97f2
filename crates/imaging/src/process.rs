//! The way of one picture, from its bytes to everything that is made of it.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::color::Conversion;
use super::decode::{self, Chroma, Colors, DecodeRequest, Decoded, Header};
use super::executor::{BackgroundEncode, Executor, Inline};
use super::footprint::MemoryEstimate;
use super::geometry::{Square, Window};
use super::orientation::Orientation;
use super::planes::Picture;
use super::raster::Layout;
use super::sizes::Size;
use super::{
    Control, Crop, Error, Limits, Output, Probe, Processed, Recipe, Workspace, animated, encode,
    placeholder,
};
use crate::{Format, Source};

/// The longest side of a master in pixels.
const MASTER_EDGE_PX: u32 = 2048;

/// Reads what a picture's headers say, cheaply and without decoding. What processing may take is
/// given for one variant as large as the picture, in every format; [`probe_for`] knows better.
///
/// # Errors
///
/// In this order: [`Error::UnsupportedFormat`] for what is no picture or of a kind that is not
/// taken; [`Error::DimensionsTooLarge`], [`Error::DimensionsTooSmall`], whatever else the headers
/// say; [`Error::UnsupportedFormat`] for a kind of the format that is not taken, [`Error::Corrupt`]
/// for headers that are not whole, [`Error::TooComplex`].
pub fn probe(bytes: &[u8], limits: &Limits) -> Result<Probe, Error> {
    let header = decode::header(bytes, limits)?;
    let edge = header.width.min(header.height);
    let request = DecodeRequest {
        square: Square { x: 0, y: 0, edge },
        edge_px: edge,
        chroma: Chroma::Whole,
    };
    Ok(describe(&header, &MemoryEstimate::all(&header, &request)))
}

/// The same for what is going to be made of the picture: [`Probe::memory_bytes`] is what it takes.
///
/// # Errors
///
/// As [`probe`], then [`Error::TooManyFrames`] and [`Error::TooManyPixels`] where the recipe keeps
/// the frames, then [`Error::InvalidCrop`].
pub fn probe_for(bytes: &[u8], recipe: &Recipe, crop: Option<Crop>) -> Result<Probe, Error> {
    let header = header_for(bytes, recipe)?;
    let request = request(&header, recipe, crop)?;
    Ok(describe(
        &header,
        &MemoryEstimate::by(recipe, &header, &request),
    ))
}

/// Reads the headers of a picture that a recipe is for.
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

/// What is needed of a picture for a recipe.
fn request(header: &Header, recipe: &Recipe, crop: Option<Crop>) -> Result<DecodeRequest, Error> {
    let (width, height) = header.orientation.upright_size(header.width, header.height);
    let square = Square::choose(width, height, crop)?;
    let variants = recipe.variants.iter().map(|target| target.edge_px);
    let master = recipe.keep_master.then_some(MASTER_EDGE_PX);
    let largest = variants.chain(master).max().unwrap_or(1);
    Ok(DecodeRequest {
        square: header
            .orientation
            .to_stored(square, header.width, header.height),
        edge_px: largest.clamp(1, square.edge),
        chroma: if recipe.keep_master || recipe.formats.contains(&Format::Png) {
            Chroma::Whole
        } else {
            Chroma::Halved
        },
    })
}

/// Makes everything that `recipe` asks for of the picture in `bytes` and hands each thing to `emit`
/// as soon as it is encoded: the master first, then the variants from the largest to the smallest,
/// then animated twins. A variant larger than the picture has the picture's own size. The same
/// input gives the same bytes.
///
/// # Errors
///
/// As [`probe_for`], then [`Error::Corrupt`] for a picture of which any row is
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
    process_with(bytes, recipe, crop, control, workspace, &Inline, emit)
}

/// The same with someone who may encode the largest variant meanwhile, which may then come later
/// than smaller ones.
pub(super) fn process_with(
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

    let decoded = decode::decode(&bytes, &header, &request, control, workspace.av1())?;
    let moving = (recipe.animated && header.frames > 1).then(|| bytes.clone());
    drop(bytes);
    control.check()?;

    // What is costly by the pixel comes after the picture has become small, and the large one goes
    // before anything is encoded.
    let Decoded {
        raster,
        window,
        colors,
    } = decoded;
    let upright = workspace.resize_picture(&raster, window, header.orientation, request.edge_px)?;
    drop(raster);
    let level = in_srgb(upright, &colors)?;

    let mut give = |output| match emit(output) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    };
    if recipe.keep_master {
        let smaller;
        let edge = MASTER_EDGE_PX.min(square.edge);
        let master = if level.width() > edge {
            smaller = shrink(&level, edge, workspace)?;
            &smaller
        } else {
            &level
        };
        let (format, bytes) = encode::encode_master(master)?;
        give(Output::Master(format, bytes))?;
    }
    let mut level = Arc::new(level);
    let mut elsewhere = None;
    for (index, size) in Size::all(recipe, square.edge).into_iter().enumerate() {
        if level.width() > size.edge_px {
            level = Arc::new(shrink(&level, size.edge_px, workspace)?);
        }
        for (number, &format) in recipe.formats.iter().enumerate() {
            control.check()?;
            // The largest in the primary format takes longer than all that comes after it.
            if (index, number) == (0, 0) && recipe.formats.len() * recipe.variants.len() > 1 {
                let (level, recipe) = (Arc::clone(&level), recipe.clone());
                let work = move || encode::encode(&level, format, &recipe);
                elsewhere =
                    BackgroundEncode::begin(executor, work).map(|work| (size.clone(), work));
                if elsewhere.is_some() {
                    continue;
                }
            }
            size.give_still(format, encode::encode(&level, format, recipe)?, &mut give)?;
            if let Some((size, work)) = elsewhere.take() {
                match work.poll() {
                    Ok(file) => size.give_still(recipe.formats[0], file?, &mut give)?,
                    Err(work) => elsewhere = Some((size, work)),
                }
            }
        }
    }
    if let Some((size, work)) = elsewhere {
        size.give_still(recipe.formats[0], work.wait()?, &mut give)?;
    }
    if let Some(bytes) = moving {
        animated::make(
            &bytes, &header, &request, recipe, control, workspace, &mut give,
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

/// An upright picture in sRGB: RGB, or RGBA where anything shows through, or planes.
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

/// The square picture at `edge_px`, less than it has.
fn shrink(level: &Picture, edge_px: u32, workspace: &mut Workspace) -> Result<Picture, Error> {
    let raster = match level {
        Picture::Pixels(raster) => raster,
        Picture::Planes(planes) => &planes.luma,
    };
    workspace.resize_picture(level, Window::of(raster), Orientation::UPRIGHT, edge_px)
}

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
pub(super) mod tests;
