//! Pictures made to do harm.

use std::time::{Duration, Instant};

use super::tests::{recipe, run};
use super::*;
use crate::avatar::SourceFormat;
use crate::imaging::av1::Sequence;

/// The least that `work` takes of three times: of this thread's own time, where the kernel counts
/// it, for other programs take theirs.
fn time(work: impl Fn()) -> Duration {
    (0..3)
        .map(|_| {
            let (start, before) = (Instant::now(), ran());
            work();
            match (before, ran()) {
                (Some(before), Some(after)) => after.saturating_sub(before),
                _ => start.elapsed(),
            }
        })
        .min()
        .unwrap()
}

/// How long this thread has run, on Linux.
fn ran() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ran = stat.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(ran))
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

/// A decoder is not asked for its deadline on its way.
#[test]
fn as_many_scans_as_may_be_are_taken_and_do_not_last() {
    let bytes = scans(4096, 100);
    run(&bytes, &recipe(), None).unwrap();
    let taken = time(|| drop(run(&bytes, &recipe(), None)));
    assert!(taken < Duration::from_secs(2), "{taken:?}");
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

fn heif_box(name: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32 + 8).to_be_bytes()[..], &name, &body].concat()
}

/// A file of the brand AVIF with these boxes in `meta` beside the two that every one has.
fn avif_of_boxes(boxes: &[Vec<u8>]) -> Vec<u8> {
    let hdlr = heif_box(
        *b"hdlr",
        &[b"\0\0\0\0\0\0\0\0pict\0\0\0\0\0\0\0\0\0\0\0\0\0"],
    );
    let pitm = heif_box(*b"pitm", &[b"\0\0\0\0\0\x01"]);
    let ftyp = heif_box(*b"ftyp", &[b"avif\0\0\0\0avifmif1"]);
    let meta = heif_box(*b"meta", &[&[0; 4], &hdlr, &pitm, &boxes.concat()]);
    [ftyp, meta].concat()
}

/// `iinf` of items with these ids, all of them pictures.
fn iinf(ids: impl ExactSizeIterator<Item = u16>) -> Vec<u8> {
    let count = (ids.len() as u16).to_be_bytes();
    let entries: Vec<_> = ids
        .map(|id| heif_box(*b"infe", &[&[2, 0, 0, 0], &id.to_be_bytes(), b"\0\0av01\0"]))
        .collect();
    heif_box(*b"iinf", &[&[0; 4], &count, &entries.concat()])
}

/// `iloc` of items with these ids, each in as many extents of no bytes.
fn iloc(ids: impl ExactSizeIterator<Item = u16>, extents: u16) -> Vec<u8> {
    let count = (ids.len() as u16).to_be_bytes();
    let entries: Vec<_> = ids
        .map(|id| [&id.to_be_bytes()[..], &[0; 2], &extents.to_be_bytes()].concat())
        .collect();
    heif_box(*b"iloc", &[&[0; 6], &count, &entries.concat()])
}

/// `iprp` with nothing in it but items that have so many properties each.
fn iprp(ids: impl ExactSizeIterator<Item = u16>, associations: u8) -> Vec<u8> {
    let count = (ids.len() as u32).to_be_bytes();
    let indices = vec![0; usize::from(associations)];
    let entries: Vec<_> = ids
        .map(|id| [&id.to_be_bytes()[..], &[associations], &indices].concat())
        .collect();
    let ipma = heif_box(*b"ipma", &[&[0; 4], &count, &entries.concat()]);
    heif_box(*b"iprp", &[&heif_box(*b"ipco", &[]), &ipma])
}

/// What reading it would keep, or how long joining it would take, goes by what its tables claim.
#[test]
fn tables_of_a_heif_container_are_counted_before_they_are_read() {
    let limits = &recipe().limits;
    let too_many = Err(Error::TooComplex {
        reason: "its container has too many entries",
    });
    let many = |count: u16| (1..=count).collect::<Vec<_>>().into_iter();
    let property = |name: [u8; 4], count| vec![heif_box(name, &[]); count].concat();
    let references = {
        let to = vec![0; 40_000 * 2];
        let dimg = heif_box(
            *b"dimg",
            &[&1_u16.to_be_bytes(), &40_000_u16.to_be_bytes(), &to],
        );
        heif_box(*b"iref", &[&[0; 4], &dimg])
    };
    let parameter_sets = {
        // One array of units that have no bytes.
        let units = vec![0; 60_000 * 2];
        let head = [&[1][..], &[0; 21], &[1, 0x21], &60_000_u16.to_be_bytes()].concat();
        heif_box(*b"hvcC", &[&head, &units])
    };
    let within = |name: [u8; 4], inside: Vec<u8>| heif_box(name, &[&inside]);
    for (what, boxes) in [
        // 10 KB that would become 1.5 GB.
        ("extents", vec![iinf(many(1)), iloc(many(1000), u16::MAX)]),
        ("extents of one", vec![iinf(many(1)), iloc(many(1), 5000)]),
        // 1.6 MB that would take seconds.
        (
            "items",
            vec![
                iinf(many(40_000)),
                iloc(many(40_000), 0),
                iprp(many(40_000), 0),
            ],
        ),
        ("locations", vec![iinf(many(1)), iloc(many(2000), 0)]),
        ("associated", vec![iinf(many(1)), iprp(many(2000), 0)]),
        ("associations", vec![iinf(many(1)), iprp(many(500), 255)]),
        ("references", vec![iinf(many(1)), references]),
        (
            "properties",
            vec![within(*b"iprp", within(*b"ipco", property(*b"free", 3000)))],
        ),
        (
            "parameter sets",
            vec![within(*b"iprp", within(*b"ipco", parameter_sets))],
        ),
        // A table twice counts twice.
        ("halves", vec![iloc(many(1), 3000), iloc(many(2), 3000)]),
    ] {
        let bytes = avif_of_boxes(&boxes);
        assert_eq!(probe(&bytes, limits), too_many, "{what}");
        let taken = time(|| drop(probe(&bytes, limits)));
        assert!(taken < Duration::from_millis(50), "{what}: {taken:?}");
    }
    // A thousand times the same item would have a thousand times its extents.
    let same = std::iter::repeat_n(1, 1000);
    let twice = avif_of_boxes(&[iinf(same), iloc(many(1), 4000)]);
    let reason = "its container declares an item twice";
    let format = SourceFormat::Avif;
    assert_eq!(
        probe(&twice, limits),
        Err(Error::Corrupt { format, reason })
    );
    let whole = avif((300, 200), &av1_header(300, 200));
    let second = [whole, heif_box(*b"meta", &[&[0; 4]])].concat();
    let reason = "its container has two indexes";
    assert_eq!(
        probe(&second, limits),
        Err(Error::Corrupt { format, reason })
    );
}

/// The most that a container may hold does not last either.
#[test]
fn the_largest_tables_of_a_heif_container_are_read_at_once() {
    let ids = || (1..=1088).rev().collect::<Vec<u16>>().into_iter();
    let bytes = avif_of_boxes(&[iinf(ids()), iloc(ids(), 4), iprp(ids(), 4)]);
    let found = probe(&bytes, &recipe().limits);
    assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
    let taken = time(|| drop(probe(&bytes, &recipe().limits)));
    assert!(taken < Duration::from_millis(250), "{taken:?}");
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/");
    std::fs::read(folder.to_owned() + name).unwrap()
}

/// What decoding takes is known from the first tile.
#[test]
fn tiles_of_different_kinds_are_refused_before_they_are_decoded() {
    let mut bytes = fixture("tiles.avif");
    let file = heifer_isobmff::HeifFile::parse(&bytes).unwrap();
    let tiles = file.referenced_items(file.primary_id, b"dimg");
    let last = file.item(tiles[tiles.len() - 1]).unwrap();
    let extent = last.location.as_ref().unwrap().extents[0];
    let (start, length) = (extent.offset as usize, extent.length as usize);
    // The bit of its header that says that it has 10 bits in place of 8.
    let before = Sequence::read(&bytes[start..start + length]).unwrap();
    let deep = Sequence {
        bit_depth: 10,
        ..before
    };
    let found = (0..40 * 8).find(|bit| {
        let mut stream = bytes[start..start + length].to_vec();
        stream[bit / 8] ^= 0x80 >> (bit % 8);
        Sequence::read(&stream) == Some(deep)
    });
    let bit = found.unwrap();
    bytes[start + bit / 8] ^= 0x80 >> (bit % 8);
    assert!(probe(&bytes, &recipe().limits).is_ok());
    let refused = run(&bytes, &recipe(), None).map(|_| ());
    let format = SourceFormat::Avif;
    let reason = "its tiles are not of one kind";
    assert_eq!(refused, Err(Error::Corrupt { format, reason }));
}

/// What decoding takes is known from the configuration, and the stream must not take more.
#[test]
fn a_heic_stream_that_is_not_what_its_configuration_says_is_refused() {
    let whole = fixture("plain.heic");
    let at = memchr::memmem::find(&whole, b"hvcC").unwrap() + 4;
    // chroma_format_idc and the two depths.
    for (field, value) in [(16, 0xfc), (16, 0xff), (17, 0xfa), (18, 0xfa)] {
        let mut bytes = whole.clone();
        assert_ne!(bytes[at + field], value);
        bytes[at + field] = value;
        assert!(probe(&bytes, &recipe().limits).is_ok());
        let refused = run(&bytes, &recipe(), None).map(|_| ());
        let format = SourceFormat::Heic;
        let reason = "it holds another picture than its header says";
        assert_eq!(refused, Err(Error::Corrupt { format, reason }));
    }
}

/// An AVIF file of one picture, which is said to have this size, and a stream that says what it
/// says.
fn avif((width, height): (u32, u32), stream: &[u8]) -> Vec<u8> {
    let ftyp = heif_box(*b"ftyp", &[b"avif\0\0\0\0avifmif1"]);
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let meta = |offset: usize| {
        let length = (stream.len() as u32).to_be_bytes();
        let infe = heif_box(*b"infe", &[b"\x02\0\0\0\0\x01\0\0av01\0"]);
        let ispe = heif_box(*b"ispe", &[&[0; 4], &size]);
        let iprp = [
            heif_box(*b"ipco", &[&ispe]),
            heif_box(*b"ipma", &[b"\0\0\0\0\0\0\0\x01\0\x01\x01\x81"]),
        ];
        heif_box(
            *b"meta",
            &[
                &[0; 4],
                &heif_box(
                    *b"hdlr",
                    &[b"\0\0\0\0\0\0\0\0pict\0\0\0\0\0\0\0\0\0\0\0\0\0"],
                ),
                &heif_box(*b"pitm", &[b"\0\0\0\0\0\x01"]),
                &heif_box(*b"iinf", &[b"\0\0\0\0\0\x01", &infe]),
                &heif_box(
                    *b"iloc",
                    &[
                        b"\0\0\0\0\x44\0\0\x01\0\x01\0\0\0\x01",
                        &(offset as u32).to_be_bytes(),
                        &length,
                    ],
                ),
                &heif_box(*b"iprp", &[&iprp.concat()]),
            ],
        )
    };
    let offset = ftyp.len() + meta(0).len() + 8;
    [ftyp, meta(offset), heif_box(*b"mdat", &[stream])].concat()
}

/// The sequence header of a still picture, 8 bits and 4:2:0, of at most these sides.
fn av1_header(width: u32, height: u32) -> Vec<u8> {
    // Profile 0, a still picture with the short header, level 2.0; sides of 16 bits each; no tools,
    // no colours described, full range.
    let fields = [
        (0b0_0011, 5),
        (0, 5),
        (15, 4),
        (15, 4),
        (width - 1, 16),
        (height - 1, 16),
        (0, 6),
        (0b0001, 4),
        (0, 3),
        (1, 1),
    ];
    let mut bytes = vec![0_u8; 8];
    let mut at = 0;
    for (value, count) in fields {
        for bit in (0..count).rev() {
            bytes[at / 8] |= ((value >> bit & 1) as u8) << (7 - at % 8);
            at += 1;
        }
    }
    [&[0x0a, bytes.len() as u8][..], &bytes].concat()
}

#[test]
fn an_avif_is_refused_by_what_both_its_headers_say_and_before_it_is_decoded() {
    let limits = &recipe().limits;
    let huge = avif((16000, 16000), &av1_header(16000, 16000));
    assert!(huge.len() < 300);
    let refused = probe(&huge, limits);
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
    let taken = time(|| drop(probe(&huge, limits)));
    assert!(taken < Duration::from_millis(5), "{taken:?}");

    let good = probe(&avif((300, 200), &av1_header(300, 200)), limits).unwrap();
    assert_eq!((good.width, good.height), (300, 200));
    // An encoder that rounds up to blocks says no more than that.
    assert!(probe(&avif((300, 200), &av1_header(320, 256)), limits).is_ok());
    for (width, height) in [(16000, 200), (300, 264), (299, 200), (300, 100)] {
        let refused = probe(&avif((300, 200), &av1_header(width, height)), limits);
        let reason = "its headers give two sizes";
        let format = SourceFormat::Avif;
        assert_eq!(
            refused,
            Err(Error::Corrupt { format, reason }),
            "{width} × {height}"
        );
    }
}

#[test]
fn an_avif_without_a_picture_behind_its_header_is_refused() {
    for stream in [&[][..], &av1_header(300, 200)] {
        let result = run(&avif((300, 200), stream), &recipe(), None);
        assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    }
}

#[test]
fn heif_that_is_not_what_it_is_called_is_refused_by_name() {
    let found = |mut bytes: Vec<u8>, brand: &[u8; 4]| {
        for name in [b"avif", b"avis"] {
            while let Some(at) = bytes[..40].windows(4).position(|window| window == name) {
                bytes[at..at + 4].copy_from_slice(brand);
            }
        }
        match probe(&bytes, &recipe().limits) {
            Err(Error::UnsupportedFormat { found, .. }) => found,
            other => panic!("{other:?}"),
        }
    };
    let picture = avif((300, 200), &av1_header(300, 200));
    assert_eq!(
        found(picture, b"heic"),
        "an AVIF picture by the name of HEIC"
    );
    let film = heif_box(*b"ftyp", &[b"avis\0\0\0\0msf1"]);
    let film = [film, heif_box(*b"moov", &[])].concat();
    match probe(&film, &recipe().limits) {
        Err(Error::UnsupportedFormat { found, .. }) => {
            assert_eq!(found, "a sequence without a still picture");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_largest_avif_of_all_fits_the_default_memory() {
    let bytes = |edge: u32| {
        let file = avif((edge, edge), &av1_header(edge, edge));
        probe_for(&file, &recipe(), None).unwrap().memory_bytes
    };
    assert!(bytes(200) < 64 << 20, "{}", bytes(200));
    assert!(bytes(4096) < 256 << 20, "{}", bytes(4096));
}
