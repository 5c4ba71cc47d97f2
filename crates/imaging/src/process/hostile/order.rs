//! Headers with more than one fault: the order in which faults are reported.

use super::super::bitmaps::{LONG, SHORT, STRIPS, TILES, Tag, bmp, bmp_header, tags, tiff};
use super::super::tests::recipe;
use super::super::*;
use super::avif::{av1_header, avif};
use super::heif::heif_box;
use super::jpeg::segment;
use super::png::png_chunk;
use super::webp::{riff, riff_chunk};

const EDGE: u16 = 65_500;

/// A JPEG with this edge in pixels, frame marker, precision, number of components and number of
/// scans.
fn jpeg(edge: u16, marker: u8, precision: u8, components: &[u8], scans: usize) -> Vec<u8> {
    let [high, low] = edge.to_be_bytes();
    let count = (components.len() / 3) as u8;
    let frame = [&[precision, high, low, high, low, count][..], components].concat();
    let scan = segment(0xda, &[1, 1, 0, 0, 0, 0]);
    [
        &b"\xff\xd8"[..],
        &segment(marker, &frame),
        &scan.repeat(scans),
    ]
    .concat()
}

const GRAY: &[u8] = &[1, 0x11, 0];

/// A file of one item of this type and size.
fn heif(item_type: [u8; 4], edge: u32, stream: &[u8]) -> Vec<u8> {
    let mut bytes = avif((edge, edge), stream);
    let at = memchr::memmem::find(&bytes, b"av01").unwrap();
    bytes[at..at + 4].copy_from_slice(&item_type);
    bytes
}

/// A file with far more properties than a picture needs.
fn heif_of_long_tables(edge: u32) -> Vec<u8> {
    let mut bytes = heif(*b"av01", edge, &av1_header(edge, edge));
    let more = heif_box(*b"free", &[]).repeat(3000);
    let place = |bytes: &[u8], name: &[u8; 4]| memchr::memmem::find(bytes, name).unwrap() - 4;
    for name in [b"meta", b"iprp", b"ipco"] {
        let at = place(&bytes, name);
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let length = length + more.len() as u32;
        bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    // After the size, which is the only property.
    let end = place(&bytes, b"ispe") + 20;
    bytes.splice(end..end, more);
    bytes
}

/// A BMP with a header of this length, depth and compression.
fn bmp_of(length: u32, bits: u16, compression: u32) -> Vec<u8> {
    let edge = i32::from(EDGE);
    bmp(
        &bmp_header(length, (edge, edge), bits, compression),
        &[],
        &[0],
    )
}

/// A TIFF with these tags in place of its own.
fn tiff_of(others: &[Tag], place: u16) -> Vec<u8> {
    let mut tags = tags((EDGE.into(), EDGE.into()), 1, &[8], 8);
    tags.retain(|(number, ..)| others.iter().all(|(other, ..)| other != number));
    tags.extend(others.iter().cloned());
    tiff(false, &tags, place, &[])
}

#[test]
fn a_size_beyond_the_limits_is_reported_before_any_other_fault() {
    let edge = u32::from(EDGE);
    let two_sizes = [jpeg(EDGE, 0xc0, 8, GRAY, 1), jpeg(20, 0xc0, 8, GRAY, 1)].concat();
    let png_header = |edge: u32| {
        let size = [edge.to_be_bytes(), edge.to_be_bytes()].concat();
        png_chunk(*b"IHDR", &[&size[..], &[8, 2, 0, 0, 0]].concat())
    };
    let png = |rest: &[u8]| [b"\x89PNG\r\n\x1a\n", &png_header(edge)[..], rest].concat();
    let [w0, w1, w2, _] = (edge - 1).to_le_bytes();
    let extended = riff_chunk(*b"VP8X", &[0, 0, 0, 0, w0, w1, w2, w0, w1, w2]);
    let lossless = riff_chunk(*b"VP8L", &[0x2f, 99, 0, 0, 0, 0]);
    for (what, bytes) in [
        ("JPEG: nothing else", jpeg(EDGE, 0xc0, 8, GRAY, 1)),
        ("JPEG: arithmetic", jpeg(EDGE, 0xc9, 8, GRAY, 1)),
        ("JPEG: lossless", jpeg(EDGE, 0xc3, 8, GRAY, 1)),
        ("JPEG: 12 bits", jpeg(EDGE, 0xc1, 12, GRAY, 1)),
        ("JPEG: 9 bits", jpeg(EDGE, 0xc1, 9, GRAY, 1)),
        (
            "JPEG: two channels",
            jpeg(EDGE, 0xc0, 8, &GRAY.repeat(2), 1),
        ),
        ("JPEG: sampling", jpeg(EDGE, 0xc0, 8, &[1, 0x05, 0], 1)),
        ("JPEG: 101 scans", jpeg(EDGE, 0xc2, 8, GRAY, 101)),
        ("JPEG: 100 scans", jpeg(EDGE, 0xc2, 8, GRAY, 100)),
        ("JPEG: two scans", jpeg(EDGE, 0xc0, 8, GRAY, 2)),
        ("JPEG: no scan", jpeg(EDGE, 0xc0, 8, GRAY, 0)),
        ("JPEG: two sizes", two_sizes),
        ("PNG: two headers", png(&png_header(99))),
        ("PNG: nothing else", png(b"")),
        ("WebP: two sizes", riff(&[extended.clone(), lossless])),
        ("WebP: twice", riff(&[extended.clone(), extended.clone()])),
        ("WebP: no picture", riff(&[extended])),
        ("GIF: cut off", b"GIF89a\xdc\xff\xdc\xff".to_vec()),
        ("GIF: no frame", b"GIF89a\xdc\xff\xdc\xff\0\0\0".to_vec()),
        ("AVIF: nothing in it", heif(*b"av01", edge, b"")),
        (
            "AVIF: two sizes",
            heif(*b"av01", edge, &av1_header(300, 200)),
        ),
        ("AVIF: an overlay", heif(*b"iovl", edge, b"")),
        ("AVIF: another codec", heif(*b"jpeg", edge, b"")),
        ("AVIF: an identity of nothing", heif(*b"iden", edge, b"")),
        ("AVIF: long tables", heif_of_long_tables(edge)),
        ("BMP: nothing else", bmp_of(40, 24, 0)),
        ("BMP: cut off", bmp_of(40, 24, 0)[..30].to_vec()),
        ("BMP: a JPEG", bmp_of(40, 0, 4)),
        ("BMP: no such depth", bmp_of(124, 7, 0)),
        ("BMP: OS/2", bmp_of(64, 24, 0)),
        ("TIFF: no strips", tiff_of(&[], STRIPS)),
        ("TIFF: no tile", tiff_of(&[], TILES)),
        ("TIFF: fax", tiff_of(&[(259, SHORT, vec![4])], STRIPS)),
        (
            "TIFF: no such colours",
            tiff_of(&[(262, SHORT, vec![99])], STRIPS),
        ),
        ("TIFF: 12 bits", tiff_of(&[(258, SHORT, vec![12])], STRIPS)),
        (
            "TIFF: many tags",
            tiff_of(&vec![(50_000, SHORT, vec![1]); 5000], STRIPS),
        ),
        (
            "TIFF: a huge tile",
            tiff_of(
                &[(322, LONG, vec![u32::MAX]), (323, LONG, vec![u32::MAX])],
                TILES,
            ),
        ),
        ("TIFF: cut off", {
            let whole = tiff_of(&[], STRIPS);
            whole[..whole.len() - 20].to_vec()
        }),
    ] {
        let limits = recipe().limits;
        let too_large = Error::DimensionsTooLarge {
            width: edge,
            height: edge,
            max_edge_px: limits.max_edge_px,
        };
        assert_eq!(probe(&bytes, &limits), Err(too_large), "{what}");
        // The type is checked first.
        let none = Limits {
            formats: Vec::new(),
            ..limits
        };
        let refused = probe(&bytes, &none);
        assert!(
            matches!(refused, Err(Error::UnsupportedFormat { .. })),
            "{what}: {refused:?}"
        );
    }
    let small = probe(&jpeg(5, 0xc9, 8, GRAY, 1), &recipe().limits);
    assert!(
        matches!(small, Err(Error::DimensionsTooSmall { width: 5, .. })),
        "{small:?}"
    );
}

#[test]
fn too_long_heif_tables_are_reported_if_the_size_is_within_the_limits() {
    let refused = probe(&heif_of_long_tables(300), &recipe().limits);
    let reason = std::borrow::Cow::Borrowed("its container has too many entries");
    assert_eq!(refused, Err(Error::TooComplex { reason }));
}

/// The size in the error is that of the upright picture.
#[test]
fn the_reported_size_is_that_of_the_upright_picture() {
    let exif = [&b"Exif\0\0"[..], &super::super::tests::exif(6)].concat();
    let mut bytes = jpeg(300, 0xc9, 8, GRAY, 1);
    // 300 px down as stored, and 5000 across.
    let at = memchr::memmem::find(&bytes, &[0xff, 0xc9]).unwrap();
    bytes[at + 7..at + 9].copy_from_slice(&5000_u16.to_be_bytes());
    let bytes = [&b"\xff\xd8"[..], &segment(0xe1, &exif), &bytes[2..]].concat();
    let refused = probe(&bytes, &recipe().limits);
    let expected = Error::DimensionsTooLarge {
        width: 300,
        height: 5000,
        max_edge_px: 4096,
    };
    assert_eq!(refused, Err(expected));
}

#[test]
fn unsupported_derived_pictures_are_refused_with_their_kinds() {
    let found = |item_type: &[u8; 4]| match probe(&heif(*item_type, 300, b""), &recipe().limits) {
        Err(Error::UnsupportedFormat { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(found(b"iovl"), "a HEIF overlay of several pictures (iovl)");
    assert_eq!(found(b"tmap"), "an HDR picture with a tone map (tmap)");
    assert_eq!(
        found(b"unci"),
        "a HEIF picture that is not compressed (unci)"
    );
    assert_eq!(found(b"jpeg"), "a HEIF picture that is coded in JPEG");
    assert_eq!(
        found(b"j2k1"),
        "a HEIF picture that is coded in neither HEVC nor AV1"
    );
}

/// An item that is its own identity has no picture.
#[test]
fn a_circle_of_derived_pictures_is_refused() {
    for name in ["identity.heic", "identity.avif"] {
        let mut bytes = super::fixture(name);
        let format = probe(&bytes, &recipe().limits).unwrap().format;
        // The item, the number of its sources, and the only source.
        let at = memchr::memmem::find(&bytes, b"dimg").unwrap() + 4;
        bytes.copy_within(at..at + 2, at + 4);
        let reason = std::borrow::Cow::Borrowed("it is derived too many times");
        let circle = probe(&bytes, &recipe().limits);
        assert_eq!(circle, Err(Error::TooComplex { reason }), "{name}");
        bytes[at - 4..at].copy_from_slice(b"none");
        let reason = std::borrow::Cow::Borrowed("it is derived from no picture or several");
        let nothing = probe(&bytes, &recipe().limits);
        assert_eq!(nothing, Err(Error::Corrupt { format, reason }), "{name}");
    }
}
