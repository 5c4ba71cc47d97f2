//! Reads the first directory of a TIFF file (TIFF 6.0, section 2) without decoding anything.

use super::super::{HeaderError, MAX_PROFILE_BYTES};

/// The numbers of the tags that are read (TIFF 6.0, appendix A; ICC.1, annex B.4).
mod tag {
    pub(super) const WIDTH: u16 = 256;
    pub(super) const HEIGHT: u16 = 257;
    pub(super) const BITS: u16 = 258;
    pub(super) const COMPRESSION: u16 = 259;
    pub(super) const COLORS: u16 = 262;
    pub(super) const BIT_ORDER: u16 = 266;
    pub(super) const STRIP_OFFSETS: u16 = 273;
    pub(super) const ORIENTATION: u16 = 274;
    pub(super) const SAMPLES: u16 = 277;
    pub(super) const ROWS_OF_STRIP: u16 = 278;
    pub(super) const STRIP_LENGTHS: u16 = 279;
    pub(super) const PLANES: u16 = 284;
    pub(super) const PREDICTOR: u16 = 317;
    pub(super) const PALETTE: u16 = 320;
    pub(super) const TILE_WIDTH: u16 = 322;
    pub(super) const TILE_HEIGHT: u16 = 323;
    pub(super) const TILE_OFFSETS: u16 = 324;
    pub(super) const TILE_LENGTHS: u16 = 325;
    pub(super) const INKS: u16 = 332;
    pub(super) const EXTRA_SAMPLES: u16 = 338;
    pub(super) const SAMPLE_FORMAT: u16 = 339;
    pub(super) const JPEG_TABLES: u16 = 347;
    pub(super) const ICC_PROFILE: u16 = 34_675;
}

/// The limit on entries of a directory. Real pictures have less than a hundred.
const MAX_ENTRIES: usize = 1000;

/// The limit on samples of a pixel.
const MAX_SAMPLES: u32 = 8;

/// A tile may have this edge, even if the picture is smaller.
const MAX_EXTRA_TILE_PX: u32 = 1024;

const DAMAGED: HeaderError = HeaderError::Broken("its directory is damaged");

/// The entries of the first directory. Later directories are other pages and are not read.
#[derive(Clone, Copy)]
pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    entries: &'a [[u8; 12]],
    /// Whether the directory states more entries than there are.
    cut_off: bool,
}

impl<'a> Directory<'a> {
    /// The entries, as far as they are complete. `None` if there is no directory.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = bytes.starts_with(b"MM");
        let at = u32_of(bytes.get(4..)?, big_endian)?;
        let directory = bytes.get(at as usize..)?;
        let count = usize::from(u16_of(directory, big_endian)?);
        let entries = directory.get(2..)?.as_chunks::<12>().0;
        Some(Self {
            bytes,
            big_endian,
            entries: &entries[..count.min(entries.len())],
            cut_off: count > entries.len(),
        })
    }

    /// The stored width and height, if both are stated.
    pub(super) fn size(&self) -> Option<(u32, u32)> {
        let number = |tag| self.values(tag).ok().flatten()?.get(0);
        Some((number(tag::WIDTH)?, number(tag::HEIGHT)?))
    }

    /// The number of the orientation, as in EXIF.
    pub(super) fn orientation(&self) -> u16 {
        let values = self.values(tag::ORIENTATION).ok().flatten();
        let number = values.and_then(|values| values.get(0));
        number.map_or(1, |number| number as u16)
    }

    /// The embedded ICC profile; `None` if there is none or if it is larger than a profile needs.
    ///
    /// # Errors
    ///
    /// The profile is not in the file: the file is cut off.
    pub(super) fn profile(&self) -> Result<Option<&'a [u8]>, HeaderError> {
        let profile = self.values(tag::ICC_PROFILE)?.map(|values| values.data);
        Ok(profile.filter(|profile| profile.len() <= MAX_PROFILE_BYTES))
    }

    /// The values of a tag; `None` if the directory does not have it.
    fn values(&self, tag: u16) -> Result<Option<Values<'a>>, HeaderError> {
        let big_endian = self.big_endian;
        let has_tag = |entry: &&[u8; 12]| u16_of(&entry[..], big_endian) == Some(tag);
        let Some(entry) = self.entries.iter().find(has_tag) else {
            return Ok(None);
        };
        let values = || {
            // BYTE and UNDEFINED, SHORT, LONG.
            let bytes: usize = match u16_of(&entry[2..], big_endian)? {
                1 | 7 => 1,
                3 => 2,
                4 => 4,
                _ => return None,
            };
            let length = bytes.checked_mul(u32_of(&entry[4..], big_endian)? as usize)?;
            let data = if length <= 4 {
                &entry[8..8 + length]
            } else {
                let at = u32_of(&entry[8..], big_endian)? as usize;
                self.bytes.get(at..)?.get(..length)?
            };
            Some(Values {
                bytes,
                data,
                big_endian,
            })
        };
        values().map(Some).ok_or(DAMAGED)
    }

    /// The only or first value of a tag.
    fn number(&self, tag: u16) -> Result<Option<u32>, HeaderError> {
        let Some(values) = self.values(tag)? else {
            return Ok(None);
        };
        values.get(0).map(Some).ok_or(DAMAGED)
    }

    fn number_or(&self, tag: u16, default: u32) -> Result<u32, HeaderError> {
        Ok(self.number(tag)?.unwrap_or(default))
    }

    /// The value of a tag that must have the same value for each sample.
    fn common(&self, tag: u16, default: u32) -> Result<Option<u32>, HeaderError> {
        let Some(values) = self.values(tag)? else {
            return Ok(Some(default));
        };
        let first = values.get(0).ok_or(DAMAGED)?;
        Ok(values.iter().all(|value| value == first).then_some(first))
    }
}

/// The values of a tag.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    /// The length of a value: 1, 2 or 4.
    bytes: usize,
    data: &'a [u8],
    big_endian: bool,
}

impl<'a> Values<'a> {
    pub(super) const fn len(&self) -> usize {
        self.data.len() / self.bytes
    }

    pub(super) fn get(&self, index: usize) -> Option<u32> {
        let data = self.data.get(index.checked_mul(self.bytes)?..)?;
        match self.bytes {
            1 => data.first().copied().map(u32::from),
            2 => u16_of(data, self.big_endian).map(u32::from),
            _ => u32_of(data, self.big_endian),
        }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u32> + use<'a> {
        (0..self.len()).map_while(move |index| self.get(index))
    }
}

pub(super) fn u16_of(bytes: &[u8], big_endian: bool) -> Option<u16> {
    let bytes = *bytes.first_chunk()?;
    Some(if big_endian {
        u16::from_be_bytes(bytes)
    } else {
        u16::from_le_bytes(bytes)
    })
}

fn u32_of(bytes: &[u8], big_endian: bool) -> Option<u32> {
    let bytes = *bytes.first_chunk()?;
    Some(if big_endian {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    })
}

/// How the pixels of a picture are stored. Every value is one that can be decoded.
#[derive(Clone)]
pub(super) struct Storage<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) compression: Compression,
    pub(super) colors: Colors<'a>,
    pub(super) alpha: Alpha,
    /// Bits of a sample: 1, 2, 4, 8 or 16. Only a single sample has less than 8.
    pub(super) bits: u32,
    /// Samples of a pixel, those that are neither colour nor alpha included.
    pub(super) samples: u32,
    /// Whether each sample has blocks of its own.
    pub(super) planar: bool,
    /// Whether a sample is stored as the difference from the sample to its left.
    pub(super) predicted: bool,
    pub(super) big_endian: bool,
    pub(super) blocks: Blocks<'a>,
}

/// The compression of the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    /// LZW, Deflate or `PackBits`: the number of the method. The library inflates it.
    Packed(u16),
    /// A JPEG for each block.
    Jpeg {
        /// Whether its channels are luma and chroma.
        luma: bool,
    },
}

/// The colours of a pixel.
#[derive(Clone, Copy)]
pub(super) enum Colors<'a> {
    Gray {
        /// Whether 0 is white.
        inverted: bool,
    },
    Rgb,
    /// All reds, all greens, all blues.
    Palette(Values<'a>),
    /// Cyan, magenta, yellow, black; 0 is no ink.
    Inks,
}

impl Colors<'_> {
    /// The number of stored samples.
    pub(super) const fn samples(&self) -> u32 {
        match self {
            Self::Gray { .. } | Self::Palette(_) => 1,
            Self::Rgb => 3,
            Self::Inks => 4,
        }
    }
}

/// The sample after the colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpha {
    /// There is none, or it is not alpha.
    None,
    Straight,
    /// The colours are multiplied by it.
    Premultiplied,
}

/// The parts of a picture that are compressed separately: strips, or tiles.
#[derive(Clone)]
pub(super) struct Blocks<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) across: u32,
    pub(super) down: u32,
    /// Whether a block at the lower edge ends there. A tile is always whole.
    pub(super) ends_with_picture: bool,
    pub(super) offsets: Values<'a>,
    /// The stored lengths. Blocks that are not compressed do not need them.
    pub(super) lengths: Option<Values<'a>>,
    /// What all JPEGs share, without its first and last marker.
    pub(super) jpeg_tables: &'a [u8],
    /// The longest stored length, of those within the file.
    pub(super) longest: u64,
}

impl<'a> Storage<'a> {
    /// # Errors
    ///
    /// The directory is damaged, or states something that cannot be decoded.
    pub(super) fn read(directory: &Directory<'a>) -> Result<Self, HeaderError> {
        if directory.entries.len() > MAX_ENTRIES {
            return Err(HeaderError::Complex("its directory has too many entries"));
        }
        if directory.cut_off {
            return Err(HeaderError::Broken("its directory is cut off"));
        }
        let (width, height) = directory
            .size()
            .filter(|&(width, height)| width > 0 && height > 0)
            .ok_or(HeaderError::Broken("its header gives no size"))?;
        let samples = directory.number_or(tag::SAMPLES, 1)?;
        let bits = directory.common(tag::BITS, 1)?.unwrap_or(0);
        let colors = colors(directory, bits)?;
        let compression = compression(directory)?;
        if samples < colors.samples() {
            return Err(HeaderError::Broken(
                "it has fewer channels than its colours",
            ));
        }
        if samples > MAX_SAMPLES {
            return Err(HeaderError::Kind("a TIFF of more than 8 channels"));
        }
        if !matches!(bits, 1 | 2 | 4 | 8 | 16) || (bits < 8 && samples > 1) {
            return Err(HeaderError::Kind("a TIFF of an unusual bit depth"));
        }
        // 1 is unsigned, and 4 is undefined.
        if !matches!(directory.common(tag::SAMPLE_FORMAT, 1)?, Some(1 | 4)) {
            return Err(HeaderError::Kind(
                "a TIFF whose samples are signed or of floating point",
            ));
        }
        if bits < 8 && directory.number_or(tag::BIT_ORDER, 1)? != 1 {
            return Err(HeaderError::Kind("a TIFF with its bits in reversed order"));
        }
        let alpha = alpha(directory, samples > colors.samples())?;
        if matches!(colors, Colors::Inks) && alpha != Alpha::None {
            return Err(HeaderError::Kind("a TIFF of four inks and transparency"));
        }
        let planar = match directory.number_or(tag::PLANES, 1)? {
            1 => false,
            2 => samples > 1,
            _ => return Err(DAMAGED),
        };
        if let Compression::Jpeg { luma } = compression
            && (bits != 8 || samples != colors.samples() || (planar && luma))
        {
            return Err(HeaderError::Kind(
                "a TIFF in JPEG compression with unusual channels",
            ));
        }
        let predicted = match compression {
            // Other methods have no predictor, and programs ignore one.
            Compression::Packed(LZW | DEFLATE | OLD_DEFLATE) => {
                match directory.number_or(tag::PREDICTOR, 1)? {
                    1 => false,
                    2 if bits >= 8 => true,
                    2 | 3 => return Err(HeaderError::Kind("a TIFF with an unusual predictor")),
                    _ => return Err(DAMAGED),
                }
            }
            _ => false,
        };
        let planes = if planar { samples } else { 1 };
        Ok(Self {
            width,
            height,
            compression,
            colors,
            alpha,
            bits,
            samples,
            planar,
            predicted,
            big_endian: directory.big_endian,
            blocks: blocks(directory, (width, height), planes, compression)?,
        })
    }

    /// The number of sets of blocks.
    pub(super) const fn planes(&self) -> u32 {
        if self.planar { self.samples } else { 1 }
    }

    /// The number of samples of a pixel in one block.
    pub(super) const fn block_samples(&self) -> u32 {
        if self.planar { 1 } else { self.samples }
    }

    /// The length of a row of a block.
    pub(super) fn row_bytes(&self) -> u64 {
        let bits = u64::from(self.bits) * u64::from(self.block_samples());
        (u64::from(self.blocks.width) * bits).div_ceil(8)
    }
}

const LZW: u16 = 5;
const DEFLATE: u16 = 8;
const PACK_BITS: u16 = 32_773;
const OLD_DEFLATE: u16 = 32_946;

/// The number of luma and chroma in the tag of colours.
const YCBCR: u32 = 6;

fn compression(directory: &Directory<'_>) -> Result<Compression, HeaderError> {
    let luma = directory.number(tag::COLORS)? == Some(YCBCR);
    let compression = match directory.number_or(tag::COMPRESSION, 1)? as u16 {
        1 => Compression::None,
        method @ (LZW | DEFLATE | OLD_DEFLATE | PACK_BITS) => Compression::Packed(method),
        7 => Compression::Jpeg { luma },
        2..=4 => return Err(HeaderError::Kind("a TIFF in fax compression")),
        6 => return Err(HeaderError::Kind("a TIFF in old-style JPEG compression")),
        _ => return Err(HeaderError::Kind("a TIFF in an unusual compression")),
    };
    if luma && !matches!(compression, Compression::Jpeg { .. }) {
        return Err(HeaderError::Kind("a TIFF of luma and chroma without JPEG"));
    }
    Ok(compression)
}

fn colors<'a>(directory: &Directory<'a>, bits: u32) -> Result<Colors<'a>, HeaderError> {
    let colors = match directory.number(tag::COLORS)? {
        Some(number @ (0 | 1)) => Colors::Gray {
            inverted: number == 0,
        },
        Some(2 | YCBCR) => Colors::Rgb,
        Some(3) if bits <= 8 => {
            let palette = directory.values(tag::PALETTE)?;
            let complete = |palette: &Values<'_>| palette.len() == 3 << bits;
            Colors::Palette(palette.filter(complete).ok_or(DAMAGED)?)
        }
        // The only set of inks with a fixed meaning.
        Some(5) if directory.number_or(tag::INKS, 1)? == 1 => Colors::Inks,
        Some(8..=10) => return Err(HeaderError::Kind("a TIFF in CIE L*a*b* colours")),
        Some(_) => return Err(HeaderError::Kind("a TIFF of unusual colours")),
        None => return Err(HeaderError::Broken("its directory gives no colours")),
    };
    Ok(colors)
}

/// The meaning of the first sample after the colours, if there is one.
fn alpha(directory: &Directory<'_>, extra: bool) -> Result<Alpha, HeaderError> {
    Ok(match directory.number(tag::EXTRA_SAMPLES)? {
        _ if !extra => Alpha::None,
        Some(1) => Alpha::Premultiplied,
        // Other programs, too, read a sample without a stated meaning as alpha.
        Some(2) | None => Alpha::Straight,
        Some(_) => Alpha::None,
    })
}

fn blocks<'a>(
    directory: &Directory<'a>,
    (width, height): (u32, u32),
    planes: u32,
    compression: Compression,
) -> Result<Blocks<'a>, HeaderError> {
    const MISSING: HeaderError = HeaderError::Broken("its directory misses parts of the picture");
    let tiled = directory.values(tag::TILE_OFFSETS)?.is_some();
    let (block_width, block_height, offsets, lengths) = if tiled {
        let tile_width = directory.number(tag::TILE_WIDTH)?.ok_or(DAMAGED)?;
        let tile_height = directory.number(tag::TILE_HEIGHT)?.ok_or(DAMAGED)?;
        let fits = |tile: u32, edge: u32| {
            tile > 0
                && tile
                    <= edge
                        .checked_next_multiple_of(16)
                        .unwrap_or(edge)
                        .max(MAX_EXTRA_TILE_PX)
        };
        if !fits(tile_width, width) || !fits(tile_height, height) {
            return Err(HeaderError::Complex("its tiles are larger than it"));
        }
        (
            tile_width,
            tile_height,
            tag::TILE_OFFSETS,
            tag::TILE_LENGTHS,
        )
    } else {
        let rows = directory.number_or(tag::ROWS_OF_STRIP, height)?.min(height);
        if rows == 0 {
            return Err(DAMAGED);
        }
        (width, rows, tag::STRIP_OFFSETS, tag::STRIP_LENGTHS)
    };
    let (across, down) = (width.div_ceil(block_width), height.div_ceil(block_height));
    let count = u64::from(across)
        .saturating_mul(u64::from(down))
        .saturating_mul(planes.into());
    let enough = |values: &Values<'_>| values.len() as u64 >= count;
    let offsets = directory.values(offsets)?.filter(enough).ok_or(MISSING)?;
    let lengths = directory.values(lengths)?.filter(enough);
    if lengths.is_none() && compression != Compression::None {
        return Err(MISSING);
    }
    let file_bytes = directory.bytes.len() as u64;
    let (mut longest, mut total) = (0, 0);
    if compression != Compression::None {
        let stored = lengths.iter().flat_map(|lengths| lengths.iter());
        for (offset, length) in offsets.iter().zip(stored).take(count as usize) {
            // Some programs state too much for the last block.
            let length = u64::from(length).min(file_bytes.saturating_sub(offset.into()));
            longest = length.max(longest);
            total += length;
        }
    }
    // Each block is read once, so honest blocks are not longer than the file.
    if total > file_bytes {
        return Err(HeaderError::Complex("its parts are longer than the file"));
    }
    let tables = directory.values(tag::JPEG_TABLES)?;
    let tables = tables.and_then(|tables| {
        tables
            .data
            .strip_prefix(b"\xff\xd8")?
            .strip_suffix(b"\xff\xd9")
    });
    Ok(Blocks {
        width: block_width,
        height: block_height,
        across,
        down,
        ends_with_picture: !tiled,
        offsets,
        lengths,
        jpeg_tables: tables.unwrap_or_default(),
        longest,
    })
}
