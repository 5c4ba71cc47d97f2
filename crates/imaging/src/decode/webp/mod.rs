//! WebP (RFC 9649): stills and animations, lossy and lossless.

mod alpha;
mod container;
mod vp8;
mod vp8l;

pub(super) use container::claimed_size;
use container::{Content, Data, File, FrameData, Picture};

use super::animation::{Area, Canvas, Frame, shown_ms};
use super::{Colors, DecodeRequest, Decoded, Header, HeaderError, MAX_PROFILE_BYTES, Memory};
use crate::Error;
use crate::SourceFormat;
use crate::control::Control;
use crate::geometry::Window;
use crate::raster::{Layout, Raster};

pub(super) fn header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let file = File::read(bytes)?;
    let pixels = u64::from(file.width) * u64::from(file.height);
    let (frames, memory) = match &file.content {
        Content::Still(picture) => (1, picture.map_or(NO_MEMORY, |picture| picture.memory())),
        Content::Moving(animation) => {
            // The canvas, and the frame that takes most.
            let pictures = animation.frames().filter_map(|frame| frame.picture);
            let frame_bytes = pictures.map(|picture| {
                let Memory {
                    fixed_bytes,
                    pixel_bytes,
                    ..
                } = picture.memory();
                // Each is drawn with alpha, whether it has any or not.
                fixed_bytes + if pixel_bytes > 0 { pixels * 4 } else { 0 }
            });
            let memory = Memory {
                fixed_bytes: pixels * 4 + frame_bytes.max().unwrap_or(0),
                ..NO_MEMORY
            };
            (animation.frames.max(1), memory)
        }
    };
    let alpha = match &file.content {
        Content::Still(picture) => picture.is_some_and(|picture| picture.layout().has_alpha()),
        Content::Moving(_) => true,
    };
    Ok(Header {
        format: SourceFormat::Webp,
        width: file.width,
        height: file.height,
        orientation: file.orientation,
        frames,
        alpha,
        profile_bytes: profile(&file).map_or(0, |profile| profile.len() as u64),
        memory,
    })
}

const NO_MEMORY: Memory = Memory {
    fixed_bytes: 0,
    scaled_bytes: 0,
    pixel_bytes: 0,
};

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    request: &DecodeRequest,
    control: &Control,
) -> Result<Decoded, Error> {
    let file = open(bytes, header)?;
    let square = request.square;
    let picture = match &file.content {
        Content::Still(picture) => *picture,
        Content::Moving(animation) => {
            let first = animation.frames().next().ok_or(MISSING)?;
            if first.area != Area::whole(file.width, file.height) {
                let mut canvas = Canvas::new(file.width, file.height);
                draw(&mut canvas, &first, control)?;
                return Ok(Decoded {
                    raster: canvas.into_raster(),
                    window: Window::from(square),
                    colors: colors(&file),
                });
            }
            first.picture
        }
    };
    let picture = picture.ok_or(MISSING)?;
    let layout = picture.layout();
    let part = Area {
        x: square.x as usize,
        y: square.y as usize,
        width: square.edge as usize,
        height: square.edge as usize,
    };
    let pixels = picture.decode(part, layout, control)?;
    Ok(Decoded {
        raster: Raster::new(square.edge, square.edge, layout, pixels).ok_or(DAMAGED)?,
        window: Window {
            x: 0.0,
            y: 0.0,
            edge: square.edge.into(),
        },
        colors: colors(&file),
    })
}

/// Gives every frame to `visit`.
pub(super) fn animate(
    bytes: &[u8],
    header: &Header,
    control: &Control,
    visit: &mut dyn FnMut(Frame<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let file = open(bytes, header)?;
    let Content::Moving(animation) = &file.content else {
        return Ok(());
    };
    let plays = animation.plays.ok_or(MISSING)?;
    let colors = colors(&file);
    let mut canvas = Canvas::new(file.width, file.height);
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

/// What a file holds whose header was taken. One that ends too early is not taken, whatever it has
/// lost.
fn open<'a>(bytes: &'a [u8], header: &Header) -> Result<File<'a>, Error> {
    let file = File::read(bytes).map_err(|_| DAMAGED)?;
    if !file.whole {
        return Err(CUT_OFF);
    }
    debug_assert_eq!((file.width, file.height), (header.width, header.height));
    Ok(file)
}

fn colors(file: &File<'_>) -> Colors {
    Colors::from(profile(file).map(<[u8]>::to_vec))
}

/// The profile, unless it is larger than any.
fn profile<'a>(file: &File<'a>) -> Option<&'a [u8]> {
    file.profile
        .filter(|profile| profile.len() <= MAX_PROFILE_BYTES)
}

fn draw(canvas: &mut Canvas, frame: &FrameData<'_>, control: &Control) -> Result<(), Error> {
    let picture = frame.picture.ok_or(MISSING)?;
    let whole = Area::whole(picture.width, picture.height);
    let pixels = picture.decode(whole, Layout::Rgba, control)?;
    canvas.draw(frame.area, &pixels, frame.over, frame.disposal);
    Ok(())
}

impl Picture<'_> {
    /// With alpha where it has any.
    fn layout(&self) -> Layout {
        let alpha = match self.data {
            Data::Lossy(_, alpha) => alpha.is_some(),
            Data::Lossless(payload) => vp8l::shape(payload).is_some_and(|shape| shape.alpha),
        };
        if alpha { Layout::Rgba } else { Layout::Rgb }
    }

    fn memory(&self) -> Memory {
        let pixels = u64::from(self.width) * u64::from(self.height);
        let lossy_bytes = vp8::memory_bytes(self.width, self.height);
        match self.data {
            // Decoded in place.
            Data::Lossless(_) => Memory {
                fixed_bytes: vp8l::memory_bytes(pixels),
                ..NO_MEMORY
            },
            Data::Lossy(_, None) => Memory {
                fixed_bytes: lossy_bytes,
                pixel_bytes: 3,
                ..NO_MEMORY
            },
            // Alpha is decoded first.
            Data::Lossy(_, Some(_)) => Memory {
                fixed_bytes: vp8l::memory_bytes(pixels).max(pixels + lossy_bytes),
                pixel_bytes: 4,
                ..NO_MEMORY
            },
        }
    }

    /// The pixels of a part, row by row.
    fn decode(&self, part: Area, layout: Layout, control: &Control) -> Result<Vec<u8>, Error> {
        if !self.whole {
            return Err(CUT_OFF);
        }
        match self.data {
            Data::Lossless(payload) => vp8l::decode(payload, part, layout, control),
            Data::Lossy(payload, alpha) => {
                let (width, height) = (self.width as usize, self.height as usize);
                let alpha = alpha
                    .map(|alpha| alpha::decode(alpha, width, height, control))
                    .transpose()?;
                let planes = vp8::decode(payload, control)?;
                let (rows, columns) = (part.y..part.y + part.height, part.x..part.x + part.width);
                let mut pixels = vec![0; part.width * part.height * layout.channels()];
                planes.write_rgb(rows, columns, layout, &mut pixels);
                if let Some(plane) = alpha {
                    let rows = plane.chunks_exact(width).skip(part.y).take(part.height);
                    let values = rows.flat_map(|row| &row[part.x..part.x + part.width]);
                    for (pixel, alpha) in pixels.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                        pixel[3] = *alpha;
                    }
                }
                Ok(pixels)
            }
        }
    }
}

const CUT_OFF: Error = corrupt("it ends before its last row");
const DAMAGED: Error = corrupt("its data is damaged");
const MISSING: Error = corrupt("a part of it is missing");

const fn corrupt(reason: &'static str) -> Error {
    Error::Corrupt {
        format: SourceFormat::Webp,
        reason,
    }
}

#[cfg(test)]
mod tests;
