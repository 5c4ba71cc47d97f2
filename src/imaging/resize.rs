//! Making pictures smaller.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Error;
use super::geometry::Window;
use super::raster::{Layout, Raster};

/// What one worker keeps from picture to picture, so that it need not be made again.
#[derive(Default)]
pub struct Workspace {
    resizer: Resizer,
}

/// The most that a worker keeps of its buffers between pictures.
const MOST_KEPT_BYTES: usize = 8 << 20;

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self::default()
    }

    /// Resizes what `window` shows of `raster` to a square of `edge_px`, with a Lanczos filter of
    /// three lobes. Colours count by their alpha, so nothing bleeds out of transparent places.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] where the window leaves the raster.
    pub(super) fn resize(
        &mut self,
        raster: &Raster,
        window: Window,
        edge_px: u32,
    ) -> Result<Raster, Error> {
        let internal = |error: &dyn std::fmt::Display| Error::Internal {
            reason: format!("resize: {error}"),
        };
        let pixel_type = match raster.layout {
            Layout::Gray => PixelType::U8,
            Layout::GrayAlpha => PixelType::U8x2,
            Layout::Rgb => PixelType::U8x3,
            Layout::Rgba | Layout::Cmyk => PixelType::U8x4,
        };
        let source = ImageRef::new(raster.width, raster.height, &raster.pixels, pixel_type)
            .map_err(|error| internal(&error))?;
        let mut target = Image::new(edge_px, edge_px, pixel_type);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
            .crop(window.x, window.y, window.edge, window.edge)
            .use_alpha(raster.layout.has_alpha());
        self.resizer
            .resize(&source, &mut target, &options)
            .map_err(|error| internal(&error))?;
        // What one huge picture needed is not kept for all the others.
        if self.resizer.size_of_internal_buffers() > MOST_KEPT_BYTES {
            self.resizer.reset_internal_buffers();
        }
        Ok(Raster {
            width: edge_px,
            height: edge_px,
            layout: raster.layout,
            pixels: target.into_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transparent_colours_do_not_bleed() {
        // Opaque red beside transparent green.
        let pixels = [[255, 0, 0, 255], [0, 255, 0, 0]]
            .repeat(32)
            .into_flattened();
        let raster = Raster::new(8, 8, Layout::Rgba, pixels).unwrap();
        let window = Window {
            x: 0.0,
            y: 0.0,
            edge: 8.0,
        };
        let small = Workspace::new().resize(&raster, window, 2).unwrap();
        for pixel in small.pixels.chunks_exact(4) {
            assert_eq!(pixel[..3], [255, 0, 0]);
            assert!(pixel[3].abs_diff(127) < 40, "{pixel:?}");
        }
    }
}
