//! Decodes bytes to pixels. Each format has a file and two steps: `header` reads as little as
//! possible and refuses pictures over the limits; `decode` does the work.

mod animation;
mod bmp;
mod gif;
mod heif;
mod jpeg;
mod png;
mod tiff;
mod webp;

pub(super) use animation::Frame;

use super::control::Control;
use super::geometry::{Area, Square, Window, original_size};
use super::orientation::Orientation;
use super::planes::Picture;
use super::raster::Raster;
use super::{Error, Limits, sniff};
use crate::SourceFormat;
use std::borrow::Cow;

/// The headers of a picture, as far as decoding needs them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) format: SourceFormat,
    /// As stored, before the orientation is applied.
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    /// The number of frames; 1 for a still.
    pub(super) frames: u32,
    /// Whether any pixel may be transparent.
    pub(super) alpha: bool,
    /// Upper bound on the size of the ICC profile in memory.
    pub(super) profile_bytes: u64,
    pub(super) memory: Memory,
}

/// Upper bound on peak decode memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Bytes whatever part of the picture is decoded.
    pub(super) fixed_bytes: u64,
    /// Bytes for the whole picture at full size; they shrink with the square of the scale.
    pub(super) scaled_bytes: u64,
    /// Bytes per output pixel; the full-picture figure applies if it is larger.
    pub(super) pixel_bytes: u64,
}

/// The part of a picture to decode, and its detail.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecodeRequest {
    /// The part that the variants show, in pixels of the stored picture.
    pub(super) square: Square,
    /// The edge that this part needs after decoding, in pixels. A smaller part keeps its own size.
    pub(super) edge_px: u32,
    /// The original to make; `None` if none is made. Then only the square is decoded.
    pub(super) original: Option<OriginalRequest>,
    pub(super) chroma: Chroma,
}

/// The original to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct OriginalRequest {
    /// The whole picture, as it is stored.
    pub(super) area: Area,
    /// The width and height that it gets. It lies as the stored picture does.
    pub(super) size: (u32, u32),
}

impl OriginalRequest {
    /// The original of a picture that is stored as `width` by `height`.
    pub(super) fn of(width: u32, height: u32) -> Self {
        Self {
            area: Area::whole(width, height),
            size: original_size(width, height),
        }
    }
}

impl DecodeRequest {
    /// The part to decode.
    pub(super) fn area(&self) -> Area {
        match &self.original {
            Some(original) => original.area,
            None => self.square.into(),
        }
    }

    /// The smallest sufficient scale: so many pixels of the result for so many of the stored picture.
    pub(super) fn scale(&self) -> (u32, u32) {
        let of_square = (self.edge_px, self.square.edge);
        let Some(OriginalRequest { area, size }) = self.original else {
            return of_square;
        };
        let of_original = (size.0.max(size.1), area.width.max(area.height));
        let scaled = |(to, _): (u32, u32), (_, from): (u32, u32)| u64::from(to) * u64::from(from);
        if scaled(of_square, of_original) > scaled(of_original, of_square) {
            of_square
        } else {
            of_original
        }
    }
}

/// The required resolution of chroma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chroma {
    /// Full resolution.
    Whole,
    /// Half of the resolution of luma in each direction, as lossy WebP and JPEG store it.
    Halved,
}

impl Header {
    /// The length of a side of the requested part after decoding, in pixels.
    fn decoded_px(&self, request: &DecodeRequest, side: u32) -> u64 {
        u64::from(match self.format {
            SourceFormat::Jpeg => side * jpeg::eighths(request) / 8 + 1,
            SourceFormat::Heic | SourceFormat::Avif => side / heif::shrink(request) + 1,
            _ => side,
        })
    }

    /// The edge of the square after decoding, in pixels.
    pub(super) fn decoded_edge_px(&self, request: &DecodeRequest) -> u64 {
        self.decoded_px(request, request.square.edge)
    }

    /// The width and height of the requested part after decoding, in pixels.
    pub(super) fn decoded_size(&self, request: &DecodeRequest) -> (u64, u64) {
        let Area { width, height, .. } = request.area();
        let decoded = |side| self.decoded_px(request, side);
        (decoded(width), decoded(height))
    }

    /// Upper bound on the memory that decoding takes at its peak, its result included.
    pub(super) fn memory_bytes(&self, request: &DecodeRequest) -> u64 {
        let (width, height) = self.decoded_size(request);
        let scaled_bytes = self.scaled_bytes(request);
        let of_result = scaled_bytes.max(self.memory.pixel_bytes * width * height);
        self.memory
            .fixed_bytes
            .saturating_add(self.profile_bytes + scaled_bytes + of_result)
    }

    /// The memory of the result: pixels (of the whole picture if frames are drawn on it or the decoder
    /// gives no part), or planes (always of the whole picture).
    pub(super) fn result_bytes(&self, request: &DecodeRequest) -> u64 {
        let pixels = match self.format {
            SourceFormat::Gif | SourceFormat::Webp | SourceFormat::Bmp => {
                u64::from(self.width) * u64::from(self.height)
            }
            _ => {
                let (width, height) = self.decoded_size(request);
                width * height
            }
        };
        self.profile_bytes + self.scaled_bytes(request).max(pixels * 4)
    }

    fn scaled_bytes(&self, request: &DecodeRequest) -> u64 {
        // Rounded up, because blocks may reach beyond the edge.
        let (width, height) = self.decoded_size(request);
        self.memory.scaled_bytes * (width + 8) * (height + 8) / request.area().pixels()
    }
}

/// The decoded picture: at least the requested part.
pub(super) struct Decoded<P = Raster> {
    pub(super) raster: P,
    /// The position of the requested part in the raster.
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

/// The colour space of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Colors {
    /// The file does not say.
    Unmarked,
    /// An embedded ICC profile.
    Profile(Vec<u8>),
    /// Code points of ITU-T H.273.
    Coded {
        /// The primaries.
        primaries: u8,
        /// The transfer characteristics.
        transfer: u8,
    },
}

impl From<Option<Vec<u8>>> for Colors {
    fn from(profile: Option<Vec<u8>>) -> Self {
        profile.map_or(Self::Unmarked, Self::Profile)
    }
}

/// The size limit of ICC profiles. Printers' profiles with four inks reach 2 to 3 MB.
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
        SourceFormat::Bmp => bmp::header(bytes),
        SourceFormat::Tiff => tiff::header(bytes),
    };
    match header {
        Ok(header) => {
            Size::of(&header).check(limits)?;
            Ok(header)
        }
        Err(refusal) => {
            // The size is checked before anything else in the header.
            if let Some(size) = Size::claimed(bytes, format) {
                size.check(limits)?;
            }
            Err(match refusal {
                HeaderError::Kind(found) => unsupported(found.to_owned()),
                HeaderError::Broken(reason) => Error::Corrupt {
                    format,
                    reason: Cow::Borrowed(reason),
                },
                HeaderError::Complex(reason) => Error::TooComplex {
                    reason: Cow::Borrowed(reason),
                },
            })
        }
    }
}

/// Why a header is refused. [`header`] turns it into an [`Error`].
#[derive(Debug)]
enum HeaderError {
    /// A kind of the format that is not supported, in words.
    Kind(&'static str),
    /// The header is damaged or incomplete.
    Broken(&'static str),
    /// The picture takes more work than a picture needs.
    Complex(&'static str),
}

/// The stored width and height of a picture, and its orientation.
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

    /// Reads only the size that a header claims. It is used for a header that is refused for
    /// another reason. `None` if the header claims no size.
    fn claimed(bytes: &[u8], format: SourceFormat) -> Option<Self> {
        let size = match format {
            SourceFormat::Jpeg => jpeg::claimed_size(bytes),
            SourceFormat::Png => png::claimed_size(bytes),
            SourceFormat::Webp => webp::claimed_size(bytes),
            SourceFormat::Gif => gif::claimed_size(bytes),
            SourceFormat::Heic | SourceFormat::Avif => heif::claimed_size(bytes),
            SourceFormat::Bmp => bmp::claimed_size(bytes),
            SourceFormat::Tiff => tiff::claimed_size(bytes),
        };
        size.filter(|size| size.width > 0 && size.height > 0)
    }

    /// Checks the sides of the upright picture against the limits.
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

/// Checks the number of frames and their total size. It is called only if the frames are kept: a
/// still needs only the first one.
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

/// The reason for a picture whose decoder finds another header than the one that the limits were checked
/// for.
const CONTRADICTION: &str = "its headers contradict each other";

/// The pixel limit for all frames of an animation together: 200 frames of 800 × 800.
const MAX_ANIMATION_PIXELS: u64 = 128_000_000;

/// Decodes the requested part of a picture whose header was accepted.
///
/// # Errors
///
/// [`Error::Corrupt`] if any row cannot be decoded; the errors of `control`.
pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    request: &DecodeRequest,
    control: &Control,
) -> Result<Decoded<Picture>, Error> {
    let decoded = match header.format {
        SourceFormat::Jpeg => return jpeg::decode(bytes, header, request),
        SourceFormat::Png => png::decode(bytes, header, request, control),
        SourceFormat::Webp => webp::decode(bytes, header, request, control),
        SourceFormat::Gif => gif::decode(bytes, header, request),
        SourceFormat::Heic | SourceFormat::Avif => heif::decode(bytes, request, control),
        SourceFormat::Bmp => bmp::decode(bytes, header, request, control),
        SourceFormat::Tiff => tiff::decode(bytes, header, request, control),
    };
    decoded.map(Decoded::from)
}

/// Passes every composed frame of an animation whose header was accepted to `visit`.
///
/// # Errors
///
/// As [`decode`]; the errors of `visit`.
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
        SourceFormat::Jpeg
        | SourceFormat::Heic
        | SourceFormat::Avif
        | SourceFormat::Bmp
        | SourceFormat::Tiff => Ok(()),
    }
}
