//! Against another decoder, and on damaged data.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::Layout;
use crate::libwebp::{self, encode_lossy};
use crate::tests::Image;

/// A file of `tests/fixtures`.
fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    std::fs::read(folder.join(name)).unwrap()
}

/// A picture of flat places, edges, gradients and noise, as libwebp encodes it.
fn drawn(width: u32, height: u32, quality: u8) -> Vec<u8> {
    let mut noise = 1_u32;
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [red, green, blue] = match (x / 24 + y / 40) % 4 {
                0 => [(x * 5) as u8, (y * 3) as u8, 90],
                1 => [(noise >> 24) as u8, (noise >> 16) as u8, (noise >> 8) as u8],
                2 => [if (x + y) % 9 < 4 { 250 } else { 3 }, 40, x as u8],
                _ => [200, 180, 20],
            };
            pixels.extend([red, green, blue, 255]);
        }
    }
    // The encoder chooses other tools at a low method.
    let method = if width < 500 { 4 } else { 2 };
    let image = Image {
        width,
        height,
        pixels,
    };
    encode_lossy(&image, method, quality)
}

/// The payload of the chunk `VP8 `.
fn payload(file: &[u8]) -> &[u8] {
    let at = file.windows(4).position(|id| id == b"VP8 ").unwrap();
    let length = u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap());
    &file[at + 8..][..length as usize]
}

fn rgb(planes: &Planes, layout: Layout) -> Vec<u8> {
    let (width, height) = (planes.width as usize, planes.height as usize);
    let mut pixels = vec![0; width * height * layout.channels()];
    planes.write_rgb(0..height, 0..width, layout, &mut pixels);
    pixels
}

#[track_caller]
fn assert_equals_other_decoders(name: &str, file: &[u8]) {
    let expected = libwebp::decode(file).unwrap();
    let planes = decode(payload(file), Interrupt::NEVER).unwrap();
    let size = (planes.width, planes.height);
    assert_eq!(size, (expected.width, expected.height), "{name}");
    assert!(rgb(&planes, Layout::Rgba) == expected.pixels, "{name}");
    // And the other decoder in Rust.
    let mut decoder = image_webp::WebPDecoder::new(std::io::Cursor::new(file)).unwrap();
    let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
    decoder.read_image(&mut pixels).unwrap();
    assert!(rgb(&planes, Layout::Rgb) == pixels, "{name}");
}

#[test]
fn pixels_equal_those_of_other_decoders() {
    for name in [
        "lossy.webp",
        "display-p3.webp",
        "simple-filter.webp",
        "sharp-filter.webp",
    ] {
        assert_equals_other_decoders(name, &fixture(name));
    }
    for quality in [1, 10, 40, 75, 90, 100] {
        assert_equals_other_decoders(&format!("quality {quality}"), &drawn(131, 97, quality));
    }
    // Beyond 512 pixels the encoder chooses other tools.
    assert_equals_other_decoders("large", &drawn(530, 40, 80));
}

#[test]
fn every_small_size_equals_the_pixels_of_other_decoders() {
    for width in 1..=18 {
        for height in 1..=18 {
            assert_equals_other_decoders(&format!("{width} × {height}"), &drawn(width, height, 60));
        }
    }
}

#[test]
fn a_part_has_the_pixels_of_the_whole() {
    let planes = decode(payload(&drawn(61, 47, 70)), Interrupt::NEVER).unwrap();
    let whole = rgb(&planes, Layout::Rgb);
    for (rows, columns) in [
        (0..47, 13..46),
        (5..6, 0..61),
        (46..47, 60..61),
        (8..8, 3..9),
    ] {
        for layout in [Layout::Rgb, Layout::Rgba] {
            let mut part = vec![7; rows.len() * columns.len() * layout.channels()];
            planes.write_rgb(rows.clone(), columns.clone(), layout, &mut part);
            let mut pixels = part.chunks_exact(layout.channels());
            for y in rows.clone() {
                for x in columns.clone() {
                    let pixel = pixels.next().unwrap();
                    assert_eq!(pixel[..3], whole[(y * 61 + x) * 3..][..3]);
                    assert!(pixel[3..].iter().all(|&alpha| alpha == 255));
                }
            }
        }
    }
}

#[test]
fn truncated_data_is_refused() {
    for (file, step) in [(drawn(34, 50, 5), 1), (fixture("simple-filter.webp"), 61)] {
        let payload = payload(&file);
        let whole = decode(payload, Interrupt::NEVER).unwrap();
        let ends = (0..payload.len()).step_by(step);
        let (count, mut refused) = (ends.len(), 0);
        for end in ends {
            match decode(&payload[..end], Interrupt::NEVER) {
                // The last bytes may be padding, which no decoder reads.
                Ok(planes) => {
                    assert!(planes.y == whole.y && planes.u == whole.u && planes.v == whole.v);
                }
                Err(Error::Corrupt(_)) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refused + 4 > count, "{refused} of {count}");
    }
}

#[test]
fn the_memory_bound_covers_the_planes_and_little_more() {
    for (width, height) in [(1, 1), (50, 70), (300, 17)] {
        let planes = decode(payload(&drawn(width, height, 50)), Interrupt::NEVER).unwrap();
        let held = planes.y.len() + planes.u.len() + planes.v.len();
        let counted = memory_bytes(width, height);
        assert!(held as u64 <= counted && counted <= 2 * held as u64 + (32 << 10));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_data_is_refused_or_gives_the_stated_size(
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        is_simple in any::<bool>(),
    ) {
        let file = if is_simple { fixture("simple-filter.webp") } else { drawn(70, 50, 40) };
        let mut payload = payload(&file).to_vec();
        for (place, value) in damages {
            *place.get_mut(&mut payload) = value;
        }
        // The header bounds the size before anything is decoded.
        payload[6..10].copy_from_slice(&[70, 0, 50, 0]);
        if let Ok(planes) = decode(&payload, Interrupt::NEVER) {
            prop_assert_eq!((planes.width, planes.height), (70, 50));
            prop_assert_eq!(rgb(&planes, Layout::Rgb).len(), 70 * 50 * 3);
        }
    }
}
