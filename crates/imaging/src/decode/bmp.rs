//! Decodes BMP (Windows bitmaps, with headers of 12 to 124 bytes) with the `image` crate.
//!
//! [`header`] reads the fields itself: only [`decode`] calls the library.

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};

use image::codecs::bmp::BmpDecoder;
use image::{ColorType, ImageDecoder, ImageError};

use super::{
    CONTRADICTION, Colors, DecodeRequest, Decoded, Header, HeaderError, MAX_PROFILE_BYTES, Memory,
    Size,
};
use crate::Error;
use crate::SourceFormat;
use crate::control::Control;
use crate::geometry::Window;
use crate::orientation::Orientation;
use crate::raster::{Layout, Raster};

/// The length of the file header. The information header follows it.
const FILE_HEADER_BYTES: usize = 14;
/// The lengths of information headers that are not read like the others.
const CORE: u32 = 12;
const OS2_SHORT: u32 = 16;
const OS2_LONG: u32 = 64;
const V5: u32 = 124;
/// The largest side that the library decodes.
const MAX_EDGE_PX: u32 = 65_535;

/// Reads the size in the information header.
pub(super) fn claimed_size(bytes: &[u8]) -> Option<Size> {
    let fields = Fields { bytes };
    let (width, height) = if fields.header_bytes()? == CORE {
        (fields.u16(4)?.into(), fields.u16(6)?.into())
    } else {
        // A negative height means that the first row is the upper one.
        let width = u32::try_from(fields.u32(4)?.cast_signed()).ok()?;
        (width, fields.u32(8)?.cast_signed().unsigned_abs())
    };
    Some(Size {
        width,
        height,
        orientation: Orientation::UPRIGHT,
    })
}

pub(super) fn header(bytes: &[u8]) -> Result<Header, HeaderError> {
    const CUT_OFF: HeaderError = HeaderError::Broken("its header is cut off");
    let fields = Fields { bytes };
    let length = fields.header_bytes().ok_or(CUT_OFF)?;
    if bytes.len() < FILE_HEADER_BYTES + length as usize {
        return Err(CUT_OFF);
    }
    if matches!(length, OS2_SHORT | OS2_LONG) {
        return Err(HeaderError::Kind("a BMP of OS/2 2.x"));
    }
    let Size { width, height, .. } = claimed_size(bytes)
        .filter(|size| size.width > 0 && size.height > 0)
        .ok_or(HeaderError::Broken("its header gives no size"))?;
    if width.max(height) > MAX_EDGE_PX {
        return Err(HeaderError::Kind("a BMP of more than 65535 px a side"));
    }
    let coding = fields.coding(length).ok_or(CUT_OFF)?;
    coding.check()?;
    let data = fields.data_offset().ok_or(CUT_OFF)? as usize;
    if data < FILE_HEADER_BYTES + length as usize || data >= bytes.len() {
        return Err(HeaderError::Broken("its header gives no place of its data"));
    }
    let alpha = coding.masks && fields.alpha_mask(length) != 0;
    let channels = if alpha { 4 } else { 3 };
    let pixels = u64::from(width) * u64::from(height);
    Ok(Header {
        format: SourceFormat::Bmp,
        width,
        height,
        orientation: Orientation::UPRIGHT,
        frames: 1,
        alpha,
        profile_bytes: profile(bytes).map_or(0, |profile| profile.len() as u64),
        memory: Memory {
            // The whole picture, a row, and the palette.
            fixed_bytes: pixels * channels + u64::from(width) * 4 + (16 << 10),
            scaled_bytes: 0,
            pixel_bytes: 0,
        },
    })
}

/// How the pixels are stored.
struct Coding {
    compression: u32,
    bits: u16,
    /// Whether the first row is the upper one.
    from_top: bool,
    /// Whether masks define the bits of each channel.
    masks: bool,
}

impl Coding {
    fn check(&self) -> Result<(), HeaderError> {
        let depths: &[u16] = match self.compression {
            0 => &[1, 2, 4, 8, 16, 24, 32],
            1 => &[8],
            2 => &[4],
            3 => &[16, 32],
            4 => return Err(HeaderError::Kind("a BMP that contains a JPEG")),
            5 => return Err(HeaderError::Kind("a BMP that contains a PNG")),
            6 => return Err(HeaderError::Kind("a BMP of Windows CE")),
            11..=13 => return Err(HeaderError::Kind("a BMP of four inks")),
            _ => return Err(HeaderError::Broken("its compression does not exist")),
        };
        if !depths.contains(&self.bits) {
            return Err(HeaderError::Broken("its bit depth does not exist"));
        }
        if self.from_top && matches!(self.compression, 1 | 2) {
            return Err(HeaderError::Broken(
                "its rows begin at the top, which a compressed BMP does not allow",
            ));
        }
        Ok(())
    }
}

/// The fields of a file. Their positions count from the beginning of the information header.
#[derive(Clone, Copy)]
struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn u16(self, at: usize) -> Option<u16> {
        let bytes = self.bytes.get(FILE_HEADER_BYTES + at..)?;
        bytes.first_chunk().copied().map(u16::from_le_bytes)
    }

    fn u32(self, at: usize) -> Option<u32> {
        let bytes = self.bytes.get(FILE_HEADER_BYTES + at..)?;
        bytes.first_chunk().copied().map(u32::from_le_bytes)
    }

    /// The length of the information header.
    fn header_bytes(self) -> Option<u32> {
        self.u32(0)
    }

    /// The position of the pixels, from the beginning of the file.
    fn data_offset(self) -> Option<u32> {
        let bytes = self.bytes.get(10..)?;
        bytes.first_chunk().copied().map(u32::from_le_bytes)
    }

    fn coding(self, header_bytes: u32) -> Option<Coding> {
        if header_bytes == CORE {
            // This header knows neither compression nor 2, 16 or 32 bits, which the library refuses.
            let bits = self.u16(10).filter(|bits| matches!(bits, 1 | 4 | 8 | 24));
            return Some(Coding {
                compression: 0,
                bits: bits.unwrap_or(0),
                from_top: false,
                masks: false,
            });
        }
        let compression = self.u32(16)?;
        Some(Coding {
            compression,
            bits: self.u16(14)?,
            from_top: self.u32(8)?.cast_signed() < 0,
            masks: compression == 3,
        })
    }

    /// The bits of alpha. Headers of less than 56 bytes have no mask of alpha.
    fn alpha_mask(self, header_bytes: u32) -> u32 {
        let mask = if header_bytes < 56 {
            None
        } else {
            self.u32(52)
        };
        mask.unwrap_or(0)
    }
}

/// The embedded ICC profile of a header of 124 bytes. `None` if there is none, if it is cut off, or
/// if it is larger than a profile needs.
fn profile(bytes: &[u8]) -> Option<&[u8]> {
    /// `PROFILE_EMBEDDED`, the letters `MBED`.
    const EMBEDDED: u32 = 0x4d42_4544;
    let fields = Fields { bytes };
    if fields.header_bytes()? != V5 || fields.u32(56)? != EMBEDDED {
        return None;
    }
    let (offset, length) = (fields.u32(112)? as usize, fields.u32(116)? as usize);
    if length == 0 || length > MAX_PROFILE_BYTES {
        return None;
    }
    bytes.get(FILE_HEADER_BYTES..)?.get(offset..)?.get(..length)
}

/// Decodes the whole picture: the library decodes no part.
pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    request: &DecodeRequest,
    control: &Control,
) -> Result<Decoded, Error> {
    control.check()?;
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(|error| corrupt(reason(&error)))?;
    // The decoded picture must be the one that the limits were checked for.
    let layout = match decoder.color_type() {
        ColorType::Rgb8 => Layout::Rgb,
        ColorType::Rgba8 => Layout::Rgba,
        _ => return Err(corrupt(CONTRADICTION)),
    };
    if decoder.dimensions() != (header.width, header.height) || layout.has_alpha() != header.alpha {
        return Err(corrupt(CONTRADICTION));
    }
    let mut pixels = vec![0; Raster::len_of(header.width, header.height, layout)];
    decoder
        .read_image(&mut pixels)
        .map_err(|error| corrupt(reason(&error)))?;
    if layout == Layout::Rgba {
        show_if_all_is_hidden(&mut pixels);
    }
    Ok(Decoded {
        raster: Raster {
            width: header.width,
            height: header.height,
            layout,
            pixels,
        },
        window: Window::from(request.area()),
        colors: Colors::from(profile(bytes).map(<[u8]>::to_vec)),
    })
}

/// Makes a picture opaque in which no pixel is visible. Some programs declare alpha and leave it
/// empty; browsers show such a picture.
fn show_if_all_is_hidden(rgba: &mut [u8]) {
    let (pixels, _) = rgba.as_chunks_mut::<4>();
    if pixels.iter().all(|pixel| pixel[3] == 0) {
        for pixel in pixels {
            pixel[3] = 255;
        }
    }
}

const fn corrupt(reason: &'static str) -> Error {
    Error::Corrupt {
        format: SourceFormat::Bmp,
        reason: Cow::Borrowed(reason),
    }
}

fn reason(error: &ImageError) -> &'static str {
    match error {
        ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "it ends before its last row"
        }
        _ => "its data is damaged",
    }
}
