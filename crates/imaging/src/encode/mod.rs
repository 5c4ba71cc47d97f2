//! Encodes pixels to files that contain no metadata.

mod jpeg;
mod png;
mod webp;

#[cfg(test)]
pub(super) use webp::encode_lossless;
pub(super) use webp::{Animation, THOROUGH_UP_TO_PX};

use super::planes::Picture;
use super::raster::{Layout, Raster};
use super::{Error, Original, Recipe};
use crate::Format;

/// Encodes a picture that a program drew: `width × height` pixels in sRGB, three bytes each, in
/// rows from the top.
///
/// # Errors
///
/// [`Error::Internal`] if the number of bytes does not fit the size, or if the encoder fails.
pub fn encode_rgb(
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    format: Format,
    recipe: &Recipe,
) -> Result<Vec<u8>, Error> {
    let raster = drawn(width, height, pixels)?;
    encode(&Picture::Pixels(raster), format, recipe)
}

/// Encodes a flat drawing of few colours: `width × height` pixels in sRGB, three bytes each, in rows
/// from the top. WebP and PNG keep it without loss, which is smaller for such a drawing; JPEG keeps
/// the full resolution of its colours.
///
/// # Errors
///
/// [`Error::Internal`] if the number of bytes does not fit the size, or if the encoder fails.
pub fn encode_drawing(
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    format: Format,
) -> Result<Vec<u8>, Error> {
    let raster = drawn(width, height, pixels)?;
    match format {
        Format::Webp => webp::encode_drawing(&raster),
        Format::Jpeg => jpeg::encode_full_chroma(&raster, 90),
        Format::Png => png::encode(&raster),
    }
}

fn drawn(width: u32, height: u32, pixels: Vec<u8>) -> Result<Raster, Error> {
    Raster::new(width, height, Layout::Rgb, pixels).ok_or_else(|| Error::Internal {
        reason: format!("a drawing that is not of {width} × {height} px"),
    })
}

/// Encodes an sRGB picture in RGB, RGBA or planes.
///
/// # Errors
///
/// [`Error::Internal`] if the encoder fails, which is a fault of this program.
pub(super) fn encode(picture: &Picture, format: Format, recipe: &Recipe) -> Result<Vec<u8>, Error> {
    match (format, picture) {
        (Format::Webp, Picture::Pixels(raster)) => webp::encode(raster, recipe.webp_quality),
        (Format::Webp, Picture::Planes(planes)) => webp::encode_planes(planes, recipe.webp_quality),
        (Format::Jpeg, Picture::Pixels(raster)) if raster.layout == Layout::Rgba => {
            jpeg::encode(&raster.flattened(recipe.background), recipe.jpeg_quality)
        }
        (Format::Jpeg, Picture::Pixels(raster)) => jpeg::encode(raster, recipe.jpeg_quality),
        (Format::Jpeg, Picture::Planes(planes)) => jpeg::encode_planes(planes, recipe.jpeg_quality),
        (Format::Png, Picture::Pixels(raster)) => png::encode(raster),
        (Format::Png, Picture::Planes(planes)) => png::encode(&planes.to_rgb()),
    }
}

/// The quality of originals: nearly lossless, and small enough to keep.
const ORIGINAL_QUALITY: u8 = 95;

/// Encodes an original.
pub(super) fn encode_original(raster: &Raster) -> Result<(Original, Vec<u8>), Error> {
    let (format, bytes) = if raster.layout == Layout::Rgba {
        (Format::Webp, webp::encode(raster, ORIGINAL_QUALITY)?)
    } else {
        let bytes = jpeg::encode_full_chroma(raster, ORIGINAL_QUALITY)?;
        (Format::Jpeg, bytes)
    };
    let original = Original {
        format,
        width: raster.width,
        height: raster.height,
    };
    Ok((original, bytes))
}

fn internal(encoder: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Internal {
        reason: format!("{encoder}: {error}"),
    }
}
