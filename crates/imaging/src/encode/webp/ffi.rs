//! The interface to libwebp, the only C code of this crate.
#![allow(
    unsafe_code,
    reason = "libwebp is a C library; its calls are wrapped here, and nowhere else"
)]

use std::ffi::c_int;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice;

use libwebp_sys::{
    WEBP_MUX_ABI_VERSION, WebPAnimEncoder, WebPAnimEncoderAdd, WebPAnimEncoderAssemble,
    WebPAnimEncoderDelete, WebPAnimEncoderNewInternal, WebPAnimEncoderOptions,
    WebPAnimEncoderOptionsInitInternal, WebPConfig, WebPData, WebPDataClear, WebPEncode,
    WebPPicture, WebPPictureFree, WebPPictureImportRGB, WebPPictureImportRGBA,
};

use super::Effort;
use crate::planes::Planes;
use crate::raster::{Layout, Raster};

/// Why encoding failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("header and library differ in version")]
    Version,
    #[error("a side of {0} pixels")]
    TooLarge(u32),
    #[error("the pixels were refused")]
    Import,
    #[error("encoder error {0}")]
    Encode(u32),
    #[error("animation refused")]
    Animation,
}

pub(super) fn encode(raster: &Raster, quality: u8, effort: Effort) -> Result<Vec<u8>, Fault> {
    encode_picture(Picture::of(raster, false)?, &configure(quality, effort)?)
}

/// Encodes planes in limited range with halved chroma.
pub(super) fn encode_planes(
    planes: &Planes,
    quality: u8,
    effort: Effort,
) -> Result<Vec<u8>, Fault> {
    encode_picture(Picture::of_planes(planes)?, &configure(quality, effort)?)
}

/// Encodes without loss at a method of 0 to 6 and an effort of 0 to 100.
pub(super) fn encode_lossless(raster: &Raster, method: u8, effort: u8) -> Result<Vec<u8>, Fault> {
    let mut config = WebPConfig::new().map_err(|()| Fault::Version)?;
    config.lossless = 1;
    config.exact = 1;
    config.method = method.into();
    config.quality = effort.into();
    encode_picture(Picture::of(raster, true)?, &config)
}

fn encode_picture(mut picture: Picture<'_>, config: &WebPConfig) -> Result<Vec<u8>, Fault> {
    let mut bytes: Vec<u8> = Vec::new();
    picture.inner.writer = Some(append);
    picture.inner.custom_ptr = (&raw mut bytes).cast();
    // SAFETY: configuration and picture are initialised; `append` gets `bytes` by `custom_ptr`,
    // which lives until after the call and is not touched in between.
    let encoded = unsafe { WebPEncode(config, &raw mut picture.inner) };
    if encoded == 0 {
        return Err(Fault::Encode(picture.inner.error_code as u32));
    }
    Ok(bytes)
}

fn configure(quality: u8, effort: Effort) -> Result<WebPConfig, Fault> {
    let mut config = WebPConfig::new().map_err(|()| Fault::Version)?;
    // The reduction shrinks as the quality approaches 100, which is used unchanged.
    let room = f32::from(100 - quality.min(100)) / 20.0;
    config.quality = (f32::from(quality) - effort.quality_off * room.min(1.0)).max(1.0);
    config.method = effort.method.into();
    config.sns_strength = effort.noise_shaping.into();
    config.filter_strength = effort.filter.into();
    // The filters of the alpha plane take a fifth of its time and save hardly any bytes.
    config.alpha_filtering = 0;
    Ok(config)
}

/// A picture of libwebp. Dropping it frees what libwebp copied; borrowed planes stay.
struct Picture<'a> {
    inner: WebPPicture,
    borrowed: PhantomData<&'a Planes>,
}

impl<'a> Picture<'a> {
    fn new(width: u32, height: u32, argb: bool) -> Result<Self, Fault> {
        let mut inner = WebPPicture::new().map_err(|()| Fault::Version)?;
        inner.use_argb = c_int::from(argb);
        inner.width = side(width)?;
        inner.height = side(height)?;
        Ok(Self {
            inner,
            borrowed: PhantomData,
        })
    }

    /// Copies a raster, as ARGB if `argb` is set and as YUV otherwise.
    fn of(raster: &Raster, argb: bool) -> Result<Self, Fault> {
        let mut picture = Self::new(raster.width, raster.height, argb)?;
        let stride = c_int::try_from(raster.stride()).map_err(|_| Fault::TooLarge(raster.width))?;
        debug_assert_eq!(
            raster.pixels.len(),
            raster.stride() * raster.height as usize
        );
        let pixels = raster.pixels.as_ptr();
        // SAFETY: `pixels` points to `height` rows of `stride` bytes, which the constructor of
        // every raster ensures and which outlive the call; libwebp copies them.
        let imported = unsafe {
            if raster.layout == Layout::Rgba {
                WebPPictureImportRGBA(&raw mut picture.inner, pixels, stride)
            } else {
                WebPPictureImportRGB(&raw mut picture.inner, pixels, stride)
            }
        };
        if imported == 0 {
            return Err(Fault::Import);
        }
        Ok(picture)
    }

    /// Borrows planes: without alpha, libwebp only reads what it encodes.
    fn of_planes(planes: &'a Planes) -> Result<Self, Fault> {
        let Planes { luma, chroma, .. } = planes;
        let mut picture = Self::new(luma.width, luma.height, false)?;
        // The memory that libwebp reads: all of every plane; chroma has half the size.
        let [blue, red] = chroma;
        let halved = (luma.width.div_ceil(2), luma.height.div_ceil(2));
        for (plane, size) in [
            (luma, (luma.width, luma.height)),
            (blue, halved),
            (red, halved),
        ] {
            if (plane.width, plane.height) != size
                || plane.pixels.len() != size.0 as usize * size.1 as usize
            {
                return Err(Fault::Import);
            }
        }
        let inner = &mut picture.inner;
        (inner.y, inner.y_stride) = (luma.pixels.as_ptr().cast_mut(), inner.width);
        (inner.u, inner.v) = (
            blue.pixels.as_ptr().cast_mut(),
            red.pixels.as_ptr().cast_mut(),
        );
        inner.uv_stride = side(halved.0)?;
        Ok(picture)
    }
}

impl Drop for Picture<'_> {
    fn drop(&mut self) {
        // SAFETY: the picture was initialised by `WebPPicture::new`, and is freed once. Only what
        // libwebp allocated itself is freed with it.
        unsafe { WebPPictureFree(&raw mut self.inner) }
    }
}

fn side(length: u32) -> Result<c_int, Fault> {
    c_int::try_from(length).map_err(|_| Fault::TooLarge(length))
}

/// An animation encoder.
pub(super) struct Animation {
    encoder: NonNull<WebPAnimEncoder>,
    config: WebPConfig,
}

impl Animation {
    /// Begins an animation of square frames that plays `plays` times, 0 for ever.
    pub(super) fn new(
        edge_px: u32,
        plays: u32,
        quality: u8,
        effort: Effort,
    ) -> Result<Self, Fault> {
        let config = configure(quality, effort)?;
        let mut options = MaybeUninit::<WebPAnimEncoderOptions>::uninit();
        let version = WEBP_MUX_ABI_VERSION.cast_signed();
        // SAFETY: the library fills all of `options` unless it gives 0.
        let mut options = unsafe {
            if WebPAnimEncoderOptionsInitInternal(options.as_mut_ptr(), version) == 0 {
                return Err(Fault::Version);
            }
            options.assume_init()
        };
        // The file format stores 16 bits.
        options.anim_params.loop_count = plays.min(0xffff).cast_signed();
        // SAFETY: `options` is initialised, and only read.
        let encoder = unsafe {
            WebPAnimEncoderNewInternal(side(edge_px)?, side(edge_px)?, &raw const options, version)
        };
        let encoder = NonNull::new(encoder).ok_or(Fault::Animation)?;
        Ok(Self { encoder, config })
    }

    /// Adds a frame that is shown from `at_ms` on.
    pub(super) fn add(&mut self, raster: &Raster, at_ms: u32) -> Result<(), Fault> {
        let mut picture = Picture::of(raster, true)?;
        self.add_picture(&raw mut picture.inner, at_ms)
    }

    /// Ends the animation at `at_ms` and returns its file.
    pub(super) fn finish(mut self, at_ms: u32) -> Result<Vec<u8>, Fault> {
        self.add_picture(ptr::null_mut(), at_ms)?;
        let mut data = WebPData::default();
        // SAFETY: the encoder is alive; on success `data` is a buffer of the library's, which outlives
        // the encoder with all its frames, is copied and then given back.
        unsafe {
            if WebPAnimEncoderAssemble(self.encoder.as_ptr(), &raw mut data) == 0 {
                return Err(Fault::Animation);
            }
            drop(self);
            let bytes = slice::from_raw_parts(data.bytes, data.size).to_vec();
            WebPDataClear(&mut data);
            Ok(bytes)
        }
    }

    fn add_picture(&mut self, picture: *mut WebPPicture, at_ms: u32) -> Result<(), Fault> {
        let at_ms = c_int::try_from(at_ms).map_err(|_| Fault::Animation)?;
        // SAFETY: the encoder is alive; `picture` is an initialised one or null, which ends the
        // animation.
        let added = unsafe {
            WebPAnimEncoderAdd(
                self.encoder.as_ptr(),
                picture,
                at_ms,
                &raw const self.config,
            )
        };
        if added == 0 {
            return Err(Fault::Animation);
        }
        Ok(())
    }
}

impl Drop for Animation {
    fn drop(&mut self) {
        // SAFETY: the encoder is alive until here.
        unsafe { WebPAnimEncoderDelete(self.encoder.as_ptr()) }
    }
}

/// Receives a part of the file from libwebp. Returning 0 stops the encoder.
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
