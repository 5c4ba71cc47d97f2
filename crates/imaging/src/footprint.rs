//! What processing a picture takes in memory at its peak, told from its headers.
//!
//! Every figure is an upper bound for the worst that a picture can show, which is noise; the tests
//! of `process/memory` measure what is really taken, and those figures without a source are theirs.

use super::Recipe;
use super::animated;
use super::decode::{DecodeRequest, Header};
use super::encode::THOROUGH_UP_TO_PX;
use crate::Format;

/// What is made of a picture, in pixels.
pub(super) struct MemoryEstimate<'a> {
    recipe: Option<&'a Recipe>,
    header: &'a Header,
    request: &'a DecodeRequest,
}

impl<'a> MemoryEstimate<'a> {
    /// What a recipe asks for.
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

    /// All that could be asked for but animated twins: one size, and a master of it.
    pub(super) const fn all(header: &'a Header, request: &'a DecodeRequest) -> Self {
        Self {
            recipe: None,
            header,
            request,
        }
    }

    /// What making it takes at its peak, the decoded picture included: an upper bound.
    pub(super) fn memory_bytes(&self) -> u64 {
        let (header, request) = (self.header, self.request);
        let largest = u64::from(request.edge_px).pow(2);
        // What a stage needs is gone when the next begins.
        let decoding = header.memory_bytes(request);
        let resizing = header.result_bytes(request) + self.resizing_bytes();
        let thorough = largest.min(u64::from(THOROUGH_UP_TO_PX).pow(2));
        // The largest in two formats at once, or two that are encoded thoroughly.
        let encoding = (largest * self.encoder_pixel_bytes())
            .max(thorough * 2 * token_pixel_bytes(self.recipe));
        let stills = decoding.max(resizing).max(encoding);
        stills
            .max(self.animated_bytes())
            .saturating_add(self.files_bytes())
            .saturating_add(header.profile_bytes * CONVERSIONS)
            .saturating_add(FIXED_BYTES)
    }

    /// Beside the picture that is resized: its colours counted by their alpha, the picture in one
    /// direction, and what comes out, before it is turned upright and after.
    fn resizing_bytes(&self) -> u64 {
        let decoded = u64::from(self.header.decoded_edge_px(self.request));
        let largest = u64::from(self.request.edge_px);
        let weighed = if self.header.alpha { decoded * 4 } else { 0 };
        decoded * (weighed + largest * 4) + largest * largest * 8
    }

    /// For each pixel of the largest size, while it is encoded in two formats at once: a lossless
    /// encoder, which alpha has, compares whole pictures.
    const fn encoder_pixel_bytes(&self) -> u64 {
        if self.header.alpha { 40 } else { 10 }
    }

    /// The files, which are all there before the first of them is stored.
    fn files_bytes(&self) -> u64 {
        let edge = self.request.square.edge;
        let Some(recipe) = self.recipe else {
            let pixels = u64::from(edge).pow(2);
            return pixels * (ANY_FILE_PIXEL_BYTES + MASTER_PIXEL_BYTES);
        };
        let edges = recipe
            .variants
            .iter()
            .map(|target| target.edge_px.min(edge));
        let pixels: u64 = edges.map(|edge| u64::from(edge).pow(2)).sum();
        let master = if recipe.keep_master {
            u64::from(self.request.edge_px).pow(2) * MASTER_PIXEL_BYTES
        } else {
            0
        };
        pixels * file_pixel_bytes(recipe) + master
    }

    /// Animated twins, beside the files of the stills: the canvas and a frame some times over, and
    /// of all twins the frames that their encoders compare and those that are encoded; while the
    /// largest is put together, its file once more.
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
            + all * (TWIN_PIXEL_BYTES + file)
    }
}

/// For a pixel in one file of each format, of noise.
fn file_pixel_bytes(recipe: &Recipe) -> u64 {
    let bytes = recipe.formats.iter().map(|format| match format {
        Format::Png => 4,
        Format::Webp if recipe.webp_quality > USUAL_QUALITY => 4,
        Format::Jpeg if recipe.jpeg_quality > USUAL_QUALITY => 3,
        Format::Webp | Format::Jpeg => 2,
    });
    bytes.sum()
}

/// The same of all formats.
const ANY_FILE_PIXEL_BYTES: u64 = 4 + 4 + 3;

/// Up to which a file of noise is as small as is said of the usual ones.
const USUAL_QUALITY: u8 = 90;

/// What a pixel of noise is to libwebp, where it encodes thoroughly, before it is packed.
fn token_pixel_bytes(recipe: Option<&Recipe>) -> u64 {
    match recipe {
        Some(recipe) if recipe.webp_quality <= USUAL_QUALITY => 26,
        _ => 40,
    }
}

const MASTER_PIXEL_BYTES: u64 = 3;

/// The canvases of an encoder of animations.
const TWIN_PIXEL_BYTES: u64 = 16;

/// Of each frame in an animation's file.
const FRAME_PIXEL_BYTES: u64 = 2;

/// How many times over a profile is held while its tables become a transform's.
const CONVERSIONS: u64 = 7;

/// The tables of decoders, transforms and encoders.
const FIXED_BYTES: u64 = 4 << 20;
