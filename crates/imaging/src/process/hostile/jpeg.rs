//! JPEG that takes more work than a picture needs.

use std::borrow::Cow;
use std::time::Duration;

use super::super::tests::{recipe, run};
use super::super::*;
use super::time;

pub(super) fn segment(marker: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16 + 2).to_be_bytes();
    [&[0xff, marker][..], &length, payload].concat()
}

/// A valid progressive JPEG with many empty scans.
pub(super) fn scans(edge: u16, count: usize) -> Vec<u8> {
    let [high, low] = edge.to_be_bytes();
    let mut bytes = b"\xff\xd8".to_vec();
    bytes.extend(segment(0xdb, &[&[0][..], &[1; 64]].concat()));
    bytes.extend(segment(0xc2, &[8, high, low, high, low, 1, 1, 0x11, 0]));
    // One code in each table: no difference, and no more coefficients for at least 16384 blocks.
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
fn thousands_of_scans_are_refused_at_once() {
    let bytes = scans(4096, 5000);
    assert_eq!(
        probe(&bytes, &recipe().limits),
        Err(Error::TooComplex {
            reason: Cow::Borrowed("it has more than 100 scans")
        })
    );
    let taken = time(|| drop(probe(&bytes, &recipe().limits)));
    assert!(taken < Duration::from_millis(100), "{taken:?}");
}

/// The decoder does not check the deadline while it runs.
#[test]
fn the_maximum_number_of_scans_is_processed_quickly() {
    let bytes = scans(4096, 100);
    run(&bytes, &recipe(), None).unwrap();
    let taken = time(|| drop(run(&bytes, &recipe(), None)));
    assert!(taken < Duration::from_secs(2), "{taken:?}");
}

#[test]
fn a_jpeg_that_takes_more_work_than_pictures_need_is_refused() {
    let limits = Limits {
        max_edge_px: 16_384,
        ..recipe().limits
    };
    let refused = |bytes: &[u8]| probe(bytes, &limits).unwrap_err();
    assert_eq!(
        refused(&scans(16_384, 30)),
        Error::TooComplex {
            reason: Cow::Borrowed("it has too many scans for its size")
        }
    );
    probe(&scans(16_384, 18), &limits).unwrap();
    // One channel twice; each scan is the whole picture.
    let mut bytes = scans(64, 2);
    let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc2]);
    bytes[frame.unwrap() + 1] = 0xc0;
    assert_eq!(
        refused(&bytes),
        Error::TooComplex {
            reason: Cow::Borrowed("it has more scans than channels")
        }
    );
}

#[test]
fn unsupported_kinds_of_jpeg_are_refused_with_their_names() {
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
