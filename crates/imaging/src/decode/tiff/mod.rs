//! Decodes TIFF 6.0. Only the first page of a file is read.
//!
//! [`directory`] reads how the picture is stored. The `image` crate inflates the strips and tiles:
//! each is given to it as a grey TIFF of its own whose pixels are the bytes of the block. So the
//! library never sees the directory of an upload, its memory is that of one block, and colours,
//! palettes, inks and alpha keep their meaning. A block in JPEG compression goes to this crate's own
//! JPEG decoder.

mod directory;

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};

use image::codecs::tiff::TiffDecoder;
use image::{ImageDecoder, ImageError};

use self::directory::{Alpha, Colors as Stored, Compression, Directory, Storage, u16_of};
use super::{
    CONTRADICTION, Colors, DecodeRequest, Decoded, Header, HeaderError, Memory, Size, jpeg,
};
use crate::Error;
use crate::SourceFormat;
use crate::control::Control;
use crate::geometry::{Area, Window};
use crate::orientation::Orientation;
use crate::raster::{Layout, Raster};

/// Reads the size and the orientation in the first directory.
pub(super) fn claimed_size(bytes: &[u8]) -> Option<Size> {
    let directory = Directory::read(bytes)?;
    let (width, height) = directory.size()?;
    Some(Size {
        width,
        height,
        orientation: Orientation::from_exif(directory.orientation()),
    })
}

pub(super) fn header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let directory = Directory::read(bytes).ok_or(HeaderError::Broken("it has no directory"))?;
    let storage = Storage::read(&directory)?;
    Ok(Header {
        format: SourceFormat::Tiff,
        width: storage.width,
        height: storage.height,
        orientation: Orientation::from_exif(directory.orientation()),
        frames: 1,
        alpha: storage.alpha != Alpha::None,
        profile_bytes: directory
            .profile()?
            .map_or(0, |profile| profile.len() as u64),
        memory: Memory {
            fixed_bytes: block_memory_bytes(&storage),
            scaled_bytes: 0,
            pixel_bytes: layout(&storage).channels() as u64,
        },
    })
}

/// Upper bound on the memory of the blocks that are decoded at the same time.
fn block_memory_bytes(storage: &Storage<'_>) -> u64 {
    let blocks = &storage.blocks;
    let block_bytes = storage.row_bytes().saturating_mul(blocks.height.into());
    let decoded = block_bytes.saturating_mul(storage.planes().into());
    match storage.compression {
        // They are read where they are.
        Compression::None => 0,
        // The library has a copy of what it inflates.
        Compression::Packed(_) => decoded.saturating_add(block_bytes) + blocks.longest,
        Compression::Jpeg { .. } => {
            // The JPEG decoder works with blocks of up to 32 pixels.
            let padded = |edge: u32| u64::from(edge) + 64;
            let pixels = padded(blocks.width).saturating_mul(padded(blocks.height));
            let samples = u64::from(storage.block_samples());
            // Coefficients, samples, planes and pixels.
            let decoding = pixels.saturating_mul(samples * 5 + 5);
            let stream = blocks.longest + blocks.jpeg_tables.len() as u64;
            decoded.saturating_add(decoding) + stream * 3 + jpeg::EMBEDDED_NOTES_BYTES
        }
    }
}

/// The pixels that a picture is decoded to.
fn layout(storage: &Storage<'_>) -> Layout {
    match (&storage.colors, storage.alpha != Alpha::None) {
        (Stored::Gray { .. }, false) => Layout::Gray,
        (Stored::Gray { .. }, true) => Layout::GrayAlpha,
        (Stored::Rgb | Stored::Palette(_), false) => Layout::Rgb,
        (Stored::Rgb | Stored::Palette(_), true) => Layout::Rgba,
        (Stored::Inks, _) => Layout::Cmyk,
    }
}

/// Decodes all blocks: a picture is accepted only if it is complete.
pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    request: &DecodeRequest,
    control: &Control,
) -> Result<Decoded, Error> {
    let directory = Directory::read(bytes).ok_or(corrupt(CONTRADICTION))?;
    let storage = Storage::read(&directory).map_err(|error| refused(&error))?;
    let profile = directory.profile().map_err(|error| refused(&error))?;
    debug_assert!((header.width, header.height) == (storage.width, storage.height));
    let area = request.area();
    let layout = layout(&storage);
    let mut raster = Raster {
        width: area.width,
        height: area.height,
        layout,
        pixels: vec![0; Raster::len_of(area.width, area.height, layout)],
    };
    let palette = palette(&storage);
    let blocks = &storage.blocks;
    let in_plane = (blocks.across * blocks.down) as usize;
    for index in 0..in_plane {
        control.check()?;
        let (column, row) = (index as u32 % blocks.across, index as u32 / blocks.across);
        let (x, y) = (column * blocks.width, row * blocks.height);
        let rows = if blocks.ends_with_picture {
            blocks.height.min(storage.height - y)
        } else {
            blocks.height
        };
        let planes = (0..storage.planes() as usize)
            .map(|plane| block_bytes(bytes, &storage, plane * in_plane + index, rows))
            .collect::<Result<Vec<_>, _>>()?;
        let block = Block {
            storage: &storage,
            palette: &palette,
            planes,
            x,
            y,
            rows,
        };
        block.draw(&mut raster, area);
    }
    Ok(Decoded {
        raster,
        window: Window::whole(area.width, area.height),
        colors: Colors::from(profile.map(<[u8]>::to_vec)),
    })
}

/// The colours of a palette in 8 bits.
fn palette(storage: &Storage<'_>) -> Vec<[u8; 3]> {
    let Stored::Palette(values) = storage.colors else {
        return Vec::new();
    };
    // Some programs write 8 bits where the format has 16.
    let shift = if values.iter().all(|value| value < 256) {
        0
    } else {
        8
    };
    let length = values.len() / 3;
    let value = |index| (values.get(index).unwrap_or(0) >> shift) as u8;
    (0..length)
        .map(|index| [0, 1, 2].map(|channel| value(channel * length + index)))
        .collect()
}

/// The samples of a block, in rows without compression and prediction.
fn block_bytes<'a>(
    bytes: &'a [u8],
    storage: &Storage<'a>,
    index: usize,
    rows: u32,
) -> Result<Cow<'a, [u8]>, Error> {
    let blocks = &storage.blocks;
    let row_bytes = storage.row_bytes() as usize;
    let length = row_bytes * rows as usize;
    let offset = blocks.offsets.get(index).ok_or(corrupt(CONTRADICTION))?;
    let stored = bytes.get(offset as usize..).ok_or(corrupt(ENDS_EARLY))?;
    if storage.compression == Compression::None {
        let samples = stored.get(..length).ok_or(corrupt(ENDS_EARLY))?;
        return Ok(Cow::Borrowed(samples));
    }
    let stated = blocks.lengths.and_then(|lengths| lengths.get(index));
    let stated = stated.ok_or(corrupt(CONTRADICTION))? as usize;
    let stored = &stored[..stated.min(stored.len())];
    let mut samples = match storage.compression {
        Compression::Packed(method) => inflate(stored, method, (row_bytes, rows))?,
        Compression::Jpeg { luma } => {
            let jpeg = join_jpeg(stored, blocks.jpeg_tables, luma);
            let size = (blocks.width, rows, blocks.height);
            let samples = storage.block_samples() as usize;
            jpeg::decode_embedded(&jpeg, size, samples).map_err(|error| refused(&error))?
        }
        Compression::None => Vec::new(),
    };
    if storage.predicted {
        let channels = storage.block_samples() as usize;
        for row in samples.chunks_exact_mut(row_bytes.max(1)) {
            add_up(row, channels, storage);
        }
    }
    Ok(Cow::Owned(samples))
}

/// Inflates a block of rows of bytes: the library decodes it as a grey TIFF with one strip.
fn inflate(stored: &[u8], method: u16, (row_bytes, rows): (usize, u32)) -> Result<Vec<u8>, Error> {
    const ENTRIES: usize = 9;
    const HEAD_BYTES: usize = 8 + 2 + ENTRIES * 12 + 4;
    let number = |number: usize| u32::try_from(number).map_err(|_| corrupt(CONTRADICTION));
    let entries: [(u16, u16, u32); ENTRIES] = [
        (256, 4, number(row_bytes)?),
        (257, 4, rows),
        (258, 3, 8),
        (259, 3, method.into()),
        (262, 3, 1),
        (273, 4, HEAD_BYTES as u32),
        (277, 3, 1),
        (278, 4, rows),
        (279, 4, number(stored.len())?),
    ];
    let mut tiff = Vec::with_capacity(HEAD_BYTES + stored.len());
    tiff.extend(b"II*\0\x08\0\0\0");
    tiff.extend((ENTRIES as u16).to_le_bytes());
    for (tag, kind, value) in entries {
        tiff.extend(tag.to_le_bytes());
        tiff.extend(kind.to_le_bytes());
        tiff.extend(1_u32.to_le_bytes());
        tiff.extend(value.to_le_bytes());
    }
    tiff.extend([0; 4]);
    tiff.extend(stored);
    let length = row_bytes * rows as usize;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some((length + stored.len()) as u64);
    let mut samples = vec![0; length];
    let mut decoder = TiffDecoder::new(Cursor::new(&tiff)).map_err(|error| unpacked(&error))?;
    decoder
        .set_limits(limits)
        .and_then(|()| decoder.read_image(&mut samples))
        .map_err(|error| unpacked(&error))?;
    Ok(samples)
}

/// Joins a block and the shared tables to a JPEG. Only the TIFF directory states the colour space, so
/// this adds Adobe's marker, from which the JPEG decoder reads it.
fn join_jpeg(stored: &[u8], tables: &[u8], luma: bool) -> Vec<u8> {
    let adobe = b"\xff\xd8\xff\xee\0\x0eAdobe\0\x64\0\0\0\0";
    let rest = stored.strip_prefix(b"\xff\xd8").unwrap_or(stored);
    [adobe, &[u8::from(luma)][..], tables, rest].concat()
}

/// Undoes the prediction of a row: each sample is stored as the difference from the same channel of
/// the pixel to its left (TIFF 6.0, section 14).
fn add_up(row: &mut [u8], channels: usize, storage: &Storage<'_>) {
    if storage.bits == 8 {
        for at in channels..row.len() {
            row[at] = row[at].wrapping_add(row[at - channels]);
        }
        return;
    }
    let (samples, _) = row.as_chunks_mut::<2>();
    for at in channels..samples.len() {
        let (left, own) = (samples[at - channels], samples[at]);
        samples[at] = if storage.big_endian {
            let sum = u16::from_be_bytes(own).wrapping_add(u16::from_be_bytes(left));
            sum.to_be_bytes()
        } else {
            let sum = u16::from_le_bytes(own).wrapping_add(u16::from_le_bytes(left));
            sum.to_le_bytes()
        };
    }
}

/// A decoded strip or tile.
struct Block<'a> {
    storage: &'a Storage<'a>,
    palette: &'a [[u8; 3]],
    /// The samples: one plane, or one for each channel.
    planes: Vec<Cow<'a, [u8]>>,
    /// The position of its corner in the picture.
    x: u32,
    y: u32,
    rows: u32,
}

impl Block<'_> {
    /// Draws the pixels that lie in `area`, of which `raster` is a picture.
    fn draw(&self, raster: &mut Raster, area: Area) {
        let clip = |from: u32, length: u32, start: u32, wanted: u32| {
            let end = (from + length).min(start + wanted);
            from.max(start)..end
        };
        let columns = clip(self.x, self.storage.blocks.width, area.x, area.width);
        let rows = clip(self.y, self.rows, area.y, area.height);
        if columns.is_empty() {
            return;
        }
        let channels = raster.layout.channels();
        let stride = raster.stride();
        let from = (columns.start - area.x) as usize * channels;
        let length = columns.len() * channels;
        for y in rows {
            let target = &mut raster.pixels[(y - area.y) as usize * stride + from..][..length];
            self.draw_row(
                target,
                (y - self.y) as usize,
                (columns.start - self.x) as usize,
            );
        }
    }

    /// Draws pixels of one row, from the column `left` of the block on.
    fn draw_row(&self, target: &mut [u8], row: usize, left: usize) {
        let storage = self.storage;
        let channels = layout(storage).channels();
        let colors = storage.colors.samples() as usize;
        let inverted = matches!(storage.colors, Stored::Gray { inverted: true });
        let samples = storage.samples as usize;
        let stored_as_shown = storage.bits == 8
            && samples == channels
            && !storage.planar
            && !inverted
            && storage.alpha != Alpha::Premultiplied
            && !matches!(storage.colors, Stored::Palette(_));
        if stored_as_shown {
            let at = row * storage.row_bytes() as usize + left * samples;
            target.copy_from_slice(&self.planes[0][at..at + target.len()]);
            return;
        }
        let most = (1 << storage.bits) - 1;
        for (x, pixel) in (left..).zip(target.chunks_exact_mut(channels)) {
            let sample = |channel| self.sample(row, x, channel);
            let opaque = channels - usize::from(storage.alpha != Alpha::None);
            let (shown, alpha) = pixel.split_at_mut(opaque);
            if let Stored::Palette(_) = storage.colors {
                shown.copy_from_slice(&self.palette[sample(0) as usize]);
            } else {
                let whole = if storage.alpha == Alpha::Premultiplied {
                    sample(colors)
                } else {
                    most
                };
                for (channel, shown) in shown.iter_mut().enumerate() {
                    let value = share(sample(channel), whole);
                    *shown = if inverted { 255 - value } else { value };
                }
            }
            if let [alpha] = alpha {
                *alpha = share(sample(colors), most);
            }
        }
    }

    /// A sample as it is stored.
    fn sample(&self, row: usize, x: usize, channel: usize) -> u32 {
        let storage = self.storage;
        let (plane, at) = if storage.planar {
            (channel, x)
        } else {
            (0, x * storage.samples as usize + channel)
        };
        let row = &self.planes[plane][row * storage.row_bytes() as usize..];
        match storage.bits as usize {
            16 => u16_of(&row[at * 2..], storage.big_endian).map_or(0, u32::from),
            bits => {
                // The first sample is in the highest bits.
                let byte = u32::from(row[at * bits / 8]);
                (byte >> (8 - bits - at * bits % 8)) & ((1 << bits) - 1)
            }
        }
    }
}

/// The share of a value in the whole, in 255 steps, to the nearest one.
fn share(value: u32, whole: u32) -> u8 {
    match whole {
        0 => 0,
        whole => ((value * 255 + whole / 2) / whole).min(255) as u8,
    }
}

const ENDS_EARLY: &str = "it ends before its last row";

const fn corrupt(reason: &'static str) -> Error {
    Error::Corrupt {
        format: SourceFormat::Tiff,
        reason: Cow::Borrowed(reason),
    }
}

/// The error of a part that the header accepted and the decoder refuses.
fn refused(error: &HeaderError) -> Error {
    match error {
        HeaderError::Kind(_) => corrupt("a part of it is of a kind that is not supported"),
        HeaderError::Broken(reason) => corrupt(reason),
        HeaderError::Complex(reason) => Error::TooComplex {
            reason: Cow::Borrowed(reason),
        },
    }
}

fn unpacked(error: &ImageError) -> Error {
    corrupt(match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => ENDS_EARLY,
        _ => "its data is damaged",
    })
}
