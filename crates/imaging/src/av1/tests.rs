use super::*;
use crate::{Control, Error};

/// The one tile of a picture among the fixtures.
fn stream(fixture: &str) -> (Vec<u8>, Shape) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/");
    let bytes = std::fs::read(folder.to_owned() + fixture).unwrap();
    let file = heifer_isobmff::HeifFile::parse(&bytes).unwrap();
    let stream = file.item_data(file.primary_id).unwrap().into_owned();
    let (width, height) = file.image_size(file.primary_id).unwrap().unwrap();
    let shape = Sequence::read(&stream).unwrap().shape(width, height);
    (stream, shape)
}

#[test]
fn a_picture_of_ten_bits_decodes_repeatably_and_a_truncated_one_is_refused() {
    let (stream, shape) = stream("ten-bit.avif");
    let control = Control::unlimited();
    let first = decode(&stream, shape, &control).unwrap();
    assert_eq!(first[0].len(), 167 * 221);
    assert!(first[0].iter().any(|&sample| sample > 255));
    assert_eq!(decode(&stream, shape, &control).unwrap(), first);
    let cut = decode(&stream[..stream.len() / 2], shape, &control);
    assert!(matches!(cut, Err(Error::Corrupt { .. })), "{cut:?}");
}

#[test]
fn a_picture_of_another_shape_than_its_header_states_is_refused() {
    let (stream, shape) = stream("plain.avif");
    for other in [
        Shape {
            width: 168,
            ..shape
        },
        Shape {
            height: 100,
            ..shape
        },
        Shape {
            bit_depth: 10,
            ..shape
        },
        Shape {
            chroma: Chroma::Full,
            ..shape
        },
    ] {
        let result = decode(&stream, other, &Control::unlimited());
        assert!(matches!(result, Err(Error::Corrupt { .. })), "{other:?}");
    }
}
