//! WebP (RFC 9649): stills and animations, lossy and lossless.

use cameo_webp_decode::{self as webp, Blending, Content, Frame as FrameData, Picture, WebP};
use std::borrow::Cow;

use super::animation::{Area, Canvas, Disposal, Frame, shown_ms};
use super::{Colors, DecodeRequest, Decoded, Header, HeaderError, MAX_PROFILE_BYTES, Memory, Size};
use crate::control::Control;
use crate::geometry::Window;
use crate::orientation::Orientation;
use crate::raster::{Layout, Raster};
use crate::{Error, SourceFormat};

pub(super) fn header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let file = WebP::parse(bytes).map_err(header_error)?;
    let pixels = u64::from(file.width()) * u64::from(file.height());
    let (frames, memory) = match file.content() {
        Content::Still(picture) => (1, picture.as_ref().map_or(NO_MEMORY, still_memory)),
        Content::Animation(animation) => {
            // The canvas, and the frame that takes most.
            let pictures = animation.frames().filter_map(|frame| frame.picture);
            let frame_bytes = pictures.map(|picture| {
                let memory = picture.memory(webp::Layout::Rgba);
                memory.fixed_bytes
                    + if memory.pixel_bytes > 0 {
                        pixels * 4
                    } else {
                        0
                    }
            });
            let memory = Memory {
                fixed_bytes: pixels * 4 + frame_bytes.max().unwrap_or(0),
                ..NO_MEMORY
            };
            (animation.frame_count().max(1), memory)
        }
    };
    let alpha = match file.content() {
        Content::Still(picture) => picture.is_some_and(|picture| picture.has_alpha()),
        Content::Animation(_) => true,
    };
    Ok(Header {
        format: SourceFormat::Webp,
        width: file.width(),
        height: file.height(),
        orientation: orientation(file.exif()),
        frames,
        alpha,
        profile_bytes: profile(&file).map_or(0, |profile| profile.len() as u64),
        memory,
    })
}

/// The size in the first chunk, and the orientation in the last EXIF data.
pub(super) fn claimed_size(bytes: &[u8]) -> Option<Size> {
    let claimed = webp::claimed_size(bytes)?;
    Some(Size {
        width: claimed.width,
        height: claimed.height,
        orientation: orientation(claimed.exif),
    })
}

fn orientation(exif: Option<&[u8]>) -> Orientation {
    exif.map_or(Orientation::UPRIGHT, Orientation::from_exif_data)
}

const NO_MEMORY: Memory = Memory {
    fixed_bytes: 0,
    scaled_bytes: 0,
    pixel_bytes: 0,
};

fn still_memory(picture: &Picture<'_>) -> Memory {
    let (_, layout) = layouts(picture);
    let memory = picture.memory(layout);
    Memory {
        fixed_bytes: memory.fixed_bytes,
        pixel_bytes: memory.pixel_bytes,
        ..NO_MEMORY
    }
}

/// The layout that a still is decoded to: with alpha if it has any.
fn layouts(picture: &Picture<'_>) -> (Layout, webp::Layout) {
    if picture.has_alpha() {
        (Layout::Rgba, webp::Layout::Rgba)
    } else {
        (Layout::Rgb, webp::Layout::Rgb)
    }
}

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    request: &DecodeRequest,
    control: &Control,
) -> Result<Decoded, Error> {
    let file = open(bytes, header)?;
    let area = request.area();
    let picture = match file.content() {
        Content::Still(picture) => *picture,
        Content::Animation(animation) => {
            let first = animation.frames().next().ok_or(MISSING)?;
            if first.area != webp::Area::whole(file.width(), file.height()) {
                let mut canvas = Canvas::new(file.width(), file.height());
                draw(&mut canvas, &first, control)?;
                return Ok(Decoded {
                    raster: canvas.into_raster(),
                    window: Window::from(area),
                    colors: colors(&file),
                });
            }
            first.picture
        }
    };
    let picture = picture.ok_or(MISSING)?;
    let part = webp::Area {
        x: area.x,
        y: area.y,
        width: area.width,
        height: area.height,
    };
    let (layout, pixel_layout) = layouts(&picture);
    let pixels = decode_part(&picture, part, pixel_layout, control)?;
    Ok(Decoded {
        raster: Raster::new(area.width, area.height, layout, pixels).ok_or(DAMAGED)?,
        window: Window::whole(area.width, area.height),
        colors: colors(&file),
    })
}

/// Passes every frame to `visit`.
pub(super) fn animate(
    bytes: &[u8],
    header: &Header,
    control: &Control,
    visit: &mut dyn FnMut(Frame<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let file = open(bytes, header)?;
    let Content::Animation(animation) = file.content() else {
        return Ok(());
    };
    let plays = animation.plays().ok_or(MISSING)?;
    let colors = colors(&file);
    let mut canvas = Canvas::new(file.width(), file.height());
    let mut left = header.frames;
    for frame in animation.frames() {
        control.check()?;
        draw(&mut canvas, &frame, control)?;
        left -= 1;
        visit(Frame {
            canvas: canvas.raster(),
            duration_ms: shown_ms(frame.duration_ms),
            plays,
            colors: &colors,
        })?;
    }
    if left > 0 {
        return Err(CUT_OFF);
    }
    Ok(())
}

/// Opens a file whose header was accepted. A file that is cut off is refused, whatever it lacks.
fn open<'a>(bytes: &'a [u8], header: &Header) -> Result<WebP<'a>, Error> {
    let file = WebP::parse(bytes).map_err(|_| DAMAGED)?;
    if !file.is_complete() {
        return Err(CUT_OFF);
    }
    debug_assert_eq!((file.width(), file.height()), (header.width, header.height));
    Ok(file)
}

fn colors(file: &WebP<'_>) -> Colors {
    Colors::from(profile(file).map(<[u8]>::to_vec))
}

/// The ICC profile, unless it is larger than any real one.
fn profile<'a>(file: &WebP<'a>) -> Option<&'a [u8]> {
    file.icc_profile()
        .filter(|profile| profile.len() <= MAX_PROFILE_BYTES)
}

fn draw(canvas: &mut Canvas, frame: &FrameData<'_>, control: &Control) -> Result<(), Error> {
    let picture = frame.picture.ok_or(MISSING)?;
    let whole = webp::Area::whole(picture.width(), picture.height());
    let pixels = decode_part(&picture, whole, webp::Layout::Rgba, control)?;
    let area = Area {
        x: frame.area.x as usize,
        y: frame.area.y as usize,
        width: frame.area.width as usize,
        height: frame.area.height as usize,
    };
    let disposal = match frame.disposal {
        webp::Disposal::Keep => Disposal::Keep,
        webp::Disposal::Clear => Disposal::Clear,
    };
    canvas.draw(area, &pixels, frame.blending == Blending::Over, disposal);
    Ok(())
}

fn decode_part(
    picture: &Picture<'_>,
    part: webp::Area,
    layout: webp::Layout,
    control: &Control,
) -> Result<Vec<u8>, Error> {
    let decoded = picture.decode(part, layout, &|| control.check().is_ok());
    decoded.map_err(|error| match error {
        webp::Error::Corrupt(reason) => corrupt(reason),
        webp::Error::TooComplex(reason) => Error::TooComplex {
            reason: Cow::Borrowed(reason),
        },
        // The reason stays what it was: a token stays cancelled, and a deadline stays passed.
        webp::Error::Interrupted => control.check().err().unwrap_or(Error::Cancelled),
        _ => DAMAGED,
    })
}

fn header_error(error: webp::Error) -> HeaderError {
    match error {
        webp::Error::TooComplex(reason) => HeaderError::Complex(reason),
        webp::Error::Corrupt(reason) => HeaderError::Broken(reason),
        _ => HeaderError::Broken("its header is damaged"),
    }
}

const CUT_OFF: Error = corrupt("it ends before its last row");
const DAMAGED: Error = corrupt("its data is damaged");
const MISSING: Error = corrupt("a part of it is missing");

const fn corrupt(reason: &'static str) -> Error {
    Error::Corrupt {
        format: SourceFormat::Webp,
        reason: Cow::Borrowed(reason),
    }
}

#[cfg(test)]
mod tests;
