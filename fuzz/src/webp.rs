//! Compares three WebP decoders: `cameo-webp-decode`, `image-webp` and libwebp.

use std::io::Cursor;
use std::slice;

use cameo_webp_decode::{Area, Content, Layout, WebP};
use libwebp_sys::{WebPDecodeRGBA, WebPFree, WebPGetInfo};

/// The longest side of a picture that is decoded: large enough for every path, and quick.
const MAX_EDGE_PX: u32 = 400;

/// A decoded picture, RGBA.
#[derive(PartialEq, Eq)]
struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

/// Decodes `data` with all three decoders.
///
/// # Panics
///
/// If this crate decodes the file and another decoder gives other pixels or refuses it; or if this
/// crate refuses a file that both others decode to the same pixels. Animations are not compared:
/// libwebp's simple interface refuses them.
pub fn compare(data: &[u8]) {
    if is_large(data) {
        return;
    }
    let Ok(ours) = ours(data) else { return };
    let (libwebp, image_webp) = (libwebp(data), image_webp(data));
    match ours {
        Some(ours) => {
            assert!(libwebp.as_ref() == Some(&ours), "libwebp differs");
            assert!(image_webp.as_ref() == Some(&ours), "image-webp differs");
        }
        None => assert!(
            libwebp.is_none() || image_webp.is_none() || libwebp != image_webp,
            "only this crate refuses the file"
        ),
    }
}

/// Whether any decoder would make a large picture of the file.
fn is_large(data: &[u8]) -> bool {
    let (mut width, mut height) = (0, 0);
    // SAFETY: libwebp reads `data.len()` bytes and writes two numbers.
    unsafe { WebPGetInfo(data.as_ptr(), data.len(), &raw mut width, &raw mut height) };
    let sizes = [
        Some((width.cast_unsigned(), height.cast_unsigned())),
        WebP::parse(data)
            .ok()
            .map(|file| (file.width(), file.height())),
        image_webp::WebPDecoder::new(Cursor::new(data))
            .ok()
            .map(|decoder| decoder.dimensions()),
    ];
    sizes
        .into_iter()
        .flatten()
        .any(|(width, height)| width.max(height) > MAX_EDGE_PX)
}

/// `None` if this crate refuses the file; an error if it is an animation.
fn ours(data: &[u8]) -> Result<Option<Image>, ()> {
    let Ok(file) = WebP::parse(data) else {
        return Ok(None);
    };
    let picture = match file.content() {
        Content::Still(picture) => *picture,
        Content::Animation(_) => return Err(()),
    };
    let Some(picture) = picture else {
        return Ok(None);
    };
    let (width, height) = (picture.width(), picture.height());
    let decoded = picture.decode(Area::whole(width, height), Layout::Rgba, &|| true);
    Ok(decoded.ok().map(|pixels| Image {
        width,
        height,
        pixels,
    }))
}

fn image_webp(data: &[u8]) -> Option<Image> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(data)).ok()?;
    let (width, height) = decoder.dimensions();
    let mut pixels = vec![0; decoder.output_buffer_size()?];
    decoder.read_image(&mut pixels).ok()?;
    if !decoder.has_alpha() {
        let opaque = pixels.chunks(3).flat_map(|p| [p[0], p[1], p[2], 255]);
        pixels = opaque.collect();
    }
    Some(Image {
        width,
        height,
        pixels,
    })
}

fn libwebp(data: &[u8]) -> Option<Image> {
    let (mut width, mut height) = (0, 0);
    // SAFETY: libwebp reads `data.len()` bytes, and gives `height` rows of `width` pixels of four
    // bytes, which are copied before they are freed.
    unsafe {
        let pixels = WebPDecodeRGBA(data.as_ptr(), data.len(), &raw mut width, &raw mut height);
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
