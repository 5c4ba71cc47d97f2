//! Transforms coefficients into differences of pixels (section 14 of RFC 6386).

use super::residuals::{Block, Group};

/// The inverse Walsh-Hadamard transform. It gives the first coefficients of sixteen blocks (section
/// 14.3).
pub(super) fn inverse_walsh_hadamard(input: &Block) -> Block {
    let input = input.map(i32::from);
    let mut columns = [0; 16];
    for i in 0..4 {
        let a = input[i] + input[12 + i];
        let b = input[4 + i] + input[8 + i];
        let c = input[4 + i] - input[8 + i];
        let d = input[i] - input[12 + i];
        columns[i] = a + b;
        columns[4 + i] = d + c;
        columns[8 + i] = a - b;
        columns[12 + i] = d - c;
    }
    let mut output = [0; 16];
    for (row, output) in columns
        .as_chunks::<4>()
        .0
        .iter()
        .zip(output.as_chunks_mut::<4>().0)
    {
        let rounded = row[0] + 3;
        let a = rounded + row[3];
        let b = row[1] + row[2];
        let c = row[1] - row[2];
        let d = rounded - row[3];
        *output = [a + b, d + c, a - b, d - c].map(|value| (value >> 3) as i16);
    }
    output
}

/// A block of 4 × 4 pixels.
pub(super) type Pixels4 = [[u8; 4]; 4];

/// √2·cos(π/8) - 1, scaled by 65536.
const COSINE: i16 = 20091;
/// √2·sin(π/8) - 1, scaled by 65536.
const SINE: i16 = (35468 - 65536) as i16;

/// The inverse cosine transforms of four blocks: the differences that are added to their pixels
/// (section 14.4).
///
/// All four are computed at once, so that the compiler can use vectors of sixteen values. The
/// arithmetic has 16 bits, like libwebp's vector code; the values that encoders write stay within
/// that range.
pub(super) fn inverse_cosines(group: &Group) -> [Block; 4] {
    // Rotates the index of each value: of row, column and block, the first becomes the last.
    let mut columns = rotated(&one_direction(group));
    for value in &mut columns[..16] {
        *value = value.wrapping_add(4);
    }
    let mut rows = rotated(&one_direction(&columns));
    for value in &mut rows {
        *value >>= 3;
    }
    let mut blocks = [[0; 16]; 4];
    blocks.as_flattened_mut().copy_from_slice(&rows);
    blocks
}

/// Transforms along the first index: rows in the first pass, columns in the second.
#[inline(always)]
fn one_direction(input: &Group) -> Group {
    let times = |value: i16, factor: i16| {
        let part = (i32::from(value) * i32::from(factor)) >> 16;
        value.wrapping_add(part as i16)
    };
    let mut output = [0; 64];
    for i in 0..16 {
        let (second, fourth) = (input[16 + i], input[48 + i]);
        let a = input[i].wrapping_add(input[32 + i]);
        let b = input[i].wrapping_sub(input[32 + i]);
        let c = times(second, SINE).wrapping_sub(times(fourth, COSINE));
        let d = times(second, COSINE).wrapping_add(times(fourth, SINE));
        output[i] = a.wrapping_add(d);
        output[16 + i] = b.wrapping_add(c);
        output[32 + i] = b.wrapping_sub(c);
        output[48 + i] = a.wrapping_sub(d);
    }
    output
}

/// Two perfect shuffles. Each rotates the bits of every value's index by one.
#[inline(always)]
fn rotated(group: &Group) -> Group {
    let mut once = [0; 64];
    let mut twice = [0; 64];
    for i in 0..32 {
        once[2 * i] = group[i];
        once[2 * i + 1] = group[32 + i];
    }
    for i in 0..32 {
        twice[2 * i] = once[i];
        twice[2 * i + 1] = once[32 + i];
    }
    twice
}

/// The inverse cosine transform of a block that has only its first coefficient.
#[inline(always)]
pub(super) fn inverse_cosine_of_first(first: i16) -> Block {
    [first.wrapping_add(4) >> 3; 16]
}

/// Adds differences to predicted pixels.
#[inline(always)]
pub(super) fn add(pixels: &mut Pixels4, differences: &Block) {
    for (row, differences) in pixels.iter_mut().zip(differences.as_chunks::<4>().0) {
        for (pixel, difference) in row.iter_mut().zip(differences) {
            *pixel = (i16::from(*pixel) + difference).clamp(0, 255) as u8;
        }
    }
}
