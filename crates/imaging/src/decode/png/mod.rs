//! Decodes PNG (third edition, with APNG) row by row with the `png` crate.

mod moving;

use std::borrow::Cow;
use std::io::Cursor;

use png::{BitDepth, ColorType, Transformations};

use super::{Colors, DecodeRequest, Decoded, Header, HeaderError, MAX_PROFILE_BYTES, Memory, Size};
use crate::Error;
use crate::SourceFormat;
use crate::control::Control;
use crate::geometry::Window;
use crate::orientation::Orientation;
use crate::raster::{Layout, Raster};

/// Reads the size in the first header, and the orientation in any chunk before the end.
pub(super) fn claimed_size(bytes: &[u8]) -> Option<Size> {
    let mut chunks = Chunks::of(bytes).take_while(|(id, _)| *id != b"IEND");
    let (_, payload) = chunks.find(|(id, _)| *id == b"IHDR")?;
    let (width, payload) = payload.split_first_chunk()?;
    let (height, _) = payload.split_first_chunk()?;
    let exif = Chunks::of(bytes).filter(|(id, _)| *id == b"eXIf").last();
    Some(Size {
        width: u32::from_be_bytes(*width),
        height: u32::from_be_bytes(*height),
        orientation: exif.map_or(Orientation::UPRIGHT, |(_, payload)| {
            Orientation::from_exif_data(payload)
        }),
    })
}

pub(super) fn header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let mut size = None;
    let mut frames = 1;
    let mut orientation = Orientation::UPRIGHT;
    let mut transparent = false;
    let mut exif_bytes = 0;
    for (id, payload) in Chunks::of(bytes) {
        match id {
            // The decoder uses only the first header and nothing behind the end; so does this
            // function.
            b"IHDR" if size.is_some() => return Err(HeaderError::Broken("it has two headers")),
            b"IEND" => break,
            _ if size.is_none() && id != b"IHDR" => {
                return Err(HeaderError::Broken("its header does not come first"));
            }
            b"IHDR" => {
                let &[
                    w3,
                    w2,
                    w1,
                    w0,
                    h3,
                    h2,
                    h1,
                    h0,
                    depth,
                    color,
                    _,
                    _,
                    interlace,
                    ..,
                ] = payload
                else {
                    return Err(HeaderError::Broken("its header is cut off"));
                };
                size = Some((
                    u32::from_be_bytes([w3, w2, w1, w0]),
                    u32::from_be_bytes([h3, h2, h1, h0]),
                    depth,
                    interlace,
                ));
                transparent = color & ALPHA_USED != 0;
            }
            b"acTL" => {
                if let Some((count, _)) = payload.split_first_chunk::<4>() {
                    frames = u32::from_be_bytes(*count).max(1);
                }
            }
            b"tRNS" => transparent = true,
            b"eXIf" => {
                orientation = Orientation::from_exif_data(payload);
                exif_bytes = payload.len() as u64;
            }
            _ => {}
        }
    }
    let (width, height, depth, interlace) = size.ok_or(HeaderError::Broken("it has no header"))?;
    if width == 0 || height == 0 {
        return Err(HeaderError::Broken("its header gives no size"));
    }
    let pixels = u64::from(width) * u64::from(height);
    // Interlaced pictures are held completely in stored form before they are reduced.
    let stored = match (interlace, depth) {
        (0, _) => 0,
        (_, 16) => 8,
        _ => 4,
    };
    Ok(Header {
        format: SourceFormat::Png,
        width,
        height,
        orientation,
        frames,
        // The frames of an animation may leave parts of the canvas uncovered.
        alpha: transparent || frames > 1,
        profile_bytes: deflated_profile(bytes)
            .map_or(0, |deflated| profile_limit_bytes(deflated) as u64),
        memory: Memory {
            // The decoder reads the whole EXIF data and keeps a copy.
            fixed_bytes: pixels.saturating_mul(stored).saturating_add(exif_bytes * 3),
            scaled_bytes: 0,
            pixel_bytes: 4,
        },
    })
}

/// The bit of a colour type that marks an alpha channel.
const ALPHA_USED: u8 = 4;

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    request: &DecodeRequest,
    control: &Control,
) -> Result<Decoded, Error> {
    let mut reader = open(bytes, header, Transformations::EXPAND, 1)?;
    let colors = colors_of(bytes);
    let (color, depth) = reader.output_color_type();
    let layout = match color {
        ColorType::Grayscale => Layout::Gray,
        ColorType::GrayscaleAlpha => Layout::GrayAlpha,
        ColorType::Rgb => Layout::Rgb,
        ColorType::Rgba | ColorType::Indexed => Layout::Rgba,
    };
    let area = request.area();
    let sample_bytes = if depth == BitDepth::Sixteen { 2 } else { 1 };
    let pixel_bytes = layout.channels() * sample_bytes;
    let columns = area.x as usize * pixel_bytes..(area.x + area.width) as usize * pixel_bytes;
    let mut pixels = Vec::with_capacity(Raster::len_of(area.width, area.height, layout));
    let mut keep = |row: &[u8]| {
        let row = &row[columns.clone()];
        if sample_bytes == 1 {
            pixels.extend_from_slice(row);
        } else {
            pixels.extend(
                row.as_chunks::<2>()
                    .0
                    .iter()
                    .map(|&sample| to_8_bits(sample)),
            );
        }
    };
    if reader.info().interlaced {
        let size = reader.output_buffer_size().ok_or(Error::Internal {
            reason: "an interlaced PNG beyond the address space".to_owned(),
        })?;
        let mut whole = vec![0; size];
        control.check()?;
        let info = reader
            .next_frame(&mut whole)
            .map_err(|error| corrupt(&error))?;
        for row in whole
            .chunks_exact(info.line_size)
            .skip(area.y as usize)
            .take(area.height as usize)
        {
            keep(row);
        }
    } else {
        // Rows below the area are decoded too: a picture is accepted only if it is complete.
        for y in 0..header.height {
            if y % 64 == 0 {
                control.check()?;
            }
            let row =
                reader
                    .next_row()
                    .map_err(|error| corrupt(&error))?
                    .ok_or(Error::Corrupt {
                        format: SourceFormat::Png,
                        reason: Cow::Borrowed("it ends before its last row"),
                    })?;
            if (area.y..area.y + area.height).contains(&y) {
                keep(row.data());
            }
        }
    }
    let raster = Raster::new(area.width, area.height, layout, pixels).ok_or(Error::Corrupt {
        format: SourceFormat::Png,
        reason: Cow::Borrowed("its parts do not fit together"),
    })?;
    let window = Window::whole(area.width, area.height);
    Ok(Decoded {
        raster,
        window,
        colors,
    })
}

pub(super) use moving::animate;

type Reader<'a> = png::Reader<Cursor<&'a [u8]>>;

fn open<'a>(
    bytes: &'a [u8],
    header: &Header,
    transformations: Transformations,
    frames: u32,
) -> Result<Reader<'a>, Error> {
    let limits = png::Limits {
        // Rows, the profile, and the buffers of inflating; again for every decoded frame.
        bytes: (16 * header.width as usize) * (frames as usize + 1) + 2 * MAX_PROFILE_BYTES,
    };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(transformations);
    let reader = decoder.read_info().map_err(|error| corrupt(&error))?;
    // The decoded picture must be the one that the limits were checked for.
    if reader.info().size() != (header.width, header.height) {
        return Err(Error::Corrupt {
            format: SourceFormat::Png,
            reason: Cow::Borrowed("its headers contradict each other"),
        });
    }
    Ok(reader)
}

/// The colour space of the profile. The decoder would inflate a profile of any length, so this
/// crate inflates it.
fn colors_of(bytes: &[u8]) -> Colors {
    let inflated = deflated_profile(bytes).map(|deflated| {
        fdeflate::decompress_to_vec_bounded(deflated, profile_limit_bytes(deflated))
    });
    Colors::from(inflated.and_then(Result::ok))
}

/// The data of the first `iCCP` chunk before the picture: it follows a name that ends with 0, and
/// the 0 of the only compression method.
fn deflated_profile(bytes: &[u8]) -> Option<&[u8]> {
    let mut before = Chunks::of(bytes).take_while(|(id, _)| *id != b"IDAT");
    let (_, payload) = before.find(|(id, _)| *id == b"iCCP")?;
    let name = memchr::memchr(0, payload)?;
    payload.get(name + 2..)
}

/// The length limit of a profile with this much deflated data. Real profiles shrink to a half or a
/// tenth; a few kilobytes of zeros could become megabytes.
fn profile_limit_bytes(deflated: &[u8]) -> usize {
    (deflated.len() * 32).min(MAX_PROFILE_BYTES)
}

fn corrupt(error: &png::DecodingError) -> Error {
    Error::Corrupt {
        format: SourceFormat::Png,
        reason: Cow::Borrowed(reason(error)),
    }
}

/// Rounds to the nearest of 256 even steps instead of taking the upper byte: 0xffff becomes 255 and
/// 0x00ff becomes 1.
fn to_8_bits(sample: [u8; 2]) -> u8 {
    let sample = u32::from(u16::from_be_bytes(sample));
    ((sample * 255 + 32_767) / 65_535) as u8
}

fn reason(error: &png::DecodingError) -> &'static str {
    match error {
        png::DecodingError::IoError(_) => "it ends before its last row",
        png::DecodingError::LimitsExceeded => "a part of it needs more memory than a picture does",
        _ => "its data is damaged",
    }
}

/// Iterates over the chunks of a PNG file, as far as they are complete.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes.get(8..).unwrap_or_default(),
        }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (id, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        // A chunk that is cut off still has its header.
        let payload = &rest[..length.min(rest.len())];
        self.rest = length
            .checked_add(4)
            .and_then(|skip| rest.get(skip..))
            .unwrap_or_default();
        Some((id, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_16_bits_is_rounded_to_the_nearest_of_8_bits() {
        for eight in 0..=255_u8 {
            assert_eq!(to_8_bits([eight, eight]), eight);
        }
        assert_eq!(to_8_bits([0, 0xff]), 1);
        assert_eq!(to_8_bits([0xfe, 0xff]), 254);
    }

    fn with_profile(profile: Vec<u8>) -> Vec<u8> {
        let mut info = png::Info::with_size(1, 1);
        info.icc_profile = Some(profile.into());
        let mut bytes = Vec::new();
        let encoder = png::Encoder::with_info(&mut bytes, info).unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[0]).unwrap();
        writer.finish().unwrap();
        bytes
    }

    #[test]
    fn a_profile_is_inflated_unchanged() {
        let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
        let bytes = with_profile(profile.clone());
        let counted = header(&bytes).unwrap().profile_bytes;
        assert!(counted >= profile.len() as u64 && counted < 64 * profile.len() as u64);
        assert_eq!(colors_of(&bytes), Colors::Profile(profile));
    }

    #[test]
    fn a_profile_that_inflates_far_more_than_real_ones_is_ignored() {
        let length = MAX_PROFILE_BYTES / 2;
        let bytes = with_profile(vec![0; length]);
        assert!(header(&bytes).unwrap().profile_bytes < length as u64);
        assert_eq!(colors_of(&bytes), Colors::Unmarked);
        // Broken data is no profile either.
        let mut bytes = with_profile(vec![7; 500]);
        let at = memchr::memmem::find(&bytes, b"iCCP").unwrap();
        bytes[at + 12..at + 40].fill(0xff);
        assert_eq!(colors_of(&bytes), Colors::Unmarked);
    }
}
