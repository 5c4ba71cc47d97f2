//! WebP (RFC 9649): lossy stills without transparency by [`vp8`], all others by `image-webp`.

mod vp8;

use std::io::Cursor;

use image_webp::{DecodingError, LoopCount, WebPDecoder};

use super::animation::{Frame, shown_ms};
use super::{Colors, Decoded, Header, MAX_PROFILE_BYTES, Memory, Refusal, Want};
use crate::avatar::SourceFormat;
use crate::imaging::Error;
use crate::imaging::control::Control;
use crate::imaging::geometry::Window;
use crate::imaging::orientation::Orientation;
use crate::imaging::raster::{Layout, Raster};

pub(super) fn header(bytes: &[u8]) -> Result<Header, Refusal> {
    let mut size = None;
    let mut frames = 0_u32;
    let mut orientation = Orientation::UPRIGHT;
    let mut animated = false;
    for (index, (id, payload)) in Chunks::of(bytes).enumerate() {
        match id {
            b"VP8X" if index == 0 => {
                let &[flags, _, _, _, w0, w1, w2, h0, h1, h2, ..] = payload else {
                    return Err(Refusal::Broken("its header is cut off"));
                };
                animated = flags & 0b10 != 0;
                size = Some((u24([w0, w1, w2]) + 1, u24([h0, h1, h2]) + 1));
            }
            // The decoder asks the first chunk; what comes later may not say otherwise, for then
            // more would be decoded than was checked.
            b"VP8X" => return Err(CONTRADICTION),
            b"VP8 " | b"VP8L" => {
                let coded = coded_size(*id, payload)?;
                if *size.get_or_insert(coded) != coded {
                    return Err(CONTRADICTION);
                }
            }
            b"ANMF" => {
                frames = frames.saturating_add(1);
                check_frame(payload)?;
            }
            b"EXIF" => orientation = Orientation::from_exif_data(payload),
            _ => {}
        }
    }
    let (width, height) = size.ok_or(Refusal::Broken("it has a header and no picture"))?;
    if width == 0 || height == 0 {
        return Err(Refusal::Broken("its header gives no size"));
    }
    let pixels = u64::from(width) * u64::from(height);
    Ok(Header {
        format: SourceFormat::Webp,
        width,
        height,
        orientation,
        frames: if animated { frames.max(1) } else { 1 },
        // The picture in four channels, the decoder's own copy of it, and a canvas for animations.
        memory: Memory {
            fixed_bytes: (pixels * if animated { 12 } else { 8 })
                .max(pixels * 4 + vp8::memory_bytes(width, height)),
            scaled_bytes: 0,
            pixel_bytes: 0,
        },
    })
}

const CONTRADICTION: Refusal = Refusal::Broken("its headers contradict each other");

fn u24([low, middle, high]: [u8; 3]) -> u32 {
    u32::from_le_bytes([low, middle, high, 0])
}

/// The size that the data of a picture or a frame begins with.
fn coded_size(id: [u8; 4], payload: &[u8]) -> Result<(u32, u32), Refusal> {
    match (&id, payload) {
        (b"VP8 ", &[_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]) => {
            let edge = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
            Ok((edge(w0, w1), edge(h0, h1)))
        }
        (b"VP8L", &[0x2f, b0, b1, b2, b3, ..]) => {
            let bits = u32::from_le_bytes([b0, b1, b2, b3]);
            Ok(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        _ => Err(Refusal::Broken("its header is damaged")),
    }
}

/// A frame's data must have the size that the frame says.
fn check_frame(payload: &[u8]) -> Result<(), Refusal> {
    let Some((&[_, _, _, _, _, _, w0, w1, w2, h0, h1, h2, _, _, _, _], data)) =
        payload.split_first_chunk::<16>()
    else {
        // Cut off: there is nothing of it to decode.
        return Ok(());
    };
    let size = (u24([w0, w1, w2]) + 1, u24([h0, h1, h2]) + 1);
    for (id, payload) in (Chunks { rest: data }) {
        if matches!(id, b"VP8 " | b"VP8L") && coded_size(*id, payload)? != size {
            return Err(CONTRADICTION);
        }
    }
    Ok(())
}

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    want: &Want,
    control: &Control,
) -> Result<Decoded, Error> {
    let (mut decoder, mut raster, colors) = open(bytes, header)?;
    control.check()?;
    if let Some(payload) = opaque_lossy_still(bytes) {
        let planes = vp8::decode(payload, control)?;
        let (width, height) = (planes.width, planes.height);
        let mut pixels = vec![0; Raster::len_of(width, height, Layout::Rgb)];
        planes.write_rgb(
            0..height as usize,
            0..width as usize,
            Layout::Rgb,
            &mut pixels,
        );
        raster = Raster {
            width,
            height,
            layout: Layout::Rgb,
            pixels,
        };
        return Ok(Decoded {
            raster,
            window: Window::from(want.square),
            colors,
        });
    }
    decoder
        .read_image(&mut raster.pixels)
        .map_err(|error| corrupt(&error))?;
    Ok(Decoded {
        raster,
        window: Window::from(want.square),
        colors,
    })
}

/// The frame of a still that is lossy and has no alpha channel.
fn opaque_lossy_still(bytes: &[u8]) -> Option<&[u8]> {
    let mut payload = None;
    for (id, chunk) in Chunks::of(bytes) {
        match id {
            b"VP8 " => payload = payload.or(Some(chunk)),
            b"VP8L" | b"ALPH" | b"ANMF" | b"ANIM" => return None,
            _ => {}
        }
    }
    payload
}

/// Gives every frame to `visit`.
pub(super) fn animate(
    bytes: &[u8],
    header: &Header,
    control: &Control,
    visit: &mut dyn FnMut(Frame<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut decoder, mut canvas, colors) = open(bytes, header)?;
    let plays = match decoder.loop_count() {
        LoopCount::Forever => 0,
        LoopCount::Times(times) => u32::from(times.get()),
    };
    for _ in 0..decoder.num_frames() {
        control.check()?;
        let duration_ms = decoder
            .read_frame(&mut canvas.pixels)
            .map_err(|error| corrupt(&error))?;
        visit(Frame {
            canvas: &canvas,
            duration_ms: shown_ms(duration_ms),
            plays,
            colors: &colors,
        })?;
    }
    Ok(())
}

type Decoder<'a> = WebPDecoder<Cursor<&'a [u8]>>;

/// A decoder, room for its picture, and what its channels mean.
fn open<'a>(bytes: &'a [u8], header: &Header) -> Result<(Decoder<'a>, Raster, Colors), Error> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| corrupt(&error))?;
    let profile = decoder
        .icc_profile()
        .ok()
        .flatten()
        .filter(|profile| profile.len() <= MAX_PROFILE_BYTES);
    let (width, height) = decoder.dimensions();
    if (width, height) != (header.width, header.height) {
        return Err(Error::Corrupt {
            format: SourceFormat::Webp,
            reason: "its headers contradict each other",
        });
    }
    let layout = if decoder.has_alpha() {
        Layout::Rgba
    } else {
        Layout::Rgb
    };
    let raster = Raster {
        width,
        height,
        layout,
        pixels: vec![0; Raster::len_of(width, height, layout)],
    };
    Ok((decoder, raster, Colors::from(profile)))
}

fn corrupt(error: &DecodingError) -> Error {
    Error::Corrupt {
        format: SourceFormat::Webp,
        reason: reason(error),
    }
}

fn reason(error: &DecodingError) -> &'static str {
    match error {
        DecodingError::IoError(_) => "it ends before its last row",
        DecodingError::ChunkMissing => "a part of it is missing",
        _ => "its data is damaged",
    }
}

/// The chunks of a RIFF file, as far as they are whole.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes.get(12..).unwrap_or_default(),
        }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = (&'a [u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (id, rest) = self.rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        // A chunk that is cut off still has its header in what is there.
        let payload = &rest[..length.min(rest.len())];
        self.rest = rest.get(length + (length & 1)..).unwrap_or_default();
        Some((id, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_size_is_known_from_32_bytes() {
        let bomb = b"RIFF\x18\0\0\0WEBPVP8L\x0c\0\0\0\x2f\x7f\xfe\x9f\x0f\0\0\0\0\0\0\0";
        let header = header(bomb).unwrap();
        assert_eq!((header.width, header.height), (16000, 16000));
    }
}
