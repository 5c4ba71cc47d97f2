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
    let corners = above;
    let (tops, rights) = (&above[1..], &above[2..]);
    match mode {
        1 => add_left(row, first),
        2 => add_each(row, tops),
        3 => add_each(row, rights),
        4 => add_each(row, corners),
        5 => with_left(row, above, first, |left, [_, top, right]| {
            // What is shifted into the lane is shifted on, and cut off in the end.
            half(half(left + right) + top) & LANES
        }),
        6 => with_left(row, above, first, |left, [corner, ..]| {
            half(left + corner) & LANES
        }),
        7 => with_left(row, above, first, |left, [_, top, _]| {
            half(left + top) & LANES
        }),
        8 => add_averages(row, corners, tops),
        9 => add_averages(row, tops, rights),
        10 => with_left(row, above, first, |left, [corner, top, right]| {
            half(half(left + corner) + (half(top + right) & LANES)) & LANES
        }),
        11 => with_left(row, above, first, select),
        12 => with_left(row, above, first, |left, [corner, top, _]| {
            clamp(left + (top + RANGE - corner))
        }),
        13 => with_left(row, above, first, |left, [corner, top, _]| {
            let mean = half(left + top);
            // Half of the difference, towards 0: of a negative one, half of what is greater by one.
            let negative = ONES - ((mean + (2 * RANGE - corner)) >> 9 & ONES);
            let share = half(mean + (2 * RANGE - corner) + negative);
            clamp((mean & LANES) + share)
        }),
        // Two modes are not defined; they are taken for the first.
        _ => row.iter_mut().for_each(|pixel| *pixel = add(*pixel, BLACK)),
    }
}

// Where each pixel needs the one before, its four channels lie in lanes of 16 bits and are computed
// at once: a sum of two channels stays in its lane.

/// What of each lane is a channel.
const LANES: u64 = 0x00ff_00ff_00ff_00ff;
const ONES: u64 = 0x0001_0001_0001_0001;
/// How much a difference is lifted to stay above 0.
const RANGE: u64 = ONES << 8;

#[inline(always)]
fn spread(pixel: Pixel) -> u64 {
    let value = u64::from(u32::from_le_bytes(pixel));
    (value & 0x00ff_00ff) | (value & 0xff00_ff00) << 24
}

#[inline(always)]
const fn gather(lanes: u64) -> Pixel {
    ((lanes | lanes >> 24) as u32).to_le_bytes()
}

/// Makes pixels one by one of the one before and those above: to the upper left, above, to the
/// upper right. What `predict` gives may have any bits in a lane above its channel but the highest.
#[inline(always)]
fn with_left(
    row: &mut [Pixel],
    above: &[Pixel],
    first: Pixel,
    predict: impl Fn(u64, [u64; 3]) -> u64,
) {
    let mut left = spread(first);
    for (pixel, above) in row.iter_mut().zip(above.array_windows::<3>()) {
        left = (predict(left, above.map(spread)) + spread(*pixel)) & LANES;
        *pixel = gather(left);
    }
}

/// Half of each lane; its highest bit is of no meaning.
#[inline(always)]
const fn half(lanes: u64) -> u64 {
    lanes >> 1
}

/// The one of the pixels to the left and above that is nearer to their sum less the one between.
#[inline(always)]
fn select(left: u64, [corner, top, _]: [u64; 3]) -> u64 {
    let without_top = differences(left, corner);
    let without_left = differences(top, corner);
    let mask = ((without_left.cast_signed() - without_top.cast_signed()) >> 63).cast_unsigned();
    left & mask | top & !mask
}

/// How much two pixels differ, all channels together.
#[inline(always)]
const fn differences(one: u64, other: u64) -> u64 {
    let lifted = one + RANGE - other;
    let negative = !lifted & RANGE;
    let mask = negative - (negative >> 8);
    let absolute = ((lifted ^ mask) & LANES) + (negative >> 8);
    // The highest lane of the product is the sum of all.
    absolute.wrapping_mul(ONES) >> 48
}

/// Each lane less 256, as the nearest from 0 to 255. Of the lanes, the lower 10 bits count.
#[inline(always)]
fn clamp(lifted: u64) -> u64 {
    // Nearly always all are within, and knowing so early is quicker than computing.
    if lifted & (3 * RANGE) == RANGE {
        return lifted;
    }
    clamp_some(lifted)
}

#[cold]
#[inline(never)]
const fn clamp_some(lifted: u64) -> u64 {
    let within = lifted & RANGE;
    let above = lifted & (2 * RANGE);
    lifted & (within - (within >> 8)) | ((above >> 1) - (above >> 9))
}

fn add_left(row: &mut [Pixel], first: Pixel) {
    let mut left = spread(first);
    for pixel in row {
        left = (left + spread(*pixel)) & LANES;
        *pixel = gather(left);
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

fn add(one: Pixel, other: Pixel) -> Pixel {
    std::array::from_fn(|channel| one[channel].wrapping_add(other[channel]))
}
