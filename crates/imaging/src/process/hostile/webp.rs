//! WebP that contradicts itself.

use super::super::tests::recipe;
use super::super::*;

pub(super) fn riff_chunk(name: [u8; 4], payload: &[u8]) -> Vec<u8> {
    [&name[..], &(payload.len() as u32).to_le_bytes(), payload].concat()
}

pub(super) fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    let body = chunks.concat();
    [
        b"RIFF",
        &(body.len() as u32 + 4).to_le_bytes()[..],
        b"WEBP",
        &body,
    ]
    .concat()
}

/// The check of a file and its decoder must see the same size.
#[test]
fn a_second_header_that_contradicts_the_first_is_refused() {
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
    let first = riff(&[lossless(16_000), extended(100, 0)]);
    let refused = probe(&first, &recipe().limits);
    assert!(
        matches!(
            refused,
            Err(Error::DimensionsTooLarge { width: 16_000, .. })
        ),
        "{refused:?}"
    );
    for bytes in [
        riff(&[lossless(100), extended(16_000, 0)]),
        riff(&[extended(100, 0), lossless(16_000)]),
        riff(&[extended(100, 0), extended(200, 0), lossless(200)]),
        riff(&[extended(100, 2), frame(100, &lossless(16_000))]),
    ] {
        let refused = probe(&bytes, &recipe().limits);
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
}
