//! What a tile is coded in, and how it is decoded.

use heifer_hevc_dec::decoder::{DecodeOptions, decode_picture};
use heifer_hevc_dec::recon::Frame;
use heifer_isobmff::{HeifFile, ItemId};

use super::planes::Planes;
use super::{BROKEN, PADDING_PX, Picture, Refusal, corrupt, refused};
use crate::avatar::SourceFormat;
use crate::imaging::av1::{Av1, Decoder, Sequence};
use crate::imaging::control::Control;
use crate::imaging::{Error, av1};

/// What the tiles of a picture are coded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Hevc,
    Av1,
}

impl Codec {
    /// By the type of an item.
    pub(super) const fn of(item_type: [u8; 4]) -> Option<Self> {
        match &item_type {
            b"hvc1" => Some(Self::Hevc),
            b"av01" => Some(Self::Av1),
            _ => None,
        }
    }

    /// What HEIF with this inside is called.
    pub(super) const fn format(self) -> SourceFormat {
        match self {
            Self::Hevc => SourceFormat::Heic,
            Self::Av1 => SourceFormat::Avif,
        }
    }

    /// The same in words.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hevc => "a HEIC picture by the name of AVIF",
            Self::Av1 => "an AVIF picture by the name of HEIC",
        }
    }
}

/// What a pixel of a tile in HEVC takes while it is decoded: its samples, 16 bits each, and what
/// predicting and filtering them needs (measured).
pub(super) fn hevc_pixel_bytes(file: &HeifFile<'_>, tile: ItemId) -> u64 {
    let chroma = file
        .hevc_config(tile)
        .ok()
        .flatten()
        .map(|config| config.chroma_format);
    match chroma {
        Some(0 | 1) => 8,
        Some(2) => 9,
        _ => 11,
    }
}

/// What the stream of a tile in AV1 says of itself, where that is not at odds with the tile's size:
/// an encoder may round the greatest size up to whole blocks, and no more.
pub(super) fn sequence(
    file: &HeifFile<'_>,
    tile: ItemId,
    (width, height): (u32, u32),
) -> Result<Sequence, Refusal> {
    let stream = file.item_data(tile).map_err(|_| CUT_OFF)?;
    let sequence = Sequence::read(&stream).ok_or(BROKEN)?;
    let fits = |most: u32, length: u32| length <= most && most - length < PADDING_PX;
    if !fits(sequence.max_width, width) || !fits(sequence.max_height, height) {
        return Err(Refusal::Broken("its headers give two sizes"));
    }
    Ok(sequence)
}

const CUT_OFF: Refusal = Refusal::Broken("it ends before its last tile");

/// What decodes the tiles of a picture, one after the other.
pub(super) enum Tiles {
    Hevc,
    Av1(Decoder),
}

impl Tiles {
    /// Gets ready for a picture of a file of so many bytes.
    pub(super) fn open(
        file: &HeifFile<'_>,
        picture: &Picture,
        file_bytes: usize,
        av1: &Av1,
        control: &Control,
    ) -> Result<Self, Error> {
        let size = (picture.tile_width, picture.tile_height);
        match picture.codec {
            Codec::Hevc => Ok(Self::Hevc),
            Codec::Av1 => {
                let sequence =
                    sequence(file, picture.tiles[0], size).map_err(|r| refused(Codec::Av1, &r))?;
                let shape = sequence.shape(size.0, size.1);
                Ok(Self::Av1(av1.open(shape, file_bytes, control)?))
            }
        }
    }

    /// Decodes a tile of `picture`, which may become one of half the size afterwards.
    pub(super) fn decode(
        &mut self,
        file: &HeifFile<'_>,
        picture: &Picture,
        tile: ItemId,
        halved: bool,
        control: &Control,
    ) -> Result<Planes, Error> {
        control.check()?;
        let codec = picture.codec;
        let same = file
            .item(tile)
            .is_ok_and(|item| Codec::of(item.item_type.0) == Some(codec));
        if !same {
            return Err(corrupt(codec, "a tile of it is no picture"));
        }
        let size = (picture.tile_width, picture.tile_height);
        match self {
            Self::Hevc => hevc(file, tile, size, halved),
            Self::Av1(decoder) => {
                let sequence = sequence(file, tile, size).map_err(|r| refused(codec, &r))?;
                let stream = file.item_data(tile).map_err(|_| refused(codec, &CUT_OFF))?;
                let shape = sequence.shape(size.0, size.1);
                let samples = decoder.decode(&stream, shape, control)?;
                Ok(Planes::of_av1(&sequence, &shape, samples))
            }
        }
    }
}

fn hevc(
    file: &HeifFile<'_>,
    tile: ItemId,
    (width, height): (u32, u32),
    halved: bool,
) -> Result<Planes, Error> {
    let corrupt = |reason| corrupt(Codec::Hevc, reason);
    let padded = |length: u32| u64::from(length) + u64::from(PADDING_PX);
    let options = DecodeOptions {
        max_pixels: padded(width).saturating_mul(padded(height)),
        // They smooth single pixels at the edges of blocks, of which nothing is left at half the
        // size, and take a seventh of the time. No pixel is predicted from a smoothed one.
        skip_loop_filters: halved,
        ..DecodeOptions::default()
    };
    let stream = file
        .hevc_bitstream(tile)
        .map_err(|_| refused(Codec::Hevc, &CUT_OFF))?;
    let frame = decode_picture(&stream, options).map_err(|error| match error {
        heifer_hevc_dec::Error::Unimplemented(_) => {
            corrupt("it uses a feature that is not supported")
        }
        _ => corrupt("its data is damaged"),
    })?;
    if frame.widths[0] < width || frame.heights[0] < height {
        return Err(corrupt("a tile of it is too small"));
    }
    Ok(frame.into())
}

impl From<Frame> for Planes {
    fn from(frame: Frame) -> Self {
        Self {
            widths: frame.widths,
            heights: frame.heights,
            samples: frame.planes,
            bit_depth: frame.bit_depth,
            matrix: frame.matrix_coeffs,
            full_range: frame.full_range,
            colors: None,
        }
    }
}

impl Planes {
    fn of_av1(sequence: &Sequence, shape: &av1::Shape, samples: [Vec<u16>; 3]) -> Self {
        let planes = shape.planes();
        Self {
            widths: planes.map(|(width, _)| width),
            heights: planes.map(|(_, height)| height),
            samples,
            bit_depth: [sequence.bit_depth; 2],
            matrix: sequence.matrix,
            full_range: sequence.full_range,
            colors: Some((sequence.primaries, sequence.transfer)),
        }
    }
}
