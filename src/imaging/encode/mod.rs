//! From pixels to a file's bytes, without a word beside the pixels.

mod jpeg;
mod png;
mod webp;

pub(super) use webp::Animation;

use super::raster::{Layout, Raster};
use super::{Error, Recipe};
use crate::avatar::Format;

/// Encodes a picture that this program drew: `width × height` pixels in sRGB, three bytes each, in
/// rows from the top.
///
/// # Errors
///
/// [`Error::Internal`] where the number of bytes is another one, or the encoder refuses.
pub fn encode_rgb(
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    format: Format,
    recipe: &Recipe,
) -> Result<Vec<u8>, Error> {
    let raster =
        Raster::new(width, height, Layout::Rgb, pixels).ok_or_else(|| Error::Internal {
            reason: format!("a drawing that is not of {width} × {height} px"),
        })?;
    encode(&raster, format, recipe)
}

/// Encodes an sRGB picture, RGB or RGBA.
///
/// # Errors
///
/// [`Error::Internal`] where the encoder refuses, which is a fault of this program.
pub(super) fn encode(raster: &Raster, format: Format, recipe: &Recipe) -> Result<Vec<u8>, Error> {
    match format {
        Format::Webp => webp::encode(raster, recipe.webp_quality),
        Format::Jpeg if raster.layout == Layout::Rgba => {
            jpeg::encode(&raster.flattened(recipe.background), recipe.jpeg_quality)
        }
        Format::Jpeg => jpeg::encode(raster, recipe.jpeg_quality),
        Format::Png => png::encode(raster),
    }
}

/// Encodes a picture so that any variant can be made of it again: near to lossless, and small
/// enough to keep.
pub(super) fn encode_master(raster: &Raster) -> Result<(Format, Vec<u8>), Error> {
    match raster.layout {
        Layout::Rgba => Ok((Format::Webp, webp::encode(raster, 95)?)),
        _ => Ok((Format::Jpeg, jpeg::encode_full_chroma(raster, 95)?)),
    }
}

fn internal(encoder: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Internal {
        reason: format!("{encoder}: {error}"),
    }
}
