//! Decodes with `zune-jpeg`: older and simpler; it always decodes the whole picture.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{Decoder, Markers, Part, Scaled};
use crate::planes::Planes;
use crate::raster::{Layout, Raster};

pub(super) struct Zune;

impl Decoder for Zune {
    fn decode(bytes: &[u8], markers: &Markers, _part: Part) -> Result<Scaled, &'static str> {
        let (colorspace, layout) = match markers.components {
            1 => (ColorSpace::Luma, Layout::Gray),
            3 => (ColorSpace::RGB, Layout::Rgb),
            _ => (ColorSpace::CMYK, Layout::Cmyk),
        };
        let options = DecoderOptions::default()
            .jpeg_set_out_colorspace(colorspace)
            .set_max_width(markers.width as usize)
            .set_max_height(markers.height as usize)
            .set_strict_mode(true);
        let pixels = JpegDecoder::new_with_options(ZCursor::new(bytes), options)
            .decode()
            .map_err(|_| "its data is damaged")?;
        let raster = Raster::new(markers.width, markers.height, layout, pixels)
            .ok_or("its parts do not fit together")?;
        Ok(Scaled {
            raster,
            eighths: 8,
            left: 0,
            top: 0,
        })
    }

    fn decode_planes(
        _bytes: &[u8],
        _markers: &Markers,
        _eighths: u32,
    ) -> Result<Option<Planes>, &'static str> {
        Ok(None)
    }
}
