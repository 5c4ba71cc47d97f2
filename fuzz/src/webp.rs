//! Compares three WebP decoders: `cameo-webp-decode`, `image-webp` and libwebp.

use std::io::Cursor;
use std::slice;

use cameo_webp_decode::{Area, Content, Layout, WebP};
use libwebp_sys::{WebPDecodeRGBA, WebPFree};

/// The longest side of a picture that is decoded: large enough for every path, and quick.
const MAX_EDGE_PX: u32 = 400;

/// A decoded picture, RGBA.
#[derive(PartialEq, Eq)]
struct Image {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

/// Copies the first picture of `data` into a new file, and decodes the file with all three decoders.
/// The new file is needed because decoders differ in the containers that they accept: libwebp reads
/// behind the end of the chunk, and `image-webp` refuses more.
///
/// # Panics
///
/// - If this crate and libwebp give different pixels, or only one of them refuses the picture. One
///   case is allowed: libwebp accepts an alpha channel whose last code is cut off.
/// - If `image-webp` gives other pixels than both for a lossless picture. With lossy pictures it
///   differs from libwebp where damaged data overflows 16 bits, and it makes up missing data.
pub fn compare(data: &[u8]) {
    let Some((mut file, is_lossy)) = file_of_first_picture(data, 0) else {
        return;
    };
    let (mut ours, mut libwebp) = (decode(&file), libwebp(&file));
    if ours.is_none() && libwebp.is_some() && is_lossy {
        // A pixel or a copy has at most 60 bits: with eight more bytes, none is cut off.
        let Some((longer, _)) = file_of_first_picture(data, 8) else {
            return;
        };
        (ours, libwebp) = (decode(&longer), self::libwebp(&longer));
        file = longer;
    }
    assert_eq!(
        ours.is_some(),
        libwebp.is_some(),
        "only one of this crate and libwebp decodes the picture"
    );
    assert!(ours == libwebp, "libwebp gives other pixels");
    if let (Some(ours), Some(other)) = (ours, image_webp(&file)) {
        assert!(is_lossy || ours == other, "image-webp gives other pixels");
    }
}

/// A file with only the first picture of `data` and its alpha channel, which gets some more zeros;
/// whether the picture is lossy. `None` if there is no picture, or a large one.
fn file_of_first_picture(data: &[u8], zeros: usize) -> Option<(Vec<u8>, bool)> {
    let mut rest = data.get(12..)?;
    let mut alpha: &[u8] = &[];
    loop {
        let (id, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let payload = &after[..length.min(after.len())];
        match id {
            b"VP8 " => {
                let &[w0, w1, h0, h1] = payload.get(6..10)? else {
                    return None;
                };
                let [width, height] =
                    [[w0, w1], [h0, h1]].map(|edge| u16::from_le_bytes(edge) & 0x3fff);
                if width == 0 || height == 0 || u32::from(width.max(height)) > MAX_EDGE_PX {
                    return None;
                }
                let mut chunks = Vec::new();
                if !alpha.is_empty() {
                    let edges = [width - 1, height - 1].map(u16::to_le_bytes);
                    let [[w0, w1], [h0, h1]] = edges;
                    push(
                        &mut chunks,
                        *b"VP8X",
                        &[0x10, 0, 0, 0, w0, w1, 0, h0, h1, 0],
                    );
                    push(&mut chunks, *b"ALPH", &[alpha, &vec![0; zeros]].concat());
                }
                push(&mut chunks, *b"VP8 ", payload);
                return Some((riff(&chunks), true));
            }
            b"VP8L" => {
                let bits = u32::from_le_bytes(*payload.get(1..)?.first_chunk()?);
                let edge = (bits & 0x3fff).max(bits >> 14 & 0x3fff) + 1;
                let mut chunks = Vec::new();
                push(&mut chunks, *b"VP8L", payload);
                return (edge <= MAX_EDGE_PX).then(|| (riff(&chunks), false));
            }
            b"ALPH" => alpha = payload,
            _ => {}
        }
        rest = after.get(length.checked_add(length & 1)?..)?;
    }
}

/// Appends a chunk. A payload of odd length gets one more byte, so that the padding of the chunk is
/// part of the data for all decoders.
fn push(chunks: &mut Vec<u8>, id: [u8; 4], payload: &[u8]) {
    let length = payload.len().next_multiple_of(2);
    chunks.extend(id);
    chunks.extend((length as u32).to_le_bytes());
    chunks.extend(payload);
    chunks.resize(chunks.len() + length - payload.len(), 0);
}

fn riff(chunks: &[u8]) -> Vec<u8> {
    let length = (chunks.len() as u32 + 4).to_le_bytes();
    [b"RIFF", &length[..], b"WEBP", chunks].concat()
}

fn decode(file: &[u8]) -> Option<Image> {
    let file = WebP::parse(file).ok()?;
    let Content::Still(Some(picture)) = *file.content() else {
        return None;
    };
    let (width, height) = (picture.width(), picture.height());
    let whole = Area::whole(width, height);
    let pixels = picture.decode(whole, Layout::Rgba, &|| true).ok()?;
    Some(Image {
        width,
        height,
        pixels,
    })
}

fn image_webp(file: &[u8]) -> Option<Image> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(file)).ok()?;
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

fn libwebp(file: &[u8]) -> Option<Image> {
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
