//! Decodes WebP (RFC 9649): stills and animations, lossy and lossless, by region, in safe Rust and
//! with memory that is known before decoding begins.
//!
//! ```
//! use cameo_webp_decode::{Area, Content, Layout, WebP};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let bytes = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0";
//! let file = WebP::parse(bytes)?;
//! if let Content::Still(Some(picture)) = file.content() {
//!     let area = Area::whole(picture.width(), picture.height());
//!     if picture.memory(Layout::Rgba).peak_bytes(area) <= 64 << 20 {
//!         let pixels = picture.decode(area, Layout::Rgba, &|| true)?;
//!         assert_eq!(pixels.len(), 4 * area.pixels());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Steps
//!
//! 1. [`WebP::parse`] reads the container: sizes, frames, metadata. It decodes and allocates
//!    nothing, so a caller can apply its limits before the work begins.
//! 2. [`Picture::memory`] bounds the memory that decoding takes.
//! 3. [`Picture::decode`] decodes one area of a still or of an animation frame.
//!
//! # Guarantees
//!
//! - There is no `unsafe` code and there are no dependencies. No input makes the decoder panic.
//! - Pixels are equal, bit for bit, to those of libwebp with its default settings, also for damaged
//!   data that both decode.
//! - A picture is decoded whole or refused. Pixels that the file does not contain are never made
//!   up: if data is missing, [`Picture::decode`] returns [`Error::Corrupt`].
//! - Decoding takes at most the memory that [`Picture::memory`] says.
//!
//! # Limits
//!
//! The crate does not compose animations: it decodes each [`Frame`] by itself and says where the
//! frame lies, how it is blended and how it is disposed of. It does not read metadata: EXIF data
//! and ICC profiles come out as bytes.

#![cfg_attr(not(test), forbid(unsafe_code))]

mod alpha;
mod container;
mod interrupt;
#[cfg(test)]
mod libwebp;
mod vp8;
mod vp8l;

use std::fmt;
use std::ops::Range;

pub use container::{
    Animation, Blending, ClaimedSize, Content, Disposal, Frame, Picture, WebP, claimed_size,
};

use container::Data;
use interrupt::Interrupt;

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Distance from the left edge.
    pub x: u32,
    /// Distance from the upper edge.
    pub y: u32,
    /// Number of columns.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

impl Area {
    /// All of a picture of this size.
    pub const fn whole(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// Number of pixels in the area.
    pub const fn pixels(&self) -> usize {
        self.width as usize * self.height as usize
    }

    fn rows(&self) -> Range<usize> {
        self.y as usize..self.y as usize + self.height as usize
    }

    fn columns(&self) -> Range<usize> {
        self.x as usize..self.x as usize + self.width as usize
    }

    /// Whether the area has pixels, all of them within a picture or canvas of this size.
    fn is_within(&self, width: u32, height: u32) -> bool {
        let ends_within = |begin: u32, length: u32, end: u32| {
            length > 0 && begin.checked_add(length).is_some_and(|last| last <= end)
        };
        ends_within(self.x, self.width, width) && ends_within(self.y, self.height, height)
    }
}

/// The bytes of one decoded pixel, in sRGB unless the file has an ICC profile. Alpha is straight,
/// not premultiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Red, green, blue. The alpha channel of the picture is dropped.
    Rgb,
    /// Red, green, blue, alpha. Alpha is 255 if the picture has none.
    Rgba,
}

impl Layout {
    /// Bytes per pixel.
    pub const fn channels(self) -> usize {
        match self {
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

/// An upper bound on the memory that [`Picture::decode`] takes at its peak, its result included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes whatever area is decoded.
    pub fixed_bytes: u64,
    /// Bytes for each pixel of the area.
    pub pixel_bytes: u64,
}

impl Memory {
    /// The bound for one area.
    pub const fn peak_bytes(&self, area: Area) -> u64 {
        self.fixed_bytes + self.pixel_bytes * area.pixels() as u64
    }
}

/// Why a file or a picture is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The data is damaged, cut off or contradicts itself. The text says in which way, for the
    /// person who sent the file.
    Corrupt(&'static str),
    /// Decoding would take more memory than a picture of this size justifies.
    TooComplex(&'static str),
    /// The area is empty or not within the picture.
    InvalidArea,
    /// The caller ended the decode.
    Interrupted,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(reason) => write!(f, "the WebP data is corrupt: {reason}"),
            Self::TooComplex(reason) => write!(f, "the WebP data is too complex: {reason}"),
            Self::InvalidArea => f.write_str("the area is empty or not within the picture"),
            Self::Interrupted => f.write_str("the decode was interrupted"),
        }
    }
}

impl std::error::Error for Error {}

const CUT_OFF: Error = Error::Corrupt("it ends before its last row");
const DAMAGED: Error = Error::Corrupt("its data is damaged");

impl Picture<'_> {
    /// Bounds the memory that [`Self::decode`] takes.
    pub fn memory(&self, layout: Layout) -> Memory {
        let pixels = u64::from(self.width()) * u64::from(self.height());
        let lossy_bytes = vp8::memory_bytes(self.width(), self.height());
        match self.data {
            // Decoded in place.
            Data::Lossless(_) => Memory {
                fixed_bytes: vp8l::memory_bytes(pixels),
                pixel_bytes: 0,
            },
            Data::Lossy(_, alpha) => Memory {
                // Alpha is decoded first.
                fixed_bytes: match alpha {
                    Some(_) => vp8l::memory_bytes(pixels).max(pixels + lossy_bytes),
                    None => lossy_bytes,
                },
                pixel_bytes: layout.channels() as u64,
            },
        }
    }

    /// Decodes the pixels of `area`, in rows from the top. The whole picture is decoded and checked
    /// whatever the area is; the area bounds the size of the result.
    ///
    /// `keep_going` is called every few rows, so that a caller can end the decode: at a deadline,
    /// or if the work was cancelled.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidArea`] if the area is empty or not within the picture.
    /// - [`Error::Corrupt`] if any pixel of the picture cannot be decoded.
    /// - [`Error::TooComplex`] if decoding would take more memory than [`Self::memory`] says.
    /// - [`Error::Interrupted`] if `keep_going` returns `false`.
    pub fn decode(
        &self,
        area: Area,
        layout: Layout,
        keep_going: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, Error> {
        if !area.is_within(self.width(), self.height()) {
            return Err(Error::InvalidArea);
        }
        if !self.is_complete() {
            return Err(CUT_OFF);
        }
        let interrupt = Interrupt::new(keep_going);
        match self.data {
            Data::Lossless(payload) => vp8l::decode(payload, area, layout, interrupt),
            Data::Lossy(payload, alpha) => {
                let size = (self.width(), self.height());
                let alpha = alpha
                    .map(|alpha| alpha::decode(alpha, size, interrupt))
                    .transpose()?;
                let planes = vp8::decode(payload, interrupt)?;
                let mut pixels = vec![0; area.pixels() * layout.channels()];
                planes.write_rgb(area.rows(), area.columns(), layout, &mut pixels);
                if let (Some(plane), Layout::Rgba) = (alpha, layout) {
                    let rows = plane.chunks_exact(size.0 as usize);
                    let rows = rows.skip(area.y as usize).take(area.height as usize);
                    let values = rows.flat_map(|row| &row[area.columns()]);
                    for (pixel, alpha) in pixels.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                        pixel[3] = *alpha;
                    }
                }
                Ok(pixels)
            }
        }
    }
}

#[cfg(test)]
mod tests;
