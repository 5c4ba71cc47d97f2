//! `libjpeg-turbo-rs`: pure Rust, and able to decode at a fraction of the size for a fraction of
//! the work.

use libjpeg_turbo_rs::{DecodeLimits, JpegError, PixelFormat, ScalingFactor};

use super::{Decoder, MAX_SCANS, Markers, Part, Scaled};
use crate::imaging::raster::{Layout, Raster};

pub(super) struct Turbo;

impl Decoder for Turbo {
    fn decode(bytes: &[u8], markers: &Markers, part: Part) -> Result<Scaled, &'static str> {
        let limits = DecodeLimits {
            max_width: markers.width as usize,
            max_height: markers.height as usize,
            max_pixels: u64::from(markers.width) * u64::from(markers.height),
            max_scans: MAX_SCANS as usize,
            max_memory: None,
        };
        let mut decoder = libjpeg_turbo_rs::Decoder::new_with_limits(bytes, limits)
            .map_err(|error| reason(&error))?;
        // What the limits were checked against is what is decoded.
        let header = decoder.header();
        let agrees = u32::from(header.width) == markers.width
            && u32::from(header.height) == markers.height
            && header.components.len() == usize::from(markers.components);
        if !agrees {
            return Err("its headers contradict each other");
        }
        let (format, layout) = match markers.components {
            1 => (PixelFormat::Grayscale, Layout::Gray),
            3 => (PixelFormat::Rgb, Layout::Rgb),
            _ => (PixelFormat::Cmyk, Layout::Cmyk),
        };
        decoder.set_output_format(format);
        decoder.set_scale(scaling_factor(part.eighths));
        // From the pixel that the part begins in to the one that it ends in.
        let span = |from: u32, length: u32, limit: usize| {
            let begin = (from * part.eighths / 8) as usize;
            let end = ((from + length) * part.eighths).div_ceil(8) as usize;
            (begin, end.min(limit).saturating_sub(begin))
        };
        let (left, width) = span(part.x, part.width, decoder.output_width());
        let (top, height) = span(part.y, part.height, decoder.output_height());
        decoder.set_crop_region(left, top, width, height);
        let image = decoder.decode_image().map_err(|error| reason(&error))?;
        // The left edge snaps to a block's, and the width grows by as much.
        let left = (left + width)
            .checked_sub(image.width)
            .ok_or("its parts do not fit together")?;
        let raster = Raster::new(image.width as u32, image.height as u32, layout, image.data)
            .filter(|raster| raster.height as usize == height)
            .ok_or("its parts do not fit together")?;
        Ok(Scaled {
            raster,
            eighths: part.eighths,
            left: left as u32,
            top: top as u32,
        })
    }
}

fn scaling_factor(eighths: u32) -> ScalingFactor {
    ScalingFactor::SUPPORTED
        .into_iter()
        .find(|factor| factor.block_size() == eighths as usize)
        .unwrap_or_default()
}

fn reason(error: &JpegError) -> &'static str {
    match error {
        JpegError::UnexpectedEof => "it ends before its last row",
        JpegError::Unsupported(_) => "it uses a feature that is not supported",
        JpegError::LimitExceeded { .. } => "it has more scans or pixels than its header says",
        JpegError::AllocationFailed { .. } => "there is not enough memory to decode it",
        _ => "its data is damaged",
    }
}
