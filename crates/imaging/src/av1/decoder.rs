//! The AV1 decoder, by `re_rav1d`.

use re_rav1d::{Decoder, Error as Av1Error, Picture, PixelLayout, PlanarImageComponent, Settings};
use std::borrow::Cow;

use super::{Chroma, Shape};
use crate::{Control, Error, SourceFormat};

/// Decodes the picture of a stream to its planes: luma and two planes of chroma, or only luma. Of
/// several layers, the finest one is decoded. Film grain is applied.
///
/// A damaged stream can make the decoder end the whole process; see "Unsafe code" in the
/// documentation of this crate.
///
/// # Errors
///
/// [`Error::Corrupt`] if the stream is damaged or contains a picture of another shape, and the error
/// of `control`.
pub(crate) fn decode(
    stream: &[u8],
    shape: Shape,
    control: &Control,
) -> Result<[Vec<u16>; 3], Error> {
    control.check()?;
    let picture = decode_picture(stream.to_vec(), shape)
        .map_err(|_| corrupt("its data is damaged"))?
        .ok_or_else(|| corrupt("its data is damaged"))?;
    if shape_of(&picture) != Some(shape) {
        return Err(corrupt("it holds another picture than its header says"));
    }
    Ok(planes(&picture, shape))
}

const fn corrupt(reason: &'static str) -> Error {
    Error::Corrupt {
        format: SourceFormat::Avif,
        reason: Cow::Borrowed(reason),
    }
}

/// The last picture that the stream shows, if it shows one.
fn decode_picture(stream: Vec<u8>, shape: Shape) -> Result<Option<Picture>, Av1Error> {
    let mut settings = Settings::new();
    settings.set_n_threads(1);
    settings.set_max_frame_delay(1);
    settings.set_all_layers(false);
    // Checked before a frame is allocated.
    settings.set_frame_size_limit(shape.width.saturating_mul(shape.height));
    let mut decoder = Decoder::with_settings(&settings)?;
    let mut shown = None;
    let mut sent = decoder.send_data(stream, None, None, None);
    loop {
        match decoder.get_picture() {
            // Coarser layers, if there are any, come first.
            Ok(picture) => shown = Some(picture),
            Err(Av1Error::Again) if sent == Err(Av1Error::Again) => {
                sent = decoder.send_pending_data();
            }
            Err(Av1Error::Again) => break,
            Err(error) => return Err(error),
        }
        if let Err(error) = sent
            && error != Av1Error::Again
        {
            return Err(error);
        }
    }
    sent.map(|()| shown)
}

fn shape_of(picture: &Picture) -> Option<Shape> {
    let bits = picture.bits_per_component()?.0;
    Some(Shape {
        width: picture.width(),
        height: picture.height(),
        bit_depth: u8::try_from(bits).ok()?,
        chroma: match picture.pixel_layout() {
            PixelLayout::I400 => Chroma::None,
            PixelLayout::I420 => Chroma::Quarter,
            PixelLayout::I422 => Chroma::Half,
            PixelLayout::I444 => Chroma::Full,
        },
    })
}

/// Copies the samples of every plane, without the decoder's padding.
fn planes(picture: &Picture, shape: Shape) -> [Vec<u16>; 3] {
    const PLANES: [PlanarImageComponent; 3] = [
        PlanarImageComponent::Y,
        PlanarImageComponent::U,
        PlanarImageComponent::V,
    ];
    let sizes = shape.planes();
    std::array::from_fn(|index| {
        let (width, height) = (sizes[index].0 as usize, sizes[index].1 as usize);
        let mut plane = Vec::with_capacity(width * height);
        if width == 0 {
            return plane;
        }
        let stride = picture.stride(PLANES[index]) as usize;
        let samples = picture.plane(PLANES[index]);
        let length = width * usize::from(shape.sample_bytes());
        for row in samples.chunks(stride).take(height) {
            let row = &row[..length];
            if shape.sample_bytes() == 1 {
                plane.extend(row.iter().copied().map(u16::from));
            } else {
                // No larger than the depth allows: computations with samples must not overflow.
                let largest = (1 << shape.bit_depth) - 1;
                let (pairs, _) = row.as_chunks::<2>();
                plane.extend(
                    pairs
                        .iter()
                        .map(|pair| u16::from_ne_bytes(*pair).min(largest)),
                );
            }
        }
        plane
    })
}
