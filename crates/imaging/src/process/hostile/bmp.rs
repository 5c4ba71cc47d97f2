//! BMP that contradicts itself, or is of a kind that is not supported.

use std::borrow::Cow;

use proptest::prelude::*;

use super::super::bitmaps::{bmp, bmp_header};
use super::super::tests::{png_of, recipe, run};
use super::super::*;
use crate::SourceFormat;

const SIZE: (i32, i32) = (64, 64);

/// A grey picture of 24 bits.
fn plain() -> Vec<u8> {
    bmp(&bmp_header(40, SIZE, 24, 0), &[], &[128; 64 * 64 * 3])
}

#[test]
fn a_kind_of_bmp_that_is_not_supported_is_named() {
    for (header, named) in [
        (bmp_header(64, SIZE, 24, 0), "a BMP of OS/2 2.x"),
        (bmp_header(40, SIZE, 0, 4), "a BMP that contains a JPEG"),
        (bmp_header(40, SIZE, 0, 5), "a BMP that contains a PNG"),
        (bmp_header(40, SIZE, 32, 6), "a BMP of Windows CE"),
        (bmp_header(40, SIZE, 32, 11), "a BMP of four inks"),
    ] {
        match probe(&bmp(&header, &[], &[0; 99]), &recipe().limits) {
            Err(Error::UnsupportedFormat { found, .. }) => assert_eq!(found, named),
            other => panic!("{named}: {other:?}"),
        }
    }
}

#[test]
fn a_bmp_with_an_invalid_header_is_corrupt() {
    let with = |at: usize, bytes: &[u8]| {
        let mut bmp = plain();
        bmp[at..at + bytes.len()].copy_from_slice(bytes);
        bmp
    };
    for (damaged, reason) in [
        (plain()[..30].to_vec(), "its header is cut off"),
        (
            with(18, &(-64_i32).to_le_bytes()),
            "its header gives no size",
        ),
        (with(22, &[0; 4]), "its header gives no size"),
        (with(28, &[7]), "its bit depth does not exist"),
        (with(30, &[1]), "its bit depth does not exist"),
        (with(30, &[9]), "its compression does not exist"),
        (with(10, &[20]), "its header gives no place of its data"),
        (
            with(10, &[0xff; 4]),
            "its header gives no place of its data",
        ),
        (
            bmp(&bmp_header(40, (64, -64), 8, 1), &[0; 1024], &[0, 1]),
            "its rows begin at the top, which a compressed BMP does not allow",
        ),
    ] {
        let expected = Error::Corrupt {
            format: SourceFormat::Bmp,
            reason: Cow::Borrowed(reason),
        };
        assert_eq!(probe(&damaged, &recipe().limits), Err(expected));
    }
}

#[test]
fn a_bmp_without_its_last_row_is_corrupt() {
    let whole = plain();
    run(&whole, &recipe(), None).unwrap();
    let runs = |end: &[u8]| {
        let row = [&[64, 7][..], &[0, 0]].concat();
        let rows = [row.repeat(63), end.to_vec()].concat();
        bmp(&bmp_header(40, SIZE, 8, 1), &[9; 1024], &rows)
    };
    run(&runs(&[64, 7, 0, 1]), &recipe(), None).unwrap();
    for cut in [&whole[..whole.len() - 1], &runs(&[64]), &runs(&[0, 20, 1])] {
        let expected = Error::Corrupt {
            format: SourceFormat::Bmp,
            reason: Cow::Borrowed("it ends before its last row"),
        };
        assert_eq!(run(cut, &recipe(), None).map(|_| ()), Err(expected));
    }
}

/// A run that leaves its row, and one that skips behind the last row.
#[test]
fn runs_beyond_the_edges_of_a_bmp_are_refused_or_cut() {
    for rows in [&[0, 2, 255, 255][..], &[0, 2, 255, 0, 9, 9], &[0, 65, 0, 0]] {
        let rows = [rows, &[0; 80]].concat();
        let bytes = bmp(&bmp_header(40, SIZE, 8, 1), &[9; 1024], &rows);
        let result = run(&bytes, &recipe(), None).map(|_| ());
        assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    }
}

fn with_alpha(alpha: u8) -> Vec<u8> {
    let mut header = bmp_header(108, SIZE, 32, 3);
    for (index, mask) in [0xff_0000, 0xff00, 0xff, 0xff00_0000_u32]
        .iter()
        .enumerate()
    {
        header[40 + index * 4..][..4].copy_from_slice(&mask.to_le_bytes());
    }
    bmp(&header, &[], &[10, 20, 200, alpha].repeat(64 * 64))
}

#[test]
fn a_bmp_without_any_visible_pixel_is_made_opaque() {
    let shown = |alpha| png_of(&run(&with_alpha(alpha), &recipe(), None).unwrap().1, 64).pixels;
    assert_eq!(shown(0)[..3], [200, 20, 10]);
    assert_eq!(shown(0).len(), 64 * 64 * 3);
    let found = shown(90);
    let near = (found.iter().zip([200, 20, 10, 90])).all(|(a, b)| a.abs_diff(b) <= 2);
    assert!(near, "{:?}", &found[..4]);
}

#[test]
fn the_profile_of_a_bmp_is_applied() {
    let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let mut header = bmp_header(124, SIZE, 24, 0);
    header[56..60].copy_from_slice(b"DEBM");
    let rows = [60, 60, 200].repeat(64 * 64);
    header[112..116].copy_from_slice(&(124 + rows.len() as u32).to_le_bytes());
    header[116..120].copy_from_slice(&(profile.len() as u32).to_le_bytes());
    let bytes = bmp(&header, &[], &[rows, profile].concat());
    let shown = png_of(&run(&bytes, &recipe(), None).unwrap().1, 64).pixels;
    // As the profile of a PNG: computed from the published matrices of Display P3 and sRGB.
    for (found, expected) in shown[..3].iter().zip([217_u8, 42, 52]) {
        assert!(found.abs_diff(expected) <= 2, "{:?}", &shown[..3]);
    }
    // A profile that is not there is no fault.
    let bytes = &bytes[..bytes.len() - 1];
    let shown = png_of(&run(bytes, &recipe(), None).unwrap().1, 64).pixels;
    assert_eq!(shown[..3], [200, 60, 60]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_damaged_bmp_is_refused_or_processed_within_bounds(
        kind in 0..5_usize,
        damages in prop::collection::vec((0..140_usize, any::<u8>()), 1..4),
        cut in 30..5000_usize,
    ) {
        let rows = [7; 4096];
        let mut bytes = [
            plain(),
            with_alpha(77),
            bmp(&bmp_header(40, SIZE, 8, 1), &[9; 1024], &rows),
            bmp(&bmp_header(40, SIZE, 4, 2), &[9; 64], &rows),
            bmp(&bmp_header(40, SIZE, 16, 3), &[0, 0xf8, 0, 0, 0xe0, 7, 0, 0, 0x1f, 0, 0, 0], &[5; 8192]),
        ][kind].clone();
        for (place, value) in damages {
            bytes[place] = value;
        }
        if cut < bytes.len() {
            bytes.truncate(cut);
        }
        super::assert_bounded(&bytes);
    }
}
