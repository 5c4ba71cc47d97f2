//! Animations that this program puts together, and headers.

use super::*;
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

fn request(square: Square) -> DecodeRequest {
    DecodeRequest {
        square,
        edge_px: square.edge,
        original: None,
        chroma: Chroma::Whole,
    }
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
fn frames_are_composed_as_browsers_do() {
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
fn the_still_of_an_animation_is_its_first_frame_on_a_transparent_canvas() {
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
fn the_memory_estimate_of_an_animation_includes_alpha() {
    let red = Raster::new(8, 8, Layout::Rgb, [200, 10, 20].repeat(64)).unwrap();
    let file = encode(&Pixels(red), Format::Webp, &recipe()).unwrap();
    let head = [0, 0, 0, 0, 0, 0, 7, 0, 0, 7, 0, 0, 50, 0, 0, OVER];
    let moving = animation(&[chunk(*b"ANMF", &[&head[..], &file[12..]].concat())]);
    let header = header(&moving).unwrap();
    animate(&moving, &header, &Control::unlimited(), &mut |_| Ok(())).unwrap();
    let Content::Still(Some(still)) = *WebP::parse(&file).unwrap().content() else {
        panic!("it is a still")
    };
    let lossy_bytes = still.memory(webp::Layout::Rgb).fixed_bytes;
    let counted = header.memory.fixed_bytes;
    assert_eq!(counted, lossy_bytes + 8 * 8 * (4 + 4));
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
fn an_animation_with_missing_parts_is_corrupt() {
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
    // The file does not say how often it plays.
    let at = bytes.windows(4).position(|id| id == b"ANIM").unwrap();
    let mut silent = bytes.clone();
    silent[at..at + 4].copy_from_slice(b"anim");
    assert_eq!(play(&silent), Err(MISSING));
}

#[test]
fn a_claimed_size_is_read_from_32_bytes() {
    let bomb = b"RIFF\x18\0\0\0WEBPVP8L\x0c\0\0\0\x2f\x7f\xfe\x9f\x0f\0\0\0\0\0\0\0";
    let header = header(bomb).unwrap();
    assert_eq!((header.width, header.height), (16000, 16000));
}
