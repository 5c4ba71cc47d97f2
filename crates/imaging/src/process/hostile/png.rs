//! PNG that contradicts itself.

use super::super::tests::recipe;
use super::super::*;

pub(super) fn png_chunk(name: [u8; 4], payload: &[u8]) -> Vec<u8> {
    // The checksum is checked after the header.
    [
        &(payload.len() as u32).to_be_bytes()[..],
        &name,
        payload,
        &[0; 4],
    ]
    .concat()
}

/// The check of a file and its decoder must see the same size.
#[test]
fn a_second_header_that_contradicts_the_first_is_refused() {
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
    // Data behind the end is ignored.
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

/// The stated sizes are multiplied before the file is refused.
#[test]
fn the_largest_size_that_a_header_can_state_is_refused() {
    let edge = u32::MAX.to_be_bytes();
    let size = [edge, edge].concat();
    // Interlaced with 16 bits, which takes the most memory.
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
