//! Crops of GIF, and of lossy and lossless WebP.

use super::super::tests::exif;
use super::*;

/// A GIF whose only frame covers a part of it.
fn gif(random: &mut fastrand::Rng) -> Case {
    let (width, height, pixels) = any_picture(random);
    let (left, top) = (random.u32(0..width / 4), random.u32(0..height / 4));
    let (across, down) = (
        width - left - random.u32(0..9),
        height - top - random.u32(0..9),
    );
    // Three bits of red and green, two of blue; the last colour is transparent.
    let index = |[red, green, blue]: [u8; 3]| (red >> 5 << 5) | (green >> 5 << 2) | blue >> 6;
    let color = |index: u8| [index >> 5, index >> 2 & 7].map(|part| part * 36);
    let shown = |index: u8| [color(index)[0], color(index)[1], (index & 3) * 85];
    let palette: Vec<u8> = (0..=255).flat_map(shown).collect();
    let mut expected = ::image::RgbaImage::new(width, height);
    let mut indices = Vec::new();
    for y in 0..down {
        for x in 0..across {
            let at = ((y + top) * width + x + left) as usize;
            let index = index(pixels[at]);
            indices.push(index);
            let [red, green, blue] = shown(index);
            if index != 255 {
                expected.put_pixel(x + left, y + top, ::image::Rgba([red, green, blue, 255]));
            }
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, width as u16, height as u16, &palette).unwrap();
    let frame = gif::Frame {
        left: left as u16,
        top: top as u16,
        ..gif::Frame::from_indexed_pixels(across as u16, down as u16, indices, Some(255))
    };
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    Case {
        name: format!("GIF {width} × {height}"),
        bytes,
        expected: expected.into(),
        tolerance: 4.0,
        formats: ONLY_PNG,
        any_alpha: false,
    }
}

/// WebP of three kinds, decoded by `image-webp`.
fn webp(kind: usize, orientation: u8, random: &mut fastrand::Rng) -> Case {
    let (width, height, pixels) = any_picture(random);
    let encoded = if kind == 0 {
        let pixels = pixels.as_flattened().to_vec();
        encode::encode_rgb(width, height, pixels, Format::Webp, &recipe()).unwrap()
    } else {
        let alpha = noise(width as usize, height as usize, 4, random);
        let (color, pixels) = if kind == 1 {
            (
                ::image::ExtendedColorType::Rgb8,
                pixels.as_flattened().to_vec(),
            )
        } else {
            let with_alpha = pixels
                .iter()
                .zip(&alpha)
                .flat_map(|(&[r, g, b], &a)| [r, g, b, a]);
            (::image::ExtendedColorType::Rgba8, with_alpha.collect())
        };
        let mut encoded = Vec::new();
        ::image::codecs::webp::WebPEncoder::new_lossless(&mut encoded)
            .encode(&pixels, width, height, color)
            .unwrap();
        encoded
    };
    let expected = ::image::load_from_memory(&encoded).unwrap();
    Case {
        name: format!("WebP {kind} {orientation} {width} × {height}"),
        bytes: webp_with_exif((width, height), &encoded, &exif(orientation), kind == 2),
        expected: turned(expected, orientation),
        tolerance: 4.0,
        formats: BOTH,
        any_alpha: false,
    }
}

/// A simple WebP in the extended form (RFC 9649, 2.7).
fn webp_with_exif((width, height): (u32, u32), simple: &[u8], exif: &[u8], alpha: bool) -> Vec<u8> {
    let chunk = |name: &[u8; 4], payload: &[u8]| {
        let mut chunk = [&name[..], &(payload.len() as u32).to_le_bytes(), payload].concat();
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    };
    let flags = if alpha { 0x18 } else { 0x08 };
    let [w0, w1, w2, _] = (width - 1).to_le_bytes();
    let [h0, h1, h2, _] = (height - 1).to_le_bytes();
    let extended = chunk(b"VP8X", &[flags, 0, 0, 0, w0, w1, w2, h0, h1, h2]);
    let body = [&extended, &simple[12..], &chunk(b"EXIF", exif)].concat();
    let length = (body.len() as u32 + 4).to_le_bytes();
    [&b"RIFF"[..], &length, b"WEBP", &body].concat()
}

#[test]
fn every_crop_of_a_gif_and_of_every_kind_of_webp_equals_that_of_another_decoder() {
    let mut random = fastrand::Rng::with_seed(13);
    let (mut wrong, mut crops) = (Vec::new(), 0);
    for _ in 0..4 {
        wrong.extend(check(&gif(&mut random), 6, &mut random));
        crops += 6;
    }
    for orientation in 1..=8 {
        for kind in 0..3 {
            let case = webp(kind, orientation, &mut random);
            wrong.extend(check(&case, 3, &mut random));
            crops += 3;
        }
    }
    assert_none(&wrong, crops);
}
