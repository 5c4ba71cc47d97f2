//! The coefficients of a macroblock (section 13 of RFC 6386).

use super::bool_decoder::BoolDecoder;
use super::header::Quantizers;
use super::tables::Probabilities;
use super::transform;

/// The coefficients of a block of 4 × 4 in rows, already multiplied.
pub(super) type Block = [i16; 16];

/// What is known of the coefficients of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Filled {
    #[default]
    None,
    /// At most the first.
    First,
    /// At most three, which are the first of each direction.
    Corner,
    Any,
}

/// The coefficients of one macroblock.
#[derive(Debug, Default)]
pub(super) struct Residuals {
    /// Luma in rows, then U, then V.
    pub(super) blocks: [Block; 24],
    pub(super) filled: [Filled; 24],
}

/// Which blocks beside a macroblock have coefficients: the contexts of its own (section 13.3).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Neighbors {
    y: [bool; 4],
    /// Of U, then of V.
    uv: [[bool; 2]; 2],
    y2: bool,
}

impl Neighbors {
    /// What a macroblock without coefficients leaves behind; one predicted by subblocks has no
    /// block of luma's first coefficients and leaves what is known of others'.
    pub(super) fn clear(&mut self, has_y2: bool) {
        *self = Self {
            y2: self.y2 && !has_y2,
            ..Self::default()
        };
    }
}

/// The probabilities of coefficients by their positions instead of bands, with one more at the end
/// which is never used.
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

/// Where in a block the coefficients lie, in the order in which they are written.
static ZIGZAG: [u8; 16] = [0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15];

impl Residuals {
    /// Reads the coefficients of a macroblock; says whether it has any.
    pub(super) fn read(
        &mut self,
        bits: &mut BoolDecoder<'_>,
        probabilities: &TokenProbabilities,
        quantizers: &Quantizers,
        has_y2: bool,
        above: &mut Neighbors,
        left: &mut Neighbors,
    ) -> bool {
        self.blocks = [[0; 16]; 24];
        let (first, y_probabilities) = if has_y2 {
            self.read_y2(bits, probabilities, quantizers, above, left);
            (1, &probabilities.y_without_first)
        } else {
            (0, &probabilities.y)
        };
        let mut any = false;
        for row in 0..4 {
            for column in 0..4 {
                let block = &mut self.blocks[row * 4 + column];
                let context = usize::from(above.y[column]) + usize::from(left.y[row]);
                let end = read_block(bits, y_probabilities, context, quantizers.y, first, block);
                above.y[column] = end > first;
                left.y[row] = end > first;
                let filled = Filled::of(end, block);
                self.filled[row * 4 + column] = filled;
                any |= filled != Filled::None;
            }
        }
        for plane in 0..2 {
            for row in 0..2 {
                for column in 0..2 {
                    let index = 16 + plane * 4 + row * 2 + column;
                    let block = &mut self.blocks[index];
                    let context =
                        usize::from(above.uv[plane][column]) + usize::from(left.uv[plane][row]);
                    let end = read_block(bits, &probabilities.uv, context, quantizers.uv, 0, block);
                    above.uv[plane][column] = end > 0;
                    left.uv[plane][row] = end > 0;
                    let filled = Filled::of(end, block);
                    self.filled[index] = filled;
                    any |= filled != Filled::None;
                }
            }
        }
        any
    }

    /// The first coefficients of the luma blocks, which are a block of their own.
    fn read_y2(
        &mut self,
        bits: &mut BoolDecoder<'_>,
        probabilities: &TokenProbabilities,
        quantizers: &Quantizers,
        above: &mut Neighbors,
        left: &mut Neighbors,
    ) {
        let mut block = [0; 16];
        let context = usize::from(above.y2) + usize::from(left.y2);
        let end = read_block(
            bits,
            &probabilities.y2,
            context,
            quantizers.y2,
            0,
            &mut block,
        );
        above.y2 = end > 0;
        left.y2 = end > 0;
        let firsts = if end > 1 {
            transform::inverse_walsh_hadamard(&block)
        } else {
            [(block[0] + 3) >> 3; 16]
        };
        for (block, first) in self.blocks.iter_mut().zip(firsts) {
            block[0] = first;
        }
    }
}

impl Filled {
    /// Of a block whose coefficients end before `end` in their order.
    fn of(end: usize, block: &Block) -> Self {
        match end {
            // The first of a luma block may come from elsewhere.
            0 | 1 if block[0] == 0 => Self::None,
            0 | 1 => Self::First,
            2 | 3 => Self::Corner,
            _ => Self::Any,
        }
    }
}

/// Reads the coefficients of a block from position `first` on, and gives the position after the
/// last of them (sections 13.2 and 13.3).
#[inline(never)]
fn read_block(
    outer: &mut BoolDecoder<'_>,
    probabilities: &Positions,
    context: usize,
    quantizers: [i32; 2],
    first: usize,
    block: &mut Block,
) -> usize {
    // A copy, which stays in registers.
    let mut bits = *outer;
    let mut position = first;
    let mut p = &probabilities[position][context];
    let mut quantizer = quantizers[usize::from(first > 0)];
    let end = loop {
        if position == 16 || !bits.read(p[0]) {
            break position;
        }
        // After a zero the block cannot end.
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
        block[usize::from(ZIGZAG[position] & 15)] = value as i16;
        quantizer = quantizers[1];
        position += 1;
    };
    *outer = bits;
    end
}

/// A magnitude of 2 or more.
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

/// One of many magnitudes from `base` on.
#[inline(always)]
fn read_extra(bits: &mut BoolDecoder<'_>, base: i32, probabilities: &[u8]) -> i32 {
    let read = |value, &probability: &u8| value << 1 | i32::from(bits.read(probability));
    base + probabilities.iter().fold(0, read)
}
