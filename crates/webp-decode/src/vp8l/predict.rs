//! Undoes the predictor transform (RFC 9649, section 4.1): pixels are stored as differences from a
//! prediction by their neighbours.

use super::{Pixel, Rows};

/// The prediction modes of all tiles, and the row above.
pub(super) struct Predictor {
    tile_bits: u32,
    tiles_across: usize,
    modes: Vec<u8>,
    /// The row above, and behind its end the first pixel of the current row: it is the upper right
    /// neighbour of the last pixel.
    above: Vec<Pixel>,
}

impl Predictor {
    /// Makes the transform for rows of `width`. The modes are the green values of `tiles`.
    pub(super) fn new(width: usize, tile_bits: u32, tiles: &Rows) -> Self {
        Self {
            tile_bits,
            tiles_across: tiles.width,
            modes: tiles.pixels.iter().map(|pixel| pixel[1] & 15).collect(),
            above: vec![[0; 4]; width + 1],
        }
    }

    /// Turns row `y` of differences into pixels. Rows must come in order.
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
                // Neighbouring tiles with the same mode are treated as one.
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

/// Turns the differences in `row` into pixels, except for its first, which is a pixel already.
/// `above` begins over that first pixel and is one pixel longer than `row`.
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
            // Bits that were shifted in from the next lane are masked off at the end.
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
            // Half of the difference, rounded towards 0: a negative difference is raised by 1
            // first.
            let negative = ONES - ((mean + (2 * RANGE - corner)) >> 9 & ONES);
            let share = half(mean + (2 * RANGE - corner) + negative);
            clamp((mean & LANES) + share)
        }),
        // The two undefined modes are treated like mode 0.
        _ => row.iter_mut().for_each(|pixel| *pixel = add(*pixel, BLACK)),
    }
}

// Modes that need the pixel to the left compute its four channels at once, in lanes of 16 bits: a
// sum of two channels fits its lane.

/// The bits of each lane that hold a channel.
const LANES: u64 = 0x00ff_00ff_00ff_00ff;
const ONES: u64 = 0x0001_0001_0001_0001;
/// The offset that keeps a difference positive.
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

/// Makes pixels one by one from the left neighbour and the three above: upper left, above, upper
/// right. In the result of `predict`, all bits of a lane above its channel but the highest may be
/// set.
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

/// Half of each lane; the highest bit is undefined.
#[inline(always)]
const fn half(lanes: u64) -> u64 {
    lanes >> 1
}

/// Selects the left or the upper neighbour: the one nearer to left + above - upper left.
#[inline(always)]
fn select(left: u64, [corner, top, _]: [u64; 3]) -> u64 {
    let without_top = differences(left, corner);
    let without_left = differences(top, corner);
    let mask = ((without_left.cast_signed() - without_top.cast_signed()) >> 63).cast_unsigned();
    left & mask | top & !mask
}

/// The sum of the absolute differences of all channels.
#[inline(always)]
const fn differences(one: u64, other: u64) -> u64 {
    let lifted = one + RANGE - other;
    let negative = !lifted & RANGE;
    let mask = negative - (negative >> 8);
    let absolute = ((lifted ^ mask) & LANES) + (negative >> 8);
    // The highest lane of the product holds the sum of all lanes.
    absolute.wrapping_mul(ONES) >> 48
}

/// Subtracts 256 from each lane and clamps to 0 to 255. The lower 10 bits of each lane are used.
#[inline(always)]
fn clamp(lifted: u64) -> u64 {
    // A fast path: nearly always all lanes are in range.
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
