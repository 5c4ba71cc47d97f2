//! From bytes to pixels: one file for each format, each in two steps. `header` reads as little as
//! it can and refuses what is too much; `decode` then does the work.

mod animation;
mod gif;
mod heif;
mod jpeg;
mod png;
mod webp;

pub(super) use animation::Frame;

use super::av1::Av1;
use super::control::Control;
use super::geometry::{Square, Window};
use super::orientation::Orientation;
use super::planes::Picture;
use super::raster::Raster;
use super::{Error, Limits, sniff};
use crate::SourceFormat;

/// What a picture's headers say, as far as decoding needs to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) format: SourceFormat,
    /// As stored, before the orientation is applied.
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    /// 1 for a still.
    pub(super) frames: u32,
    /// Whether any of it may be transparent.
    pub(super) alpha: bool,
    /// What its ICC profile takes, as it is kept, at most.
    pub(super) profile_bytes: u64,
    pub(super) memory: Memory,
}

/// What decoding takes at its peak, from above.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Whatever is wanted of the picture.
    pub(super) fixed_bytes: u64,
    /// For the whole picture at its full size; less with the square of the scale.
    pub(super) scaled_bytes: u64,
    /// For each pixel that comes out, unless the whole picture does and takes more.
    pub(super) pixel_bytes: u64,
}

/// What to decode of a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecodeRequest {
    /// The part that is needed, in pixels of the stored picture.
    pub(super) square: Square,
    /// The edge that the part must still have after decoding, if it has it at all.
    pub(super) edge_px: u32,
    pub(super) chroma: Chroma,
}

/// How much of the colours' detail is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chroma {
    /// All that there is.
    Whole,
    /// Half of luma's in each direction, which is what lossy WebP and JPEG keep.
    Halved,
}

impl Header {
    /// How long a side of what is wanted is once it is decoded, in pixels.
    pub(super) fn decoded_edge_px(&self, request: &DecodeRequest) -> u32 {
        let edge = request.square.edge;
        match self.format {
            SourceFormat::Jpeg => edge * jpeg::eighths(request) / 8 + 1,
            SourceFormat::Heic | SourceFormat::Avif => edge / heif::shrink(request) + 1,
            _ => edge,
        }
    }

    /// What decoding what is wanted takes at its peak, its result included: an upper bound.
    pub(super) fn memory_bytes(&self, request: &DecodeRequest) -> u64 {
        let decoded = u64::from(self.decoded_edge_px(request));
        let scaled_bytes = self.scaled_bytes(request);
        let of_result = scaled_bytes.max(self.memory.pixel_bytes * decoded.pow(2));
        self.memory
            .fixed_bytes
            .saturating_add(self.profile_bytes + scaled_bytes + of_result)
    }

    /// What of that is left when it is done: pixels, of the whole picture where frames are drawn on
    /// it, or planes, which are always those of the whole picture.
    pub(super) fn result_bytes(&self, request: &DecodeRequest) -> u64 {
        let pixels = match self.format {
            SourceFormat::Gif | SourceFormat::Webp => {
                u64::from(self.width) * u64::from(self.height)
            }
            _ => u64::from(self.decoded_edge_px(request)).pow(2),
        };
        self.profile_bytes + self.scaled_bytes(request).max(pixels * 4)
    }

    fn scaled_bytes(&self, request: &DecodeRequest) -> u64 {
        // Rounded up, for blocks that reach beyond the edge.
        let decoded = u64::from(self.decoded_edge_px(request)) + 8;
        self.memory.scaled_bytes * decoded.pow(2) / u64::from(request.square.edge).pow(2)
    }
}

/// What came out: at least the part that was wanted, in pixels where a decoder gives nothing else.
pub(super) struct Decoded<P = Raster> {
    pub(super) raster: P,
    /// Where in the raster the wanted square lies.
    pub(super) window: Window,
    pub(super) colors: Colors,
}

impl From<Decoded> for Decoded<Picture> {
    fn from(decoded: Decoded) -> Self {
        Self {
            raster: Picture::Pixels(decoded.raster),
            window: decoded.window,
            colors: decoded.colors,
        }
    }
}

/// What the channels of a picture mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Colors {
    /// Nothing says.
    Unmarked,
    /// An embedded ICC profile.
    Profile(Vec<u8>),
    /// Code points of ITU-T H.273.
    Coded {
        /// Which red, green and blue.
        primaries: u8,
        /// How light they are.
        transfer: u8,
    },
}

impl From<Option<Vec<u8>>> for Colors {
    fn from(profile: Option<Vec<u8>>) -> Self {
        profile.map_or(Self::Unmarked, Self::Profile)
    }
}

/// A profile larger than any real one: printers' profiles with four inks reach 2 to 3 MB.
const MAX_PROFILE_BYTES: usize = 4 << 20;

/// Reads the headers.
///
/// # Errors
///
/// As [`super::probe`] says.
pub(super) fn header(bytes: &[u8], limits: &Limits) -> Result<Header, Error> {
    let unsupported = |found: String| Error::UnsupportedFormat {
        found,
        allowed: limits.formats.clone(),
    };
    let format = match sniff::format_of(bytes) {
        Some(format) if limits.formats.contains(&format) => format,
        _ => return Err(unsupported(sniff::describe(bytes))),
    };
    let header = match format {
        SourceFormat::Jpeg => jpeg::header(bytes),
        SourceFormat::Png => png::header(bytes),
        SourceFormat::Webp => webp::header(bytes),
        SourceFormat::Gif => gif::header(bytes),
        SourceFormat::Heic | SourceFormat::Avif => heif::header(bytes, format),
    };
    match header {
        Ok(header) => {
            Size::of(&header).check(limits)?;
            Ok(header)
        }
        Err(refusal) => {
            // The size decides before anything else that the header says.
            if let Some(size) = Size::claimed(bytes, format) {
                size.check(limits)?;
            }
            Err(match refusal {
                HeaderError::Kind(found) => unsupported(found.to_owned()),
                HeaderError::Broken(reason) => Error::Corrupt { format, reason },
                HeaderError::Complex(reason) => Error::TooComplex { reason },
            })
        }
    }
}

/// Why a header was not taken; [`header`] says it in full.
#[derive(Debug)]
enum HeaderError {
    /// A kind of the format that is not taken, in words.
    Kind(&'static str),
    /// Not a whole header.
    Broken(&'static str),
    /// More work than a picture needs.
    Complex(&'static str),
}

/// The width and height of a picture as it is stored, and its orientation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    width: u32,
    height: u32,
    orientation: Orientation,
}

impl Size {
    const fn of(header: &Header) -> Self {
        Self {
            width: header.width,
            height: header.height,
            orientation: header.orientation,
        }
    }

    /// Reads the size that a header claims and nothing else, for a header that is refused for
    /// another reason. `None` where it claims no size.
    fn claimed(bytes: &[u8], format: SourceFormat) -> Option<Self> {
        let size = match format {
            SourceFormat::Jpeg => jpeg::claimed_size(bytes),
            SourceFormat::Png => png::claimed_size(bytes),
            SourceFormat::Webp => webp::claimed_size(bytes),
            SourceFormat::Gif => gif::claimed_size(bytes),
            SourceFormat::Heic | SourceFormat::Avif => heif::claimed_size(bytes),
        };
        size.filter(|size| size.width > 0 && size.height > 0)
    }

    /// Checks the sides of the upright picture.
    fn check(self, limits: &Limits) -> Result<(), Error> {
        let (width, height) = self.orientation.upright_size(self.width, self.height);
        if width.max(height) > limits.max_edge_px {
            return Err(Error::DimensionsTooLarge {
                width,
                height,
                max_edge_px: limits.max_edge_px,
            });
        }
        if width.min(height) < limits.min_edge_px.max(1) {
            return Err(Error::DimensionsTooSmall {
                width,
                height,
                min_edge_px: limits.min_edge_px,
            });
        }
        Ok(())
    }
}

/// Checks how many frames a picture has, and how large they are together. Call it only where the
/// frames are kept: a still needs the first frame alone.
///
/// # Errors
///
/// [`Error::TooManyFrames`], [`Error::TooManyPixels`].
pub(super) fn check_frames(header: &Header, limits: &Limits) -> Result<(), Error> {
    if header.frames > limits.max_frames {
        return Err(Error::TooManyFrames {
            frames: header.frames,
            max_frames: limits.max_frames,
        });
    }
    let area = u64::from(header.width) * u64::from(header.height);
    let pixels = area.saturating_mul(u64::from(header.frames));
    if header.frames > 1 && pixels > MAX_ANIMATION_PIXELS {
        return Err(Error::TooManyPixels {
            pixels,
            max_pixels: MAX_ANIMATION_PIXELS,
        });
    }
    Ok(())
}

/// The most pixels that the frames of an animation may have together: 200 frames of 800 × 800.
const MAX_ANIMATION_PIXELS: u64 = 128_000_000;

/// Decodes what is wanted of a picture whose header was taken.
///
/// # Errors
///
/// [`Error::Corrupt`] where any row cannot be decoded, and what `control` says.
pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    request: &DecodeRequest,
    control: &Control,
    av1: &Av1,
) -> Result<Decoded<Picture>, Error> {
    let decoded = match header.format {
        SourceFormat::Jpeg => return jpeg::decode(bytes, header, request),
        SourceFormat::Png => png::decode(bytes, header, request, control),
        SourceFormat::Webp => webp::decode(bytes, header, request, control),
        SourceFormat::Gif => gif::decode(bytes, header, request),
        SourceFormat::Heic | SourceFormat::Avif => heif::decode(bytes, request, control, av1),
    };
    decoded.map(Decoded::from)
}

/// Gives every frame of an animation whose header was taken to `visit`, as it is shown.
///
/// # Errors
///
/// As [`decode`], and what `visit` says.
pub(super) fn animate(
    bytes: &[u8],
    header: &Header,
    control: &Control,
    visit: &mut dyn FnMut(Frame<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    match header.format {
        SourceFormat::Gif => gif::animate(bytes, header, control, visit),
        SourceFormat::Png => png::animate(bytes, header, control, visit),
        SourceFormat::Webp => webp::animate(bytes, header, control, visit),
        SourceFormat::Jpeg | SourceFormat::Heic | SourceFormat::Avif => Ok(()),
    }
}
