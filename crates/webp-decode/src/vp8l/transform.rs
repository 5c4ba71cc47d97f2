//! Undoes the transforms (RFC 9649, section 4), one row at a time.

use super::predict::Predictor;
use super::{Pixel, Rows};

/// A transform that the encoder applied.
pub(super) enum Transform {
    Predictor(Predictor),
    Color(Color),
    SubtractGreen,
    Palette(Box<Palette>),
}

impl Transform {
    /// Undoes the transform of row `y`; rows must come in order. On entry the row has as many
    /// pixels as were stored.
    pub(super) fn undo(&mut self, row: &mut Vec<Pixel>, y: usize) {
        match self {
            Self::Predictor(predictor) => predictor.undo(row, y),
            Self::Color(color) => color.undo(row, y),
            Self::SubtractGreen => row.iter_mut().for_each(add_green),
            Self::Palette(palette) => palette.undo(row),
        }
    }
}

fn add_green(pixel: &mut Pixel) {
    let value = u32::from_le_bytes(*pixel);
    let green = value >> 8 & 0xff;
    let red_blue = (value & 0x00ff_00ff) + (green << 16 | green);
    *pixel = (value & 0xff00_ff00 | red_blue & 0x00ff_00ff).to_le_bytes();
}

/// The colour transform (section 4.2): red and blue are stored as differences from multiples of
/// green and red.
pub(super) struct Color {
    tile_bits: u32,
    tiles_across: usize,
    shares: Vec<Shares>,
}

/// The multipliers of a tile, in 32nds.
struct Shares {
    green_in_red: i8,
    green_in_blue: i8,
    red_in_blue: i8,
}

impl Color {
    pub(super) fn new(tile_bits: u32, tiles: &Rows) -> Self {
        let shares = |&[red, green, blue, _]: &Pixel| Shares {
            green_in_red: blue.cast_signed(),
            green_in_blue: green.cast_signed(),
            red_in_blue: red.cast_signed(),
        };
        Self {
            tile_bits,
            tiles_across: tiles.width,
            shares: tiles.pixels.iter().map(shares).collect(),
        }
    }

    fn undo(&self, row: &mut [Pixel], y: usize) {
        let tiles = &self.shares[(y >> self.tile_bits) * self.tiles_across..];
        for (pixels, shares) in row.chunks_mut(1 << self.tile_bits).zip(tiles) {
            shares.undo(pixels);
        }
    }
}

impl Shares {
    fn undo(&self, pixels: &mut [Pixel]) {
        if self.none() {
            return;
        }
        let (chunks, rest) = pixels.as_chunks_mut();
        for chunk in chunks {
            self.undo_some(chunk);
        }
        let mut last = [[0; 4]; CHUNK];
        last[..rest.len()].copy_from_slice(rest);
        self.undo_some(&mut last);
        rest.copy_from_slice(&last[..rest.len()]);
    }

    const fn none(&self) -> bool {
        self.green_in_red == 0 && self.green_in_blue == 0 && self.red_in_blue == 0
    }

    /// Splits each pixel into halves of 16 bits: green above red, alpha above blue. The product of
    /// a channel in the upper byte and a multiplier that is scaled by 8 has its result in the upper
    /// half.
    #[inline]
    fn undo_some(&self, pixels: &mut [Pixel; CHUNK]) {
        let share = |value: i8| i16::from(value) << 3;
        let part =
            |channel: i16, share: i16| ((i32::from(channel) * i32::from(share)) >> 16) as i16;
        let (green_in_red, green_in_blue) = (share(self.green_in_red), share(self.green_in_blue));
        let red_in_blue = share(self.red_in_blue);
        let (mut low, mut high) = ([0; CHUNK], [0; CHUNK]);
        for (i, pixel) in pixels.iter().enumerate() {
            let value = u32::from_le_bytes(*pixel);
            low[i] = value as i16;
            high[i] = (value >> 16) as i16;
        }
        for i in 0..CHUNK {
            let green = low[i] & !0xff;
            let red = low[i].wrapping_add(part(green, green_in_red));
            let blue = high[i]
                .wrapping_add(part(green, green_in_blue))
                .wrapping_add(part(red << 8, red_in_blue));
            low[i] = green | red & 0xff;
            high[i] = high[i] & !0xff | blue & 0xff;
        }
        for (i, pixel) in pixels.iter_mut().enumerate() {
            let (low, high) = (low[i].cast_unsigned(), high[i].cast_unsigned());
            *pixel = (u32::from(low) | u32::from(high) << 16).to_le_bytes();
        }
    }
}

/// The number of pixels that the colour transform processes at once.
const CHUNK: usize = 8;

/// The colour indexing transform (section 4.4): pixels are stored as indices into a palette; a
/// small palette packs several indices into one pixel.
pub(super) struct Palette {
    /// Indices beyond the palette give transparent black.
    colors: [Pixel; 256],
    /// One stored pixel holds 1 << `packing` indices.
    packing: u32,
    width: usize,
    /// Indices while they are unpacked.
    packed: Vec<Pixel>,
}

impl Palette {
    /// Makes the palette for rows of `width`. Its colours are stored as differences.
    pub(super) fn new(width: usize, differences: &[Pixel]) -> Self {
        let mut colors = [[0; 4]; 256];
        let mut before: Pixel = [0; 4];
        for (color, difference) in colors.iter_mut().zip(differences) {
            for (channel, difference) in before.iter_mut().zip(difference) {
                *channel = channel.wrapping_add(*difference);
            }
            *color = before;
        }
        let packing = match differences.len() {
            0..=2 => 3,
            3..=4 => 2,
            5..=16 => 1,
            _ => 0,
        };
        Self {
            colors,
            packing,
            width,
            packed: Vec::new(),
        }
    }

    /// The number of stored pixels in a row.
    pub(super) fn stored_width(&self) -> usize {
        self.width.div_ceil(1 << self.packing)
    }

    fn undo(&mut self, row: &mut Vec<Pixel>) {
        if self.packing == 0 {
            for pixel in row {
                *pixel = self.colors[usize::from(pixel[1])];
            }
            return;
        }
        std::mem::swap(row, &mut self.packed);
        row.clear();
        let bits = 8 >> self.packing;
        let mask = (1 << bits) - 1;
        for &[_, numbers, ..] in &self.packed {
            let mut numbers = usize::from(numbers);
            for _ in 0..1 << self.packing {
                row.push(self.colors[numbers & mask]);
                numbers >>= bits;
            }
        }
        row.truncate(self.width);
    }
}
