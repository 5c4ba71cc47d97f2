//! Lossless WebP, VP8L (RFC 9649, section 3.4 to 4).
//!
//! Pixels are read into the place where the picture will be, and then made what they are row by
//! row in that place; where fewer pixels are stored than shown, they lie at its end. So decoding
//! takes four bytes for each pixel, and what [`memory_bytes`] says beside them.

#![allow(
    clippy::inline_always,
    reason = "what is done for each pixel belongs into one loop, whatever its size"
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

use super::super::animation::Area;
use super::DAMAGED;
use crate::Error;
use crate::control::Control;
use crate::raster::Layout;

/// Red, green, blue, alpha.
type Pixel = [u8; 4];

/// A picture that says something of the tiles of another.
struct Rows {
    width: usize,
    pixels: Vec<Pixel>,
}

/// What a picture's data begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) alpha: bool,
}

/// Reads what the payload of a `VP8L` chunk begins with; `None` where it begins with nothing known.
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

/// What is made of the pixels' channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    Rgba,
    Rgb,
    /// Alpha is full, whatever is stored.
    Opaque,
    /// Alpha channels are stored as green.
    Green,
}

/// What decoding takes at its peak, from above.
pub(super) fn memory_bytes(pixels: u64) -> u64 {
    // The pixels; a sixteenth of them in three transforms, while one of them is read; tables; rows
    // and the colour cache.
    pixels * 4 + pixels / 2 + most_table_bytes(pixels) + (1 << 20)
}

/// What the tables of codes may take together: more than encoders make of as many pixels, and less
/// than a file can ask for.
const fn most_table_bytes(pixels: u64) -> u64 {
    let bytes = (1 << 20) + pixels * 4;
    if bytes < 16 << 20 { bytes } else { 16 << 20 }
}

/// Decodes a part of the payload of a `VP8L` chunk, with or without alpha. Alpha is full where the
/// picture says that it has none.
pub(super) fn decode(
    payload: &[u8],
    part: Area,
    layout: Layout,
    control: &Control,
) -> Result<Vec<u8>, Error> {
    let shape = shape(payload).ok_or(DAMAGED)?;
    let channels = match (layout, shape.alpha) {
        (Layout::Rgba, true) => Channels::Rgba,
        (Layout::Rgba, false) => Channels::Opaque,
        _ => Channels::Rgb,
    };
    let size = (shape.width as usize, shape.height as usize);
    decode_stream(&payload[5..], size, part, channels, control)
}

/// Decodes a part of a picture that comes without a header: rows of the channels asked for.
///
/// # Errors
///
/// [`Error::Corrupt`] unless every pixel, also of the rest, was decoded from data that is there;
/// [`Error::TooComplex`] where codes take more memory than pixels pay for; and what `control` says.
pub(super) fn decode_stream(
    stream: &[u8],
    (width, height): (usize, usize),
    part: Area,
    channels: Channels,
    control: &Control,
) -> Result<Vec<u8>, Error> {
    let mut bits = Bits::new(stream);
    let mut transforms = Vec::new();
    let mut stored_width = width;
    let mut seen = [false; 4];
    while bits.read_flag() {
        let kind = bits.read(2) as usize;
        // Each comes once.
        if std::mem::replace(&mut seen[kind], true) {
            return Err(DAMAGED);
        }
        let transform = match kind {
            0 | 1 => {
                let tile_bits = bits.read(3) + 2;
                let tiles = read_tiles(&mut bits, stored_width, height, tile_bits, control)?;
                if kind == 0 {
                    Transform::Predictor(Predictor::new(stored_width, tile_bits, &tiles))
                } else {
                    Transform::Color(Color::new(tile_bits, &tiles))
                }
            }
            2 => Transform::SubtractGreen,
            _ => {
                let colors = bits.read(8) as usize + 1;
                let differences = read_small(&mut bits, colors, 1, control)?;
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
        let map = read_tiles(&mut bits, stored_width, height, tile_bits, control)?;
        let most_bytes = most_table_bytes(width as u64 * height as u64) as usize;
        Groups::read_many(&mut bits, cache_bits, map, tile_bits, most_bytes, control)?
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
        control,
    )?;
    drop(groups);
    let stored = Stored {
        picture,
        size: (width, height),
        stored_width,
        transforms,
    };
    stored.finish(part, channels, control)
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

/// Reads a pixel for each tile of a picture.
fn read_tiles(
    bits: &mut Bits<'_>,
    width: usize,
    height: usize,
    tile_bits: u32,
    control: &Control,
) -> Result<Rows, Error> {
    let tiles = |edge: usize| edge.div_ceil(1 << tile_bits);
    read_small(bits, tiles(width), tiles(height), control)
}

/// Reads a picture without transforms and with one group of codes.
fn read_small(
    bits: &mut Bits<'_>,
    width: usize,
    height: usize,
    control: &Control,
) -> Result<Rows, Error> {
    let cache_bits = read_cache_bits(bits)?;
    let groups = Groups::read_one(bits, cache_bits)?;
    let mut pixels = vec![[0; 4]; width * height];
    read_pixels(bits, &groups, cache_bits, width, &mut pixels, control)?;
    Ok(Rows { width, pixels })
}

/// A picture as it was stored, at the end of the room for all of it.
struct Stored {
    picture: Vec<u8>,
    size: (usize, usize),
    stored_width: usize,
    transforms: Vec<Transform>,
}

impl Stored {
    /// Makes what is asked for of what was stored, from the first row to the last, in its place.
    fn finish(
        mut self,
        part: Area,
        channels: Channels,
        control: &Control,
    ) -> Result<Vec<u8>, Error> {
        let (width, height) = self.size;
        let all = (part.width, part.height) == self.size && channels == Channels::Rgba;
        if all && self.transforms.is_empty() {
            return Ok(self.picture);
        }
        let pixel_bytes = match channels {
            Channels::Rgba | Channels::Opaque => 4,
            Channels::Rgb => 3,
            Channels::Green => 1,
        };
        let row_bytes = part.width * pixel_bytes;
        let stored_bytes = self.stored_width * 4;
        let end = self.picture.len();
        let mut row: Vec<Pixel> = Vec::with_capacity(width + 7);
        for y in 0..part.y + part.height {
            if y % 64 == 0 {
                control.check()?;
            }
            let begin = end - (height - y) * stored_bytes;
            let (stored, _) = self.picture[begin..begin + stored_bytes].as_chunks();
            row.clear();
            row.extend_from_slice(stored);
            for transform in self.transforms.iter_mut().rev() {
                transform.undo(&mut row, y);
            }
            if let Some(y) = y.checked_sub(part.y) {
                // What is stored of later rows lies behind the end of this one.
                let target = &mut self.picture[y * row_bytes..(y + 1) * row_bytes];
                write(&row[part.x..part.x + part.width], channels, target);
            }
        }
        self.picture.truncate(part.height * row_bytes);
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
