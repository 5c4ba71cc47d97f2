//! The errors of this crate.

use std::borrow::Cow;

use super::Crop;
use crate::SourceFormat;

/// Why a picture was refused. The text is for the person who sent it: it says what was found and
/// what is allowed, and nothing about the inside of the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes are not a picture, or a picture of a format that is not accepted.
    #[error("{found} is not accepted; send {}", list(.allowed))]
    UnsupportedFormat {
        /// The kind of the bytes in words, such as `a PDF document`.
        found: String,
        /// The formats that are accepted.
        allowed: Vec<SourceFormat>,
    },
    /// A side is shorter than the limit.
    #[error("{width} × {height} px; at least {min_edge_px} px a side")]
    DimensionsTooSmall {
        /// The upright picture's width.
        width: u32,
        /// The upright picture's height.
        height: u32,
        /// The limit.
        min_edge_px: u32,
    },
    /// A side is longer than the limit.
    #[error("{width} × {height} px; at most {max_edge_px} px a side")]
    DimensionsTooLarge {
        /// The upright picture's width.
        width: u32,
        /// The upright picture's height.
        height: u32,
        /// The limit.
        max_edge_px: u32,
    },
    /// The crop is empty or not within the picture.
    #[error("the crop {},{},{},{} does not lie within the upright picture of {width} × {height} px", crop.x, crop.y, crop.width, crop.height)]
    InvalidCrop {
        /// The requested crop.
        crop: Crop,
        /// The upright picture's width.
        width: u32,
        /// The upright picture's height.
        height: u32,
    },
    /// The headers are those of an accepted format, but the data is damaged or incomplete.
    #[error("the {} cannot be decoded: {reason}", .format.label())]
    Corrupt {
        /// The format of the headers.
        format: SourceFormat,
        /// The fault, in words that are safe to show.
        reason: Cow<'static, str>,
    },
    /// The picture, or all frames of an animation together, have too many pixels.
    #[error("{pixels} pixels to decode; at most {max_pixels}")]
    TooManyPixels {
        /// The number of pixels in all frames together.
        pixels: u64,
        /// The limit.
        max_pixels: u64,
    },
    /// The animation has too many frames.
    #[error("{frames} frames; at most {max_frames}")]
    TooManyFrames {
        /// The number of frames.
        frames: u32,
        /// The limit.
        max_frames: u32,
    },
    /// The picture takes more work than a picture needs.
    #[error("the picture takes more work than a picture needs: {reason}")]
    TooComplex {
        /// The reason, in words that are safe to show.
        reason: Cow<'static, str>,
    },
    /// The caller cancelled the work.
    #[error("the caller cancelled the work")]
    Cancelled,
    /// The system lacks resources for the work now. The same picture may be accepted later.
    #[error("there is no room for the picture now")]
    Overloaded {
        /// The cause, for the log only.
        reason: String,
    },
    /// A fault of this program: an encoder failed, or a worker panicked.
    #[error("the picture could not be processed")]
    Internal {
        /// The cause, for the log only.
        reason: String,
    },
}

fn list(formats: &[SourceFormat]) -> String {
    let labels: Vec<_> = formats.iter().map(|format| format.label()).collect();
    match labels.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => (*last).to_owned(),
        None => "nothing".to_owned(),
    }
}
