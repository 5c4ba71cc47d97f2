//! Encodes baseline JPEG with 4:2:0 chroma, which every program reads.

use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling, compress_raw};

use super::internal;
use crate::Error;
use crate::planes::Planes;
use crate::raster::Raster;

/// Encodes an RGB picture at a quality of 1 to 100.
pub(super) fn encode(raster: &Raster, quality: u8) -> Result<Vec<u8>, Error> {
    encode_as(raster, quality, Subsampling::S420)
}

/// Encodes with full chroma resolution, for pictures that are processed again.
pub(super) fn encode_full_chroma(raster: &Raster, quality: u8) -> Result<Vec<u8>, Error> {
    encode_as(raster, quality, Subsampling::S444)
}

/// Encodes planes with halved chroma at a quality of 1 to 100.
pub(super) fn encode_planes(planes: &Planes, quality: u8) -> Result<Vec<u8>, Error> {
    debug_assert_eq!(planes.shared, (2, 2));
    let [blue, red] = &planes.chroma;
    let rasters = [&planes.luma, blue, red];
    compress_raw(
        &rasters.map(|plane| &plane.pixels[..]),
        &rasters.map(|plane| plane.width as usize),
        &rasters.map(|plane| plane.height as usize),
        planes.luma.width as usize,
        planes.luma.height as usize,
        quality,
        Subsampling::S420,
    )
    .map_err(|error| internal("JPEG encoder", &error))
}

fn encode_as(raster: &Raster, quality: u8, subsampling: Subsampling) -> Result<Vec<u8>, Error> {
    let (width, height) = (raster.width as usize, raster.height as usize);
    Encoder::new(&raster.pixels, width, height, PixelFormat::Rgb)
        .quality(quality)
        .subsampling(subsampling)
        .encode()
        .map_err(|error| internal("JPEG encoder", &error))
}
