//! Pictures that libwebp encoded, and some that no encoder makes.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::libwebp::{self, encode_lossless, encode_lossy};

/// A picture in rows of red, green, blue and alpha.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixels: Vec<u8>,
}

fn image(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 4]) -> Image {
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    Image {
        width,
        height,
        pixels: rows.flat_map(|(x, y)| pixel(x, y)).collect(),
    }
}

/// A noise that is the same each time.
pub(crate) fn noise(x: u32, y: u32) -> u32 {
    let seed =
        (x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca77)).wrapping_mul(0xc2b2_ae3d);
    seed ^ seed >> 15
}

/// Kinds of pictures for which encoders choose different ways.
fn kinds(width: u32, height: u32) -> Vec<(String, Image)> {
    let smooth = |x: u32, y: u32| {
        let wave = |a: u32| (((a as f32) / 9.0).sin() * 60.0 + 128.0) as u8;
        let grain = (noise(x, y) & 7) as u8;
        [wave(x + y) + grain, wave(x * 2) + grain, wave(y * 3), 255]
    };
    let mut kinds = vec![
        ("smooth".to_owned(), image(width, height, smooth)),
        (
            "translucent".to_owned(),
            image(width, height, |x, y| {
                let [red, green, blue, _] = smooth(x, y);
                [red, green, blue, ((x * 5) ^ (y * 3)) as u8]
            }),
        ),
        (
            "noise".to_owned(),
            image(width, height, |x, y| noise(x, y).to_le_bytes()),
        ),
        (
            "halves".to_owned(),
            image(width, height, |x, y| {
                if x < width / 2 {
                    [(noise(x / 8, y / 8) % 40) as u8 * 6, 90, 200, 255]
                } else {
                    smooth(x, y)
                }
            }),
        ),
    ];
    for colors in [1, 2, 3, 4, 16, 17, 256] {
        let some = image(width, height, |x, y| {
            let number = noise(x / 3, y / 2) % colors;
            [
                number as u8,
                (number * 7) as u8,
                (number * 31) as u8,
                255 - (number % 3) as u8,
            ]
        });
        kinds.push((format!("{colors} colours"), some));
    }
    kinds
}

/// The picture of a file that is a still.
fn still(bytes: &[u8]) -> Result<Picture<'_>, Error> {
    match WebP::parse(bytes)?.content() {
        Content::Still(Some(picture)) => Ok(*picture),
        _ => panic!("it is a still"),
    }
}

/// The pixels of a still in a complete file.
fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let picture = still(bytes)?;
    if !WebP::parse(bytes)?.is_complete() {
        return Err(CUT_OFF);
    }
    let whole = Area::whole(picture.width(), picture.height());
    picture.decode(whole, Layout::Rgba, &|| true)
}

#[test]
fn lossless_pictures_are_decoded_bit_for_bit() {
    for (width, height) in [(1, 1), (1, 40), (40, 1), (2, 3), (33, 17), (90, 70)] {
        for (name, picture) in kinds(width, height) {
            for (method, effort) in [(0, 0), (0, 80), (2, 50), (4, 75), (6, 100)] {
                let bytes = encode_lossless(&picture, method, effort);
                assert!(
                    decoded(&bytes).as_ref() == Ok(&picture.pixels),
                    "{name}, {width} × {height}, method {method}, effort {effort}"
                );
            }
        }
    }
}

#[test]
fn a_truncated_file_is_refused() {
    for (name, picture) in kinds(12, 9) {
        for method in [0, 6] {
            let bytes = encode_lossless(&picture, method, 60);
            assert!(decoded(&bytes).is_ok());
            for end in 0..bytes.len() {
                assert!(decoded(&bytes[..end]).is_err(), "{name} cut at {end}");
            }
            // Nor one whose length was corrected: the bits end before the pixels do.
            let (head, payload) = bytes.split_at(20);
            for end in 5..bytes.len() - 22 {
                let mut cut = head.to_vec();
                cut[4..8].copy_from_slice(&(end as u32 + 12).to_le_bytes());
                cut[16..20].copy_from_slice(&(end as u32).to_le_bytes());
                cut.extend(&payload[..end]);
                assert!(decoded(&cut).is_err(), "{name} ends at {end}");
            }
        }
    }
}

#[test]
fn a_decoded_area_equals_that_part_of_the_picture() {
    let (_, picture) = kinds(60, 50).swap_remove(1);
    for bytes in [
        encode_lossless(&picture, 4, 75),
        encode_lossy(&picture, 4, 75),
    ] {
        let whole = decoded(&bytes).unwrap();
        let still = still(&bytes).unwrap();
        for (x, y, width, height) in [(13, 7, 31, 20), (0, 0, 60, 1), (59, 49, 1, 1)] {
            let area = Area {
                x,
                y,
                width,
                height,
            };
            let expected = image(width, height, |column, row| {
                let at = ((row + y) * 60 + column + x) as usize * 4;
                whole[at..at + 4].try_into().unwrap()
            });
            let found = still.decode(area, Layout::Rgba, &|| true).unwrap();
            assert_eq!(found, expected.pixels);
            let opaque: Vec<u8> = found
                .chunks(4)
                .flat_map(|pixel| &pixel[..3])
                .copied()
                .collect();
            assert_eq!(still.decode(area, Layout::Rgb, &|| true), Ok(opaque));
        }
    }
}

#[test]
fn an_area_outside_the_picture_is_refused() {
    let bytes = encode_lossless(&image(4, 3, |_, _| [1; 4]), 4, 75);
    for (x, y, width, height) in [
        (0, 0, 0, 1),
        (0, 0, 1, 0),
        (4, 0, 1, 1),
        (0, 2, 1, 2),
        (u32::MAX, 0, 2, 1),
    ] {
        let area = Area {
            x,
            y,
            width,
            height,
        };
        let refused = still(&bytes).unwrap().decode(area, Layout::Rgb, &|| true);
        assert_eq!(refused, Err(Error::InvalidArea));
    }
}

#[test]
fn lossy_pictures_with_alpha_have_the_pixels_of_libwebp() {
    for (width, height) in [(1, 1), (1, 40), (40, 1), (2, 3), (33, 17), (90, 70)] {
        for (name, picture) in kinds(width, height) {
            for quality in [0, 30, 75, 100] {
                let bytes = encode_lossy(&picture, 4, quality);
                assert!(
                    decoded(&bytes).ok() == libwebp::decode(&bytes).map(|image| image.pixels),
                    "{name}, {width} × {height}, quality {quality}"
                );
            }
        }
    }
}

#[test]
fn the_caller_can_end_a_decode() {
    let (_, picture) = kinds(90, 70).swap_remove(0);
    for bytes in [
        encode_lossless(&picture, 4, 75),
        encode_lossy(&picture, 4, 75),
    ] {
        let still = still(&bytes).unwrap();
        let asked = Cell::new(0);
        let keep_going = || {
            asked.set(asked.get() + 1);
            asked.get() < 2
        };
        let ended = still.decode(Area::whole(90, 70), Layout::Rgb, &keep_going);
        assert_eq!(ended, Err(Error::Interrupted));
        assert_eq!(asked.get(), 2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_damaged_picture_is_refused_or_decoded(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        static FILES: std::sync::LazyLock<Vec<Vec<u8>>> = std::sync::LazyLock::new(|| {
            let pictures = kinds(20, 15).into_iter();
            pictures.map(|(_, picture)| encode_lossless(&picture, 4, 75)).collect()
        });
        let mut bytes = which.get(&FILES).clone();
        for (place, value) in damages {
            // The headers stay, so that the size does not grow.
            let place = 25 + place.index(bytes.len() - 25);
            bytes[place] = value;
        }
        if let Ok(pixels) = decoded(&bytes) {
            prop_assert_eq!(pixels.len(), 20 * 15 * 4);
        }
    }
}

/// Bits as VP8L orders them.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    count: usize,
}

impl Writer {
    fn put(&mut self, value: u32, count: usize) {
        for bit in 0..count {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> bit & 1) as u8) << (self.count % 8);
            self.count += 1;
        }
    }

    /// A code of one symbol, 0.
    fn put_single(&mut self) {
        self.put(0b0001, 4);
    }

    /// A code of 256 symbols, all of 8 bits, of `symbols`.
    fn put_full(&mut self, symbols: u32) {
        self.put(0, 1);
        self.put(8, 4);
        // One code for lengths, which takes no bits: 8.
        for _ in 0..11 {
            self.put(0, 3);
        }
        self.put(1, 3);
        if symbols == 256 {
            self.put(0, 1);
        } else {
            self.put(1, 1);
            self.put(3, 3);
            self.put(254, 8);
        }
    }

    fn put_symbol(&mut self, symbol: u8) {
        self.put(symbol.reverse_bits().into(), 8);
    }
}

/// A picture of 1024 × 1024 with a group of codes for each of 65,536 tiles.
fn many_groups(full: bool) -> Vec<u8> {
    let mut writer = Writer::default();
    // No transforms, no colour cache, tiles of four by four.
    writer.put(0b100, 3);
    writer.put(0, 3);
    // Which group a tile has: no cache, and codes of green and red.
    writer.put(0, 1);
    writer.put_full(280);
    writer.put_full(256);
    for _ in 0..3 {
        writer.put_single();
    }
    for group in 0..=u16::MAX {
        let [red, green] = group.to_be_bytes();
        writer.put_symbol(green);
        writer.put_symbol(red);
    }
    for _ in 0..=u16::MAX {
        if full {
            writer.put_full(280);
            for _ in 0..3 {
                writer.put_full(256);
            }
            writer.put_single();
        } else {
            for _ in 0..5 {
                writer.put_single();
            }
        }
    }
    let bits: u32 = 1023 | 1023 << 14;
    [&[0x2f][..], &bits.to_le_bytes(), &writer.bytes].concat()
}

#[test]
fn very_many_groups_of_codes_are_refused_or_use_little_memory() {
    let interrupt = Interrupt::NEVER;
    let whole = Area::whole(1024, 1024);
    let pixels = 1 << 20;
    assert!(vp8l::memory_bytes(pixels) < 12 << 20);
    let small = many_groups(false);
    let decoded = vp8l::decode(&small, whole, Layout::Rgb, interrupt).unwrap();
    assert!(decoded.iter().all(|byte| *byte == 0));
    let large = many_groups(true);
    assert!(large.len() < 2 << 20, "{}", large.len());
    assert_eq!(
        vp8l::decode(&large, whole, Layout::Rgb, interrupt),
        Err(Error::TooComplex(
            "it has more codes than its pixels justify"
        ))
    );
}

fn chunk(id: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    let padding = vec![0; payload.len() % 2];
    [&id[..], &length, payload, &padding].concat()
}

/// An animation on a canvas of 8 by 8.
fn animation(frames: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        chunk(*b"VP8X", &[0b0001_0010, 0, 0, 0, 7, 0, 0, 7, 0, 0]),
        chunk(*b"ANIM", &[255, 255, 255, 255, 5, 0]),
        frames.concat(),
    ]
    .concat();
    let length = (body.len() as u32 + 4).to_le_bytes();
    [&b"RIFF"[..], &length, b"WEBP", &body].concat()
}

/// A frame at an even place.
fn frame(x: u8, y: u8, ms: u8, flags: u8, picture: &Image) -> Vec<u8> {
    let (width, height) = (picture.width as u8, picture.height as u8);
    let head = [
        x / 2,
        0,
        0,
        y / 2,
        0,
        0,
        width - 1,
        0,
        0,
        height - 1,
        0,
        0,
        ms,
        0,
        0,
        flags,
    ];
    let file = encode_lossless(picture, 2, 50);
    chunk(*b"ANMF", &[&head[..], &file[12..]].concat())
}

#[test]
fn frames_say_how_they_are_drawn() {
    let picture = image(4, 2, |_, _| [1, 2, 3, 255]);
    let bytes = animation(&[
        frame(2, 4, 50, 0, &picture),
        frame(4, 0, 60, 0b11, &picture),
    ]);
    let file = WebP::parse(&bytes).unwrap();
    assert_eq!((file.width(), file.height()), (8, 8));
    let Content::Animation(animation) = file.content() else {
        panic!("it is an animation")
    };
    assert_eq!((animation.plays(), animation.frame_count()), (Some(5), 2));
    let frames: Vec<_> = animation.frames().collect();
    let area = |x, y| Area {
        x,
        y,
        width: 4,
        height: 2,
    };
    assert_eq!((frames[0].area, frames[0].duration_ms), (area(2, 4), 50));
    assert_eq!((frames[1].area, frames[1].duration_ms), (area(4, 0), 60));
    let drawn = frames.iter().map(|frame| (frame.blending, frame.disposal));
    assert_eq!(
        drawn.collect::<Vec<_>>(),
        [
            (Blending::Over, Disposal::Keep),
            (Blending::Replace, Disposal::Clear)
        ]
    );
    let still = frames[0].picture.unwrap();
    let pixels = still.decode(Area::whole(4, 2), Layout::Rgba, &|| true);
    assert_eq!(pixels, Ok(picture.pixels));
}

#[test]
fn a_frame_that_leaves_the_canvas_is_refused() {
    let picture = image(4, 4, |_, _| [1; 4]);
    assert!(WebP::parse(&animation(&[frame(4, 4, 50, 0, &picture)])).is_ok());
    for (x, y) in [(6, 0), (0, 6), (250, 250)] {
        let bytes = animation(&[frame(x, y, 50, 0, &picture)]);
        assert!(matches!(WebP::parse(&bytes), Err(Error::Corrupt(_))));
    }
}

#[test]
fn a_claimed_size_is_read_from_32_bytes() {
    let bomb = b"RIFF\x18\0\0\0WEBPVP8L\x0c\0\0\0\x2f\x7f\xfe\x9f\x0f\0\0\0\0\0\0\0";
    let file = WebP::parse(bomb).unwrap();
    assert_eq!((file.width(), file.height()), (16000, 16000));
    let claimed = claimed_size(bomb).unwrap();
    assert_eq!((claimed.width, claimed.height), (16000, 16000));
}
