//! The colours of defaults.
//!
//! The palette has 24 hues in equal steps of `OKLCH`, a colour space in which equal distances look
//! equal, and two tones of each but those from orange to green, of which the darker one is brown.
//! The table is written out, so that a subject's colour does not depend on the mathematical library
//! of a platform. A test computes it anew, and others check the contrast.

use std::fmt;

use crate::avatar::SubjectHash;

/// A colour in sRGB: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Color(pub(super) [u8; 3]);

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

/// The colour of initials.
pub(super) const WHITE: Color = Color([255; 3]);

/// The colours of one hue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tones {
    /// A strong colour. Its contrast with [`WHITE`] is at least 4.5:1.
    pub(super) strong: Color,
    /// A pale colour of the same hue.
    pub(super) pale: Color,
}

/// The colours of a subject.
pub(super) fn of(hash: &SubjectHash) -> Tones {
    PALETTE[usize::from(hash.as_bytes()[0]) % PALETTE.len()]
}

const fn tones(strong: [u8; 3], pale: [u8; 3]) -> Tones {
    Tones {
        strong: Color(strong),
        pale: Color(pale),
    }
}

/// The tones of each hue from 0° to 345°, the lighter one first.
static PALETTE: [Tones; 42] = [
    tones([181, 66, 110], [255, 222, 231]),
    tones([146, 53, 88], [252, 214, 224]),
    tones([186, 66, 84], [255, 223, 224]),
    tones([149, 53, 67], [254, 214, 216]),
    tones([187, 69, 54], [255, 224, 218]),
    tones([150, 55, 43], [254, 215, 208]),
    tones([183, 76, 5], [255, 225, 211]),
    tones([166, 92, 3], [255, 226, 203]),
    tones([152, 102, 0], [250, 228, 199]),
    tones([139, 110, 1], [243, 231, 198]),
    tones([124, 116, 2], [236, 234, 200]),
    tones([104, 124, 2], [228, 237, 204]),
    tones([70, 132, 14], [219, 239, 209]),
    tones([55, 106, 13], [213, 233, 203]),
    tones([2, 137, 61], [212, 241, 216]),
    tones([1, 110, 48], [205, 234, 210]),
    tones([3, 134, 96], [205, 242, 224]),
    tones([3, 108, 77], [199, 235, 218]),
    tones([4, 132, 116], [200, 242, 233]),
    tones([1, 106, 93], [194, 236, 226]),
    tones([5, 130, 130], [198, 242, 241]),
    tones([1, 104, 105], [192, 235, 234]),
    tones([1, 128, 144], [198, 241, 249]),
    tones([1, 103, 116], [192, 234, 242]),
    tones([1, 125, 159], [201, 239, 255]),
    tones([0, 101, 128], [194, 232, 248]),
    tones([4, 121, 178], [211, 236, 255]),
    tones([2, 97, 144], [199, 230, 253]),
    tones([37, 113, 201], [217, 234, 255]),
    tones([30, 91, 161], [206, 227, 255]),
    tones([79, 104, 203], [223, 231, 255]),
    tones([63, 83, 163], [214, 225, 255]),
    tones([107, 96, 199], [229, 229, 254]),
    tones([85, 77, 160], [221, 222, 255]),
    tones([129, 88, 189], [235, 227, 255]),
    tones([103, 70, 152], [229, 219, 252]),
    tones([147, 80, 175], [244, 223, 253]),
    tones([118, 64, 140], [237, 217, 246]),
    tones([162, 74, 156], [250, 222, 246]),
    tones([130, 59, 125], [243, 215, 240]),
    tones([173, 69, 134], [255, 221, 239]),
    tones([139, 55, 107], [248, 214, 232]),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The colour of a lightness, chroma and hue in `OKLCH`, as linear sRGB.
    /// From: Björn Ottosson, "A perceptual color space for image processing".
    fn linear(lightness: f64, chroma: f64, hue_degrees: f64) -> [f64; 3] {
        let (sin, cos) = hue_degrees.to_radians().sin_cos();
        let (a, b) = (chroma * cos, chroma * sin);
        let long = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
        let middle = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
        let short = (lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
        [
            4.076_741_662_1 * long - 3.307_711_591_3 * middle + 0.230_969_929_2 * short,
            -1.268_438_004_6 * long + 2.609_757_401_1 * middle - 0.341_319_396_5 * short,
            -0.004_196_086_3 * long - 0.703_418_614_7 * middle + 1.707_614_701_0 * short,
        ]
    }

    /// The colour in sRGB, with less chroma if sRGB does not have it.
    fn srgb(lightness: f64, mut chroma: f64, hue_degrees: f64) -> [u8; 3] {
        let encode = |level: f64| {
            let level = level.clamp(0.0, 1.0);
            let encoded = if level <= 0.003_130_8 {
                12.92 * level
            } else {
                1.055 * level.powf(1.0 / 2.4) - 0.055
            };
            (255.0 * encoded).round() as u8
        };
        loop {
            let color = linear(lightness, chroma, hue_degrees);
            if color
                .iter()
                .all(|level| (-1e-9..=1.0 + 1e-9).contains(level))
            {
                return color.map(encode);
            }
            chroma -= 0.001;
        }
    }

    /// The contrast of two colours by WCAG 2.
    fn contrast(one: Color, other: Color) -> f64 {
        let luminance = |color: Color| {
            let [red, green, blue] = color.0.map(|level| {
                let level = f64::from(level) / 255.0;
                if level <= 0.040_45 {
                    level / 12.92
                } else {
                    ((level + 0.055) / 1.055).powf(2.4)
                }
            });
            0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05
        };
        let (one, other) = (luminance(one), luminance(other));
        one.max(other) / one.min(other)
    }

    #[test]
    fn the_contrast_of_initials_with_every_ground_is_at_least_four_and_a_half() {
        for tones in PALETTE {
            let contrast = contrast(WHITE, tones.strong);
            assert!(contrast >= 4.5, "{tones:?}: {contrast}");
        }
    }

    #[test]
    fn the_contrast_of_a_pattern_with_its_ground_is_at_least_three() {
        for tones in PALETTE {
            let contrast = contrast(tones.pale, tones.strong);
            assert!(contrast >= 3.0, "{tones:?}: {contrast}");
        }
    }

    #[test]
    fn the_palette_has_equal_steps_of_hue_and_two_tones_unless_the_darker_is_brown() {
        let mut expected = Vec::new();
        for hue in (0..360).step_by(15) {
            let degrees = f64::from(hue);
            expected.push((srgb(0.55, 0.155, degrees), srgb(0.93, 0.045, degrees)));
            if !(45..=120).contains(&hue) {
                expected.push((srgb(0.47, 0.13, degrees), srgb(0.91, 0.045, degrees)));
            }
        }
        assert_eq!(PALETTE.len(), expected.len());
        for (tones, (strong, pale)) in PALETTE.iter().zip(expected) {
            // A mathematical library can round the last digit otherwise.
            for (ours, exact) in [(tones.strong, strong), (tones.pale, pale)] {
                let off = ours
                    .0
                    .iter()
                    .zip(exact)
                    .map(|(one, other)| one.abs_diff(other));
                assert!(off.max() <= Some(1), "{ours:?} {exact:?}");
            }
        }
    }

    #[test]
    fn subjects_have_all_colours() {
        let used: std::collections::BTreeSet<_> = (0..2000)
            .map(|index| {
                let subject = crate::avatar::SubjectId::new(format!("user-{index}")).unwrap();
                of(&SubjectHash::of(&subject)).strong.0
            })
            .collect();
        assert_eq!(used.len(), PALETTE.len());
    }
}
