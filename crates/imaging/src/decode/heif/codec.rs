//! The codecs of tiles, and how they decode.

use heifer_hevc_dec::decoder::{DecodeOptions, decode_picture};
use heifer_hevc_dec::nal::{NalHeader, NalUnit, NalUnitType, split_annex_b};
use heifer_hevc_dec::params::Sps;
use heifer_hevc_dec::recon::Frame;
use heifer_isobmff::boxes::ConstructionMethod;
use heifer_isobmff::{HeifFile, ItemId};

use super::planes::Planes;
use super::{BROKEN, HeaderError, PADDING_PX, Picture, corrupt, refused};
use crate::SourceFormat;
use crate::av1::{Chroma, Sequence};
use crate::control::Control;
use crate::{Error, av1};

/// The codec of the tiles of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Hevc,
    Av1,
}

impl Codec {
    /// The codec of an item type.
    pub(super) const fn of(item_type: [u8; 4]) -> Option<Self> {
        match &item_type {
            b"hvc1" => Some(Self::Hevc),
            b"av01" => Some(Self::Av1),
            _ => None,
        }
    }

    /// The format name of HEIF with this codec.
    pub(super) const fn format(self) -> SourceFormat {
        match self {
            Self::Hevc => SourceFormat::Heic,
            Self::Av1 => SourceFormat::Avif,
        }
    }

    /// A description in words, for a file that claims another format.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hevc => "a HEIC picture by the name of AVIF",
            Self::Av1 => "an AVIF picture by the name of HEIC",
        }
    }
}

/// The kind of samples of a tile. All tiles of a picture have the same kind, so the first one
/// determines the memory of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Samples {
    chroma: Chroma,
    /// The bit depths of luma and of chroma.
    bit_depth: [u8; 2],
}

impl Samples {
    /// Reads the kind from the configuration of an HEVC tile; its stream must match.
    pub(super) fn of_hevc(file: &HeifFile<'_>, tile: ItemId) -> Result<Self, HeaderError> {
        let config = file.hevc_config(tile).map_err(|_| BROKEN)?;
        let config = config.ok_or(HeaderError::Broken(
            "its header does not say how it is coded",
        ))?;
        Ok(Self {
            chroma: chroma_of_hevc(config.chroma_format).ok_or(BROKEN)?,
            bit_depth: [config.bit_depth_luma, config.bit_depth_chroma],
        })
    }

    const fn of_av1(sequence: &Sequence) -> Self {
        Self {
            chroma: sequence.chroma,
            bit_depth: [sequence.bit_depth; 2],
        }
    }

    /// Bytes per pixel of an HEVC tile while it is decoded: its samples, 16 bits each, and the data
    /// for prediction and filtering (measured).
    pub(super) const fn hevc_pixel_bytes(self) -> u64 {
        match self.chroma {
            Chroma::None | Chroma::Quarter => 8,
            Chroma::Half => 9,
            Chroma::Full => 11,
        }
    }
}

/// Upper bound on the memory for the stream of an HEVC tile in a file of this size: joined from its
/// extents, in the form that the decoder expects, and without emulation prevention bytes.
pub(super) fn hevc_stream_bytes(file: &HeifFile<'_>, tile: ItemId, file_bytes: usize) -> u64 {
    let extents = file
        .item(tile)
        .ok()
        .and_then(|item| item.location.as_ref())
        .filter(|location| location.construction_method == ConstructionMethod::File)
        .map_or(&[][..], |location| &location.extents);
    // Without a length it extends to the end.
    let whole = extents.is_empty() || extents.iter().any(|extent| extent.length == 0);
    let length = extents
        .iter()
        .fold(0_u64, |sum, extent| sum.saturating_add(extent.length));
    let most = file_bytes as u64;
    let data = if whole { most } else { length.min(most) };
    let (prefix, sets) = match file.hevc_config(tile) {
        Ok(Some(config)) => (
            u64::from(config.nal_length_size.max(1)),
            config
                .nal_units
                .iter()
                .map(|unit| unit.len() as u64 + 4)
                .sum(),
        ),
        _ => (1, 0),
    };
    // Lengths of one or two bytes become start codes of four, in front of units that may be empty.
    let marked = data * 4_u64.div_ceil(prefix) + sets;
    data + marked * 2
}

/// The sampling of a `chroma_format_idc` (ITU-T H.265, 6.2).
const fn chroma_of_hevc(format: u8) -> Option<Chroma> {
    Some(match format {
        0 => Chroma::None,
        1 => Chroma::Quarter,
        2 => Chroma::Half,
        3 => Chroma::Full,
        _ => return None,
    })
}

/// Reads the sequence header of an AV1 tile. `None` if it contradicts the size of the tile: an
/// encoder may round the maximum size up to whole blocks, and no more.
pub(super) fn sequence(
    file: &HeifFile<'_>,
    tile: ItemId,
    (width, height): (u32, u32),
) -> Result<Sequence, HeaderError> {
    let stream = file.item_data(tile).map_err(|_| CUT_OFF)?;
    let sequence = Sequence::read(&stream).ok_or(BROKEN)?;
    let fits = |most: u32, length: u32| length <= most && most - length < PADDING_PX;
    if !fits(sequence.max_width, width) || !fits(sequence.max_height, height) {
        return Err(HeaderError::Broken("its headers give two sizes"));
    }
    Ok(sequence)
}

const CUT_OFF: HeaderError = HeaderError::Broken("it ends before its last tile");

const MIXED: HeaderError = HeaderError::Broken("its tiles are not of one kind");
const OTHER_PICTURE: HeaderError =
    HeaderError::Broken("it holds another picture than its header says");

/// The decoder of the tiles of a picture; it decodes one after the other.
pub(super) enum Tiles {
    Hevc(Samples),
    Av1(Samples),
}

impl Tiles {
    /// Makes a decoder for a picture.
    pub(super) fn open(file: &HeifFile<'_>, picture: &Picture) -> Result<Self, Error> {
        let size = (picture.tile_width, picture.tile_height);
        let (codec, first) = (picture.codec, picture.tiles[0]);
        let refused = |refusal| refused(codec, &refusal);
        match codec {
            Codec::Hevc => Ok(Self::Hevc(Samples::of_hevc(file, first).map_err(refused)?)),
            Codec::Av1 => {
                let sequence = sequence(file, first, size).map_err(refused)?;
                Ok(Self::Av1(Samples::of_av1(&sequence)))
            }
        }
    }

    /// Decodes a tile of `picture`. The caller may halve the result afterwards.
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
        let refused = |refusal| refused(codec, &refusal);
        let same = file
            .item(tile)
            .is_ok_and(|item| Codec::of(item.item_type.0) == Some(codec));
        if !same {
            return Err(corrupt(codec, "a tile of it is no picture"));
        }
        let size = (picture.tile_width, picture.tile_height);
        match self {
            Self::Hevc(samples) => {
                if Samples::of_hevc(file, tile).map_err(refused)? != *samples {
                    return Err(refused(MIXED));
                }
                hevc(file, tile, *samples, size, halved)
            }
            Self::Av1(samples) => {
                let sequence = sequence(file, tile, size).map_err(refused)?;
                if Samples::of_av1(&sequence) != *samples {
                    return Err(refused(MIXED));
                }
                let stream = file.item_data(tile).map_err(|_| refused(CUT_OFF))?;
                let shape = sequence.shape(size.0, size.1);
                let planes = av1::decode(&stream, shape, control)?;
                Ok(Planes::of_av1(&sequence, &shape, planes))
            }
        }
    }
}

fn hevc(
    file: &HeifFile<'_>,
    tile: ItemId,
    samples: Samples,
    (width, height): (u32, u32),
    halved: bool,
) -> Result<Planes, Error> {
    let corrupt = |reason| corrupt(Codec::Hevc, reason);
    let padded = |length: u32| u64::from(length) + u64::from(PADDING_PX);
    let options = DecodeOptions {
        max_pixels: padded(width).saturating_mul(padded(height)),
        // The filters smooth single pixels at the edges of blocks, which are invisible at half the
        // size, and take a seventh of the time. No prediction uses filtered pixels.
        skip_loop_filters: halved,
        ..DecodeOptions::default()
    };
    let stream = file
        .hevc_bitstream(tile)
        .map_err(|_| refused(Codec::Hevc, &CUT_OFF))?;
    agree(&stream, samples).map_err(|refusal| refused(Codec::Hevc, &refusal))?;
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

/// The limit on the units of a stream: the highest level allows 600 slices. The decoder records
/// each unit.
const MAX_UNITS: usize = 4096;

/// Checks an HEVC stream before it is decoded: it has no more units than a picture needs, and no
/// parameter set that contradicts `samples`.
fn agree(stream: &[u8], samples: Samples) -> Result<(), HeaderError> {
    let begins = memchr::memmem::find_iter(stream, &[0, 0, 1]);
    if begins.take(MAX_UNITS + 1).count() > MAX_UNITS {
        return Err(HeaderError::Broken("it is cut into too many pieces"));
    }
    for unit in split_annex_b(stream) {
        let header = NalHeader::parse(unit).map_err(|_| DAMAGED)?;
        // The decoder uses the parameter sets before the first slice.
        if header.unit_type.is_slice() {
            break;
        }
        if header.unit_type == NalUnitType::Sps {
            let set = NalUnit::parse(unit).and_then(|unit| Sps::parse(&unit.rbsp));
            let set = set.map_err(|_| DAMAGED)?;
            let found = Samples {
                chroma: chroma_of_hevc(set.chroma_format_idc).ok_or(DAMAGED)?,
                bit_depth: [set.bit_depth_luma, set.bit_depth_chroma],
            };
            if found != samples {
                return Err(OTHER_PICTURE);
            }
        }
    }
    Ok(())
}

const DAMAGED: HeaderError = HeaderError::Broken("its data is damaged");

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_with_too_many_units_is_refused_before_they_are_recorded() {
        let samples = Samples {
            chroma: Chroma::Quarter,
            bit_depth: [8; 2],
        };
        // Access unit delimiters, which need no check.
        let pieces = |count| b"\0\0\x01\x46\x01".repeat(count);
        assert!(agree(&pieces(MAX_UNITS), samples).is_ok());
        let refused = agree(&pieces(MAX_UNITS + 1), samples);
        assert!(matches!(
            refused,
            Err(HeaderError::Broken("it is cut into too many pieces"))
        ));
    }
}
