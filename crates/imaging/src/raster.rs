//! Rasters: pixels in memory.

/// The channels of one pixel, one byte each. Alpha is straight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
    /// Inks: 0 is no ink, 255 full ink.
    Cmyk,
}

impl Layout {
    /// Bytes per pixel.
    pub(super) const fn channels(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba | Self::Cmyk => 4,
        }
    }

    pub(super) const fn has_alpha(self) -> bool {
        matches!(self, Self::GrayAlpha | Self::Rgba)
    }
}

/// A picture: rows from the top without padding, `width × height × channels` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raster {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) layout: Layout,
    pub(super) pixels: Vec<u8>,
}

impl Raster {
    /// The size in bytes of a picture of this shape.
    pub(super) const fn len_of(width: u32, height: u32, layout: Layout) -> usize {
        width as usize * height as usize * layout.channels()
    }

    /// Makes a picture of `pixels`; `None` if their number does not fit the shape.
    pub(super) fn new(width: u32, height: u32, layout: Layout, pixels: Vec<u8>) -> Option<Self> {
        (pixels.len() == Self::len_of(width, height, layout)).then_some(Self {
            width,
            height,
            layout,
            pixels,
        })
    }

    /// Bytes per row.
    pub(super) const fn stride(&self) -> usize {
        self.width as usize * self.layout.channels()
    }

    /// Crops to `width` columns from `left` on, or to as many as there are.
    pub(super) fn keep_columns(&mut self, left: u32, width: u32) {
        let left = left.min(self.width);
        let width = width.min(self.width - left);
        let channels = self.layout.channels();
        let (stride, kept) = (self.stride(), width as usize * channels);
        let skipped = left as usize * channels;
        for y in 0..self.height as usize {
            let from = y * stride + skipped;
            self.pixels.copy_within(from..from + kept, y * kept);
        }
        self.pixels.truncate(self.height as usize * kept);
        self.width = width;
    }

    /// Drops the alpha channel if it is fully opaque: encoding alpha costs more than all colours.
    pub(super) fn drop_opaque_alpha(&mut self) {
        let (channels, layout) = match self.layout {
            Layout::Rgba => (4, Layout::Rgb),
            Layout::GrayAlpha => (2, Layout::Gray),
            Layout::Gray | Layout::Rgb | Layout::Cmyk => return,
        };
        if self
            .pixels
            .chunks_exact(channels)
            .any(|pixel| pixel[channels - 1] != 255)
        {
            return;
        }
        let count = self.pixels.len() / channels;
        for index in 0..count {
            self.pixels.copy_within(
                index * channels..(index + 1) * channels - 1,
                index * (channels - 1),
            );
        }
        self.pixels.truncate(count * (channels - 1));
        self.layout = layout;
    }

    /// Makes fully transparent pixels black. Their colours are invisible, and may be parts of a photo
    /// that its owner cut out.
    pub(super) fn forget_hidden_colors(&mut self) {
        let channels = match self.layout {
            Layout::Rgba => 4,
            Layout::GrayAlpha => 2,
            Layout::Gray | Layout::Rgb | Layout::Cmyk => return,
        };
        for pixel in self.pixels.chunks_exact_mut(channels) {
            if pixel[channels - 1] == 0 {
                pixel.fill(0);
            }
        }
    }

    /// Converts this picture, of layout RGBA, to RGB, with `background` showing through transparent
    /// pixels.
    pub(super) fn flattened(&self, background: [u8; 3]) -> Self {
        debug_assert_eq!(self.layout, Layout::Rgba);
        let mut pixels = Vec::with_capacity(self.pixels.len() / 4 * 3);
        for pixel in self.pixels.chunks_exact(4) {
            let alpha = u32::from(pixel[3]);
            for (&over, &under) in pixel[..3].iter().zip(&background) {
                let sum = u32::from(over) * alpha + u32::from(under) * (255 - alpha);
                pixels.push(((sum + 127) / 255) as u8);
            }
        }
        Self {
            width: self.width,
            height: self.height,
            layout: Layout::Rgb,
            pixels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_is_dropped_only_if_every_pixel_is_opaque() {
        let opaque = [1, 2, 3, 255, 4, 5, 6, 255].to_vec();
        let mut raster = Raster::new(2, 1, Layout::Rgba, opaque).unwrap();
        raster.drop_opaque_alpha();
        assert_eq!(
            (raster.layout, raster.pixels.as_slice()),
            (Layout::Rgb, &[1, 2, 3, 4, 5, 6][..])
        );
        let mut raster = Raster::new(1, 1, Layout::GrayAlpha, vec![9, 254]).unwrap();
        raster.drop_opaque_alpha();
        assert_eq!(raster.layout, Layout::GrayAlpha);
    }

    #[test]
    fn keep_columns_keeps_the_requested_columns() {
        let raster = || Raster::new(3, 2, Layout::Gray, vec![1, 2, 3, 4, 5, 6]).unwrap();
        for (left, width, expected) in [
            (0, 3, &[1, 2, 3, 4, 5, 6][..]),
            (1, 1, &[2, 5]),
            (1, 2, &[2, 3, 5, 6]),
            (2, 9, &[3, 6]),
        ] {
            let mut raster = raster();
            raster.keep_columns(left, width);
            assert_eq!(raster.pixels, expected);
            assert_eq!(raster.pixels.len(), raster.stride() * 2);
        }
    }

    #[test]
    fn flattening_shows_the_background_through() {
        let raster = Raster::new(
            3,
            1,
            Layout::Rgba,
            vec![0, 0, 0, 0, 9, 9, 9, 255, 0, 0, 0, 51],
        )
        .unwrap();
        let flat = raster.flattened([255, 100, 0]);
        assert_eq!(flat.pixels, [255, 100, 0, 9, 9, 9, 204, 80, 0]);
    }
}
