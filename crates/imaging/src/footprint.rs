//! Estimates peak memory from the headers.
//!
//! Every figure is an upper bound for the worst case, which is a picture of noise. The tests in
//! `process/memory` measure the real memory; figures without another source come from them.

use super::Recipe;
use super::animated;
use super::decode::{DecodeRequest, Header};
use super::encode::THOROUGH_UP_TO_PX;
use crate::Format;

/// The sizes and kinds of output of a picture.
pub(super) struct MemoryEstimate<'a> {
    recipe: Option<&'a Recipe>,
    header: &'a Header,
    request: &'a DecodeRequest,
}

impl<'a> MemoryEstimate<'a> {
    /// The output that a recipe requests.
    pub(super) const fn by(
        recipe: &'a Recipe,
        header: &'a Header,
        request: &'a DecodeRequest,
    ) -> Self {
        Self {
            recipe: Some(recipe),
            header,
            request,
        }
    }

    /// The largest possible output without animated renditions: one size, and an original.
    pub(super) const fn all(header: &'a Header, request: &'a DecodeRequest) -> Self {
        Self {
            recipe: None,
            header,
            request,
        }
    }

    /// Upper bound on the peak memory of making the output, the decoded picture included.
    pub(super) fn memory_bytes(&self) -> u64 {
        let (header, request) = (self.header, self.request);
        let largest = u64::from(request.edge_px).pow(2);
        // The memory of a stage is free when the next one begins.
        let decoding = header.memory_bytes(request);
        let resizing =
            header.result_bytes(request) + self.resizing_bytes() + self.original_resizing_bytes();
        let thorough = largest.min(u64::from(THOROUGH_UP_TO_PX).pow(2));
        // The largest variant in two formats at once, or two variants that are encoded thoroughly.
        let encoding = (largest * self.encoder_pixel_bytes())
            .max(thorough * 2 * token_pixel_bytes(self.recipe))
            .max(self.original_encoding_bytes());
        let stills = decoding.max(resizing).max(encoding);
        stills
            .max(self.animated_bytes())
            .saturating_add(self.files_bytes())
            .saturating_add(header.profile_bytes * CONVERSIONS)
            .saturating_add(FIXED_BYTES)
    }

    /// Memory of resizing, beside the source: its colours weighted by alpha, the picture resized in
    /// one direction, and the result before and after it is turned upright.
    fn resizing_bytes(&self) -> u64 {
        let decoded = self.header.decoded_edge_px(self.request);
        let largest = u64::from(self.request.edge_px);
        let weighed = if self.header.alpha { decoded * 4 } else { 0 };
        decoded * (weighed + largest * 4) + largest * largest * 8
    }

    /// The same for the original, which exists while the largest variant is resized.
    fn original_resizing_bytes(&self) -> u64 {
        let Some(original) = &self.request.original else {
            return 0;
        };
        let (width, height) = self.header.decoded_size(self.request);
        let (to_width, to_height) = (u64::from(original.size.0), u64::from(original.size.1));
        let weighed = if self.header.alpha {
            width * height * 4
        } else {
            0
        };
        // It is resized along the rows first, or along the columns.
        let halfway = (to_width * height).max(width * to_height) * 4;
        weighed + halfway + to_width * to_height * 8
    }

    /// Memory of encoding the original, beside the largest variant.
    fn original_encoding_bytes(&self) -> u64 {
        let Some(original) = &self.request.original else {
            return 0;
        };
        let pixels = u64::from(original.size.0) * u64::from(original.size.1);
        let thorough = if self.header.alpha {
            pixels.min(u64::from(THOROUGH_UP_TO_PX).pow(2)) * TOKEN_PIXEL_BYTES
        } else {
            0
        };
        let encoding = (pixels * self.encoder_pixel_bytes()).max(thorough);
        encoding + u64::from(self.request.edge_px).pow(2) * 4
    }

    /// Bytes per pixel of the largest size while it is encoded in two formats at once. Pictures
    /// with alpha need more: their lossless encoder compares whole pictures.
    const fn encoder_pixel_bytes(&self) -> u64 {
        if self.header.alpha { 40 } else { 10 }
    }

    /// The encoded files; all of them may exist before the first one is stored.
    fn files_bytes(&self) -> u64 {
        let edge = self.request.square.edge;
        let original = self.request.original.map_or(0, |original| {
            u64::from(original.size.0) * u64::from(original.size.1) * ORIGINAL_PIXEL_BYTES
        });
        let Some(recipe) = self.recipe else {
            return u64::from(edge).pow(2) * ANY_FILE_PIXEL_BYTES + original;
        };
        let edges = recipe
            .variants
            .iter()
            .map(|target| target.edge_px.min(edge));
        let pixels: u64 = edges.map(|edge| u64::from(edge).pow(2)).sum();
        pixels * file_pixel_bytes(recipe) + original
    }

    /// Memory of animated renditions, beside the files of the stills: several copies of the canvas
    /// and of a frame; for all renditions, the frames that their encoders compare and the encoded
    /// ones; and a second copy of the largest file while it is assembled.
    fn animated_bytes(&self) -> u64 {
        let (header, request) = (self.header, self.request);
        let Some(recipe) = self.recipe.filter(|recipe| recipe.animated) else {
            return 0;
        };
        if header.frames < 2 {
            return 0;
        }
        let canvas = u64::from(header.width) * u64::from(header.height);
        let sizes = animated::choose(header, request, recipe);
        let pixels = sizes.iter().map(|size| u64::from(size.edge_px).pow(2));
        let (largest, all) = pixels.fold((0, 0), |(largest, all), pixels| {
            (pixels.max(largest), all + pixels)
        });
        let file = u64::from(header.frames) * FRAME_PIXEL_BYTES;
        canvas * 16
            + self.resizing_bytes()
            + largest * (self.encoder_pixel_bytes() + file)
            + all * (ANIMATED_PIXEL_BYTES + file)
    }
}

/// Bytes per pixel of files of noise, in all formats of a recipe together.
fn file_pixel_bytes(recipe: &Recipe) -> u64 {
    let bytes = recipe.formats.iter().map(|format| match format {
        Format::Png => 4,
        Format::Webp if recipe.webp_quality > USUAL_QUALITY => 4,
        Format::Jpeg if recipe.jpeg_quality > USUAL_QUALITY => 3,
        Format::Webp | Format::Jpeg => 2,
    });
    bytes.sum()
}

/// Bytes per pixel of the files in all formats.
const ANY_FILE_PIXEL_BYTES: u64 = 4 + 4 + 3;

/// The quality up to which a file of noise stays within the usual figures.
const USUAL_QUALITY: u8 = 90;

/// Bytes per pixel of noise in libwebp before it is packed, at the thorough setting.
fn token_pixel_bytes(recipe: Option<&Recipe>) -> u64 {
    match recipe {
        Some(recipe) if recipe.webp_quality <= USUAL_QUALITY => 26,
        _ => TOKEN_PIXEL_BYTES,
    }
}

/// The same at the highest quality.
const TOKEN_PIXEL_BYTES: u64 = 40;

/// Bytes per pixel of the file of an original.
const ORIGINAL_PIXEL_BYTES: u64 = 3;

/// Bytes per pixel of the canvases of an animation encoder.
const ANIMATED_PIXEL_BYTES: u64 = 16;

/// Bytes per pixel of each frame in an animated file.
const FRAME_PIXEL_BYTES: u64 = 2;

/// The number of copies of a profile while its tables become a transform.
const CONVERSIONS: u64 = 7;

/// The tables of decoders, transforms and encoders, in bytes.
const FIXED_BYTES: u64 = 4 << 20;
