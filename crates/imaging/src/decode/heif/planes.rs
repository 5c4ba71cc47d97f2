//! Converts the planes of a decoded tile to pixels.

use crate::raster::{Layout, Raster};

/// A decoded tile: luma, and two planes of chroma, which may be empty.
pub(super) struct Planes {
    pub(super) widths: [u32; 3],
    pub(super) heights: [u32; 3],
    /// The planes, in rows from the top without padding.
    pub(super) samples: [Vec<u16>; 3],
    /// The bit depths of luma and of chroma.
    pub(super) bit_depth: [u8; 2],
    /// The colour coding that its own stream states: code points of ITU-T H.273.
    pub(super) matrix: u8,
    pub(super) full_range: bool,
    /// Primaries and transfer characteristics, if they are read from the stream.
    pub(super) colors: Option<(u8, u8)>,
}

/// The part of a picture that is drawn, at full or half size.
pub(super) struct Patch {
    /// The position of its corner in the picture, in pixels of the picture.
    pub(super) left: u32,
    pub(super) top: u32,
    /// The number of pixels of the picture, across and down, that are merged into one: 1 or 2.
    pub(super) shrink: u32,
    /// The result: RGB or RGBA.
    pub(super) raster: Raster,
}

/// The conversion from samples to colours (ITU-T H.273), in fixed point.
pub(super) struct Coefficients {
    /// The offsets of luma and of chroma.
    luma_base: i32,
    chroma_base: i32,
    luma: i32,
    red_of_cr: i32,
    green_of_cb: i32,
    green_of_cr: i32,
    blue_of_cb: i32,
    /// Whether the planes are green, blue and red.
    identity: bool,
}

/// Fractional bits. A product with a 12-bit sample fits 31 bits.
const FRACTION: u32 = 14;

impl Coefficients {
    /// The conversion of a matrix; `None` for an unsupported one.
    pub(super) fn new(matrix: u16, full_range: bool, bit_depth: [u8; 2]) -> Option<Self> {
        let (red, blue) = match matrix {
            0 | 2 | 5 | 6 => (0.299, 0.114),
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            7 => (0.212, 0.087),
            9 => (0.2627, 0.0593),
            _ => return None,
        };
        let green = 1.0 - red - blue;
        let [luma_max, chroma_max] = bit_depth.map(|bits| f64::from((1_u32 << bits) - 1));
        let [luma_step, chroma_step] = bit_depth.map(|bits| f64::from(1_u32 << (bits - 8)));
        let (luma_base, luma_span, chroma_span) = if full_range {
            (0.0, luma_max, chroma_max)
        } else {
            (16.0 * luma_step, 219.0 * luma_step, 224.0 * chroma_step)
        };
        let fixed = |factor: f64, span: f64| {
            (factor * 255.0 / span * f64::from(1_u32 << FRACTION)).round() as i32
        };
        Some(Self {
            luma_base: luma_base as i32,
            chroma_base: (128.0 * chroma_step) as i32,
            luma: fixed(1.0, luma_span),
            red_of_cr: fixed(2.0 * (1.0 - red), chroma_span),
            green_of_cb: fixed(-2.0 * blue * (1.0 - blue) / green, chroma_span),
            green_of_cr: fixed(-2.0 * red * (1.0 - red) / green, chroma_span),
            blue_of_cb: fixed(2.0 * (1.0 - blue), chroma_span),
            identity: matrix == 0,
        })
    }

    fn gray(&self, luma: i32) -> i32 {
        (luma - self.luma_base) * self.luma + (1 << (FRACTION - 1))
    }

    fn rgb(&self, luma: i32, cb: i32, cr: i32) -> [u8; 3] {
        if self.identity {
            return [cr, luma, cb].map(|sample| to_byte(self.gray(sample)));
        }
        let gray = self.gray(luma);
        let (cb, cr) = (cb - self.chroma_base, cr - self.chroma_base);
        [
            to_byte(gray + cr * self.red_of_cr),
            to_byte(gray + cb * self.green_of_cb + cr * self.green_of_cr),
            to_byte(gray + cb * self.blue_of_cb),
        ]
    }
}

fn to_byte(fixed: i32) -> u8 {
    (fixed >> FRACTION).clamp(0, 255) as u8
}

impl Patch {
    /// Whether a tile of `width` by `height` with its corner at `at` is visible in this part.
    pub(super) fn shows(&self, at: (u32, u32), width: u32, height: u32) -> bool {
        let overlaps = |corner: u32, length: u32, from: u32, count: u32| {
            corner / self.shrink < from + count && (corner + length).div_ceil(self.shrink) > from
        };
        overlaps(at.0, width, self.left, self.raster.width)
            && overlaps(at.1, height, self.top, self.raster.height)
    }

    /// Draws the colours of a tile.
    pub(super) fn draw_colors(
        &mut self,
        tile: &Planes,
        coefficients: &Coefficients,
        at: (u32, u32),
    ) {
        let channels = self.raster.layout.channels();
        if tile.widths[1] == 0 || tile.widths[2] == 0 {
            self.draw(tile, at, [0], |pixels, [luma]| {
                for (pixel, &luma) in pixels.chunks_exact_mut(channels).zip(luma) {
                    pixel[..3].fill(to_byte(coefficients.gray(luma)));
                }
            });
            return;
        }
        self.draw(tile, at, [0, 1, 2], |pixels, [luma, blue, red]| {
            let samples = luma.iter().zip(blue).zip(red);
            for (pixel, ((&luma, &cb), &cr)) in pixels.chunks_exact_mut(channels).zip(samples) {
                pixel[..3].copy_from_slice(&coefficients.rgb(luma, cb, cr));
            }
        });
    }

    /// Divides the colours by their alpha, for a picture with premultiplied alpha.
    pub(super) fn divide_by_alpha(&mut self) {
        debug_assert_eq!(self.raster.layout, Layout::Rgba);
        for [colors @ .., alpha] in self.raster.pixels.as_chunks_mut::<4>().0 {
            let alpha = u32::from(*alpha);
            for color in colors {
                let divided = (u32::from(*color) * 255 + alpha / 2).checked_div(alpha);
                *color = divided.unwrap_or(0).min(255) as u8;
            }
        }
    }

    /// Draws the luma of a tile as alpha.
    pub(super) fn draw_alpha(
        &mut self,
        tile: &Planes,
        coefficients: &Coefficients,
        at: (u32, u32),
    ) {
        debug_assert_eq!(self.raster.layout, Layout::Rgba);
        self.draw(tile, at, [0], |pixels, [luma]| {
            for (pixel, &luma) in pixels.chunks_exact_mut(4).zip(luma) {
                pixel[3] = to_byte(coefficients.gray(luma));
            }
        });
    }

    /// Visits the rows of a tile that are visible in this part: `draw` receives the pixels of each
    /// row and their samples of some planes.
    fn draw<const N: usize>(
        &mut self,
        tile: &Planes,
        at: (u32, u32),
        planes: [usize; N],
        draw: impl Fn(&mut [u8], [&[i32]; N]),
    ) {
        let shrink = self.shrink;
        let channels = self.raster.layout.channels();
        let stride = self.raster.stride();
        let range = |corner: u32, length: u32, from: u32, count: u32| {
            let corner = corner / shrink;
            let begin = corner.max(from);
            let end = (corner + length / shrink).min(from + count).max(begin);
            (begin - from, begin - corner, (end - begin) as usize)
        };
        let (to_x, from_x, columns) = range(at.0, tile.widths[0], self.left, self.raster.width);
        let (to_y, from_y, rows) = range(at.1, tile.heights[0], self.top, self.raster.height);
        let mut samples = planes.map(|_| vec![0; columns]);
        for row in 0..rows {
            for (samples, &plane) in samples.iter_mut().zip(&planes) {
                let from = Row::of(tile, plane, from_y as usize + row, shrink);
                from.read(from_x as usize, samples);
            }
            let start = (to_y as usize + row) * stride + to_x as usize * channels;
            let pixels = &mut self.raster.pixels[start..start + columns * channels];
            draw(pixels, samples.each_ref().map(Vec::as_slice));
        }
    }
}

/// The samples of one plane for one row of pixels.
#[derive(Clone, Copy)]
struct Row<'a> {
    /// The rows of samples above and below; the same row twice if one is enough.
    upper: &'a [u16],
    lower: &'a [u16],
    spread: Spread,
}

/// The number of samples per pixel across.
#[derive(Clone, Copy)]
enum Spread {
    /// One sample for two pixels, at the position of the first.
    Half,
    One,
    Two,
}

impl<'a> Row<'a> {
    fn of(tile: &'a Planes, plane: usize, y: usize, shrink: u32) -> Self {
        let (width, height) = (tile.widths[plane] as usize, tile.heights[plane] as usize);
        let halved_across = tile.widths[plane] < tile.widths[0];
        let halved_down = tile.heights[plane] < tile.heights[0];
        let (upper, lower) = match (halved_down, shrink) {
            // Chroma of odd rows lies half-way between two samples.
            (true, 1) => (y / 2, y.div_ceil(2)),
            (true, _) | (false, 1) => (y, y),
            (false, _) => (2 * y, 2 * y + 1),
        };
        let row = |y: usize| {
            let start = y.min(height - 1) * width;
            &tile.samples[plane][start..start + width]
        };
        Self {
            upper: row(upper),
            lower: row(lower),
            spread: match (halved_across, shrink) {
                (true, 1) => Spread::Half,
                (true, _) | (false, 1) => Spread::One,
                (false, _) => Spread::Two,
            },
        }
    }

    /// The means of the samples of `into.len()` pixels, from pixel `x` on.
    fn read(&self, x: usize, into: &mut [i32]) {
        match self.spread {
            Spread::One => {
                let rows = self.upper[x..].iter().zip(&self.lower[x..]);
                for (mean, (&upper, &lower)) in into.iter_mut().zip(rows) {
                    *mean = (i32::from(upper) + i32::from(lower) + 1) >> 1;
                }
            }
            Spread::Two => {
                let pairs = |row: &'a [u16]| row[2 * x..].as_chunks::<2>().0;
                let rows = pairs(self.upper).iter().zip(pairs(self.lower));
                for (mean, (upper, lower)) in into.iter_mut().zip(rows) {
                    let sum: i32 = [upper[0], upper[1], lower[0], lower[1]]
                        .map(i32::from)
                        .iter()
                        .sum();
                    *mean = (sum + 2) >> 2;
                }
            }
            Spread::Half => {
                let last = self.upper.len() - 1;
                for (x, mean) in (x..).zip(into) {
                    // Odd columns lie half-way between two samples.
                    let (left, right) = ((x / 2).min(last), x.div_ceil(2).min(last));
                    let sum: i32 = [
                        self.upper[left],
                        self.upper[right],
                        self.lower[left],
                        self.lower[right],
                    ]
                    .map(i32::from)
                    .iter()
                    .sum();
                    *mean = (sum + 2) >> 2;
                }
            }
        }
    }
}
