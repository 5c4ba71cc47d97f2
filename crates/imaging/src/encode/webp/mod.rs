//! Encodes WebP with libwebp: no encoder in Rust is as small for the same time. libwebp reads only
//! pixels that this program made, never the bytes of an upload.

mod ffi;

use super::internal;
use crate::Error;
use crate::planes::Planes;
use crate::raster::Raster;

/// Settings of libwebp.
#[derive(Clone, Copy)]
struct Effort {
    /// The method, 0 to 6. Methods above 4 gain little; 3 costs as much as 4, and 2 costs half.
    method: u8,
    /// Noise shaping, 0 to 100: the preference of flat areas over busy ones.
    noise_shaping: u8,
    /// The strength of the deblocking filter, 0 to 100.
    filter: u8,
    /// The reduction of the quality that gives a file the same size as [`THOROUGH`].
    quality_off: f32,
}

/// libwebp's defaults.
const THOROUGH: Effort = Effort {
    method: 4,
    noise_shaping: 50,
    filter: 60,
    quality_off: 0.0,
};

/// Settings for large pictures, which take half the time. They lose 0.2 dB of structural similarity
/// at the same size; smaller pictures would lose twice that, and are quick anyway. Less deblocking
/// and more noise shaping compensate for most of the loss of method 2 (bench/imaging/README.md has
/// the figures).
const QUICK: Effort = Effort {
    method: 2,
    noise_shaping: 60,
    filter: 0,
    quality_off: 1.5,
};

/// The longest side for which [`THOROUGH`] is used.
pub(crate) const THOROUGH_UP_TO_PX: u32 = 512;

/// Encodes an RGB or RGBA picture at a quality of 1 to 100; alpha is kept without loss.
pub(super) fn encode(raster: &Raster, quality: u8) -> Result<Vec<u8>, Error> {
    ffi::encode(raster, quality, effort_for(raster)).map_err(|error| internal("libwebp", &error))
}

/// Encodes planes with halved chroma at a quality of 1 to 100.
pub(super) fn encode_planes(planes: &Planes, quality: u8) -> Result<Vec<u8>, Error> {
    ffi::encode_planes(&planes.in_studio_range(), quality, effort_for(&planes.luma))
        .map_err(|error| internal("libwebp", &error))
}

fn effort_for(raster: &Raster) -> Effort {
    if raster.width.max(raster.height) <= THOROUGH_UP_TO_PX {
        THOROUGH
    } else {
        QUICK
    }
}

/// Encodes a flat drawing without loss.
pub(super) fn encode_drawing(raster: &Raster) -> Result<Vec<u8>, Error> {
    // More effort makes such files hardly smaller.
    ffi::encode_lossless(raster, 3, 50).map_err(|error| internal("libwebp", &error))
}

/// Encodes without loss, for tests of the decoder.
#[cfg(test)]
pub(crate) fn encode_lossless(raster: &Raster, method: u8, effort: u8) -> Vec<u8> {
    ffi::encode_lossless(raster, method, effort).unwrap_or_else(|error| panic!("{error}"))
}

/// An animation encoder. All frames are squares of the same size.
pub(crate) struct Animation {
    inner: ffi::Animation,
    length_ms: u32,
}

impl Animation {
    /// Begins an animation that plays `plays` times, 0 for ever.
    pub(crate) fn new(edge_px: u32, plays: u32, quality: u8) -> Result<Self, Error> {
        let inner = ffi::Animation::new(edge_px, plays, quality, THOROUGH)
            .map_err(|error| internal("libwebp", &error))?;
        Ok(Self {
            inner,
            length_ms: 0,
        })
    }

    /// Adds an RGB or RGBA frame that is shown for `duration_ms`.
    pub(crate) fn add(&mut self, raster: &Raster, duration_ms: u32) -> Result<(), Error> {
        self.inner
            .add(raster, self.length_ms)
            .map_err(|error| internal("libwebp", &error))?;
        self.length_ms = self.length_ms.saturating_add(duration_ms);
        Ok(())
    }

    /// Returns the file.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Error> {
        self.inner
            .finish(self.length_ms)
            .map_err(|error| internal("libwebp", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raster::Layout;

    #[test]
    fn every_quality_is_encoded_at_every_effort() {
        for edge in [16, THOROUGH_UP_TO_PX + 1] {
            let raster = Raster {
                width: edge,
                height: edge,
                layout: Layout::Rgb,
                pixels: vec![90; Raster::len_of(edge, edge, Layout::Rgb)],
            };
            for quality in [1, 2, 80, 99, 100] {
                assert!(encode(&raster, quality).is_ok(), "{edge} px at {quality}");
            }
        }
    }
}
