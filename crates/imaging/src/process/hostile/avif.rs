//! AVIF whose headers contradict the stream.

use super::super::tests::{recipe, run};
use super::super::*;
use super::heif::heif_box;
use super::{assert_refused_for_16000_px, fixture};
use crate::SourceFormat;
use crate::av1::Sequence;

/// An AVIF file with one picture of this stated size, and this stream.
pub(super) fn avif((width, height): (u32, u32), stream: &[u8]) -> Vec<u8> {
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
pub(super) fn av1_header(width: u32, height: u32) -> Vec<u8> {
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
fn an_avif_whose_headers_contradict_each_other_is_refused_before_it_is_decoded() {
    let limits = &recipe().limits;
    let huge = avif((16000, 16000), &av1_header(16000, 16000));
    assert!(huge.len() < 300);
    assert_refused_for_16000_px(&huge);

    let good = probe(&avif((300, 200), &av1_header(300, 200)), limits).unwrap();
    assert_eq!((good.width, good.height), (300, 200));
    // An encoder that rounds up to blocks states no more than that.
    assert!(probe(&avif((300, 200), &av1_header(320, 256)), limits).is_ok());
    for (width, height) in [(16000, 200), (300, 264), (299, 200), (300, 100)] {
        let refused = probe(&avif((300, 200), &av1_header(width, height)), limits);
        let reason = std::borrow::Cow::Borrowed("its headers give two sizes");
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
fn heif_of_another_codec_than_its_brand_is_refused_with_its_name() {
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
fn the_largest_avif_fits_the_default_memory_budget() {
    let bytes = |edge: u32| {
        let file = avif((edge, edge), &av1_header(edge, edge));
        probe_for(&file, &recipe(), None).unwrap().memory_bytes
    };
    assert!(bytes(200) < 64 << 20, "{}", bytes(200));
    assert!(bytes(4096) < 256 << 20, "{}", bytes(4096));
}

/// The first tile determines the memory of decoding.
#[test]
fn tiles_of_different_kinds_are_refused_before_they_are_decoded() {
    let mut bytes = fixture("tiles.avif");
    let file = heifer_isobmff::HeifFile::parse(&bytes).unwrap();
    let tiles = file.referenced_items(file.primary_id, b"dimg");
    let last = file.item(tiles[tiles.len() - 1]).unwrap();
    let extent = last.location.as_ref().unwrap().extents[0];
    let (start, length) = (extent.offset as usize, extent.length as usize);
    // The bit of its header that states 10 bits instead of 8.
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
    let reason = std::borrow::Cow::Borrowed("its tiles are not of one kind");
    assert_eq!(refused, Err(Error::Corrupt { format, reason }));
}
