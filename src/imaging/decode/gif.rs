//! GIF (87a and 89a), decoded by `gif`.

use std::io::Cursor;

use super::{Colors, Decoded, Header, Refusal, Want};
use crate::avatar::SourceFormat;
use crate::imaging::Error;
use crate::imaging::geometry::Window;
use crate::imaging::orientation::Orientation;
use crate::imaging::raster::{Layout, Raster};

pub(super) fn header(bytes: &[u8], max_frames: u32) -> Result<Header, Refusal> {
    let cut_off = Refusal::Broken("its header is cut off");
    let Some(&[w0, w1, h0, h1, flags, _, _]) = bytes.get(6..13) else {
        return Err(cut_off);
    };
    let width = u32::from(u16::from_le_bytes([w0, w1]));
    let height = u32::from(u16::from_le_bytes([h0, h1]));
    if width == 0 || height == 0 {
        return Err(Refusal::Broken("its header gives no size"));
    }
    let frames = count_frames(bytes, 13 + palette_len(flags), max_frames);
    if frames == 0 {
        return Err(Refusal::Broken("it has a header and no picture"));
    }
    let pixels = u64::from(width) * u64::from(height);
    Ok(Header {
        format: SourceFormat::Gif,
        width,
        height,
        orientation: Orientation::UPRIGHT,
        frames,
        // The canvas in four channels, and a frame that may cover it.
        memory_bytes: pixels * 8,
    })
}

const fn palette_len(flags: u8) -> usize {
    if flags & 0x80 == 0 {
        0
    } else {
        3 << ((flags & 7) + 1)
    }
}

/// Counts the frames without decoding them, up to one more than may be.
fn count_frames(bytes: &[u8], mut at: usize, max_frames: u32) -> u32 {
    let mut frames = 0;
    while frames <= max_frames {
        let after = match bytes.get(at) {
            // An image: its descriptor, its palette, the code size, its data.
            Some(0x2c) => match bytes.get(at + 9) {
                Some(&flags) => {
                    frames += 1;
                    at + 11 + palette_len(flags)
                }
                None => break,
            },
            // An extension: its label, its data.
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

pub(super) fn decode(bytes: &[u8], header: &Header, want: &Want) -> Result<Decoded, Error> {
    let corrupt = |reason| Error::Corrupt {
        format: SourceFormat::Gif,
        reason,
    };
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    options.check_frame_consistency(true);
    let mut decoder = options
        .read_info(Cursor::new(bytes))
        .map_err(|error| corrupt(reason(&error)))?;
    let frame = decoder
        .read_next_frame()
        .map_err(|error| corrupt(reason(&error)))?
        .ok_or(corrupt("it has a header and no picture"))?;
    let mut canvas = vec![0; Raster::len_of(header.width, header.height, Layout::Rgba)];
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let row_len = usize::from(frame.width) * 4;
    let canvas_stride = header.width as usize * 4;
    for (index, row) in frame.buffer.chunks_exact(row_len.max(1)).enumerate() {
        let at = (top + index) * canvas_stride + left * 4;
        if let Some(target) = canvas.get_mut(at..at + row_len) {
            target.copy_from_slice(row);
        }
    }
    Ok(Decoded {
        raster: Raster {
            width: header.width,
            height: header.height,
            layout: Layout::Rgba,
            pixels: canvas,
        },
        window: Window::from(want.square),
        colors: Colors::Unmarked,
    })
}

fn reason(error: &gif::DecodingError) -> &'static str {
    match error {
        gif::DecodingError::Io(_) => "it ends before its last row",
        _ => "its data is damaged",
    }
}
