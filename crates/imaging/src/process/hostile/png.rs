//! PNG that says two things.

use super::super::tests::recipe;
use super::super::*;

pub(super) fn png_chunk(name: [u8; 4], payload: &[u8]) -> Vec<u8> {
    // The sum is not checked before the header is.
    [
        &(payload.len() as u32).to_be_bytes()[..],
        &name,
        payload,
        &[0; 4],
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
    let first = [signature.clone(), header(30_000), data.clone(), header(100)].concat();
    let refused = probe(&first, &recipe().limits);
    assert!(
        matches!(
            refused,
            Err(Error::DimensionsTooLarge { width: 30_000, .. })
        ),
        "{refused:?}"
    );
    for bytes in [
        [signature.clone(), header(100), data.clone(), header(30_000)].concat(),
        [signature, data, header(100)].concat(),
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

/// What it says is multiplied before it is refused.
#[test]
fn the_largest_size_that_can_be_said_is_refused() {
    let edge = u32::MAX.to_be_bytes();
    let size = [edge, edge].concat();
    // Interlaced and of 16 bits, which takes most.
    let header = png_chunk(*b"IHDR", &[&size[..], &[16, 6, 0, 0, 1]].concat());
    let exif = png_chunk(*b"eXIf", b"II*\0\x08\0\0\0\0\0");
    let data = png_chunk(*b"IDAT", b"");
    let bytes = [&b"\x89PNG\r\n\x1a\n"[..], &header, &exif, &data].concat();
    let refused = probe(&bytes, &recipe().limits);
    assert!(
        matches!(refused, Err(Error::DimensionsTooLarge { .. })),
        "{refused:?}"
    );
}
