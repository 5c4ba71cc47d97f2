//! Converts planes to pixels. Chroma is interpolated like libwebp's default ("fancy upsampling"),
//! and colours are converted from the limited range of ITU-R BT.601 with libwebp's arithmetic, so
//! that the pixels are equal bit for bit.

use std::ops::Range;

use super::Planes;
use crate::Layout;

impl Planes {
    /// Writes the pixels of `rows` and `columns` one after another: three bytes each, or four in
    /// [`Layout::Rgba`], with an alpha of 255.
    pub(crate) fn write_rgb(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        layout: Layout,
        out: &mut [u8],
    ) {
        let stride = columns.len() * layout.channels();
        if stride == 0 {
            return;
        }
        let mut u = ChromaLine::new(self.width);
        let mut v = ChromaLine::new(self.width);
        for (y, out) in rows.zip(out.chunks_exact_mut(stride)) {
            let luma = &self.y[y * self.y_stride..][columns.clone()];
            let [near, far] = self.chroma_lines(y);
            u.interpolate(&self.u[near.clone()], &self.u[far.clone()]);
            v.interpolate(&self.v[near], &self.v[far]);
            let (u, v) = (u.pixels(columns.clone()), v.pixels(columns.clone()));
            match layout {
                Layout::Rgba => line::<4>(luma, u, v, out),
                Layout::Rgb => line::<3>(luma, u, v, out),
            }
        }
    }

    /// The chroma samples of line `y` in their planes: the nearest line, and the next nearest one.
    fn chroma_lines(&self, y: usize) -> [Range<usize>; 2] {
        let last = self.height.div_ceil(2) as usize - 1;
        let width = self.width.div_ceil(2) as usize;
        let near = y / 2;
        let far = match y % 2 {
            0 => near.saturating_sub(1),
            _ => (near + 1).min(last),
        };
        [near, far].map(|line| line * self.uv_stride..line * self.uv_stride + width)
    }
}

/// A line of chroma, interpolated to the full width.
struct ChromaLine {
    /// Rounded up to whole samples.
    pixels: Vec<u8>,
}

impl ChromaLine {
    fn new(width: u32) -> Self {
        Self {
            pixels: vec![0; width.div_ceil(2) as usize * 2],
        }
    }

    /// Weights the nearest sample by 9, its two neighbours in the row and in the column by 3, and
    /// the diagonal one by 1. At the ends of a line the weights are 3 and 1.
    fn interpolate(&mut self, near: &[u8], far: &[u8]) {
        let at_end = |near: u8, far: u8| ((3 * u16::from(near) + u16::from(far) + 2) >> 2) as u8;
        let (Some(last), Some(first)) = (near.len().checked_sub(1), self.pixels.first_mut()) else {
            return;
        };
        *first = at_end(near[0], far[0]);
        let between = near.iter().zip(&near[1..]).zip(far.iter().zip(&far[1..]));
        let (pairs, _) = self.pixels[1..].as_chunks_mut::<2>();
        for (pair, ((&a, &b), (&c, &d))) in pairs.iter_mut().zip(between) {
            let [a, b, c, d] = [a, b, c, d].map(u16::from);
            // Sixteenths, rounded down to eighths as an intermediate step.
            let sum = a + b + c + d + 8;
            let rising = (sum + 2 * (a + d)) >> 3;
            let falling = (sum + 2 * (b + c)) >> 3;
            *pair = [((falling + a) >> 1) as u8, ((rising + b) >> 1) as u8];
        }
        self.pixels[2 * last + 1] = at_end(near[last], far[last]);
    }

    fn pixels(&self, columns: Range<usize>) -> &[u8] {
        &self.pixels[columns]
    }
}

/// The number of pixels that are converted at once.
const LANES: usize = 16;

fn line<const CHANNELS: usize>(y: &[u8], u: &[u8], v: &[u8], out: &mut [u8]) {
    let (y, y_rest) = y.as_chunks::<LANES>();
    let (u, u_rest) = u.as_chunks::<LANES>();
    let (v, v_rest) = v.as_chunks::<LANES>();
    let mut out = out;
    for ((y, u), v) in y.iter().zip(u).zip(v) {
        let (pixels, rest) = out.split_at_mut(LANES * CHANNELS);
        for (out, pixel) in pixels.chunks_exact_mut(CHANNELS).zip(rgb(y, u, v)) {
            out.copy_from_slice(&pixel[..CHANNELS]);
        }
        out = rest;
    }
    let padded = |rest: &[u8]| {
        let mut lanes = [0; LANES];
        lanes[..rest.len()].copy_from_slice(rest);
        lanes
    };
    let pixels = rgb(&padded(y_rest), &padded(u_rest), &padded(v_rest));
    for (out, pixel) in out.chunks_exact_mut(CHANNELS).zip(pixels) {
        out.copy_from_slice(&pixel[..CHANNELS]);
    }
}

/// Red, green, blue and 255.
#[inline(always)]
fn rgb(y: &[u8; LANES], u: &[u8; LANES], v: &[u8; LANES]) -> [[u8; 4]; LANES] {
    let mut pixels = [[255; 4]; LANES];
    for i in 0..LANES {
        // The product divided by 256, within 16 bits.
        let part = |value: u8, factor: u16| {
            let value = u16::from(value);
            value * (factor >> 8) + ((value * (factor & 255)) >> 8)
        };
        let byte = |value: u16| (value >> 6).cast_signed().min(255) as u8;
        let luma = part(y[i], 19077);
        let red = (luma + part(v[i], 26149)).saturating_sub(14234);
        let green = (luma + 8708).saturating_sub(part(u[i], 6419) + part(v[i], 13320));
        let blue = (luma + part(u[i], 33050)).saturating_sub(17685);
        pixels[i] = [byte(red), byte(green), byte(blue), 255];
    }
    pixels
}
