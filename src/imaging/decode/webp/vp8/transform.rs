//! From coefficients back to differences (section 14 of RFC 6386).

use super::residuals::Block;

/// The inverse Walsh-Hadamard transform: the first coefficients of sixteen blocks
/// (section 14.3).
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

/// A square of pixels.
pub(super) type Pixels4 = [[u8; 4]; 4];

/// √2·cos(π/8) - 1 in sixteenths of bits.
const COSINE: i32 = 20091;
/// √2·sin(π/8) in the same.
const SINE: i32 = 35468;

/// Adds the inverse cosine transform of a block to what was predicted (section 14.4).
pub(super) fn add_inverse_cosine(pixels: &mut Pixels4, input: &Block) {
    let long = |value: i32| value + ((value * COSINE) >> 16);
    let short = |value: i32| (value * SINE) >> 16;
    let input = input.map(i32::from);
    let mut columns = [[0; 4]; 4];
    for i in 0..4 {
        let a = input[i] + input[8 + i];
        let b = input[i] - input[8 + i];
        let c = short(input[4 + i]) - long(input[12 + i]);
        let d = long(input[4 + i]) + short(input[12 + i]);
        columns[i] = [a + d, b + c, b - c, a - d];
    }
    for (i, row) in pixels.iter_mut().enumerate() {
        let dc = columns[0][i] + 4;
        let a = dc + columns[2][i];
        let b = dc - columns[2][i];
        let c = short(columns[1][i]) - long(columns[3][i]);
        let d = long(columns[1][i]) + short(columns[3][i]);
        add(row, [a + d, b + c, b - c, a - d].map(|value| value >> 3));
    }
}

/// The same of a block that has at most its first three coefficients.
pub(super) fn add_inverse_cosine_of_corner(pixels: &mut Pixels4, input: &Block) {
    let long = |value: i32| value + ((value * COSINE) >> 16);
    let short = |value: i32| (value * SINE) >> 16;
    let a = i32::from(input[0]) + 4;
    let (c4, d4) = (short(i32::from(input[4])), long(i32::from(input[4])));
    let (c1, d1) = (short(i32::from(input[1])), long(i32::from(input[1])));
    for (row, dc) in pixels.iter_mut().zip([a + d4, a + c4, a - c4, a - d4]) {
        add(
            row,
            [dc + d1, dc + c1, dc - c1, dc - d1].map(|value| value >> 3),
        );
    }
}

/// The same of a block that has at most its first coefficient.
pub(super) fn add_first(pixels: &mut Pixels4, first: i16) {
    let difference = (i32::from(first) + 4) >> 3;
    for row in pixels {
        add(row, [difference; 4]);
    }
}

fn add(row: &mut [u8; 4], differences: [i32; 4]) {
    for (pixel, difference) in row.iter_mut().zip(differences) {
        *pixel = (i32::from(*pixel) + difference).clamp(0, 255) as u8;
    }
}
