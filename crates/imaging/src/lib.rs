//! From an upload's bytes to renditions: pure, synchronous, and all of it bounded.
//!
//! Bytes and a [`Recipe`] go in, renditions come out one by one. Nothing here names the network,
//! the store, the configuration file or an asynchronous runtime.
//!
//! The way of one picture: `probe` reads headers only and refuses by [`Limits`]; `process`
//! decodes, turns upright, converts to sRGB, crops, resizes from large to small and encodes; the
//! [`Pool`] gives it threads of its own.
//!
//! # Unsafe code
//!
//! This crate has `unsafe` in one module, which calls libwebp to encode WebP; libwebp is C, and sees
//! pixels but never an upload's bytes. The libraries that work on uploads are Rust. Most of them run
//! in the process that serves:
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
//! | the WebP decoder, in this crate | decodes WebP | no |
//! | `re_rav1d` | decodes AV1 | yes, much; it runs in a process of its own that can do nothing else |
//!
//! A fault in the unsafe code of a library of the first group could harm the process that serves.
//! Only AV1 is kept apart from it.

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

pub use av1::{Av1, serve as serve_av1};
pub use control::{CancelToken, Control};
pub use encode::encode_rgb;
pub use error::Error;
pub use pool::{Job, Pool};
pub use process::{probe, probe_for, process};
pub use resize::Workspace;
pub use vocabulary::{
    Format, InvalidVariantName, Placeholder, Rendition, Source, SourceFormat, VariantName,
};

/// What may come in. Checked against headers, before anything is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The formats taken.
    pub formats: Vec<SourceFormat>,
    /// The least width and height in pixels.
    pub min_edge_px: u32,
    /// The greatest width and height in pixels.
    pub max_edge_px: u32,
    /// The most frames that an animation may have, where the recipe keeps them
    /// ([`Recipe::animated`]).
    pub max_frames: u32,
}

/// What is made of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// What may come in.
    pub limits: Limits,
    /// The sizes to make, in any order.
    pub variants: Vec<Target>,
    /// The encodings to make of each; the first is the primary one.
    pub formats: Vec<Format>,
    /// 1 to 100
    pub webp_quality: u8,
    /// 1 to 100
    pub jpeg_quality: u8,
    /// What shows through transparent places where a format has no alpha: sRGB red, green, blue.
    pub background: [u8; 3],
    /// Whether animated uploads give animated twins beside the stills.
    pub animated: bool,
    /// Whether a master is made from which variants can be made again.
    pub keep_master: bool,
}

/// A square size to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: VariantName,
    /// Its width and height in pixels, where the picture has as many.
    pub edge_px: u32,
}

/// A rectangle in pixels of the upright picture, chosen by the client. The avatar is the largest
/// centred square in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// From the left edge.
    pub x: u32,
    /// From the upper edge.
    pub y: u32,
    /// Across.
    pub width: u32,
    /// Down.
    pub height: u32,
}

/// What a picture's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What the bytes are, whatever they were called.
    pub format: SourceFormat,
    /// The upright picture's width in pixels.
    pub width: u32,
    /// The upright picture's height in pixels.
    pub height: u32,
    /// How many frames the headers claim; 1 for a still.
    pub frames: u32,
    /// An upper bound of the bytes that processing takes at its peak, beside the upload itself.
    pub memory_bytes: u64,
}

/// One thing made, given out as soon as it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A rendition and its bytes.
    Rendition(Rendition, Vec<u8>),
    /// The master and its bytes.
    Master(Format, Vec<u8>),
}

/// What is known once everything has been given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processed {
    /// What came in.
    pub source: Source,
    /// What to show until a rendition has loaded.
    pub placeholder: Placeholder,
}
