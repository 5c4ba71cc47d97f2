//! Converts samples to pixels for samplings that the decoder does not convert: chroma finer than
//! luma, two of three channels with other fractions, or black coarser than another ink. The decoder
//! gives the samples; each pixel is the mean of the samples that it covers.

use libjpeg_turbo_rs::ColorSpace;
use libjpeg_turbo_rs::RawImage;

use super::Markers;
use crate::planes;
use crate::raster::{Layout, Raster};

/// A part of the scaled picture, in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    /// The scale, 1 to 8.
    pub(super) eighths: u32,
}

/// The first pixel and the number of pixels of a scaled picture that show `length` stored pixels
/// from `from` on. `limit` is the length of the stored picture.
pub(super) fn span(from: u32, length: u32, eighths: u32, limit: u32) -> (u32, u32) {
    let begin = from * eighths / 8;
    let end = ((from + length) * eighths).div_ceil(8);
    let limit = (limit * eighths).div_ceil(8);
    (begin, end.min(limit).saturating_sub(begin))
}

/// Makes the pixels of an area. `None` if the samples do not match `markers`.
pub(super) fn to_pixels(
    image: &RawImage,
    markers: &Markers,
    space: ColorSpace,
    area: Area,
    layout: Layout,
) -> Option<Raster> {
    let channels = layout.channels();
    let mut pixels = vec![0; Raster::len_of(area.width, area.height, layout)];
    let most = markers.max_factors();
    if markers.factors().len() != channels || image.planes.len() != channels {
        return None;
    }
    for (index, (&factor, samples)) in markers.factors().iter().zip(&image.planes).enumerate() {
        let stride = *image.plane_widths.get(index)?;
        let edge = |length: u32, factor: u8, most: u8| {
            (length as usize * usize::from(factor)).div_ceil(usize::from(most))
        };
        let channel = Channel {
            samples,
            stride,
            width: edge(markers.width, factor.0, most.0),
            height: edge(markers.height, factor.1, most.1),
            factor,
            most,
        };
        if channel.width > stride || channel.height * stride > samples.len() {
            return None;
        }
        channel.write(area, &mut pixels, channels, index);
    }
    match space {
        ColorSpace::YCbCr => {
            for pixel in pixels.as_chunks_mut::<3>().0 {
                *pixel = planes::rgb_of(*pixel);
            }
        }
        // Luma and chroma of the inks, inverted, and black.
        ColorSpace::Ycck => {
            for [inks @ .., _] in pixels.as_chunks_mut::<4>().0 {
                *inks = planes::rgb_of(*inks).map(|light| 255 - light);
            }
        }
        _ => {}
    }
    Raster::new(area.width, area.height, layout, pixels)
}

/// One stored channel.
struct Channel<'a> {
    /// The samples, in rows from the top.
    samples: &'a [u8],
    /// Samples per row, including those that fill the last block.
    stride: usize,
    /// The number of visible samples, across and down.
    width: usize,
    height: usize,
    /// The number of samples across and down for `most` pixels.
    factor: (u8, u8),
    most: (u8, u8),
}

impl Channel<'_> {
    /// Writes channel number `index` of the pixels of an area.
    fn write(&self, area: Area, pixels: &mut [u8], channels: usize, index: usize) {
        let across = Axis::new(area.eighths, self.factor.0, self.most.0, self.width);
        let down = Axis::new(area.eighths, self.factor.1, self.most.1, self.height);
        let total = across.total * down.total;
        // The weighted sums of the samples of each column for one row of pixels.
        let mut columns = vec![0_u32; self.width];
        let rows = pixels.chunks_exact_mut(area.width as usize * channels);
        for (y, row) in (area.top as usize..).zip(rows) {
            columns.fill(0);
            for (sample_y, weight) in down.covered(y) {
                let samples = &self.samples[sample_y * self.stride..];
                for (sum, &sample) in columns.iter_mut().zip(samples) {
                    *sum += weight * u32::from(sample);
                }
            }
            let pixels = row.chunks_exact_mut(channels);
            for (x, pixel) in (area.left as usize..).zip(pixels) {
                let sum: u32 = across
                    .covered(x)
                    .map(|(sample_x, weight)| weight * columns[sample_x])
                    .sum();
                pixel[index] = ((sum + total / 2) / total) as u8;
            }
        }
    }
}

/// The positions of samples relative to pixels in one direction. Both have integer lengths in a
/// common unit, whatever the scale and the sampling.
#[derive(Clone, Copy)]
struct Axis {
    /// The length of a sample.
    sample: usize,
    /// The length of a pixel.
    pixel: usize,
    /// The number of samples.
    length: usize,
    /// The sum of the weights of a pixel's samples.
    total: u32,
}

impl Axis {
    fn new(eighths: u32, factor: u8, most: u8, length: usize) -> Self {
        let pixel = 8 * usize::from(factor);
        Self {
            sample: eighths as usize * usize::from(most),
            pixel,
            length,
            total: pixel as u32,
        }
    }

    /// The samples under a pixel, and the share of the pixel that each covers. The last sample
    /// extends without end.
    fn covered(self, pixel: usize) -> impl Iterator<Item = (usize, u32)> {
        let (from, to) = (pixel * self.pixel, (pixel + 1) * self.pixel);
        (from / self.sample..=(to - 1) / self.sample).map(move |sample| {
            let begin = from.max(sample * self.sample);
            let end = to.min((sample + 1) * self.sample);
            (sample.min(self.length - 1), (end - begin) as u32)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_of_a_pixel_cover_it_completely() {
        for (eighths, factor, most) in [(8, 1, 1), (8, 1, 2), (8, 2, 3), (3, 1, 2), (5, 3, 4)] {
            let axis = Axis::new(eighths, factor, most, 1000);
            for pixel in 0..40 {
                let weights: u32 = axis.covered(pixel).map(|(_, weight)| weight).sum();
                assert_eq!(weights, axis.total);
            }
        }
        // Three samples for four pixels.
        let axis = Axis::new(8, 3, 4, 1000);
        let covered = |pixel| axis.covered(pixel).collect::<Vec<_>>();
        assert_eq!(covered(0), [(0, 24)]);
        assert_eq!(covered(1), [(0, 8), (1, 16)]);
        assert_eq!(covered(3), [(2, 24)]);
        // Two stored pixels become one.
        let axis = Axis::new(4, 1, 1, 3);
        assert_eq!(axis.covered(0).collect::<Vec<_>>(), [(0, 4), (1, 4)]);
        assert_eq!(axis.covered(1).collect::<Vec<_>>(), [(2, 4), (2, 4)]);
    }

    #[test]
    fn a_part_extends_to_the_pixels_in_which_it_begins_and_ends() {
        assert_eq!(span(0, 100, 8, 100), (0, 100));
        assert_eq!(span(3, 10, 4, 100), (1, 6));
        assert_eq!(span(3, 10, 1, 13), (0, 2));
        assert_eq!(span(90, 10, 3, 100), (33, 5));
    }
}
