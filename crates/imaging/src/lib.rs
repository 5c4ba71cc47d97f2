//! The imaging pipeline: from the bytes of an upload to renditions.
//!
//! It takes bytes and a [`Recipe`] and emits renditions one by one. It is pure and synchronous, and
//! its time and memory are bounded. It knows no network, store, configuration file or asynchronous
//! runtime.
//!
//! The steps of one picture: [`probe`] reads only the headers and applies the [`Limits`].
//! [`process()`] decodes the picture, turns it upright, converts it to sRGB, crops it, resizes it
//! from large to small, and encodes it. The [`Pool`] runs this on its own threads.
//!
//! # Unsafe code
//!
//! This crate has `unsafe` in one module, which calls libwebp to encode WebP. libwebp is C; it reads
//! pixels but never the bytes of an upload. The libraries that read uploads are in Rust:
//!
//! | library | work | `unsafe` |
//! | --- | --- | --- |
//! | `libjpeg-turbo-rs` | decodes and encodes JPEG | yes: SIMD (SSE2, AVX2, NEON), and other code |
//! | `moxcms`, with `pxfm` | reads ICC profiles and converts colours | yes: SIMD |
//! | `fast_image_resize` | resizes pixels | yes: SIMD |
//! | `memchr` | finds bytes in headers | yes: SIMD |
//! | `png`, with `fdeflate`, `flate2` and `miniz_oxide` | decodes and encodes PNG | no, but for parts of `flate2` and the checksums (`crc32fast`, `simd-adler32`) |
//! | `gif`, with `weezl` | decodes GIF | no |
//! | `heifer-isobmff`, `heifer-hevc-dec` | read HEIF and decode HEVC | no |
//! | `cameo-webp-decode` | decodes WebP | no |
//! | `image`, with `tiff`, `weezl`, `flate2` and `miniz_oxide` | decodes BMP, and inflates the strips and tiles of TIFF | two casts of slices to bytes in `tiff`; `bytemuck` and `half`, which convert numbers |
//! | `re_rav1d` | decodes AV1 | yes, much; a panic in it ends the process |
//!
//! Reading headers (`probe`, `probe_for`) uses none of the decoders. A fault in the unsafe code of a
//! decoder could corrupt the memory of the process that calls `process`, and a panic in `re_rav1d` ends
//! it. So a service with untrusted uploads calls `process` in a separate process per picture, which has
//! no secrets, files or network. A service that calls it in its own process must not list AVIF in
//! [`Limits::formats`].

mod animated;
mod av1;
mod color;
mod control;
mod decode;
mod encode;
mod error;
mod executor;
mod footprint;
mod geometry;
mod orientation;
mod placeholder;
mod planes;
mod pool;
mod process;
mod raster;
mod resize;
mod sizes;
mod sniff;
mod vocabulary;

pub use control::{CancelToken, Control};
pub use encode::{encode_drawing, encode_rgb};
pub use error::Error;
pub use executor::{Executor, Task};
pub use pool::{Job, Pool};
pub use process::{probe, probe_for, process, process_with};
pub use resize::Workspace;
pub use vocabulary::{
    Format, InvalidVariantName, Placeholder, Rendition, Source, SourceFormat, VariantName,
};

/// The accepted uploads. The limits are checked against headers, before anything is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The accepted formats.
    pub formats: Vec<SourceFormat>,
    /// The minimum width and height in pixels.
    pub min_edge_px: u32,
    /// The maximum width and height in pixels.
    pub max_edge_px: u32,
    /// The maximum number of frames of an animation. It applies if the recipe keeps the frames
    /// ([`Recipe::animated`]).
    pub max_frames: u32,
}

/// The outputs to make from a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The accepted uploads.
    pub limits: Limits,
    /// The sizes to make, in any order.
    pub variants: Vec<Target>,
    /// The encodings of each size; the first is the primary one.
    pub formats: Vec<Format>,
    /// 1 to 100
    pub webp_quality: u8,
    /// 1 to 100
    pub jpeg_quality: u8,
    /// The background of transparent pixels in formats without alpha: sRGB red, green, blue.
    pub background: [u8; 3],
    /// Whether animated uploads get animated renditions beside the stills.
    pub animated: bool,
    /// Whether the original is made: the whole picture, from which variants can be made again.
    pub keep_original: bool,
}

/// A square size to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name of the variant.
    pub name: VariantName,
    /// Its width and height in pixels. It is smaller if the picture is.
    pub edge_px: u32,
}

/// A rectangle in pixels of the upright picture, chosen by the client. The avatar is the largest
/// centred square in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// Distance from the left edge.
    pub x: u32,
    /// Distance from the upper edge.
    pub y: u32,
    /// Number of columns.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

/// The contents of a picture's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The format of the bytes; the file name does not matter.
    pub format: SourceFormat,
    /// The upright picture's width in pixels.
    pub width: u32,
    /// The upright picture's height in pixels.
    pub height: u32,
    /// The number of frames that the headers claim; 1 for a still.
    pub frames: u32,
    /// Upper bound on the peak memory of processing in bytes, without the upload itself.
    pub memory_bytes: u64,
}

/// One output, emitted as soon as it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A rendition and its bytes.
    Rendition(Rendition, Vec<u8>),
    /// The original and its bytes.
    Original(Original, Vec<u8>),
}

/// The whole picture: uncropped, upright, in sRGB, without metadata, at most 2048 pixels on its longer
/// side, never enlarged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// WebP if any pixel is transparent, else JPEG.
    pub format: Format,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
}

impl Original {
    /// The width and height of the original of an upright picture of this width and height.
    pub fn size_of(width: u32, height: u32) -> (u32, u32) {
        geometry::original_size(width, height)
    }
}

impl Crop {
    /// The square that becomes the avatar: the largest centred one in `crop`, or in the whole of an
    /// upright picture of this width and height.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCrop`] if the crop is empty or not within the picture.
    pub fn square(width: u32, height: u32, crop: Option<Self>) -> Result<Self, Error> {
        let geometry::Square { x, y, edge } = geometry::Square::choose(width, height, crop)?;
        Ok(Self {
            x,
            y,
            width: edge,
            height: edge,
        })
    }
}

/// The result after all outputs were emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processed {
    /// The upload.
    pub source: Source,
    /// The placeholder that is shown until a rendition has loaded.
    pub placeholder: Placeholder,
}
