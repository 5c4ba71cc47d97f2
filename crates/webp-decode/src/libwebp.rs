//! libwebp, for tests: it makes the pictures, and it is the reference for their pixels.
#![allow(
    unsafe_code,
    reason = "libwebp is a C library; tests call it here and nowhere else"
)]

use std::ffi::c_int;
use std::slice;

use libwebp_sys::{
    WebPConfig, WebPDecodeRGBA, WebPEncode, WebPFree, WebPMemoryWrite, WebPMemoryWriter,
    WebPMemoryWriterClear, WebPMemoryWriterInit, WebPPicture, WebPPictureFree,
    WebPPictureImportRGBA,
};

use super::tests::Image;

/// Encodes without loss, colours of transparent pixels included, at a method of 0 to 6 and an
/// effort of 0 to 100.
pub(crate) fn encode_lossless(image: &Image, method: u8, effort: u8) -> Vec<u8> {
    let mut config = WebPConfig::new().unwrap();
    config.lossless = 1;
    config.exact = 1;
    config.method = method.into();
    config.quality = effort.into();
    encode(image, &config)
}

/// Encodes with loss at a method of 0 to 6 and a quality of 0 to 100. Alpha is kept without loss,
/// with the filter that libwebp finds best.
pub(crate) fn encode_lossy(image: &Image, method: u8, quality: u8) -> Vec<u8> {
    let mut config = WebPConfig::new().unwrap();
    config.method = method.into();
    config.quality = quality.into();
    config.alpha_filtering = 2;
    encode(image, &config)
}

fn encode(image: &Image, config: &WebPConfig) -> Vec<u8> {
    let mut picture = WebPPicture::new().unwrap();
    picture.use_argb = 1;
    picture.width = c_int::try_from(image.width).unwrap();
    picture.height = c_int::try_from(image.height).unwrap();
    assert_eq!(
        image.pixels.len(),
        (image.width * image.height * 4) as usize
    );
    // SAFETY: the pixels are `height` rows of `width` pixels of four bytes, which libwebp copies; the
    // writer outlives the encoder; its memory is copied before it is freed.
    unsafe {
        let stride = picture.width * 4;
        assert_ne!(
            WebPPictureImportRGBA(&raw mut picture, image.pixels.as_ptr(), stride),
            0
        );
        let mut writer = std::mem::zeroed::<WebPMemoryWriter>();
        WebPMemoryWriterInit(&raw mut writer);
        picture.writer = Some(WebPMemoryWrite);
        picture.custom_ptr = (&raw mut writer).cast();
        assert_ne!(WebPEncode(config, &raw mut picture), 0);
        let file = slice::from_raw_parts(writer.mem, writer.size).to_vec();
        WebPMemoryWriterClear(&raw mut writer);
        WebPPictureFree(&raw mut picture);
        file
    }
}

/// The pixels that libwebp decodes; `None` if it refuses the file.
pub(crate) fn decode(file: &[u8]) -> Option<Image> {
    let (mut width, mut height) = (0, 0);
    // SAFETY: libwebp reads `file.len()` bytes, and gives `height` rows of `width` pixels of four
    // bytes, which are copied before they are freed.
    unsafe {
        let pixels = WebPDecodeRGBA(file.as_ptr(), file.len(), &raw mut width, &raw mut height);
        if pixels.is_null() {
            return None;
        }
        let (width, height) = (width.cast_unsigned(), height.cast_unsigned());
        let image = Image {
            width,
            height,
            pixels: slice::from_raw_parts(pixels, (width * height * 4) as usize).to_vec(),
        };
        WebPFree(pixels.cast());
        Some(image)
    }
}
