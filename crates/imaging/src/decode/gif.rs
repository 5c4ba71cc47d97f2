//! Decodes GIF (87a and 89a) with the `gif` crate.

use std::borrow::Cow;
use std::io::Cursor;

use super::animation::{Area, Canvas, Disposal, Frame, shown_ms};
use super::{Colors, DecodeRequest, Decoded, Header, HeaderError, Memory, Size};
use crate::Error;
use crate::SourceFormat;
use crate::control::Control;
use crate::geometry::Window;
use crate::orientation::Orientation;

/// Reads the size in the logical screen descriptor, the first block.
pub(super) fn claimed_size(bytes: &[u8]) -> Option<Size> {
    let &[w0, w1, h0, h1] = bytes.get(6..10)? else {
        return None;
    };
    Some(Size {
        width: u16::from_le_bytes([w0, w1]).into(),
        height: u16::from_le_bytes([h0, h1]).into(),
        orientation: Orientation::UPRIGHT,
    })
}

pub(super) fn header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let cut_off = HeaderError::Broken("its header is cut off");
    let (Some(size), Some(&flags), Some(_)) = (claimed_size(bytes), bytes.get(10), bytes.get(12))
    else {
        return Err(cut_off);
    };
    let Size { width, height, .. } = size;
    if width == 0 || height == 0 {
        return Err(HeaderError::Broken("its header gives no size"));
    }
    // A file without frames gets here too: its dimensions are checked first, and decoding reports
    // the fault.
    let frames = count_frames(bytes, 13 + palette_len(flags)).max(1);
    let pixels = u64::from(width) * u64::from(height);
    Ok(Header {
        format: SourceFormat::Gif,
        width,
        height,
        orientation: Orientation::UPRIGHT,
        frames,
        alpha: true,
        profile_bytes: 0,
        // The canvas in four channels, a frame of the same size, and the pixels below it; and the
        // frame in its stored form, with one channel.
        memory: Memory {
            fixed_bytes: pixels * 13,
            scaled_bytes: 0,
            pixel_bytes: 0,
        },
    })
}

const fn palette_len(flags: u8) -> usize {
    if flags & 0x80 == 0 {
        0
    } else {
        3 << ((flags & 7) + 1)
    }
}

/// Counts the frames without decoding them. Each frame takes some bytes, so the size of the file
/// bounds their number.
fn count_frames(bytes: &[u8], mut at: usize) -> u32 {
    let mut frames = 0_u32;
    loop {
        let after = match bytes.get(at) {
            // An image: descriptor, palette, code size, data.
            Some(0x2c) => match bytes.get(at + 9) {
                Some(&flags) => {
                    frames = frames.saturating_add(1);
                    at + 11 + palette_len(flags)
                }
                None => break,
            },
            // An extension: label, data.
            Some(0x21) => at + 2,
            _ => break,
        };
        at = after;
        while let Some(&length) = bytes.get(at) {
            at += 1 + usize::from(length);
            if length == 0 {
                break;
            }
        }
    }
    frames
}

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    request: &DecodeRequest,
) -> Result<Decoded, Error> {
    let mut decoder = Frames::open(bytes, header)?;
    if decoder.next()?.is_none() {
        return Err(corrupt("it has a header and no picture"));
    }
    Ok(Decoded {
        raster: decoder.canvas.into_raster(),
        window: Window::from(request.area()),
        colors: Colors::Unmarked,
    })
}

/// Passes every frame to `visit`.
pub(super) fn animate(
    bytes: &[u8],
    header: &Header,
    control: &Control,
    visit: &mut dyn FnMut(Frame<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut frames = Frames::open(bytes, header)?;
    for _ in 0..header.frames {
        control.check()?;
        let Some(duration_ms) = frames.next()? else {
            break;
        };
        let plays = match frames.decoder.repeat() {
            gif::Repeat::Infinite => 0,
            // The file states the number of repetitions.
            gif::Repeat::Finite(again) => u32::from(again) + 1,
        };
        visit(Frame {
            canvas: frames.canvas.raster(),
            duration_ms,
            plays,
            colors: &Colors::Unmarked,
        })?;
    }
    Ok(())
}

struct Frames<'a> {
    decoder: gif::Decoder<Cursor<&'a [u8]>>,
    canvas: Canvas,
}

impl<'a> Frames<'a> {
    fn open(bytes: &'a [u8], header: &Header) -> Result<Self, Error> {
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        // A frame lies within the screen, and the size of the screen was checked.
        options.check_frame_consistency(true);
        options.set_memory_limit(gif::MemoryLimit::Unlimited);
        Ok(Self {
            decoder: options
                .read_info(Cursor::new(bytes))
                .map_err(|error| corrupt(reason(&error)))?,
            canvas: Canvas::new(header.width, header.height),
        })
    }

    /// Draws the next frame and returns its duration in ms; `None` after the last one.
    fn next(&mut self) -> Result<Option<u32>, Error> {
        let frame = self
            .decoder
            .read_next_frame()
            .map_err(|error| corrupt(reason(&error)))?;
        let Some(frame) = frame else { return Ok(None) };
        let area = Area {
            x: frame.left.into(),
            y: frame.top.into(),
            width: frame.width.into(),
            height: frame.height.into(),
        };
        let disposal = match frame.dispose {
            gif::DisposalMethod::Any | gif::DisposalMethod::Keep => Disposal::Keep,
            gif::DisposalMethod::Background => Disposal::Clear,
            gif::DisposalMethod::Previous => Disposal::Restore,
        };
        self.canvas.draw(area, &frame.buffer, true, disposal);
        Ok(Some(shown_ms(u32::from(frame.delay) * 10)))
    }
}

const fn corrupt(reason: &'static str) -> Error {
    Error::Corrupt {
        format: SourceFormat::Gif,
        reason: Cow::Borrowed(reason),
    }
}

fn reason(error: &gif::DecodingError) -> &'static str {
    match error {
        gif::DecodingError::Io(_) => "it ends before its last row",
        _ => "its data is damaged",
    }
}
