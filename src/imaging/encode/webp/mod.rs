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

/// An animation in the making: every frame is a square of the same size.
pub(in crate::imaging) struct Animation {
    inner: ffi::Animation,
    length_ms: u32,
}

impl Animation {
    /// Begins an animation that is played `plays` times, 0 for ever.
    pub(in crate::imaging) fn new(edge_px: u32, plays: u32, quality: u8) -> Result<Self, Error> {
        let inner = ffi::Animation::new(edge_px, edge_px, plays, quality)
            .map_err(|error| internal("libwebp", &error))?;
        Ok(Self {
            inner,
            length_ms: 0,
        })
    }

    /// Adds an RGB or RGBA frame that is shown for `duration_ms`.
    pub(in crate::imaging) fn add(
        &mut self,
        raster: &Raster,
        duration_ms: u32,
    ) -> Result<(), Error> {
        self.inner
            .add(raster, self.length_ms)
            .map_err(|error| internal("libwebp", &error))?;
        self.length_ms = self.length_ms.saturating_add(duration_ms);
        Ok(())
    }

    /// Gives the file.
    pub(in crate::imaging) fn finish(self) -> Result<Vec<u8>, Error> {
        self.inner
            .finish(self.length_ms)
            .map_err(|error| internal("libwebp", &error))
    }
}
