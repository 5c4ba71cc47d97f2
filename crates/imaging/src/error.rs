//! Why a picture was not taken.

use super::Crop;
use crate::SourceFormat;

/// Why a picture was not taken. The text is for the person who sent it: it says what was found and
/// what is allowed, and nothing of the inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a picture, or not of a kind that is taken.
    #[error("{found} is not taken; send {}", list(.allowed))]
    UnsupportedFormat {
        /// What the bytes are, in words, such as `a PDF document`.
        found: String,
        /// The formats taken.
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
    /// The crop is empty or not inside the picture.
    #[error("the crop {},{},{},{} does not lie within the upright picture of {width} × {height} px", crop.x, crop.y, crop.width, crop.height)]
    InvalidCrop {
        /// The crop asked for.
        crop: Crop,
        /// The upright picture's width.
        width: u32,
        /// The upright picture's height.
        height: u32,
    },
    /// The headers are of a taken format, but what follows is broken or incomplete.
    #[error("the {} cannot be decoded: {reason}", .format.label())]
    Corrupt {
        /// What the bytes claim to be.
        format: SourceFormat,
        /// What is wrong, in words that are safe to show.
        reason: &'static str,
    },
    /// The picture, or the frames of an animation together, have more pixels than is taken.
    #[error("{pixels} pixels to decode; at most {max_pixels}")]
    TooManyPixels {
        /// Pixels found, all frames together.
        pixels: u64,
        /// The limit.
        max_pixels: u64,
    },
    /// The animation is too long.
    #[error("{frames} frames; at most {max_frames}")]
    TooManyFrames {
        /// Frames found.
        frames: u32,
        /// The limit.
        max_frames: u32,
    },
    /// More work than a picture needs.
    #[error("the picture takes more work than a picture needs: {reason}")]
    TooComplex {
        /// What is too much, in words that are safe to show.
        reason: &'static str,
    },
    /// Whoever asked has given up.
    #[error("nobody waits for the picture any more")]
    Cancelled,
    /// The system has no room for the work now; the same picture may be taken later.
    #[error("there is no room for the picture now")]
    Overloaded {
        /// What happened, for the log alone.
        reason: String,
    },
    /// A fault of this program: an encoder refused, or a worker died.
    #[error("the picture could not be processed")]
    Internal {
        /// What happened, for the log alone.
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
