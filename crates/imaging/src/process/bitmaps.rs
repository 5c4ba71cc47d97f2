//! Writes BMP and TIFF pictures, right and wrong ones.

/// A BMP of an information header, what follows it (masks, a palette), and its rows.
pub(super) fn bmp(header: &[u8], between: &[u8], rows: &[u8]) -> Vec<u8> {
    let offset = 14 + header.len() + between.len();
    let length = (offset + rows.len()) as u32;
    [
        b"BM",
        &length.to_le_bytes()[..],
        &[0; 4],
        &(offset as u32).to_le_bytes(),
        header,
        between,
        rows,
    ]
    .concat()
}

/// An information header of `length` bytes. Rows begin at the top if the height is negative.
pub(super) fn bmp_header(
    length: u32,
    (width, height): (i32, i32),
    bits: u16,
    compression: u32,
) -> Vec<u8> {
    let mut header = [
        &length.to_le_bytes()[..],
        &width.to_le_bytes(),
        &height.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &bits.to_le_bytes(),
        &compression.to_le_bytes(),
    ]
    .concat();
    header.resize(length as usize, 0);
    header
}

/// Types of values of TIFF.
pub(super) const BYTE: u16 = 1;
pub(super) const SHORT: u16 = 3;
pub(super) const LONG: u16 = 4;

/// A tag of TIFF: its number, its type and its values.
pub(super) type Tag = (u16, u16, Vec<u32>);

pub(super) const STRIPS: u16 = 273;
pub(super) const TILES: u16 = 324;

/// A TIFF of tags and blocks. The tags of the blocks, [`STRIPS`] or [`TILES`] and their lengths, are
/// added to the others.
pub(super) fn tiff(big_endian: bool, tags: &[Tag], place: u16, blocks: &[Vec<u8>]) -> Vec<u8> {
    let u16_bytes = |value: u16| {
        if big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    };
    let u32_bytes = |value: u32| {
        if big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    };
    let mut bytes = if big_endian {
        b"MM\0*".to_vec()
    } else {
        b"II*\0".to_vec()
    };
    bytes.extend([0; 4]);
    let (mut offsets, mut lengths) = (Vec::new(), Vec::new());
    for block in blocks {
        offsets.push(bytes.len() as u32);
        lengths.push(block.len() as u32);
        bytes.extend(block);
    }
    let lengths_place = if place == STRIPS { 279 } else { 325 };
    let added = [(place, LONG, offsets), (lengths_place, LONG, lengths)];
    let mut tags = [tags, &added].concat();
    tags.sort_by_key(|(number, ..)| *number);
    let mut entries = Vec::new();
    for (number, kind, values) in &tags {
        let data: Vec<u8> = (values.iter())
            .flat_map(|&value| match *kind {
                SHORT => u16_bytes(value as u16).to_vec(),
                LONG => u32_bytes(value).to_vec(),
                _ => vec![value as u8],
            })
            .collect();
        entries.extend(u16_bytes(*number));
        entries.extend(u16_bytes(*kind));
        entries.extend(u32_bytes(values.len() as u32));
        if data.len() <= 4 {
            entries.extend(&data);
            entries.resize(entries.len().next_multiple_of(12), 0);
        } else {
            entries.extend(u32_bytes(bytes.len() as u32));
            bytes.extend(data);
        }
    }
    let directory = u32_bytes(bytes.len() as u32);
    bytes[4..8].copy_from_slice(&directory);
    bytes.extend(u16_bytes(tags.len() as u16));
    bytes.extend(entries);
    bytes.extend([0; 4]);
    bytes
}

/// The tags of a picture with one strip.
pub(super) fn tags(
    (width, height): (u32, u32),
    colors: u32,
    bits: &[u32],
    compression: u32,
) -> Vec<Tag> {
    vec![
        (256, LONG, vec![width]),
        (257, LONG, vec![height]),
        (258, SHORT, bits.to_vec()),
        (259, SHORT, vec![compression]),
        (262, SHORT, vec![colors]),
        (277, SHORT, vec![bits.len() as u32]),
        (278, LONG, vec![height]),
    ]
}

/// Compresses with `PackBits` (TIFF 6.0, section 9): runs where they are long, literals elsewhere.
pub(super) fn pack_bits(mut data: &[u8]) -> Vec<u8> {
    let run = |data: &[u8]| {
        data.iter()
            .take(128)
            .take_while(|byte| **byte == data[0])
            .count()
    };
    let mut packed = Vec::new();
    while !data.is_empty() {
        let mut length = run(data);
        if length > 2 {
            packed.extend([(257 - length) as u8, data[0]]);
        } else {
            length = 1;
            while length < data.len().min(128) && run(&data[length..]) <= 2 {
                length += 1;
            }
            packed.push((length - 1) as u8);
            packed.extend(&data[..length]);
        }
        data = &data[length..];
    }
    packed
}
