//! Reads pixels: literals, copies and the colour cache (RFC 9649, section 3.6).

use super::Pixel;
use super::bits::Bits;
use super::groups::{Groups, LENGTHS, LITERALS, Literals};
use crate::DAMAGED;
use crate::Error;
use crate::interrupt::Interrupt;

/// The number of rows between two checks for an interruption.
const ROWS: usize = 64;

/// Reads all `pixels`, in rows of `width`.
pub(super) fn read_pixels(
    bits: &mut Bits<'_>,
    groups: &Groups,
    cache_bits: u32,
    width: usize,
    pixels: &mut [Pixel],
    interrupt: Interrupt<'_>,
) -> Result<(), Error> {
    let mut cache = Cache::new(cache_bits);
    let tile_mask = (1 << groups.tile_bits) - 1;
    let end = pixels.len();
    let (mut at, mut x, mut y) = (0, 0, 0);
    let mut next_check = 0;
    while at < end {
        if y >= next_check {
            bits.check()?;
            interrupt.check()?;
            next_check = y + ROWS;
        }
        // The group stays the same to the end of the tile or of the row.
        let begin = at;
        let stop = at + ((x | tile_mask) + 1).min(width) - x;
        let group = groups.at(x, y);
        if let Literals::Solid = group.literals {
            pixels[at..stop].fill(group.constant.to_le_bytes());
            at = stop;
        }
        let codes = groups.codes(group);
        while at < stop {
            bits.refill();
            let symbol = if let Literals::Packed(packed) = &group.literals {
                let entry = packed[bits.window() as usize % packed.len()];
                bits.skip((entry >> 32) as u32 & 63);
                if entry >> 40 == 0 {
                    pixels[at] = (entry as u32).to_le_bytes();
                    at += 1;
                    continue;
                }
                entry as u16
            } else {
                codes.green.read(bits)
            };
            if symbol < LITERALS {
                let mut pixel = group.constant | u32::from(symbol) << 8;
                if let Literals::Opaque | Literals::Full = group.literals {
                    pixel |= u32::from(codes.red.read(bits));
                    pixel |= u32::from(codes.blue.read(bits)) << 16;
                    if let Literals::Full = group.literals {
                        if bits.count() < 15 {
                            bits.refill();
                        }
                        pixel |= u32::from(codes.alpha.read(bits)) << 24;
                    }
                }
                pixels[at] = pixel.to_le_bytes();
                at += 1;
            } else if symbol < LITERALS + LENGTHS {
                let length = read_prefixed(bits, symbol - LITERALS);
                let symbol = codes.distance.read(bits);
                bits.refill();
                let distance = distance(read_prefixed(bits, symbol), width);
                copy(pixels, at, distance, length)?;
                at += length;
            } else {
                cache.fill(&pixels[..at]);
                pixels[at] = cache.get(symbol - LITERALS - LENGTHS);
                at += 1;
            }
        }
        x += at - begin;
        while x >= width {
            x -= width;
            y += 1;
        }
    }
    bits.check()
}

/// Reads a length or a distance. Its prefix gives the number of bits that follow.
#[inline(always)]
fn read_prefixed(bits: &mut Bits<'_>, prefix: u16) -> usize {
    let prefix = u32::from(prefix);
    if prefix < 4 {
        return prefix as usize + 1;
    }
    let more = (prefix - 2) >> 1;
    let offset = (2 + (prefix & 1)) << more;
    (offset + bits.take(more)) as usize + 1
}

/// The distance in pixels that a distance code means. The first 120 codes mean neighbours in two
/// dimensions.
#[inline(always)]
fn distance(code: usize, width: usize) -> usize {
    match NEAR.get(code - 1) {
        Some(&(x, y)) => (usize::from(y) * width)
            .saturating_add_signed(isize::from(x))
            .max(1),
        None => code - NEAR.len(),
    }
}

/// Copies `length` pixels from `distance` before `at` to `at`. Source and target may overlap.
#[inline(always)]
fn copy(pixels: &mut [Pixel], at: usize, distance: usize, length: usize) -> Result<(), Error> {
    if distance > at || length > pixels.len() - at {
        return Err(DAMAGED);
    }
    if distance >= length {
        pixels.copy_within(at - distance..at - distance + length, at);
    } else if distance == 1 {
        let pixel = pixels[at - 1];
        pixels[at..at + length].fill(pixel);
    } else {
        for to in at..at + length {
            pixels[to] = pixels[to - distance];
        }
    }
    Ok(())
}

/// The colour cache: recent colours by their hash.
struct Cache {
    colors: Vec<u32>,
    bits: u32,
    /// The number of pixels that were inserted.
    filled: usize,
    /// The last inserted colour.
    last: u32,
}

impl Cache {
    fn new(bits: u32) -> Self {
        let len = if bits == 0 { 0 } else { 1 << bits };
        Self {
            colors: vec![0; len],
            bits,
            filled: 0,
            last: 0,
        }
    }

    /// Inserts the pixels that were read since the last call. The cache starts with zeros, so the
    /// colour 0 is not inserted.
    #[inline(always)]
    fn fill(&mut self, pixels: &[Pixel]) {
        for &pixel in &pixels[self.filled..] {
            let color = u32::from_le_bytes(pixel);
            if color == self.last {
                continue;
            }
            self.last = color;
            // The hash takes alpha, red, green and blue, from the highest byte.
            let argb = color.swap_bytes().rotate_right(8);
            let index = argb.wrapping_mul(0x1e35_a7bd) >> (32 - self.bits);
            self.colors[index as usize] = color;
        }
        self.filled = pixels.len();
    }

    #[inline(always)]
    fn get(&self, index: u16) -> Pixel {
        self.colors[usize::from(index)].to_le_bytes()
    }
}

/// The offsets of the distance codes from 1 on: columns (positive to the left) and rows up.
#[rustfmt::skip]
const NEAR: [(i8, u8); 120] = [
    (0, 1), (1, 0), (1, 1), (-1, 1), (0, 2), (2, 0), (1, 2), (-1, 2), (2, 1), (-2, 1),
    (2, 2), (-2, 2), (0, 3), (3, 0), (1, 3), (-1, 3), (3, 1), (-3, 1), (2, 3), (-2, 3),
    (3, 2), (-3, 2), (0, 4), (4, 0), (1, 4), (-1, 4), (4, 1), (-4, 1), (3, 3), (-3, 3),
    (2, 4), (-2, 4), (4, 2), (-4, 2), (0, 5), (3, 4), (-3, 4), (4, 3), (-4, 3), (5, 0),
    (1, 5), (-1, 5), (5, 1), (-5, 1), (2, 5), (-2, 5), (5, 2), (-5, 2), (4, 4), (-4, 4),
    (3, 5), (-3, 5), (5, 3), (-5, 3), (0, 6), (6, 0), (1, 6), (-1, 6), (6, 1), (-6, 1),
    (2, 6), (-2, 6), (6, 2), (-6, 2), (4, 5), (-4, 5), (5, 4), (-5, 4), (3, 6), (-3, 6),
    (6, 3), (-6, 3), (0, 7), (7, 0), (1, 7), (-1, 7), (5, 5), (-5, 5), (7, 1), (-7, 1),
    (4, 6), (-4, 6), (6, 4), (-6, 4), (2, 7), (-2, 7), (7, 2), (-7, 2), (3, 7), (-3, 7),
    (7, 3), (-7, 3), (5, 6), (-5, 6), (6, 5), (-6, 5), (8, 0), (4, 7), (-4, 7), (7, 4),
    (-7, 4), (8, 1), (8, 2), (6, 6), (-6, 6), (8, 3), (5, 7), (-5, 7), (7, 5), (-7, 5),
    (8, 4), (6, 7), (-6, 7), (7, 6), (-7, 6), (8, 5), (7, 7), (-7, 7), (8, 6), (8, 7),
];
