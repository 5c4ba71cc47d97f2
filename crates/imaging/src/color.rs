//! Converts colours to sRGB. Every rendition is in sRGB and carries no profile.

use moxcms::{
    CicpColorPrimaries, CicpProfile, ColorProfile, DataColorSpace, MatrixCoefficients,
    TransferCharacteristics, TransformOptions,
};

use super::Error;
use super::decode::Colors;
use super::raster::{Layout, Raster};

/// A conversion to sRGB from the colour space of a picture.
pub(super) struct Conversion(Option<Transform>);

type Transform = std::sync::Arc<moxcms::Transform8BitExecutor>;

impl Conversion {
    /// The conversion from `colors` in pixels of `layout`. Without a usable profile, the channels
    /// are treated as sRGB, grey or plain inks. A profile is unusable if it is broken or made for
    /// other channels.
    pub(super) fn of(colors: &Colors, layout: Layout) -> Self {
        let transform = transform_of(colors, layout);
        Self(transform.filter(|transform| layout != Layout::Rgb || moves_colors(transform)))
    }

    /// Whether the colours are sRGB already, so that nothing has to be converted.
    pub(super) const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Converts a picture of the layout that this conversion was made for to RGB, or to RGBA if it
    /// has alpha.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if a profile that was accepted cannot be applied.
    pub(super) fn apply(&self, raster: Raster) -> Result<Raster, Error> {
        let target = if raster.layout.has_alpha() {
            Layout::Rgba
        } else {
            Layout::Rgb
        };
        let Some(transform) = &self.0 else {
            return Ok(without_profile(raster, target));
        };
        let mut pixels = vec![0; Raster::len_of(raster.width, raster.height, target)];
        transform
            .transform(&raster.pixels, &mut pixels)
            .map_err(|error| Error::Internal {
                reason: format!("colour transform: {error}"),
            })?;
        Ok(Raster {
            width: raster.width,
            height: raster.height,
            layout: target,
            pixels,
        })
    }
}

/// Whether a transform from RGB to RGB changes any colour by more than its rounding error. Many
/// files carry an sRGB profile in other words.
fn moves_colors(transform: &Transform) -> bool {
    let steps = [0, 32, 64, 96, 128, 160, 192, 224, 255_u8];
    let colors: Vec<u8> = steps
        .iter()
        .flat_map(|&red| steps.iter().map(move |&green| (red, green)))
        .flat_map(|(red, green)| steps.iter().map(move |&blue| [red, green, blue]))
        .flatten()
        .collect();
    let mut moved = vec![0; colors.len()];
    transform.transform(&colors, &mut moved).is_err()
        || colors.iter().zip(&moved).any(|(a, b)| a.abs_diff(*b) > 1)
}

fn transform_of(colors: &Colors, layout: Layout) -> Option<Transform> {
    let profile = match colors {
        Colors::Unmarked => return None,
        Colors::Profile(profile) => ColorProfile::new_from_slice(profile).ok()?,
        Colors::Coded {
            primaries,
            transfer,
        } => coded_profile(*primaries, *transfer)?,
    };
    let (space, source, target) = match layout {
        Layout::Gray => (
            DataColorSpace::Gray,
            moxcms::Layout::Gray,
            moxcms::Layout::Rgb,
        ),
        Layout::GrayAlpha => (
            DataColorSpace::Gray,
            moxcms::Layout::GrayAlpha,
            moxcms::Layout::Rgba,
        ),
        Layout::Rgb => (
            DataColorSpace::Rgb,
            moxcms::Layout::Rgb,
            moxcms::Layout::Rgb,
        ),
        Layout::Rgba => (
            DataColorSpace::Rgb,
            moxcms::Layout::Rgba,
            moxcms::Layout::Rgba,
        ),
        // moxcms expects four inks in its layout of four channels.
        Layout::Cmyk => (
            DataColorSpace::Cmyk,
            moxcms::Layout::Rgba,
            moxcms::Layout::Rgb,
        ),
    };
    if profile.color_space != space {
        return None;
    }
    profile
        .create_transform_8bit(
            source,
            &ColorProfile::new_srgb(),
            target,
            TransformOptions::default(),
        )
        .ok()
}

/// The colour profile of these code points; `None` if they mean sRGB.
fn coded_profile(primaries: u8, transfer: u8) -> Option<ColorProfile> {
    let color_primaries = CicpColorPrimaries::try_from(primaries).ok()?;
    // The transfer curves of television (1, 6, 14, 15) are meant for the same screens as that of
    // sRGB (13). So is hybrid log-gamma (18) on a screen without extra brightness. 2 means that no
    // curve is specified.
    let transfer_characteristics = match transfer {
        1 | 2 | 6 | 13 | 14 | 15 | 18 => TransferCharacteristics::Srgb,
        other => TransferCharacteristics::try_from(other).ok()?,
    };
    if transfer_characteristics == TransferCharacteristics::Srgb && matches!(primaries, 1 | 2) {
        return None;
    }
    let profile = ColorProfile::new_from_cicp(CicpProfile {
        color_primaries,
        transfer_characteristics,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    });
    Some(profile)
}

fn without_profile(raster: Raster, target: Layout) -> Raster {
    let pixels = match raster.layout {
        Layout::Rgb | Layout::Rgba => return raster,
        Layout::Gray => raster.pixels.iter().flat_map(|&gray| [gray; 3]).collect(),
        Layout::GrayAlpha => {
            let (pairs, _) = raster.pixels.as_chunks::<2>();
            pairs
                .iter()
                .flat_map(|&[gray, alpha]| [gray, gray, gray, alpha])
                .collect()
        }
        Layout::Cmyk => {
            let (quads, _) = raster.pixels.as_chunks::<4>();
            quads
                .iter()
                .flat_map(|&[cyan, magenta, yellow, key]| {
                    [cyan, magenta, yellow].map(|ink| under_inks(ink, key))
                })
                .collect()
        }
    };
    Raster {
        layout: target,
        pixels,
        ..raster
    }
}

/// The light that passes through a coloured ink and black together.
fn under_inks(ink: u8, key: u8) -> u8 {
    let light = u32::from(255 - ink) * u32::from(255 - key);
    ((light + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_srgb(raster: Raster, colors: &Colors) -> Result<Raster, Error> {
        Conversion::of(colors, raster.layout).apply(raster)
    }

    fn one(layout: Layout, pixel: &[u8]) -> Raster {
        Raster::new(1, 1, layout, pixel.to_vec()).unwrap()
    }

    #[test]
    fn grey_and_inks_become_rgb() {
        let rgb = |raster| to_srgb(raster, &Colors::Unmarked).unwrap().pixels;
        assert_eq!(rgb(one(Layout::Gray, &[7])), [7, 7, 7]);
        assert_eq!(rgb(one(Layout::GrayAlpha, &[7, 9])), [7, 7, 7, 9]);
        assert_eq!(rgb(one(Layout::Cmyk, &[0, 0, 0, 0])), [255, 255, 255]);
        assert_eq!(rgb(one(Layout::Cmyk, &[255, 0, 0, 0])), [0, 255, 255]);
        assert_eq!(rgb(one(Layout::Cmyk, &[0, 0, 0, 255])), [0, 0, 0]);
    }

    #[test]
    fn a_wide_gamut_is_converted_to_srgb() {
        let profile = Colors::Profile(ColorProfile::new_display_p3().encode().unwrap());
        let red = to_srgb(one(Layout::Rgb, &[200, 60, 60]), &profile).unwrap();
        // Computed from the published matrices of Display P3 and sRGB.
        for (found, expected) in red.pixels.iter().zip([217_u8, 42, 52]) {
            assert!(found.abs_diff(expected) <= 2, "{:?}", red.pixels);
        }
        let alpha = to_srgb(one(Layout::Rgba, &[200, 60, 60, 77]), &profile).unwrap();
        assert_eq!(alpha.pixels[3], 77);
    }

    #[test]
    fn an_srgb_profile_needs_no_conversion() {
        let marked = |profile: ColorProfile| Colors::Profile(profile.encode().unwrap());
        let of = |colors| Conversion::of(&colors, Layout::Rgb);
        assert!(of(marked(ColorProfile::new_srgb())).is_none());
        assert!(!of(marked(ColorProfile::new_display_p3())).is_none());
        assert!(!of(marked(ColorProfile::new_adobe_rgb())).is_none());
    }

    #[test]
    fn a_profile_that_is_broken_or_for_other_channels_is_ignored() {
        let profile = Colors::Profile(ColorProfile::new_display_p3().encode().unwrap());
        let gray = to_srgb(one(Layout::Gray, &[100]), &profile).unwrap();
        assert_eq!(gray.pixels, [100, 100, 100]);
        let broken = to_srgb(one(Layout::Rgb, &[1, 2, 3]), &Colors::Profile(vec![1; 200])).unwrap();
        assert_eq!(broken.pixels, [1, 2, 3]);
    }
}
