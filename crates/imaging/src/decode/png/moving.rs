//! Composes the frames of an APNG animation.

use png::{BlendOp, ColorType, DisposeOp, Transformations};

use super::{Header, colors_of, corrupt, open};
use crate::Error;
use crate::control::Control;
use crate::decode::animation::{Area, Canvas, Disposal, Frame, shown_ms};

/// Passes every frame to `visit`.
pub(in crate::decode) fn animate(
    bytes: &[u8],
    header: &Header,
    control: &Control,
    visit: &mut dyn FnMut(Frame<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    // Eight bits per channel are enough for an animation.
    let transformations = Transformations::EXPAND | Transformations::STRIP_16;
    let mut reader = open(bytes, header, transformations, header.frames)?;
    let colors = colors_of(bytes);
    let plays = reader
        .info()
        .animation_control()
        .map_or(1, |control| control.num_plays);
    let size = reader.output_buffer_size().ok_or_else(|| Error::Internal {
        reason: "a PNG frame beyond the address space".to_owned(),
    })?;
    let mut buffer = vec![0; size];
    // The default picture is the first frame only if a frame header precedes it.
    if reader.info().frame_control().is_none() {
        reader
            .next_frame(&mut buffer)
            .map_err(|error| corrupt(&error))?;
    }
    let mut canvas = Canvas::new(header.width, header.height);
    for index in 0..header.frames {
        control.check()?;
        let info = reader
            .next_frame(&mut buffer)
            .map_err(|error| corrupt(&error))?;
        let Some(frame) = reader.info().frame_control().copied() else {
            break;
        };
        let area = Area {
            x: frame.x_offset as usize,
            y: frame.y_offset as usize,
            width: info.width as usize,
            height: info.height as usize,
        };
        let disposal = match frame.dispose_op {
            DisposeOp::None => Disposal::Keep,
            DisposeOp::Background => Disposal::Clear,
            // Nothing precedes the first frame.
            DisposeOp::Previous if index == 0 => Disposal::Clear,
            DisposeOp::Previous => Disposal::Restore,
        };
        let pixels = to_rgba(&buffer[..info.buffer_size()], info.color_type);
        canvas.draw(area, &pixels, frame.blend_op == BlendOp::Over, disposal);
        let denominator = match frame.delay_den {
            0 => 100,
            denominator => u32::from(denominator),
        };
        visit(Frame {
            canvas: canvas.raster(),
            duration_ms: shown_ms(u32::from(frame.delay_num) * 1000 / denominator),
            plays,
            colors: &colors,
        })?;
    }
    Ok(())
}

fn to_rgba(pixels: &[u8], color: ColorType) -> Vec<u8> {
    match color {
        ColorType::Rgba | ColorType::Indexed => pixels.to_vec(),
        ColorType::Rgb => {
            let (pixels, _) = pixels.as_chunks::<3>();
            pixels
                .iter()
                .flat_map(|&[r, g, b]| [r, g, b, 255])
                .collect()
        }
        ColorType::Grayscale => pixels
            .iter()
            .flat_map(|&gray| [gray, gray, gray, 255])
            .collect(),
        ColorType::GrayscaleAlpha => {
            let (pixels, _) = pixels.as_chunks::<2>();
            pixels
                .iter()
                .flat_map(|&[gray, alpha]| [gray, gray, gray, alpha])
                .collect()
        }
    }
}
