//! Pictures that libwebp encoded, and some that no encoder makes.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::CancelToken;
use crate::Format;
use crate::decode::Chroma;
use crate::encode::{encode, encode_lossless};
use crate::geometry::Square;
use crate::planes::Picture::Pixels;
use crate::process::tests::recipe;

fn raster(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 4]) -> Raster {
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let pixels = rows.flat_map(|(x, y)| pixel(x, y)).collect();
    Raster::new(width, height, Layout::Rgba, pixels).unwrap()
}

/// A noise that is the same each time.
fn noise(x: u32, y: u32) -> u32 {
    let seed =
        (x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca77)).wrapping_mul(0xc2b2_ae3d);
    seed ^ seed >> 15
}

/// Kinds of pictures for which encoders choose different ways.
fn kinds(width: u32, height: u32) -> Vec<(String, Raster)> {
    let smooth = |x: u32, y: u32| {
        let wave = |a: u32| (((a as f32) / 9.0).sin() * 60.0 + 128.0) as u8;
        let grain = (noise(x, y) & 7) as u8;
        [wave(x + y) + grain, wave(x * 2) + grain, wave(y * 3), 255]
    };
    let mut kinds = vec![
        ("smooth".to_owned(), raster(width, height, smooth)),
        (
            "translucent".to_owned(),
            raster(width, height, |x, y| {
                let [red, green, blue, _] = smooth(x, y);
                [red, green, blue, ((x * 5) ^ (y * 3)) as u8]
            }),
        ),
        (
            "noise".to_owned(),
            raster(width, height, |x, y| noise(x, y).to_le_bytes()),
        ),
        (
            "halves".to_owned(),
            raster(width, height, |x, y| {
                if x < width / 2 {
                    [(noise(x / 8, y / 8) % 40) as u8 * 6, 90, 200, 255]
                } else {
                    smooth(x, y)
                }
            }),
        ),
    ];
    for colors in [1, 2, 3, 4, 16, 17, 256] {
        let some = raster(width, height, |x, y| {
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

/// What comes out of a file, as RGBA.
fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let control = Control::unlimited();
    let file = File::read(bytes).map_err(|_| DAMAGED)?;
    let Content::Still(Some(picture)) = file.content else {
        return Err(MISSING);
    };
    if !file.whole {
        return Err(CUT_OFF);
    }
    let whole = Area::whole(picture.width, picture.height);
    picture.decode(whole, Layout::Rgba, &control)
}

fn request(square: Square) -> DecodeRequest {
    DecodeRequest {
        square,
        edge_px: square.edge,
        chroma: Chroma::Whole,
    }
}

#[test]
fn pictures_without_loss_come_out_to_the_bit() {
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
fn a_part_is_what_lies_there() {
    let (_, picture) = kinds(60, 50).swap_remove(1);
    let bytes = encode_lossless(&picture, 4, 75);
    let header = header(&bytes).unwrap();
    let (x, y, edge) = (13, 7, 31);
    let request = request(Square { x, y, edge });
    let found = decode(&bytes, &header, &request, &Control::unlimited()).unwrap();
    let expected = raster(edge, edge, |column, row| {
        let at = ((row + y) * 60 + column + x) as usize * 4;
        picture.pixels[at..at + 4].try_into().unwrap()
    });
    assert_eq!(found.raster, expected);
}

#[test]
fn no_part_of_a_file_is_taken_for_the_whole() {
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
fn a_passed_deadline_ends_the_work() {
    let (_, picture) = kinds(90, 70).swap_remove(0);
    let bytes = encode_lossless(&picture, 4, 75);
    let control = Control::starting_now(Duration::ZERO, CancelToken::new());
    let Content::Still(Some(picture)) = File::read(&bytes).unwrap().content else {
        panic!("it is a still")
    };
    let whole = Area::whole(90, 70);
    let result = picture.decode(whole, Layout::Rgb, &control);
    assert!(matches!(result, Err(Error::TooComplex { .. })));
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
            // The headers stay: the size is not to grow.
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
fn very_many_groups_of_codes_are_refused_or_small() {
    let control = Control::unlimited();
    let whole = Area::whole(1024, 1024);
    let pixels = 1 << 20;
    assert!(vp8l::memory_bytes(pixels) < 12 << 20);
    let small = many_groups(false);
    let decoded = vp8l::decode(&small, whole, Layout::Rgb, &control).unwrap();
    assert!(decoded.iter().all(|byte| *byte == 0));
    let large = many_groups(true);
    assert!(large.len() < 2 << 20, "{}", large.len());
    assert_eq!(
        vp8l::decode(&large, whole, Layout::Rgb, &control),
        Err(Error::TooComplex {
            reason: "it has more codes than pixels pay for"
        })
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

const OVER: u8 = 0;
const CLEAR: u8 = 1;
const INSTEAD: u8 = 2;

/// A frame at an even place.
fn frame(x: u8, y: u8, ms: u8, flags: u8, picture: &Raster) -> Vec<u8> {
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

const RED: [u8; 4] = [200, 10, 20, 255];
const GREEN: [u8; 4] = [10, 200, 20, 255];
const NONE: [u8; 4] = [0; 4];

#[test]
fn frames_are_put_upon_one_another_as_browsers_do() {
    let stripes = raster(4, 4, |x, _| if x % 2 == 0 { GREEN } else { NONE });
    let bytes = animation(&[
        frame(0, 0, 40, OVER, &raster(8, 8, |_, _| RED)),
        // Red shows between its stripes; then its place is cleared.
        frame(2, 2, 50, OVER | CLEAR, &stripes),
        // Nothing shows between these.
        frame(4, 4, 60, INSTEAD, &stripes),
        frame(0, 0, 5, OVER, &raster(2, 2, |_, _| GREEN)),
    ]);
    let header = header(&bytes).unwrap();
    assert_eq!(header.frames, 4);
    let mut found = Vec::new();
    animate(&bytes, &header, &Control::unlimited(), &mut |frame| {
        assert_eq!(frame.plays, 5);
        found.push((frame.duration_ms, frame.canvas.pixels.clone()));
        Ok(())
    })
    .unwrap();
    let within =
        |from: u32, x: u32, y: u32| (from..from + 4).contains(&x) && (from..from + 4).contains(&y);
    let stripe = |x: u32| x.is_multiple_of(2);
    let expected = [
        (40, raster(8, 8, |_, _| RED)),
        (
            50,
            raster(8, 8, |x, y| {
                if within(2, x, y) && stripe(x) {
                    GREEN
                } else {
                    RED
                }
            }),
        ),
        (
            60,
            raster(8, 8, |x, y| match (within(4, x, y), within(2, x, y)) {
                (true, _) if stripe(x) => GREEN,
                (true, _) | (_, true) => NONE,
                _ => RED,
            }),
        ),
        (
            100,
            raster(8, 8, |x, y| match (within(4, x, y), within(2, x, y)) {
                _ if x < 2 && y < 2 => GREEN,
                (true, _) if stripe(x) => GREEN,
                (true, _) | (_, true) => NONE,
                _ => RED,
            }),
        ),
    ];
    assert_eq!(found.len(), expected.len());
    for (index, (found, (ms, canvas))) in found.into_iter().zip(expected).enumerate() {
        assert_eq!(found, (ms, canvas.pixels), "frame {index}");
    }
}

#[test]
fn the_still_of_an_animation_is_its_first_frame_on_nothing() {
    let bytes = animation(&[
        frame(2, 4, 50, OVER, &raster(4, 2, |_, _| RED)),
        frame(0, 0, 50, OVER, &raster(8, 8, |_, _| GREEN)),
    ]);
    let header = header(&bytes).unwrap();
    let square = Square {
        x: 0,
        y: 0,
        edge: 8,
    };
    let request = request(square);
    let found = decode(&bytes, &header, &request, &Control::unlimited()).unwrap();
    let expected = raster(8, 8, |x, y| {
        if (2..6).contains(&x) && (4..6).contains(&y) {
            RED
        } else {
            NONE
        }
    });
    assert_eq!(found.raster, expected);
}

/// The canvas, and a frame of it as large, each in four channels beside what VP8 takes.
#[test]
fn a_moving_picture_without_alpha_is_counted_with_it() {
    let red = Raster::new(8, 8, Layout::Rgb, [200, 10, 20].repeat(64)).unwrap();
    let file = encode(&Pixels(red), Format::Webp, &recipe()).unwrap();
    let head = [0, 0, 0, 0, 0, 0, 7, 0, 0, 7, 0, 0, 50, 0, 0, OVER];
    let moving = animation(&[chunk(*b"ANMF", &[&head[..], &file[12..]].concat())]);
    let header = header(&moving).unwrap();
    animate(&moving, &header, &Control::unlimited(), &mut |_| Ok(())).unwrap();
    let counted = header.memory.fixed_bytes;
    assert_eq!(counted, vp8::memory_bytes(8, 8) + 8 * 8 * (4 + 4));
}

#[test]
fn a_frame_that_leaves_the_canvas_is_refused() {
    let picture = raster(4, 4, |_, _| RED);
    assert!(header(&animation(&[frame(4, 4, 50, OVER, &picture)])).is_ok());
    for (x, y) in [(6, 0), (0, 6), (250, 250)] {
        let refused = header(&animation(&[frame(x, y, 50, OVER, &picture)]));
        assert!(matches!(refused, Err(HeaderError::Broken(_))));
    }
}

#[test]
fn an_animation_without_its_parts_is_corrupt() {
    let picture = raster(8, 8, |_, _| RED);
    let bytes = animation(&[
        frame(0, 0, 50, OVER, &picture),
        frame(0, 0, 50, OVER, &picture),
    ]);
    let play = |bytes: &[u8]| {
        let header = header(bytes).unwrap();
        animate(bytes, &header, &Control::unlimited(), &mut |_| Ok(()))
    };
    assert_eq!(play(&bytes), Ok(()));
    assert_eq!(play(&bytes[..bytes.len() - 2]), Err(CUT_OFF));
    // A frame without a picture.
    assert_eq!(play(&animation(&[chunk(*b"ANMF", &[0; 16])])), Err(MISSING));
    // Nothing says how often it plays.
    let at = bytes.windows(4).position(|id| id == b"ANIM").unwrap();
    let mut silent = bytes.clone();
    silent[at..at + 4].copy_from_slice(b"anim");
    assert_eq!(play(&silent), Err(MISSING));
}

#[test]
fn a_claimed_size_is_known_from_32_bytes() {
    let bomb = b"RIFF\x18\0\0\0WEBPVP8L\x0c\0\0\0\x2f\x7f\xfe\x9f\x0f\0\0\0\0\0\0\0";
    let header = header(bomb).unwrap();
    assert_eq!((header.width, header.height), (16000, 16000));
}
