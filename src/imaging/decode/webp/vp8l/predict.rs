//! The predictor transform (RFC 9649, section 4.1): pixels are stored as differences from what
//! their neighbours make likely.

use super::{Pixel, Rows};

/// What each tile is predicted by.
pub(super) struct Predictor {
    tile_bits: u32,
    tiles_across: usize,
    modes: Vec<u8>,
    /// The row above, and behind its end the first pixel of the row itself: the neighbour to the
    /// upper right of the last pixel.
    above: Vec<Pixel>,
}

impl Predictor {
    /// The transform of rows of `width`, whose modes are the green values of `tiles`.
    pub(super) fn new(width: usize, tile_bits: u32, tiles: &Rows) -> Self {
        Self {
            tile_bits,
            tiles_across: tiles.width,
            modes: tiles.pixels.iter().map(|pixel| pixel[1] & 15).collect(),
            above: vec![[0; 4]; width + 1],
        }
    }

    /// Turns row `y` of differences into pixels, after the rows before it.
    pub(super) fn undo(&mut self, row: &mut [Pixel], y: usize) {
        let Some((first, rest)) = row.split_first_mut() else {
            return;
        };
        if y == 0 {
            *first = add(*first, BLACK);
            add_left(rest, *first);
        } else {
            *first = add(*first, self.above[0]);
            let width = 1 + rest.len();
            self.above[width] = *first;
            let tiles = &self.modes[(y >> self.tile_bits) * self.tiles_across..];
            let mut x = 1;
            let mut tile = 0;
            while x < width {
                // Tiles of one mode side by side are one.
                let mode = tiles[tile];
                while tile < self.tiles_across && tiles[tile] == mode {
                    tile += 1;
                }
                let end = (tile << self.tile_bits).min(width);
                predict(mode, &mut row[x - 1..end], &self.above[x - 1..=end]);
                x = end;
            }
        }
        self.above[..row.len()].copy_from_slice(row);
    }
}

const BLACK: Pixel = [0, 0, 0, 255];

/// Turns the differences in `row` into pixels, but for its first, which is one already. `above`
/// begins over that first pixel and has one pixel more.
fn predict(mode: u8, row: &mut [Pixel], above: &[Pixel]) {
    let Some((&mut first, row)) = row.split_first_mut() else {
        return;
    };
    let corner = above;
    let top = &above[1..];
    match mode {
        1 => add_left(row, first),
        2 => add_each(row, top),
        3 => add_each(row, &above[2..]),
        4 => add_each(row, corner),
        5 => with_left(row, above, first, |left, [_, top, right]| {
            average(average(left, right), top)
        }),
        6 => with_left(row, above, first, |left, [corner, ..]| average(left, corner)),
        7 => with_left(row, above, first, |left, [_, top, _]| average(left, top)),
        8 => add_averages(row, corner, top),
        9 => add_averages(row, top, &above[2..]),
        10 => with_left(row, above, first, |left, [corner, top, right]| {
            average(average(left, corner), average(top, right))
        }),
        11 => with_left(row, above, first, |left, [corner, top, _]| select(left, top, corner)),
        12 => with_left(row, above, first, |left, [corner, top, _]| {
            std::array::from_fn(|c| {
                let sum = i16::from(left[c]) + i16::from(top[c]) - i16::from(corner[c]);
                sum.clamp(0, 255) as u8
            })
        }),
        13 => with_left(row, above, first, |left, [corner, top, _]| {
            let mean = average(left, top);
            std::array::from_fn(|c| {
                let (mean, corner) = (i16::from(mean[c]), i16::from(corner[c]));
                (mean + (mean - corner) / 2).clamp(0, 255) as u8
            })
        }),
        // Two modes are not defined; they are taken for the first.
        _ => row.iter_mut().for_each(|pixel| *pixel = add(*pixel, BLACK)),
    }
}

#[inline(always)]
fn with_left(
    row: &mut [Pixel],
    above: &[Pixel],
    mut left: Pixel,
    predict: impl Fn(Pixel, [Pixel; 3]) -> Pixel,
) {
    for (pixel, above) in row.iter_mut().zip(above.array_windows::<3>()) {
        left = add(*pixel, predict(left, *above));
        *pixel = left;
    }
}

fn add_left(row: &mut [Pixel], mut left: Pixel) {
    for pixel in row {
        left = add(*pixel, left);
        *pixel = left;
    }
}

fn add_each(row: &mut [Pixel], others: &[Pixel]) {
    let others = others.as_flattened();
    for (byte, other) in row.as_flattened_mut().iter_mut().zip(others) {
        *byte = byte.wrapping_add(*other);
    }
}

fn add_averages(row: &mut [Pixel], ones: &[Pixel], others: &[Pixel]) {
    let pairs = ones.as_flattened().iter().zip(others.as_flattened());
    for (byte, (&one, &other)) in row.as_flattened_mut().iter_mut().zip(pairs) {
        *byte = byte.wrapping_add((one & other) + ((one ^ other) >> 1));
    }
}

#[inline(always)]
fn add(one: Pixel, other: Pixel) -> Pixel {
    std::array::from_fn(|c| one[c].wrapping_add(other[c]))
}

#[inline(always)]
fn average(one: Pixel, other: Pixel) -> Pixel {
    let (one, other) = (u32::from_le_bytes(one), u32::from_le_bytes(other));
    ((one & other) + (((one ^ other) & 0xfefe_fefe) >> 1)).to_le_bytes()
}

/// The one of `left` and `top` that is nearer to `left + top - corner`.
#[inline(always)]
fn select(left: Pixel, top: Pixel, corner: Pixel) -> Pixel {
    let mut difference = 0;
    for c in 0..4 {
        difference += i32::from(top[c].abs_diff(corner[c]));
        difference -= i32::from(left[c].abs_diff(corner[c]));
    }
    if difference < 0 { left } else { top }
}
