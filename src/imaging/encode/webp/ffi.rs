//! The one place that speaks to C.
#![allow(
    unsafe_code,
    reason = "libwebp is a C library; its calls are wrapped here, and nowhere else"
)]

use std::ffi::c_int;
use std::slice;

use libwebp_sys::{
    WebPConfig, WebPEncode, WebPPicture, WebPPictureFree, WebPPictureImportRGB,
    WebPPictureImportRGBA,
};

use crate::imaging::raster::{Layout, Raster};

/// Why libwebp did not encode.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("header and library differ in version")]
    Version,
    #[error("a side of {0} pixels")]
    TooLarge(u32),
    #[error("pixels not taken")]
    Import,
    #[error("encoder error {0}")]
    Encode(u32),
}

/// A picture as libwebp holds it, freed when dropped.
struct Picture(WebPPicture);

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: the picture was initialised by `WebPPicture::new`, and is freed once.
        unsafe { WebPPictureFree(&raw mut self.0) }
    }
}

/// WebP's speed setting, 0 to 6: beyond 4 little is gained, 3 costs the same.
const METHOD: c_int = 4;

pub(super) fn encode(raster: &Raster, quality: u8) -> Result<Vec<u8>, Fault> {
    let mut config = WebPConfig::new().map_err(|()| Fault::Version)?;
    config.quality = f32::from(quality);
    config.method = METHOD;
    // Filters of the alpha plane cost a fifth of its time and gain next to nothing.
    config.alpha_filtering = 0;

    let mut picture = Picture(WebPPicture::new().map_err(|()| Fault::Version)?);
    let side = |length: u32| c_int::try_from(length).map_err(|_| Fault::TooLarge(length));
    picture.0.width = side(raster.width)?;
    picture.0.height = side(raster.height)?;
    let stride = c_int::try_from(raster.stride()).map_err(|_| Fault::TooLarge(raster.width))?;
    debug_assert_eq!(
        raster.pixels.len(),
        raster.stride() * raster.height as usize
    );
    let pixels = raster.pixels.as_ptr();
    // SAFETY: `pixels` points to `height` rows of `stride` bytes, which the constructor of every
    // raster ensures and which outlive the call; libwebp copies them.
    let imported = unsafe {
        if raster.layout == Layout::Rgba {
            WebPPictureImportRGBA(&raw mut picture.0, pixels, stride)
        } else {
            WebPPictureImportRGB(&raw mut picture.0, pixels, stride)
        }
    };
    if imported == 0 {
        return Err(Fault::Import);
    }

    let mut bytes: Vec<u8> = Vec::new();
    picture.0.writer = Some(append);
    picture.0.custom_ptr = (&raw mut bytes).cast();
    // SAFETY: configuration and picture are initialised; `append` gets `bytes` by `custom_ptr`,
    // which lives until after the call and is not touched in between.
    let encoded = unsafe { WebPEncode(&raw const config, &raw mut picture.0) };
    if encoded == 0 {
        return Err(Fault::Encode(picture.0.error_code as u32));
    }
    Ok(bytes)
}

/// Takes a part of the file from libwebp; 0 stops the encoder.
unsafe extern "C" fn append(data: *const u8, size: usize, picture: *const WebPPicture) -> c_int {
    // SAFETY: libwebp calls this from `WebPEncode` alone, with the picture given there, whose
    // `custom_ptr` is a `Vec` that nothing else uses meanwhile.
    let bytes = unsafe { &mut *(*picture).custom_ptr.cast::<Vec<u8>>() };
    if size == 0 {
        return 1;
    }
    if bytes.try_reserve(size).is_err() {
        return 0;
    }
    // SAFETY: libwebp gives `size` bytes at `data`, valid during the call.
    bytes.extend_from_slice(unsafe { slice::from_raw_parts(data, size) });
    1
}
