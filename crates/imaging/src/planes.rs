//! Luma and chroma planes, the form in which JPEG and lossy WebP store pictures.

use super::raster::{Layout, Raster};

/// A picture in JFIF's colours (ITU-T T.871): luma and the differences of blue and red from it,
/// eight bits each, full range. Chroma covers the same area as luma with as many samples or fewer;
/// each sample lies in the middle of its luma samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planes {
    /// All three planes have the layout of grey pictures.
    pub(super) luma: Raster,
    /// The differences of blue and red, of the same size.
    pub(super) chroma: [Raster; 2],
    /// The number of luma samples per sample of chroma, across and down.
    pub(super) shared: (u32, u32),
}

/// Pixels, or planes if the decoder gives them and the encoders accept them. Planes have half as
/// much data to resize and turn, and need no conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Picture {
    Pixels(Raster),
    Planes(Planes),
}

impl Picture {
    /// The width in pixels.
    pub(super) const fn width(&self) -> u32 {
        match self {
            Self::Pixels(raster) => raster.width,
            Self::Planes(planes) => planes.luma.width,
        }
    }

    /// The picture in pixels; planes are converted.
    pub(super) fn into_pixels(self) -> Raster {
        match self {
            Self::Pixels(raster) => raster,
            Self::Planes(planes) => planes.to_rgb(),
        }
    }
}

/// The fractional bits of the factors below.
const POINT: u32 = 16;

/// Converts a factor to fixed point.
const fn fixed(factor: f64) -> i32 {
    (factor * (1 << POINT) as f64 + 0.5) as i32
}

impl Planes {
    /// Converts to RGB. All pixels that share a sample of chroma get its colour, so averaging them
    /// gives the same chroma again.
    pub(super) fn to_rgb(&self) -> Raster {
        let (width, height) = (self.luma.width as usize, self.luma.height);
        let (across, down) = (self.shared.0 as usize, self.shared.1 as usize);
        let [blue, red] = &self.chroma;
        let mut pixels = vec![0; Raster::len_of(self.luma.width, height, Layout::Rgb)];
        let rows = pixels.chunks_exact_mut(width * 3);
        for (y, (target, luma)) in rows.zip(self.luma.pixels.chunks_exact(width)).enumerate() {
            let from = y / down * blue.width as usize;
            let chroma = blue.pixels[from..].iter().zip(&red.pixels[from..]);
            let groups = target.chunks_mut(3 * across).zip(luma.chunks(across));
            for ((target, luma), (&blue, &red)) in groups.zip(chroma) {
                let offsets = offsets(blue, red);
                let (target, _) = target.as_chunks_mut::<3>();
                for (pixel, &luma) in target.iter_mut().zip(luma) {
                    *pixel = offsets.map(|offset| (i32::from(luma) + offset).clamp(0, 255) as u8);
                }
            }
        }
        Raster {
            width: self.luma.width,
            height,
            layout: Layout::Rgb,
            pixels,
        }
    }

    /// The picture in the limited range of ITU-R BT.601, which WebP uses: 16 to 235 for luma and 16
    /// to 240 for chroma.
    pub(super) fn in_studio_range(&self) -> Self {
        let narrow = |plane: &Raster, steps: u16| Raster {
            pixels: plane
                .pixels
                .iter()
                .map(|&sample| {
                    let steps = u16::from(sample) * steps + 127;
                    // An exact division by 255 that vector instructions can do.
                    (((steps + 1 + (steps >> 8)) >> 8) + 16) as u8
                })
                .collect(),
            ..*plane
        };
        let [blue, red] = &self.chroma;
        Self {
            luma: narrow(&self.luma, 235 - 16),
            chroma: [narrow(blue, 240 - 16), narrow(red, 240 - 16)],
            shared: self.shared,
        }
    }
}

/// Red, green and blue of one sample of luma and of each chroma.
pub(super) fn rgb_of([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    offsets(blue, red).map(|offset| (i32::from(luma) + offset).clamp(0, 255) as u8)
}

/// The differences of red, green and blue from luma.
fn offsets(blue: u8, red: u8) -> [i32; 3] {
    let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
    let half = 1 << (POINT - 1);
    [
        (fixed(1.402) * red + half) >> POINT,
        (half - fixed(0.344_136_286) * blue - fixed(0.714_136_286) * red) >> POINT,
        (fixed(1.772) * blue + half) >> POINT,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(width: u32, height: u32, pixels: &[u8]) -> Raster {
        Raster::new(width, height, Layout::Gray, pixels.to_vec()).unwrap()
    }

    /// One colour in 3 × 3 pixels, four samples of chroma each.
    fn plain(luma: u8, blue: u8, red: u8) -> Planes {
        Planes {
            luma: gray(3, 3, &[luma; 9]),
            chroma: [gray(2, 2, &[blue; 4]), gray(2, 2, &[red; 4])],
            shared: (2, 2),
        }
    }

    #[test]
    fn colours_are_those_of_jfif() {
        // The primaries, as T.871 has them.
        for ((luma, blue, red), expected) in [
            ((76, 85, 255), [254, 0, 0]),
            ((150, 44, 21), [0, 255, 1]),
            ((29, 255, 107), [0, 0, 254]),
            ((0, 128, 128), [0, 0, 0]),
            ((255, 128, 128), [255, 255, 255]),
        ] {
            let found = plain(luma, blue, red).to_rgb();
            assert_eq!(found.pixels, expected.repeat(9));
        }
    }

    #[test]
    fn pixels_that_share_a_chroma_sample_have_its_colour() {
        let planes = Planes {
            luma: gray(3, 2, &[100; 6]),
            chroma: [gray(2, 1, &[128, 128]), gray(2, 1, &[128, 178])],
            shared: (2, 2),
        };
        let row = [[100; 3], [100; 3], [170, 64, 100]].concat();
        assert_eq!(planes.to_rgb().pixels, row.repeat(2));
    }

    #[test]
    fn the_studio_range_keeps_black_white_and_grey() {
        for (full, studio) in [
            ((0, 0, 0), (16, 16, 16)),
            ((255, 255, 255), (235, 240, 240)),
        ] {
            assert_eq!(
                plain(full.0, full.1, full.2).in_studio_range(),
                plain(studio.0, studio.1, studio.2)
            );
        }
        assert_eq!(plain(128, 128, 128).in_studio_range(), plain(126, 128, 128));
    }
}
