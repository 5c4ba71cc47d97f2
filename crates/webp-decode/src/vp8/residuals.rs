//! Reads the coefficients of a macroblock (section 13 of RFC 6386).

use super::bool_decoder::BoolDecoder;
use super::header::Quantizers;
use super::tables::Probabilities;
use super::transform;

/// A value for each pixel of a block of 4 × 4, in rows.
pub(super) type Block = [i16; 16];

/// The coefficients of four neighbouring blocks, interleaved: the first coefficient of each, then
/// the second.
pub(super) type Group = [i16; 64];

/// The differences that the coefficients of one macroblock add to its pixels.
#[derive(Debug, Default)]
pub(super) struct Residuals {
    /// Luma in rows, then U, then V; `None` if nothing is added.
    pub(super) blocks: [Option<Block>; 24],
}

/// Which neighbouring blocks have coefficients: the context for reading a macroblock (section
/// 13.3).
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbors {
    y: [bool; 4],
    /// Of U, then of V.
    uv: [[bool; 2]; 2],
    y2: bool,
}

impl Neighbors {
    /// The context at the edge of the picture.
    pub(super) const NONE: Self = Self {
        y: [false; 4],
        uv: [[false; 2]; 2],
        y2: false,
    };

    /// Updates the context for a macroblock without coefficients. If the macroblock is predicted by
    /// subblocks, it has no Y2 block, and the context of Y2 stays.
    pub(super) fn clear(&mut self, has_y2: bool) {
        *self = Self {
            y2: self.y2 && !has_y2,
            ..Self::NONE
        };
    }
}

/// The probabilities of coefficients by position instead of band, with an unused entry at the end.
pub(super) type Positions = [[[u8; 11]; 3]; 17];

/// By kind of block.
pub(super) struct TokenProbabilities {
    y_without_first: Positions,
    y2: Positions,
    uv: Positions,
    y: Positions,
}

impl From<&Probabilities> for TokenProbabilities {
    fn from(probabilities: &Probabilities) -> Self {
        const BANDS: [usize; 17] = [0, 1, 2, 3, 6, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7, 0];
        let [y_without_first, y2, uv, y] = probabilities.map(|kind| BANDS.map(|band| kind[band]));
        Self {
            y_without_first,
            y2,
            uv,
            y,
        }
    }
}

/// The positions of coefficients in a block, in the order in which they are coded.
static ZIGZAG: [u8; 16] = [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15];

impl Residuals {
    /// Reads the coefficients of a macroblock. Returns whether it has any.
    pub(super) fn read(
        &mut self,
        bits: &mut BoolDecoder<'_>,
        probabilities: &TokenProbabilities,
        quantizers: &Quantizers,
        has_y2: bool,
        above: &mut Neighbors,
        left: &mut Neighbors,
    ) -> bool {
        let (first, firsts, y_probabilities) = if has_y2 {
            let firsts = read_y2(bits, probabilities, quantizers, above, left);
            (1, firsts, &probabilities.y_without_first)
        } else {
            (0, [0; 16], &probabilities.y)
        };
        let (groups, _) = self.blocks.as_chunks_mut::<4>();
        let mut any = false;
        for (row, blocks) in groups[..4].iter_mut().enumerate() {
            let mut group = [0; 64];
            group[..4].copy_from_slice(&firsts[row * 4..][..4]);
            let mut ends = [0; 4];
            for (column, end) in ends.iter_mut().enumerate() {
                let context = usize::from(above.y[column]) + usize::from(left.y[row]);
                let quantizers = quantizers.y;
                let place = (&mut group, column);
                *end = read_block(bits, y_probabilities, context, quantizers, first, place);
                above.y[column] = *end > first;
                left.y[row] = *end > first;
            }
            any |= transformed(&group, ends, blocks);
        }
        for (plane, blocks) in groups[4..].iter_mut().enumerate() {
            let (above, left) = (&mut above.uv[plane], &mut left.uv[plane]);
            let mut group = [0; 64];
            let mut ends = [0; 4];
            for (index, end) in ends.iter_mut().enumerate() {
                let (above, left) = (&mut above[index % 2], &mut left[index / 2]);
                let context = usize::from(*above) + usize::from(*left);
                let place = (&mut group, index);
                *end = read_block(bits, &probabilities.uv, context, quantizers.uv, 0, place);
                *above = *end > 0;
                *left = *end > 0;
            }
            any |= transformed(&group, ends, blocks);
        }
        any
    }
}

/// Reads the Y2 block: the first coefficients of the luma blocks.
fn read_y2(
    bits: &mut BoolDecoder<'_>,
    probabilities: &TokenProbabilities,
    quantizers: &Quantizers,
    above: &mut Neighbors,
    left: &mut Neighbors,
) -> Block {
    let mut group = [0; 64];
    let context = usize::from(above.y2) + usize::from(left.y2);
    let place = (&mut group, 0);
    let end = read_block(bits, &probabilities.y2, context, quantizers.y2, 0, place);
    above.y2 = end > 0;
    left.y2 = end > 0;
    let mut block = [0; 16];
    for (value, of_four) in block.iter_mut().zip(group.as_chunks::<4>().0) {
        *value = of_four[0];
    }
    transform::inverse_walsh_hadamard(&block)
}

/// Transforms the coefficients of four blocks, of which `ends` gives the lengths. Returns whether
/// there are any.
fn transformed(group: &Group, ends: [usize; 4], blocks: &mut [Option<Block>; 4]) -> bool {
    // The first coefficient of a luma block may come from the Y2 block.
    let is_filled = |lane: usize| ends[lane] > 1 || group[lane] != 0;
    let filled = [0, 1, 2, 3].map(is_filled);
    if ends.iter().any(|&end| end > 1) {
        let differences = transform::inverse_cosines(group);
        for ((block, differences), filled) in blocks.iter_mut().zip(differences).zip(filled) {
            *block = filled.then_some(differences);
        }
    } else {
        for ((block, &first), filled) in blocks.iter_mut().zip(group).zip(filled) {
            *block = filled.then(|| transform::inverse_cosine_of_first(first));
        }
    }
    filled.contains(&true)
}

/// Reads the coefficients of one block of a group from position `first` on. Returns the position
/// behind the last one (sections 13.2 and 13.3).
#[inline(never)]
fn read_block(
    outer: &mut BoolDecoder<'_>,
    probabilities: &Positions,
    context: usize,
    quantizers: [i32; 2],
    first: usize,
    (group, lane): (&mut Group, usize),
) -> usize {
    // A copy that the compiler keeps in registers.
    let mut bits = *outer;
    let mut position = first;
    let mut p = &probabilities[position][context];
    let mut quantizer = quantizers[usize::from(first > 0)];
    let end = loop {
        if position == 16 || !bits.read(p[0]) {
            break position;
        }
        // A block cannot end after a zero.
        while !bits.read(p[1]) {
            position += 1;
            quantizer = quantizers[1];
            if position >= 16 {
                *outer = bits;
                return 16;
            }
            p = &probabilities[position][0];
        }
        let next = &probabilities[position + 1];
        let magnitude = if bits.read(p[2]) {
            let magnitude = read_large(&mut bits, p);
            p = &next[2];
            magnitude
        } else {
            p = &next[1];
            1
        };
        let sign = bits.read_mask();
        let value = ((magnitude ^ sign) - sign) * quantizer;
        group[usize::from(ZIGZAG[position] & 15) * 4 + lane % 4] = value as i16;
        quantizer = quantizers[1];
        position += 1;
    };
    *outer = bits;
    end
}

/// Reads a magnitude of 2 or more.
#[inline(always)]
fn read_large(bits: &mut BoolDecoder<'_>, p: &[u8; 11]) -> i32 {
    if !bits.read(p[3]) {
        if bits.read(p[4]) {
            3 + i32::from(bits.read(p[5]))
        } else {
            2
        }
    } else if !bits.read(p[6]) {
        if bits.read(p[7]) {
            read_extra(bits, 7, &[165, 145])
        } else {
            read_extra(bits, 5, &[159])
        }
    } else if !bits.read(p[8]) {
        if bits.read(p[9]) {
            read_extra(bits, 19, &[176, 155, 140, 135])
        } else {
            read_extra(bits, 11, &[173, 148, 140])
        }
    } else if bits.read(p[10]) {
        const LONGEST: [u8; 11] = [254, 254, 243, 230, 196, 177, 153, 140, 133, 130, 129];
        read_extra(bits, 67, &LONGEST)
    } else {
        read_extra(bits, 35, &[180, 157, 141, 134, 130])
    }
}

/// Reads one of several magnitudes from `base` on.
#[inline(always)]
fn read_extra(bits: &mut BoolDecoder<'_>, base: i32, probabilities: &[u8]) -> i32 {
    let read = |value, &probability: &u8| value << 1 | i32::from(bits.read(probability));
    base + probabilities.iter().fold(0, read)
}
