//! Encodes PNG with 8 bits per channel.

use png::{BitDepth, ColorType, Compression, Encoder};

use super::internal;
use crate::Error;
use crate::raster::{Layout, Raster};

/// Encodes an RGB or RGBA picture.
pub(super) fn encode(raster: &Raster) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, raster.width, raster.height);
    encoder.set_color(if raster.layout == Layout::Rgba {
        ColorType::Rgba
    } else {
        ColorType::Rgb
    });
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    let mut writer = encoder
        .write_header()
        .map_err(|error| internal("PNG encoder", &error))?;
    writer
        .write_image_data(&raster.pixels)
        .map_err(|error| internal("PNG encoder", &error))?;
    writer
        .finish()
        .map_err(|error| internal("PNG encoder", &error))?;
    Ok(bytes)
}
