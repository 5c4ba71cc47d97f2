//! HEIF whose tables claim more than the file contains, and HEIC of another kind than stated.

use std::borrow::Cow;
use std::time::Duration;

use super::super::tests::{recipe, run};
use super::super::*;
use super::avif::{av1_header, avif};
use super::{fixture, time};
use crate::SourceFormat;

pub(super) fn heif_box(name: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&(body.len() as u32 + 8).to_be_bytes()[..], &name, &body].concat()
}

/// A file of the brand AVIF with these boxes in `meta`, beside the two required ones.
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

/// `iloc` of items with these ids, each with the given number of empty extents.
fn iloc(ids: impl ExactSizeIterator<Item = u16>, extents: u16) -> Vec<u8> {
    let count = (ids.len() as u16).to_be_bytes();
    let entries: Vec<_> = ids
        .map(|id| [&id.to_be_bytes()[..], &[0; 2], &extents.to_be_bytes()].concat())
        .collect();
    heif_box(*b"iloc", &[&[0; 6], &count, &entries.concat()])
}

/// `iprp` that contains only associations, the given number for each item.
fn iprp(ids: impl ExactSizeIterator<Item = u16>, associations: u8) -> Vec<u8> {
    let count = (ids.len() as u32).to_be_bytes();
    let indices = vec![0; usize::from(associations)];
    let entries: Vec<_> = ids
        .map(|id| [&id.to_be_bytes()[..], &[associations], &indices].concat())
        .collect();
    let ipma = heif_box(*b"ipma", &[&[0; 4], &count, &entries.concat()]);
    heif_box(*b"iprp", &[&heif_box(*b"ipco", &[]), &ipma])
}

/// The memory and the time of reading such a file depend on the claims of its tables.
#[test]
fn tables_of_a_heif_container_are_counted_before_they_are_read() {
    let limits = &recipe().limits;
    let too_many = Err(Error::TooComplex {
        reason: Cow::Borrowed("its container has too many entries"),
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
        // 10 KB that would take 1.5 GB.
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
        // A repeated table counts twice.
        ("halves", vec![iloc(many(1), 3000), iloc(many(2), 3000)]),
    ] {
        let bytes = avif_of_boxes(&boxes);
        assert_eq!(probe(&bytes, limits), too_many, "{what}");
        let taken = time(|| drop(probe(&bytes, limits)));
        assert!(taken < Duration::from_millis(50), "{what}: {taken:?}");
    }
    // A thousand declarations of an item would have a thousand times its extents.
    let same = std::iter::repeat_n(1, 1000);
    let twice = avif_of_boxes(&[iinf(same), iloc(many(1), 4000)]);
    let reason = std::borrow::Cow::Borrowed("its container declares an item twice");
    let format = SourceFormat::Avif;
    assert_eq!(
        probe(&twice, limits),
        Err(Error::Corrupt { format, reason })
    );
    let whole = avif((300, 200), &av1_header(300, 200));
    let second = [whole, heif_box(*b"meta", &[&[0; 4]])].concat();
    let reason = std::borrow::Cow::Borrowed("its container has two indexes");
    assert_eq!(
        probe(&second, limits),
        Err(Error::Corrupt { format, reason })
    );
}

/// The largest allowed container is read quickly too.
#[test]
fn the_largest_tables_of_a_heif_container_are_read_quickly() {
    let ids = || (1..=1088).rev().collect::<Vec<u16>>().into_iter();
    let bytes = avif_of_boxes(&[iinf(ids()), iloc(ids(), 4), iprp(ids(), 4)]);
    let found = probe(&bytes, &recipe().limits);
    assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
    let taken = time(|| drop(probe(&bytes, &recipe().limits)));
    assert!(taken < Duration::from_millis(250), "{taken:?}");
}

/// The configuration determines the memory of decoding, and the stream must not need more.
#[test]
fn a_heic_stream_that_contradicts_its_configuration_is_refused() {
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
        let reason = std::borrow::Cow::Borrowed("it holds another picture than its header says");
        assert_eq!(refused, Err(Error::Corrupt { format, reason }));
    }
}
