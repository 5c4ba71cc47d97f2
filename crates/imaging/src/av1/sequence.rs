//! Reads the sequence header of an AV1 stream (AV1 Bitstream & Decoding Process Specification,
//! 5.5).

use super::{Chroma, Shape};

/// The sequence header, as far as decoding a still picture needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    /// The largest frame size.
    pub(crate) max_width: u32,
    pub(crate) max_height: u32,
    pub(crate) bit_depth: u8,
    pub(crate) chroma: Chroma,
    /// Code points of ITU-T H.273; 2 if the stream does not state them.
    pub(crate) primaries: u8,
    pub(crate) transfer: u8,
    pub(crate) matrix: u8,
    pub(crate) full_range: bool,
}

/// `OBU_SEQUENCE_HEADER`
const SEQUENCE_HEADER: u8 = 1;

impl Sequence {
    /// Reads the first sequence header of a stream; `None` if it is missing or incomplete.
    pub(crate) fn read(stream: &[u8]) -> Option<Self> {
        let mut rest = stream;
        loop {
            let (&header, after) = rest.split_first()?;
            let (kind, extended, sized) = (header >> 3 & 15, header & 4 != 0, header & 2 != 0);
            rest = if extended { after.get(1..)? } else { after };
            let size = if sized {
                let size;
                (size, rest) = leb128(rest)?;
                size
            } else {
                rest.len()
            };
            let (unit, after) = rest.split_at_checked(size)?;
            if kind == SEQUENCE_HEADER {
                return Self::parse(&mut Bits { bytes: unit, at: 0 });
            }
            rest = after;
        }
    }

    /// The shape of a picture of this stream with these sides.
    pub(crate) fn shape(&self, width: u32, height: u32) -> Shape {
        Shape {
            width,
            height,
            bit_depth: self.bit_depth,
            chroma: self.chroma,
        }
    }

    fn parse(bits: &mut Bits<'_>) -> Option<Self> {
        let profile = bits.take(3)?;
        bits.take(1)?; // still_picture
        let reduced = bits.flag()?;
        if reduced {
            bits.take(5)?; // seq_level_idx
        } else {
            operating_points(bits)?;
        }
        let width_bits = bits.take(4)? + 1;
        let height_bits = bits.take(4)? + 1;
        let max_width = bits.take(width_bits)? + 1;
        let max_height = bits.take(height_bits)? + 1;
        if !reduced && bits.flag()? {
            bits.take(4 + 3)?; // the lengths of frame ids
        }
        bits.take(3)?; // use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
        if !reduced {
            inter_tools(bits)?;
        }
        bits.take(3)?; // enable_superres, enable_cdef, enable_restoration
        let colors = ColorConfig::parse(bits, profile)?;
        Some(Self {
            max_width,
            max_height,
            bit_depth: colors.bit_depth,
            chroma: colors.chroma,
            primaries: colors.primaries,
            transfer: colors.transfer,
            matrix: colors.matrix,
            full_range: colors.full_range,
        })
    }
}

/// Skips timing and operating points, which do not affect a still picture.
fn operating_points(bits: &mut Bits<'_>) -> Option<()> {
    let mut delay_bits = None;
    if bits.flag()? {
        bits.take(32)?; // num_units_in_display_tick
        bits.take(32)?; // time_scale
        if bits.flag()? {
            bits.skip_uvlc()?; // num_ticks_per_picture_minus_1
        }
        if bits.flag()? {
            delay_bits = Some(bits.take(5)? + 1);
            bits.take(32)?; // num_units_in_decoding_tick
            bits.take(5 + 5)?;
        }
    }
    let display_delays = bits.flag()?;
    for _ in 0..=bits.take(5)? {
        bits.take(12)?; // operating_point_idc
        if bits.take(5)? > 7 {
            bits.take(1)?; // seq_tier
        }
        if let Some(delay_bits) = delay_bits
            && bits.flag()?
        {
            bits.take(delay_bits)?;
            bits.take(delay_bits)?;
            bits.take(1)?; // low_delay_mode_flag
        }
        if display_delays && bits.flag()? {
            bits.take(4)?;
        }
    }
    Some(())
}

/// Skips the tools for prediction from other frames, which a still picture does not use.
fn inter_tools(bits: &mut Bits<'_>) -> Option<()> {
    bits.take(4)?; // interintra, masked compound, warped motion, dual filter
    let order_hints = bits.flag()?;
    if order_hints {
        bits.take(2)?; // joint compound, motion vectors of reference frames
    }
    let chosen_by_frame = bits.flag()?;
    let screen_content = chosen_by_frame || bits.flag()?;
    if screen_content && !bits.flag()? {
        bits.take(1)?; // seq_force_integer_mv
    }
    if order_hints {
        bits.take(3)?;
    }
    Some(())
}

/// `color_config` (5.5.2)
struct ColorConfig {
    bit_depth: u8,
    chroma: Chroma,
    primaries: u8,
    transfer: u8,
    matrix: u8,
    full_range: bool,
}

impl ColorConfig {
    fn parse(bits: &mut Bits<'_>, profile: u32) -> Option<Self> {
        let deep = bits.flag()?;
        let bit_depth = match (deep, profile) {
            (false, _) => 8,
            (true, 2) if bits.flag()? => 12,
            (true, _) => 10,
        };
        let gray = profile != 1 && bits.flag()?;
        let [primaries, transfer, matrix] = if bits.flag()? {
            [bits.take(8)?, bits.take(8)?, bits.take(8)?].map(|code| code as u8)
        } else {
            [2; 3]
        };
        let (full_range, chroma) = if gray {
            (bits.flag()?, Chroma::None)
        } else if (primaries, transfer, matrix) == (1, 13, 0) {
            // Red, green and blue of sRGB.
            (true, Chroma::Full)
        } else {
            let full_range = bits.flag()?;
            let chroma = match (profile, bit_depth) {
                (0, _) => Chroma::Quarter,
                (1, _) => Chroma::Full,
                (_, 12) if !bits.flag()? => Chroma::Full,
                (_, 12) if bits.flag()? => Chroma::Quarter,
                _ => Chroma::Half,
            };
            (full_range, chroma)
        };
        Some(Self {
            bit_depth,
            chroma,
            primaries,
            transfer,
            matrix,
            full_range,
        })
    }
}

/// Reads a number of up to eight bytes, seven bits each, the lowest first (4.10.5).
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().take(8).enumerate() {
        value |= u64::from(byte & 127) << (7 * index);
        if byte < 128 {
            return Some((usize::try_from(value).ok()?, &bytes[index + 1..]));
        }
    }
    None
}

/// Reads bits from the highest bit of each byte on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// Reads a number of `count` bits, at most 32.
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn flag(&mut self) -> Option<bool> {
        self.take(1).map(|bit| bit == 1)
    }

    /// Skips a number in a variable length code (4.10.3).
    fn skip_uvlc(&mut self) -> Option<()> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
        }
        if zeros < 32 {
            self.take(zeros)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes numbers of the given numbers of bits.
    fn bits(numbers: &[(u32, u32)]) -> Vec<u8> {
        let all: Vec<u8> = numbers
            .iter()
            .flat_map(|&(value, count)| (0..count).rev().map(move |bit| (value >> bit & 1) as u8))
            .collect();
        all.chunks(8)
            .map(|byte| {
                byte.iter()
                    .enumerate()
                    .fold(0, |sum, (at, bit)| sum | bit << (7 - at))
            })
            .collect()
    }

    /// A temporal delimiter, followed by a sequence header of these bits.
    fn stream(numbers: &[(u32, u32)]) -> Vec<u8> {
        let payload = bits(numbers);
        [&[0x12, 0, 0x0a, payload.len() as u8][..], &payload].concat()
    }

    /// Profile, reduced header, a level, and a picture of 4096 × 3.
    fn start(profile: u32) -> Vec<(u32, u32)> {
        vec![
            (profile, 3),
            (0b11, 2),
            (8, 5),
            (11, 4),
            (1, 4),
            (4095, 12),
            (2, 2),
            (0, 3),
            (0, 3),
        ]
    }

    #[test]
    fn a_still_pictures_header_is_read() {
        for (profile, colors, bit_depth, chroma, [primaries, transfer, matrix], full_range) in [
            (
                0,
                vec![(0b000, 3), (1, 1)],
                8,
                Chroma::Quarter,
                [2, 2, 2],
                true,
            ),
            (
                0,
                vec![(0b110, 3), (1, 1)],
                10,
                Chroma::None,
                [2, 2, 2],
                true,
            ),
            (
                1,
                vec![(0b01, 2), (0x01_0d_00, 24)],
                8,
                Chroma::Full,
                [1, 13, 0],
                true,
            ),
            (
                1,
                vec![(0b11, 2), (0x0c_0d_06, 24), (0, 1)],
                10,
                Chroma::Full,
                [12, 13, 6],
                false,
            ),
            (
                2,
                vec![(0b000, 3), (0, 1)],
                8,
                Chroma::Half,
                [2, 2, 2],
                false,
            ),
            (
                2,
                vec![(0b1100, 4), (1, 1), (0b11, 2)],
                12,
                Chroma::Quarter,
                [2, 2, 2],
                true,
            ),
            (
                2,
                vec![(0b1100, 4), (1, 1), (0b10, 2)],
                12,
                Chroma::Half,
                [2, 2, 2],
                true,
            ),
            (
                2,
                vec![(0b1100, 4), (1, 1), (0, 1)],
                12,
                Chroma::Full,
                [2, 2, 2],
                true,
            ),
            (
                2,
                vec![(0b1000, 4), (1, 1)],
                10,
                Chroma::Half,
                [2, 2, 2],
                true,
            ),
        ] {
            let found = Sequence::read(&stream(&[start(profile), colors].concat())).unwrap();
            let expected = Sequence {
                max_width: 4096,
                max_height: 3,
                bit_depth,
                chroma,
                primaries,
                transfer,
                matrix,
                full_range,
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_colours_of_a_sequence_are_read_behind_its_other_fields() {
        let found = Sequence::read(&stream(&[
            (0, 3),
            (0b00, 2),
            // Timing, with ticks of 1 (coded 010) and a decoder model of 9 bits a delay.
            (1, 1),
            (1000, 32),
            (50, 32),
            (1, 1),
            (0b010, 3),
            (1, 1),
            (8, 5),
            (1, 32),
            (0, 10),
            // Two operating points with display delays; the first of a high level.
            (1, 1),
            (1, 5),
            (0, 12),
            (9, 5),
            (1, 1),
            (1, 1),
            (0, 19),
            (0b1_0101, 5),
            (0, 12),
            (5, 5),
            (0, 1),
            (0, 1),
            (7, 4),
            (7, 4),
            (63, 8),
            (31, 8),
            // Frame ids, tools, order hints, and screen content chosen by the frame.
            (1, 1),
            (0, 7),
            (0, 3),
            (0b1111, 4),
            (0b111, 3),
            (0b1, 1),
            (0b01, 2),
            (6, 3),
            (0b111, 3),
            (0b001, 3),
            (0x09_10_09, 24),
            (0, 1),
        ]))
        .unwrap();
        assert_eq!((found.max_width, found.max_height), (64, 32));
        let colors = (found.primaries, found.transfer, found.matrix);
        assert_eq!(colors, (9, 16, 9));
        assert_eq!((found.bit_depth, found.full_range), (8, false));
    }

    #[test]
    fn a_truncated_header_is_not_read() {
        let whole = stream(&[start(0), vec![(0b001, 3), (0x01_01_01, 24), (0, 1)]].concat());
        assert!(Sequence::read(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(Sequence::read(&whole[..length]), None, "{length}");
        }
        // A length that exceeds any memory, and one that does not end.
        for length in [[0xff; 8], [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]] {
            let bytes = [&[0x0a][..], &length, &whole[4..]].concat();
            assert_eq!(Sequence::read(&bytes), None);
        }
    }
}
