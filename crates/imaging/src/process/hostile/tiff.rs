//! TIFF that contradicts itself, takes more work than a picture, or is of a kind that is not
//! supported.

use std::borrow::Cow;
use std::time::Duration;

use proptest::prelude::*;

use super::super::bitmaps::{BYTE, LONG, SHORT, STRIPS, TILES, Tag, pack_bits, tags, tiff};
use super::super::tests::{png_of, recipe, run};
use super::super::*;
use super::{jpeg, time};
use crate::SourceFormat;

const EDGE: u32 = 64;
const GRAY: usize = (EDGE * EDGE) as usize;

/// The tags of a grey picture of 8 bits, with other values of some tags.
fn gray(compression: u32, others: &[Tag]) -> Vec<Tag> {
    let mut tags = tags((EDGE, EDGE), 1, &[8], compression);
    tags.retain(|(number, ..)| others.iter().all(|(other, ..)| other != number));
    tags.extend(
        others
            .iter()
            .filter(|(.., values)| !values.is_empty())
            .cloned(),
    );
    tags
}

fn deflated(length: usize) -> Vec<u8> {
    fdeflate::compress_to_vec(&vec![100; length])
}

#[test]
fn a_kind_of_tiff_that_is_not_supported_is_named() {
    let floats = (339, SHORT, vec![3]);
    for (tags, named) in [
        (gray(4, &[]), "a TIFF in fax compression"),
        (gray(6, &[]), "a TIFF in old-style JPEG compression"),
        (gray(50_000, &[]), "a TIFF in an unusual compression"),
        (
            gray(1, &[(262, SHORT, vec![8])]),
            "a TIFF in CIE L*a*b* colours",
        ),
        (
            gray(1, &[(262, SHORT, vec![32_803])]),
            "a TIFF of unusual colours",
        ),
        (
            gray(1, &[(258, SHORT, vec![12])]),
            "a TIFF of an unusual bit depth",
        ),
        (
            gray(1, &[(277, SHORT, vec![9])]),
            "a TIFF of more than 8 channels",
        ),
        (
            gray(1, &[(258, SHORT, vec![32]), floats.clone()]),
            "a TIFF of an unusual bit depth",
        ),
        (
            gray(1, &[(258, SHORT, vec![16]), floats]),
            "a TIFF whose samples are signed or of floating point",
        ),
        (
            gray(1, &[(258, SHORT, vec![1]), (266, SHORT, vec![2])]),
            "a TIFF with its bits in reversed order",
        ),
        (
            gray(8, &[(317, SHORT, vec![3])]),
            "a TIFF with an unusual predictor",
        ),
        (
            gray(7, &[(258, SHORT, vec![16])]),
            "a TIFF in JPEG compression with unusual channels",
        ),
        (tags_of(6, 3), "a TIFF of luma and chroma without JPEG"),
        (
            [tags_of(5, 5), vec![(338, SHORT, vec![2])]].concat(),
            "a TIFF of four inks and transparency",
        ),
        (
            [tags_of(5, 4), vec![(332, SHORT, vec![2])]].concat(),
            "a TIFF of unusual colours",
        ),
    ] {
        match probe(
            &tiff(true, &tags, STRIPS, &[deflated(GRAY)]),
            &recipe().limits,
        ) {
            Err(Error::UnsupportedFormat { found, .. }) => assert_eq!(found, named),
            other => panic!("{named}: {other:?}"),
        }
    }
    let big = b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0";
    match probe(big, &recipe().limits) {
        Err(Error::UnsupportedFormat { found, .. }) => assert_eq!(found, "a BigTIFF picture"),
        other => panic!("{other:?}"),
    }
}

/// The tags of a picture of 8 bits that is not compressed.
fn tags_of(colors: u32, channels: usize) -> Vec<Tag> {
    tags((EDGE, EDGE), colors, &vec![8; channels], 1)
}

#[test]
fn an_invalid_directory_is_corrupt() {
    let strip = || vec![deflated(GRAY)];
    let whole = tiff(false, &gray(8, &[]), STRIPS, &strip());
    run(&whole, &recipe(), None).unwrap();
    let elsewhere = |place: [u8; 4]| [&whole[..4], &place, &whole[8..]].concat();
    let missing = "its directory misses parts of the picture";
    let damaged = "its directory is damaged";
    let palette = |length| [(262, SHORT, vec![3]), (320, SHORT, vec![0; length])];
    for (bytes, reason) in [
        (elsewhere([0xff; 4]), "it has no directory"),
        (
            whole[..whole.len() - 20].to_vec(),
            "its directory is cut off",
        ),
        (
            tiff(false, &gray(8, &[(256, SHORT, vec![])]), STRIPS, &strip()),
            "its header gives no size",
        ),
        (
            tiff(false, &gray(8, &[(257, SHORT, vec![0])]), STRIPS, &strip()),
            "its header gives no size",
        ),
        (
            tiff(false, &gray(8, &[(262, SHORT, vec![])]), STRIPS, &strip()),
            "its directory gives no colours",
        ),
        (
            tiff(false, &gray(8, &[(259, 2, vec![8])]), STRIPS, &strip()),
            damaged,
        ),
        (
            tiff(false, &gray(8, &[(278, SHORT, vec![0])]), STRIPS, &strip()),
            damaged,
        ),
        (
            tiff(false, &gray(8, &[(284, SHORT, vec![3])]), STRIPS, &strip()),
            damaged,
        ),
        (
            tiff(false, &gray(8, &[(317, SHORT, vec![9])]), STRIPS, &strip()),
            damaged,
        ),
        (
            tiff(false, &gray(8, &palette(767)), STRIPS, &strip()),
            damaged,
        ),
        (
            tiff(false, &gray(8, &[(278, SHORT, vec![32])]), STRIPS, &strip()),
            missing,
        ),
        (tiff(false, &gray(8, &[]), STRIPS, &[]), missing),
        (tiff(false, &gray(8, &[]), TILES, &strip()), damaged),
        (
            tiff(false, &gray(8, &[(262, SHORT, vec![2])]), STRIPS, &strip()),
            "it has fewer channels than its colours",
        ),
    ] {
        let expected = Error::Corrupt {
            format: SourceFormat::Tiff,
            reason: Cow::Borrowed(reason),
        };
        assert_eq!(probe(&bytes, &recipe().limits), Err(expected));
    }
}

#[test]
fn a_tiff_without_its_last_row_is_corrupt() {
    let short = GRAY - 1;
    let pixels = vec![100; short];
    let jpeg = jpeg::scans(60, 1);
    for (compression, strip) in [
        (1, pixels.clone()),
        (
            5,
            weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8)
                .encode(&pixels)
                .unwrap(),
        ),
        (7, jpeg),
        (8, deflated(short)),
        (8, b"no such thing".to_vec()),
        (32_773, pack_bits(&pixels)),
    ] {
        // What follows the strip must not be read in place of its last row.
        let mut bytes = tiff(false, &gray(compression, &[]), STRIPS, &[strip]);
        if compression == 1 {
            bytes = tiff(
                false,
                &gray(
                    1,
                    &[(257, SHORT, vec![EDGE * 5]), (278, SHORT, vec![EDGE * 5])],
                ),
                STRIPS,
                std::slice::from_ref(&pixels),
            );
        }
        let result = run(&bytes, &recipe(), None).map(|_| ());
        assert!(
            matches!(result, Err(Error::Corrupt { .. })),
            "{compression}: {result:?}"
        );
    }
}

/// Only the first directory is read, so a circle of directories has no effect.
#[test]
fn a_directory_that_follows_itself_is_read_once() {
    let mut bytes = tiff(false, &gray(8, &[]), STRIPS, &[deflated(GRAY)]);
    let first = bytes[4..8].to_vec();
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&first);
    assert_eq!(probe(&bytes, &recipe().limits).unwrap().frames, 1);
    let (processed, _) = run(&bytes, &recipe(), None).unwrap();
    assert!(!processed.source.animated);
}

#[test]
fn a_tiff_that_takes_more_work_than_a_picture_is_refused_at_once() {
    let many: Vec<Tag> = (0..60_000)
        .map(|number| (40_000 + number % 9, SHORT, vec![1]))
        .collect();
    let shared = |compression: u32| {
        // Strips of one row that share their data.
        let mut bytes = tiff(
            false,
            &gray(compression, &[(278, SHORT, vec![1])]),
            STRIPS,
            &vec![vec![7; 800]; EDGE as usize],
        );
        let offsets = bytes
            .windows(8)
            .position(|bytes| bytes == [8, 0, 0, 0, 0x28, 3, 0, 0])
            .unwrap();
        for index in 0..EDGE as usize {
            bytes[offsets + index * 4..][..4].copy_from_slice(&8_u32.to_le_bytes());
        }
        let lengths = offsets + EDGE as usize * 4;
        for index in 0..EDGE as usize {
            bytes[lengths + index * 4..][..4].copy_from_slice(&30_000_u32.to_le_bytes());
        }
        bytes
    };
    let tile = [(322, LONG, vec![1040]), (323, LONG, vec![16])];
    for (bytes, reason) in [
        (
            tiff(false, &gray(8, &many), STRIPS, &[deflated(GRAY)]),
            "its directory has too many entries",
        ),
        (shared(8), "its parts are longer than the file"),
        (
            tiff(false, &gray(8, &tile), TILES, &vec![deflated(16 * 1040); 4]),
            "its tiles are larger than it",
        ),
    ] {
        let expected = Error::TooComplex {
            reason: Cow::Borrowed(reason),
        };
        assert_eq!(probe(&bytes, &recipe().limits), Err(expected));
        let taken = time(|| drop(probe(&bytes, &recipe().limits)));
        assert!(taken < Duration::from_millis(20), "{reason}: {taken:?}");
    }
    // Strips that are not compressed cost nothing, whatever length they state.
    run(&shared(1), &recipe(), None).unwrap();
}

/// A strip is inflated only as far as the picture needs it.
#[test]
fn a_strip_that_inflates_to_more_than_the_picture_takes_no_extra_time() {
    let zeros = fdeflate::compress_to_vec(&vec![0; 64 << 20]);
    assert!(zeros.len() < 1 << 20);
    let bomb = tiff(false, &gray(8, &[]), STRIPS, &[zeros]);
    let honest = tiff(false, &gray(8, &[]), STRIPS, &[deflated(GRAY)]);
    let taken = |bytes: &[u8]| time(|| drop(run(bytes, &recipe(), None).unwrap()));
    let (bomb, honest) = (taken(&bomb), taken(&honest));
    assert!(
        bomb < honest * 3 + Duration::from_millis(10),
        "{bomb:?} {honest:?}"
    );
}

/// The JPEG of a strip may not be another picture than the strip.
#[test]
fn a_strip_whose_jpeg_states_another_size_is_not_decoded() {
    let of = |jpeg: Vec<u8>| tiff(false, &gray(7, &[]), STRIPS, &[jpeg]);
    run(&of(jpeg::scans(EDGE as u16, 1)), &recipe(), None).unwrap();
    let large = of(jpeg::scans(16_000, 1));
    let corrupt = Error::Corrupt {
        format: SourceFormat::Tiff,
        reason: Cow::Borrowed("its headers contradict each other"),
    };
    assert_eq!(run(&large, &recipe(), None).map(|_| ()), Err(corrupt));
    let scans = of(jpeg::scans(EDGE as u16, 300));
    let complex = Error::TooComplex {
        reason: Cow::Borrowed("it has more than 100 scans"),
    };
    assert_eq!(run(&scans, &recipe(), None).map(|_| ()), Err(complex));
    let notes = [
        &b"\xff\xd8"[..],
        &b"\xff\xe1\0\x02".repeat(5000),
        &jpeg::scans(EDGE as u16, 1)[2..],
    ];
    let complex = Error::TooComplex {
        reason: Cow::Borrowed("a part of it has too many notes"),
    };
    assert_eq!(
        run(&of(notes.concat()), &recipe(), None).map(|_| ()),
        Err(complex)
    );
}

/// A wrong length of the last strip is common. A wrong place is a fault.
#[test]
fn the_last_strip_may_state_too_great_a_length() {
    let mut bytes = tiff(false, &gray(8, &[]), STRIPS, &[deflated(GRAY)]);
    let at = bytes
        .windows(8)
        .position(|bytes| bytes == [23, 1, 4, 0, 1, 0, 0, 0])
        .unwrap();
    bytes[at + 8..at + 12].copy_from_slice(&100_000_u32.to_le_bytes());
    run(&bytes, &recipe(), None).unwrap();
    let at = bytes
        .windows(8)
        .position(|bytes| bytes == [17, 1, 4, 0, 1, 0, 0, 0])
        .unwrap();
    bytes[at + 8..at + 12].copy_from_slice(&100_000_u32.to_le_bytes());
    let result = run(&bytes, &recipe(), None).map(|_| ());
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
}

/// Some programs write palettes of 8 bits where 16 are meant.
#[test]
fn a_palette_of_eight_bits_is_not_black() {
    let colors = (0..768)
        .map(|index| if index < 256 { 200 } else { 40 })
        .collect();
    let tags = gray(1, &[(262, SHORT, vec![3]), (320, SHORT, colors)]);
    let (_, outputs) = run(
        &tiff(false, &tags, STRIPS, &[vec![5; GRAY]]),
        &recipe(),
        None,
    )
    .unwrap();
    assert_eq!(png_of(&outputs, 64).pixels[..3], [200, 40, 40]);
}

/// Other programs take a fourth sample without a meaning for alpha, too.
#[test]
fn a_fourth_sample_without_a_meaning_is_alpha() {
    let bytes = tiff(
        false,
        &tags_of(2, 4),
        STRIPS,
        &[[200, 40, 40, 99].repeat(GRAY)],
    );
    let (_, outputs) = run(&bytes, &recipe(), None).unwrap();
    let found = png_of(&outputs, 64).pixels;
    let near = (found.iter().zip([200, 40, 40, 99])).all(|(a, b)| a.abs_diff(b) <= 2);
    assert!(near, "{:?}", &found[..4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_damaged_tiff_is_refused_or_processed_within_bounds(
        compression in prop::sample::select(vec![1, 5, 7, 8, 32_773]),
        big_endian: bool,
        tiled: bool,
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        in_directory: bool,
    ) {
        let pixels = vec![100; GRAY];
        let block = match compression {
            5 => weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8)
                .encode(&pixels)
                .unwrap(),
            7 => jpeg::scans(EDGE as u16, 2),
            8 => deflated(GRAY),
            32_773 => pack_bits(&pixels),
            _ => pixels,
        };
        let mut tags = gray(compression, &[(317, SHORT, vec![2]), (347, BYTE, vec![0xff, 0xd8, 0xff, 0xd9])]);
        if tiled {
            tags.push((322, SHORT, vec![EDGE]));
            tags.push((323, SHORT, vec![EDGE]));
        }
        let mut bytes = tiff(big_endian, &tags, if tiled { TILES } else { STRIPS }, &[block]);
        let start = if in_directory { bytes.len() - 160 } else { 0 };
        for (place, value) in damages {
            *place.get_mut(&mut bytes[start..]) = value;
        }
        super::assert_bounded(&bytes);
    }
}
