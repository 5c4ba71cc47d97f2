//! Pictures made to do harm.

use std::time::{Duration, Instant};

use super::tests::{recipe, run};
use super::*;

/// The least that `work` takes of three times, which other programs disturb less than once.
fn time(work: impl Fn()) -> Duration {
    (0..3)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .min()
        .unwrap()
}

fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16 + 2).to_be_bytes();
    [&[0xff, marker][..], &length, payload].concat()
}

/// A legal progressive JPEG of one empty scan after another.
fn scans(edge: u16, count: usize) -> Vec<u8> {
    let [high, low] = edge.to_be_bytes();
    let mut bytes = b"\xff\xd8".to_vec();
    bytes.extend(segment(0xdb, &[&[0][..], &[1; 64]].concat()));
    bytes.extend(segment(0xc2, &[8, high, low, high, low, 1, 1, 0x11, 0]));
    // One code in each table: no difference, and no more coefficients for 16384 blocks and more.
    let table = |class: u8, symbol: u8| [&[class, 1][..], &[0; 15], &[symbol]].concat();
    bytes.extend(segment(0xc4, &table(0x00, 0x00)));
    bytes.extend(segment(0xc4, &table(0x10, 0xe0)));
    let blocks = usize::from(edge).div_ceil(8).pow(2);
    bytes.extend(segment(0xda, &[1, 1, 0, 0, 0, 0]));
    bytes.extend(vec![0; blocks.div_ceil(8)]);
    for index in 1..count {
        let band = (index % 63 + 1) as u8;
        bytes.extend(segment(0xda, &[1, 1, 0, band, band, 0]));
        bytes.extend(vec![0; blocks.div_ceil(16384) * 2]);
    }
    bytes.extend(b"\xff\xd9");
    bytes
}

#[test]
fn a_small_header_with_a_huge_claim_is_refused_at_once() {
    let webp = b"RIFF\x18\0\0\0WEBPVP8L\x0c\0\0\0\x2f\x7f\xfe\x9f\x0f\0\0\0\0\0\0\0";
    let gif = b"GIF89a\x80\x3e\x80\x3e\0\0\0,\0\0\0\0\x80\x3e\x80\x3e\0\x02\0;";
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x3e\x80\0\0\x3e\x80\x08\x06\0\0\0\0\0\0\0\0\0\0\0IDAT\0\0\0\0";
    for bytes in [&webp[..], gif, png, &scans(16000, 1)] {
        let refused = probe(bytes, &recipe().limits);
        assert!(
            matches!(
                refused,
                Err(Error::DimensionsTooLarge {
                    width: 16000,
                    height: 16000,
                    ..
                })
            ),
            "{refused:?}"
        );
        let taken = time(|| drop(probe(bytes, &recipe().limits)));
        assert!(taken < Duration::from_millis(5), "{taken:?}");
    }
}

#[test]
fn thousands_of_scans_are_refused_at_once() {
    let bytes = scans(4096, 5000);
    assert_eq!(
        probe(&bytes, &recipe().limits),
        Err(Error::TooComplex {
            reason: "it has more than 100 scans"
        })
    );
    let taken = time(|| drop(probe(&bytes, &recipe().limits)));
    assert!(taken < Duration::from_millis(100), "{taken:?}");
}

/// A progressive JPEG whose every coefficient is refined in scan after scan.
fn refinements(edge: u16, count: usize) -> Vec<u8> {
    let [high, low] = edge.to_be_bytes();
    let blocks = usize::from(edge).div_ceil(8).pow(2);
    let mut bytes = b"\xff\xd8".to_vec();
    bytes.extend(segment(0xdb, &[&[0][..], &[1; 64]].concat()));
    let channels = [1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0];
    bytes.extend(segment(
        0xc2,
        &[&[8, high, low, high, low, 3][..], &channels].concat(),
    ));
    // One code in each table: no difference, and a coefficient of 1 after none.
    let table = |class: u8, symbol: u8| [&[class, 1][..], &[0; 15], &[symbol]].concat();
    bytes.extend(segment(0xc4, &table(0x00, 0x00)));
    bytes.extend(segment(0xc4, &table(0x10, 0x01)));
    bytes.extend(segment(0xda, &[3, 1, 0, 2, 0, 3, 0, 0, 0, 0]));
    bytes.extend(vec![0; (blocks * 3).div_ceil(8)]);
    // Each first comes at the highest bit, and then once more for each bit below it.
    for index in 1..count {
        let band = (index / 14 % 63 + 1) as u8;
        let bit = 13 - (index % 14) as u8;
        let history = if bit == 13 { 0 } else { (bit + 1) << 4 };
        bytes.extend(segment(0xda, &[1, 1, 0, band, band, history | bit]));
        bytes.extend(vec![0; (blocks * 2).div_ceil(8)]);
    }
    bytes.extend(b"\xff\xd9");
    bytes
}

/// A decoder is not asked for its deadline on its way.
#[test]
fn as_much_work_as_may_be_is_taken_and_does_not_last() {
    let recipe = recipe();
    for (what, bytes) in [
        ("many scans", scans(4096, 100)),
        ("many refinements", refinements(4096, 60)),
    ] {
        assert!(bytes.len() < 5 << 20, "{what}: {}", bytes.len());
        let taken = time(|| {
            let _ = run(&bytes, &recipe, None).map_err(|error| println!("{what}: {error}"));
        });
        println!("{what}: {taken:?}");
        assert!(taken < Duration::from_secs(2), "{what}: {taken:?}");
    }
}

#[test]
fn a_jpeg_of_more_work_than_pictures_need_is_refused() {
    let limits = Limits {
        max_edge_px: 16_384,
        ..recipe().limits
    };
    let refused = |bytes: &[u8]| probe(bytes, &limits).unwrap_err();
    assert_eq!(
        refused(&scans(16_384, 30)),
        Error::TooComplex {
            reason: "it has too many scans for its size"
        }
    );
    probe(&scans(16_384, 18), &limits).unwrap();
    // One channel twice, where each scan is the whole picture.
    let mut bytes = scans(64, 2);
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc2]);
    bytes[frame.unwrap() + 1] = 0xc0;
    assert_eq!(
        refused(&bytes),
        Error::TooComplex {
            reason: "it has more scans than channels"
        }
    );
}

#[test]
fn kinds_of_jpeg_that_would_come_out_wrong_are_refused_by_name() {
    let with = |marker: u8, precision: u8| {
        let mut bytes = scans(64, 1);
        let at = bytes
            .windows(2)
            .position(|pair| pair == [0xff, 0xc2])
            .unwrap();
        bytes[at + 1] = marker;
        bytes[at + 4] = precision;
        match probe(&bytes, &recipe().limits) {
            Err(Error::UnsupportedFormat { found, .. }) => found,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(with(0xc1, 12), "a 12-bit JPEG");
    assert_eq!(with(0xc9, 8), "an arithmetic-coded JPEG");
    assert_eq!(with(0xca, 8), "an arithmetic-coded JPEG");
    assert_eq!(with(0xc3, 8), "a lossless JPEG");
    assert_eq!(with(0xc5, 8), "a hierarchical JPEG");
}

#[test]
fn what_only_looks_like_a_picture_is_refused() {
    for (bytes, found) in [
        (&b""[..], "an empty file"),
        (b"%PDF-1.4 and more", "a PDF document"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "an SVG drawing",
        ),
        (b"MZ\x90\0\x03\0\0\0\x04\0\0\0", "an executable program"),
        (
            b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0",
            "a file of type image/bmp",
        ),
    ] {
        match probe(bytes, &recipe().limits) {
            Err(Error::UnsupportedFormat { found: words, .. }) => assert_eq!(words, found),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn markup_in_a_comment_does_not_make_a_gif_a_page() {
    let dot = b"GIF89a\x01\0\x01\0\x80\0\0\x80\x80\x80\0\0\0!\xfe\x08<script>\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
    let recipe = Recipe {
        limits: Limits {
            min_edge_px: 1,
            ..recipe().limits
        },
        ..recipe()
    };
    let (_, outputs) = run(dot, &recipe, None).unwrap();
    for output in outputs {
        let (Output::Rendition(_, bytes) | Output::Master(_, bytes)) = output;
        assert!(!bytes.windows(6).any(|window| window == b"script"));
    }
}

#[test]
fn an_animation_beyond_its_limits_is_refused() {
    let mut gif = b"GIF89a\x40\0\x40\0\x80\0\0\x80\x80\x80\0\0\0".to_vec();
    for _ in 0..300 {
        gif.extend(b",\0\0\0\0\x40\0\x40\0\0\x02\x02D\x01\0");
    }
    assert!(matches!(
        probe(&gif, &recipe().limits),
        Err(Error::TooManyFrames {
            frames: 201,
            max_frames: 200
        })
    ));
    let mut gif = b"GIF89a\x00\x10\x00\x10\x80\0\0\x80\x80\x80\0\0\0".to_vec();
    for _ in 0..20 {
        gif.extend(b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0");
    }
    assert!(matches!(
        probe(&gif, &recipe().limits),
        Err(Error::TooManyPixels { .. })
    ));
}

fn png_chunk(name: [u8; 4], payload: &[u8]) -> Vec<u8> {
    // The sum is not checked before the header is.
    [
        &(payload.len() as u32).to_be_bytes()[..],
        &name,
        payload,
        &[0; 4],
    ]
    .concat()
}

fn riff_chunk(name: [u8; 4], payload: &[u8]) -> Vec<u8> {
    [&name[..], &(payload.len() as u32).to_le_bytes(), payload].concat()
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = chunks.concat();
    [
        b"RIFF",
        &(body.len() as u32 + 4).to_le_bytes()[..],
        b"WEBP",
        &body,
    ]
    .concat()
}

/// A file must not show one size to whoever checks it and another to whoever decodes it.
#[test]
fn a_second_header_that_says_otherwise_is_refused() {
    let header = |edge: u32| {
        let size = [edge.to_be_bytes(), edge.to_be_bytes()].concat();
        png_chunk(*b"IHDR", &[&size[..], &[8, 2, 0, 0, 1]].concat())
    };
    let signature = b"\x89PNG\r\n\x1a\n".to_vec();
    let data = png_chunk(*b"IDAT", b"");
    let lossless = |edge: u32| {
        let bits = (edge - 1) | (edge - 1) << 14;
        riff_chunk(*b"VP8L", &[&[0x2f][..], &bits.to_le_bytes(), &[0]].concat())
    };
    let extended = |edge: u32, flags: u8| {
        let [low, middle, high, _] = (edge - 1).to_le_bytes();
        riff_chunk(
            *b"VP8X",
            &[flags, 0, 0, 0, low, middle, high, low, middle, high],
        )
    };
    let frame = |edge: u32, data: &[u8]| {
        let [low, middle, high, _] = (edge - 1).to_le_bytes();
        let head = [
            0, 0, 0, 0, 0, 0, low, middle, high, low, middle, high, 100, 0, 0, 0,
        ];
        riff_chunk(*b"ANMF", &[&head[..], data].concat())
    };
    for bytes in [
        [signature.clone(), header(30_000), data.clone(), header(100)].concat(),
        [signature, data, header(100)].concat(),
        riff(&[lossless(16_000), extended(100, 0)]),
        riff(&[extended(100, 0), lossless(16_000)]),
        riff(&[extended(100, 0), extended(200, 0), lossless(200)]),
        riff(&[extended(100, 2), frame(100, &lossless(16_000))]),
    ] {
        let refused = probe(&bytes, &recipe().limits);
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
    // Behind the end nothing counts.
    let end = png_chunk(*b"IEND", b"");
    let behind = [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        header(100),
        end,
        header(30_000),
    ]
    .concat();
    assert_eq!(probe(&behind, &recipe().limits).unwrap().width, 100);
}
