//! Pictures to upload, and checks of returned images by an independent decoder.

use std::io::Cursor;

use image::codecs::gif::{GifEncoder, Repeat};
use image::{DynamicImage, Frame, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

/// A phone's photo: 512 × 496 pixels, stored on its side (orientation 6), with a GPS position and a
/// thumbnail. See `examples/README.md`.
pub const PORTRAIT: &[u8] = include_bytes!("../../../examples/portrait.jpg");

/// A face, 167 × 221 pixels, as AVIF. See `tests/fixtures/README.md`.
pub const AVIF: &[u8] = include_bytes!("../../../tests/fixtures/plain.avif");
/// The picture of [`AVIF`] as JPEG.
pub const AVIF_AS_JPEG: &[u8] = include_bytes!("../../../tests/fixtures/baseline.jpg");

/// A picture of four coloured quarters: red, green; blue, white.
pub fn quarters(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        match (x < width / 2, y < height / 2) {
            (true, true) => Rgb([220, 30, 30]),
            (false, true) => Rgb([30, 200, 30]),
            (true, false) => Rgb([30, 30, 220]),
            (false, false) => Rgb([250, 250, 250]),
        }
    })
}

/// Encodes a picture.
pub fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// [`quarters`] as JPEG.
pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
    encoded(quarters(width, height), ImageFormat::Jpeg)
}

/// [`quarters`] as PNG.
pub fn png(width: u32, height: u32) -> Vec<u8> {
    encoded(quarters(width, height), ImageFormat::Png)
}

/// [`quarters`] as WebP.
pub fn webp(width: u32, height: u32) -> Vec<u8> {
    encoded(quarters(width, height), ImageFormat::WebP)
}

/// [`quarters`] as GIF.
pub fn gif(width: u32, height: u32) -> Vec<u8> {
    encoded(
        DynamicImage::from(quarters(width, height)).to_rgba8(),
        ImageFormat::Gif,
    )
}

/// [`quarters`] as BMP.
pub fn bmp(width: u32, height: u32) -> Vec<u8> {
    encoded(quarters(width, height), ImageFormat::Bmp)
}

/// [`quarters`] as TIFF.
pub fn tiff(width: u32, height: u32) -> Vec<u8> {
    encoded(quarters(width, height), ImageFormat::Tiff)
}

/// A GIF with this number of frames, each in a different colour.
pub fn animation(edge: u32, frames: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = GifEncoder::new(&mut bytes);
    encoder.set_repeat(Repeat::Infinite).unwrap();
    for number in 0..frames {
        let colour = Rgba([number * 80, 200, 255 - number * 80, 255]);
        encoder
            .encode_frame(Frame::new(RgbaImage::from_pixel(edge, edge, colour)))
            .unwrap();
    }
    drop(encoder);
    bytes
}

/// How many frames an animated WebP has.
pub fn frames(webp: &[u8]) -> usize {
    let decoder = image::codecs::webp::WebPDecoder::new(Cursor::new(webp)).unwrap();
    image::AnimationDecoder::into_frames(decoder).count()
}

/// A red disc on a transparent background.
pub fn disc(edge: u32) -> Vec<u8> {
    let centre = f64::from(edge) / 2.0;
    let picture = RgbaImage::from_fn(edge, edge, |x, y| {
        let distance = (f64::from(x) - centre).hypot(f64::from(y) - centre);
        let inside = distance < centre * 0.8;
        Rgba(if inside {
            [200, 20, 20, 255]
        } else {
            [0, 0, 0, 0]
        })
    });
    encoded(picture, ImageFormat::Png)
}

/// The header of a PNG with these dimensions, without any image data.
pub fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(b"IHDR");
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    bytes.extend(&header);
    bytes.extend(crc32(&header).to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

/// Decodes an image with a decoder that the service does not use.
#[track_caller]
pub fn decoded(bytes: &[u8]) -> DynamicImage {
    image::load_from_memory(bytes).unwrap()
}

/// The upright portrait, cropped to its centred square and resized to this edge.
pub fn portrait_upright(edge: u32) -> RgbImage {
    square(&decoded(PORTRAIT).rotate90(), edge)
}

/// The same portrait without its orientation applied, so it is on its side.
pub fn portrait_sideways(edge: u32) -> RgbImage {
    square(&decoded(PORTRAIT), edge)
}

fn square(picture: &DynamicImage, edge: u32) -> RgbImage {
    let side = picture.width().min(picture.height());
    let (x, y) = ((picture.width() - side) / 2, (picture.height() - side) / 2);
    let cut = picture.crop_imm(x, y, side, side);
    cut.resize_exact(edge, edge, image::imageops::FilterType::Lanczos3)
        .to_rgb8()
}

/// The mean absolute difference of two pictures of the same size, in levels of 0 to 255.
#[track_caller]
pub fn difference(one: &RgbImage, other: &RgbImage) -> f64 {
    assert_eq!(one.dimensions(), other.dimensions());
    let sum: u64 = one
        .as_raw()
        .iter()
        .zip(other.as_raw())
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / one.as_raw().len() as f64
}

/// Panics if an image file holds anything besides its pixels.
#[track_caller]
pub fn assert_no_metadata(bytes: &[u8]) {
    match bytes {
        [b'R', b'I', b'F', b'F', ..] => {
            let mut at = 12;
            while at < bytes.len() {
                let size = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
                let name = &bytes[at..at + 4];
                let pixels: [&[u8]; 6] = [b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"];
                assert!(
                    pixels.contains(&name),
                    "chunk {:?}",
                    String::from_utf8_lossy(name)
                );
                at += 8 + size + size % 2;
            }
            assert_eq!(at, bytes.len(), "bytes after the last chunk");
        }
        [0xff, 0xd8, ..] => {
            let mut at = 2;
            loop {
                let (marker, size) = (
                    bytes[at + 1],
                    usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])),
                );
                // The JFIF header, tables and frame are allowed; EXIF, ICC, XMP and comments are
                // not.
                let pixels = matches!(marker, 0xe0 | 0xdb | 0xc0..=0xc4 | 0xdd | 0xda);
                assert!(pixels, "segment {marker:#x}");
                if marker == 0xda {
                    break;
                }
                at += 2 + size;
            }
            assert_eq!(
                &bytes[bytes.len() - 2..],
                [0xff, 0xd9],
                "bytes after the picture"
            );
        }
        [0x89, b'P', b'N', b'G', ..] => {
            let mut at = 8;
            while at < bytes.len() {
                let size = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
                let name = &bytes[at + 4..at + 8];
                let pixels: [&[u8]; 5] = [b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"];
                assert!(
                    pixels.contains(&name),
                    "chunk {:?}",
                    String::from_utf8_lossy(name)
                );
                at += 12 + size;
            }
        }
        _ => panic!("not an image"),
    }
}
