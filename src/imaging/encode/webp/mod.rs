//! WebP by libwebp: no encoder in Rust reaches its size for the time it takes. It sees pixels that
//! this program made, never what a stranger sent.

mod ffi;

use super::internal;
use crate::imaging::Error;
use crate::imaging::raster::Raster;

/// Encodes an RGB or RGBA picture at a quality of 1 to 100; alpha is kept without loss.
pub(super) fn encode(raster: &Raster, quality: u8) -> Result<Vec<u8>, Error> {
    ffi::encode(raster, quality).map_err(|error| internal("libwebp", &error))
}
