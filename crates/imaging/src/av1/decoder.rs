//! The decoder itself, by `re_rav1d`. To be called in a process that has nothing to lose.

use re_rav1d::{Decoder, Error, Picture, PixelLayout, PlanarImageComponent, Settings};

use super::wire::Outcome;
use super::{Chroma, Shape};

/// A picture of the shape that was asked for.
pub(super) struct Decoded {
    picture: Picture,
    shape: Shape,
}

/// Decodes the one picture that a stream shows, its finest layer, with its film grain.
///
/// # Errors
///
/// What it is instead.
pub(super) fn decode(stream: Vec<u8>, shape: Shape) -> Result<Decoded, Outcome> {
    let mut settings = Settings::new();
    settings.set_n_threads(1);
    settings.set_max_frame_delay(1);
    settings.set_all_layers(false);
    // Checked before a frame is allocated.
    settings.set_frame_size_limit(shape.width.saturating_mul(shape.height));
    let damaged = |_| Outcome::Damaged;
    let mut decoder = Decoder::with_settings(&settings).map_err(damaged)?;
    let mut shown = None;
    let mut sent = decoder.send_data(stream, None, None, None);
    loop {
        match decoder.get_picture() {
            // Coarser layers, if there are any, come first.
            Ok(picture) => shown = Some(picture),
            Err(Error::Again) if sent == Err(Error::Again) => sent = decoder.send_pending_data(),
            Err(Error::Again) => break,
            Err(error) => return Err(damaged(error)),
        }
        if let Err(error) = sent
            && error != Error::Again
        {
            return Err(damaged(error));
        }
    }
    sent.map_err(damaged)?;
    let picture = shown.ok_or(Outcome::Damaged)?;
    let bits = picture.bits_per_component().map(|bits| bits.0);
    let chroma = match picture.pixel_layout() {
        PixelLayout::I400 => Chroma::None,
        PixelLayout::I420 => Chroma::Quarter,
        PixelLayout::I422 => Chroma::Half,
        PixelLayout::I444 => Chroma::Full,
    };
    let same = (picture.width(), picture.height()) == (shape.width, shape.height)
        && bits == Some(usize::from(shape.bit_depth))
        && chroma == shape.chroma;
    if same {
        Ok(Decoded { picture, shape })
    } else {
        Err(Outcome::OtherShape)
    }
}

impl Decoded {
    /// Gives the rows of every plane to `give`: a byte for each sample, or two in the machine's
    /// order where it has more bits.
    pub(super) fn rows<E>(&self, mut give: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        const PLANES: [PlanarImageComponent; 3] = [
            PlanarImageComponent::Y,
            PlanarImageComponent::U,
            PlanarImageComponent::V,
        ];
        for (plane, (width, height)) in PLANES.into_iter().zip(self.shape.planes()) {
            if width == 0 {
                continue;
            }
            let length = width as usize * usize::from(self.shape.sample_bytes());
            let stride = self.picture.stride(plane) as usize;
            let samples = self.picture.plane(plane);
            for row in samples.chunks(stride).take(height as usize) {
                give(&row[..length])?;
            }
        }
        Ok(())
    }
}
