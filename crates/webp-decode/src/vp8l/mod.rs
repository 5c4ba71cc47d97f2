//! Decodes lossless WebP, VP8L (RFC 9649, sections 3.4 to 4).
//!
//! Pixels are read into the memory of the result. Then the transforms are undone row by row in
//! place. If fewer pixels are stored than shown, the stored ones lie at the end of that memory. So
//! decoding takes four bytes per pixel and the tables that [`memory_bytes`] counts.

#![allow(
    clippy::inline_always,
    reason = "the functions that run for each pixel must become one loop, which may be large"
)]

mod bits;
mod entropy;
mod groups;
mod huffman;
mod predict;
mod transform;

use bits::Bits;
use entropy::read_pixels;
use groups::Groups;
use predict::Predictor;
use transform::{Color, Palette, Transform};

use crate::Area;
use crate::DAMAGED;
use crate::Error;
use crate::Layout;
use crate::interrupt::Interrupt;

/// Red, green, blue, alpha.
type Pixel = [u8; 4];

/// A subresolution picture: one pixel for each tile of the main picture.
struct Rows {
    width: usize,
    pixels: Vec<Pixel>,
}

/// The header of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) alpha: bool,
}

/// Reads the header in the payload of a `VP8L` chunk; `None` if it is damaged.
pub(super) fn shape(payload: &[u8]) -> Option<Shape> {
    let &[0x2f, b0, b1, b2, b3, ..] = payload else {
        return None;
    };
    let bits = u32::from_le_bytes([b0, b1, b2, b3]);
    (bits >> 29 == 0).then_some(Shape {
        width: (bits & 0x3fff) + 1,
        height: (bits >> 14 & 0x3fff) + 1,
        alpha: bits >> 28 & 1 == 1,
    })
}

/// The channels of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    Rgba,
    Rgb,
    /// Red, green, blue, and an alpha of 255 whatever is stored.
    Opaque,
    /// Green only: an alpha plane is stored as the green channel.
    Green,
}

/// Upper bound on peak decode memory.
pub(super) fn memory_bytes(pixels: u64) -> u64 {
    // The pixels; a sixteenth of them for each of three transforms and one more while a transform
    // is read; tables; rows and the colour cache.
    pixels * 4 + pixels / 2 + most_table_bytes(pixels) + (1 << 20)
}

/// The memory limit of the tables of codes: more than encoders make for as many pixels, and less
/// than a file can demand.
const fn most_table_bytes(pixels: u64) -> u64 {
    let bytes = (1 << 20) + pixels * 4;
    if bytes < 16 << 20 { bytes } else { 16 << 20 }
}

/// Decodes a part of the payload of a `VP8L` chunk. Alpha is 255 if the picture says that it has
/// none.
pub(super) fn decode(
    payload: &[u8],
    part: Area,
    layout: Layout,
    interrupt: Interrupt<'_>,
) -> Result<Vec<u8>, Error> {
    let shape = shape(payload).ok_or(DAMAGED)?;
    let channels = match (layout, shape.alpha) {
        (Layout::Rgba, true) => Channels::Rgba,
        (Layout::Rgba, false) => Channels::Opaque,
        (Layout::Rgb, _) => Channels::Rgb,
    };
    let size = (shape.width as usize, shape.height as usize);
    decode_stream(&payload[5..], size, part, channels, interrupt)
}

/// Decodes a part of a picture without a header, in rows of the requested channels.
///
/// # Errors
///
/// [`Error::Corrupt`] unless the data holds every pixel, also those outside the part;
/// [`Error::TooComplex`] if the codes take more memory than a picture of this size justifies;
/// [`Error::Interrupted`].
pub(super) fn decode_stream(
    stream: &[u8],
    (width, height): (usize, usize),
    part: Area,
    channels: Channels,
    interrupt: Interrupt<'_>,
) -> Result<Vec<u8>, Error> {
    let mut bits = Bits::new(stream);
    let mut transforms = Vec::new();
    let mut stored_width = width;
    let mut seen = [false; 4];
    while bits.read_flag() {
        let kind = bits.read(2) as usize;
        // Each transform is used at most once.
        if std::mem::replace(&mut seen[kind], true) {
            return Err(DAMAGED);
        }
        let transform = match kind {
            0 | 1 => {
                let tile_bits = bits.read(3) + 2;
                let tiles = read_tiles(&mut bits, stored_width, height, tile_bits, interrupt)?;
                if kind == 0 {
                    Transform::Predictor(Predictor::new(stored_width, tile_bits, &tiles))
                } else {
                    Transform::Color(Color::new(tile_bits, &tiles))
                }
            }
            2 => Transform::SubtractGreen,
            _ => {
                let colors = bits.read(8) as usize + 1;
                let differences = read_small(&mut bits, colors, 1, interrupt)?;
                let palette = Palette::new(stored_width, &differences.pixels);
                stored_width = palette.stored_width();
                Transform::Palette(Box::new(palette))
            }
        };
        transforms.push(transform);
    }
    let cache_bits = read_cache_bits(&mut bits)?;
    let groups = if bits.read_flag() {
        let tile_bits = bits.read(3) + 2;
        let map = read_tiles(&mut bits, stored_width, height, tile_bits, interrupt)?;
        let most_bytes = most_table_bytes(width as u64 * height as u64) as usize;
        Groups::read_many(&mut bits, cache_bits, map, tile_bits, most_bytes, interrupt)?
    } else {
        Groups::read_one(&mut bits, cache_bits)?
    };
    let mut picture = vec![0; width * height * 4];
    let begin = picture.len() - stored_width * height * 4;
    let (pixels, _) = picture[begin..].as_chunks_mut();
    read_pixels(
        &mut bits,
        &groups,
        cache_bits,
        stored_width,
        pixels,
        interrupt,
    )?;
    drop(groups);
    let stored = Stored {
        picture,
        size: (width, height),
        stored_width,
        transforms,
    };
    stored.finish(part, channels, interrupt)
}

fn read_cache_bits(bits: &mut Bits<'_>) -> Result<u32, Error> {
    if !bits.read_flag() {
        return Ok(0);
    }
    match bits.read(4) {
        cache_bits @ 1..=11 => Ok(cache_bits),
        _ => Err(DAMAGED),
    }
}

/// Reads a picture with one pixel for each tile.
fn read_tiles(
    bits: &mut Bits<'_>,
    width: usize,
    height: usize,
    tile_bits: u32,
    interrupt: Interrupt<'_>,
) -> Result<Rows, Error> {
    let tiles = |edge: usize| edge.div_ceil(1 << tile_bits);
    read_small(bits, tiles(width), tiles(height), interrupt)
}

/// Reads a picture without transforms and with one group of codes.
fn read_small(
    bits: &mut Bits<'_>,
    width: usize,
    height: usize,
    interrupt: Interrupt<'_>,
) -> Result<Rows, Error> {
    let cache_bits = read_cache_bits(bits)?;
    let groups = Groups::read_one(bits, cache_bits)?;
    let mut pixels = vec![[0; 4]; width * height];
    read_pixels(bits, &groups, cache_bits, width, &mut pixels, interrupt)?;
    Ok(Rows { width, pixels })
}

/// The stored pixels, at the end of the memory of the result.
struct Stored {
    picture: Vec<u8>,
    size: (usize, usize),
    stored_width: usize,
    transforms: Vec<Transform>,
}

impl Stored {
    /// Undoes the transforms from the first row to the last and writes the requested channels, in
    /// place.
    fn finish(
        mut self,
        part: Area,
        channels: Channels,
        interrupt: Interrupt<'_>,
    ) -> Result<Vec<u8>, Error> {
        let (width, height) = self.size;
        let is_all = (part.columns().len(), part.rows().len()) == self.size;
        if is_all && channels == Channels::Rgba && self.transforms.is_empty() {
            return Ok(self.picture);
        }
        let pixel_bytes = match channels {
            Channels::Rgba | Channels::Opaque => 4,
            Channels::Rgb => 3,
            Channels::Green => 1,
        };
        let row_bytes = part.columns().len() * pixel_bytes;
        let stored_bytes = self.stored_width * 4;
        let end = self.picture.len();
        let mut row: Vec<Pixel> = Vec::with_capacity(width + 7);
        for y in 0..part.rows().end {
            if y % 64 == 0 {
                interrupt.check()?;
            }
            let begin = end - (height - y) * stored_bytes;
            let (stored, _) = self.picture[begin..begin + stored_bytes].as_chunks();
            row.clear();
            row.extend_from_slice(stored);
            for transform in self.transforms.iter_mut().rev() {
                transform.undo(&mut row, y);
            }
            if let Some(y) = y.checked_sub(part.rows().start) {
                // The stored pixels of later rows lie behind the end of this one.
                let target = &mut self.picture[y * row_bytes..(y + 1) * row_bytes];
                write(&row[part.columns()], channels, target);
            }
        }
        self.picture.truncate(part.rows().len() * row_bytes);
        self.picture.shrink_to_fit();
        Ok(self.picture)
    }
}

fn write(row: &[Pixel], channels: Channels, target: &mut [u8]) {
    match channels {
        Channels::Rgba => target.copy_from_slice(row.as_flattened()),
        Channels::Opaque => {
            for (target, &[red, green, blue, _]) in target.as_chunks_mut().0.iter_mut().zip(row) {
                *target = [red, green, blue, 255];
            }
        }
        Channels::Rgb => {
            for (target, &[red, green, blue, _]) in target.as_chunks_mut().0.iter_mut().zip(row) {
                *target = [red, green, blue];
            }
        }
        Channels::Green => {
            for (target, pixel) in target.iter_mut().zip(row) {
                *target = pixel[1];
            }
        }
    }
}
