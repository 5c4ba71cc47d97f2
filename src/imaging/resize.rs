//! Making pictures smaller.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Error;
use super::geometry::Window;
use super::planes::{Picture, Planes};
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
        let Window { x, y, edge } = window;
        self.resize_part(raster, [x, y, edge, edge], edge_px)
    }

    /// The same for pixels or planes. Chroma comes out with half the samples of luma in each
    /// direction, rounded up.
    pub(super) fn resize_picture(
        &mut self,
        picture: &Picture,
        window: Window,
        edge_px: u32,
    ) -> Result<Picture, Error> {
        let planes = match picture {
            Picture::Pixels(raster) => {
                return self.resize(raster, window, edge_px).map(Picture::Pixels);
            }
            Picture::Planes(planes) => planes,
        };
        let chroma_px = edge_px.div_ceil(2);
        // An odd edge leaves the last sample half empty.
        let edge = window.edge * f64::from(chroma_px * 2) / f64::from(edge_px);
        let (across, down) = (f64::from(planes.shared.0), f64::from(planes.shared.1));
        let mut resize_chroma = |plane: &Raster| {
            let (x, y) = (window.x / across, window.y / down);
            let width = (edge / across).min(f64::from(plane.width) - x);
            let height = (edge / down).min(f64::from(plane.height) - y);
            self.resize_part(plane, [x, y, width, height], chroma_px)
        };
        let [blue, red] = &planes.chroma;
        Ok(Picture::Planes(Planes {
            chroma: [resize_chroma(blue)?, resize_chroma(red)?],
            luma: self.resize(&planes.luma, window, edge_px)?,
            shared: (2, 2),
        }))
    }

    /// Resizes a part (left, top, width and height) to a square.
    fn resize_part(
        &mut self,
        raster: &Raster,
        [left, top, width, height]: [f64; 4],
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
            .crop(left, top, width, height)
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
