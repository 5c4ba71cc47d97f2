//! Decodes with `libjpeg-turbo-rs`: pure Rust, and able to decode at a fraction of the size for a
//! fraction of the work.

use libjpeg_turbo_rs::tj3::{TjHandle, TjParam};
use libjpeg_turbo_rs::{DecodeLimits, JpegError, PixelFormat, ScalingFactor, Subsampling};

use super::{CONTRADICTION, Decoder, MAX_SCANS, Markers, Part, Scaled, samples};
use crate::planes::Planes;
use crate::raster::{Layout, Raster};

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
        // The decoded picture must be the one that the limits were checked for.
        let header = decoder.header();
        let agrees = u32::from(header.width) == markers.width
            && u32::from(header.height) == markers.height
            && header.components.len() == usize::from(markers.components);
        if !agrees {
            return Err(CONTRADICTION);
        }
        let (format, layout) = match markers.components {
            1 => (PixelFormat::Grayscale, Layout::Gray),
            3 => (PixelFormat::Rgb, Layout::Rgb),
            _ => (PixelFormat::Cmyk, Layout::Cmyk),
        };
        let span = |from, length, limit| samples::span(from, length, part.eighths, limit);
        let (left, width) = span(part.x, part.width, markers.width);
        let (top, height) = span(part.y, part.height, markers.height);
        if !markers.sampling_is_usual() {
            let space = decoder.jpeg_color_space();
            let image = decoder.decode_raw().map_err(|error| reason(&error))?;
            let area = samples::Area {
                left,
                top,
                width,
                height,
                eighths: part.eighths,
            };
            let raster = samples::to_pixels(&image, markers, space, area, layout)
                .ok_or("its parts do not fit together")?;
            return Ok(Scaled {
                raster,
                eighths: part.eighths,
                left,
                top,
            });
        }
        decoder.set_output_format(format);
        decoder.set_scale(scaling_factor(part.eighths));
        // With four channels the decoder always returns the left part, whichever columns are
        // requested. So all columns are requested.
        let (from, columns) = if layout == Layout::Cmyk {
            (0, decoder.output_width())
        } else {
            (left as usize, width as usize)
        };
        decoder.set_crop_region(from, top as usize, columns, height as usize);
        let image = decoder.decode_image().map_err(|error| reason(&error))?;
        // The left edge snaps to the edge of a block, and the width grows accordingly.
        let from = (from + columns)
            .checked_sub(image.width)
            .ok_or("its parts do not fit together")? as u32;
        let mut raster = Raster::new(image.width as u32, image.height as u32, layout, image.data)
            .filter(|raster| raster.height == height)
            .ok_or("its parts do not fit together")?;
        let mut at = from;
        if layout == Layout::Cmyk {
            raster.keep_columns(left, width);
            at = left;
        }
        Ok(Scaled {
            raster,
            eighths: part.eighths,
            left: at,
            top,
        })
    }

    fn decode_planes(
        bytes: &[u8],
        markers: &Markers,
        eighths: u32,
    ) -> Result<Option<Planes>, &'static str> {
        // Only this interface gives scaled planes. It distinguishes pixel formats by a signed
        // number.
        let pixels = i32::try_from(u64::from(markers.width) * u64::from(markers.height))
            .map_err(|_| "it has more pixels than can be counted")?;
        let scale = scaling_factor(eighths);
        let mut handle = TjHandle::new();
        let header = handle
            .set(TjParam::MaxPixels, pixels)
            .and_then(|()| handle.set(TjParam::ScanLimit, MAX_SCANS.cast_signed()))
            .and_then(|()| handle.set(TjParam::SaveMarkers, SAVE_NOTHING))
            .and_then(|()| handle.set_scaling_factor(scale.num(), scale.denom()))
            .and_then(|()| handle.decompress_header_info(bytes))
            .map_err(|error| reason(&error))?;
        if header.num_components != 3
            || header.subsampling == Subsampling::Unknown
            || handle.get(TjParam::ColorSpace) != YCBCR
        {
            return Ok(None);
        }
        // The decoded picture must be the one that the limits were checked for.
        if (header.width as u32, header.height as u32) != (markers.width, markers.height) {
            return Err(CONTRADICTION);
        }
        let (planes, width, height, subsampling) = handle
            .decompress_to_yuv_planes(bytes)
            .map_err(|error| reason(&error))?;
        let (across, down) = subsampling.sampling_factors();
        let (across, down) = (usize::from(across), usize::from(down));
        let expected = |edge: u32| (edge * eighths).div_ceil(8) as usize;
        if subsampling != header.subsampling
            || (width, height) != (expected(markers.width), expected(markers.height))
        {
            return Err(CONTRADICTION);
        }
        let [luma, blue, red] = <[Vec<u8>; 3]>::try_from(planes).map_err(|_| CONTRADICTION)?;
        // Its planes are rounded up to whole samples of chroma.
        let (chroma_width, chroma_height) = (width.div_ceil(across), height.div_ceil(down));
        let stride = chroma_width * across;
        let chroma = |plane| gray(plane, chroma_width, chroma_width, chroma_height);
        let luma = gray(luma, stride, width, height);
        let (Some(luma), Some(blue), Some(red)) = (luma, chroma(blue), chroma(red)) else {
            return Err("its parts do not fit together");
        };
        Ok(Some(Planes {
            luma,
            chroma: [blue, red],
            shared: (across as u32, down as u32),
        }))
    }
}

/// `TurboJPEG`'s number for JFIF's colours.
const YCBCR: i32 = 1;

/// `TurboJPEG`'s number for not keeping markers.
const SAVE_NOTHING: i32 = 0;

/// A plane of `width` by `height` samples, in rows of `stride`.
fn gray(mut plane: Vec<u8>, stride: usize, width: usize, height: usize) -> Option<Raster> {
    if plane.len() < stride * height {
        return None;
    }
    if stride != width {
        for y in 1..height {
            plane.copy_within(y * stride..y * stride + width, y * width);
        }
    }
    plane.truncate(width * height);
    Raster::new(width as u32, height as u32, Layout::Gray, plane)
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
