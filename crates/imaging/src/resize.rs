//! Makes pictures smaller.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::Error;
use super::geometry::Window;
use super::orientation::Orientation;
use super::planes::{Picture, Planes};
use super::raster::{Layout, Raster};

/// Buffers that one worker reuses from picture to picture.
pub struct Workspace {
    resizer: Resizer,
}

/// The size limit of the buffers that a worker keeps between pictures.
const MAX_KEPT_BYTES: usize = 8 << 20;

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Self {
        Self {
            resizer: Resizer::new(),
        }
    }

    /// Resizes the part of `raster` in `window` to a square of `edge_px`, with a Lanczos filter of
    /// three lobes. Colours are weighted by alpha, so that colours of transparent pixels do not
    /// bleed.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if the window is not within the raster.
    pub(super) fn resize(
        &mut self,
        raster: &Raster,
        window: Window,
        edge_px: u32,
    ) -> Result<Raster, Error> {
        self.resize_to(raster, window, (edge_px, edge_px))
    }

    /// Resizes the part of `raster` in `window` to this width and height, as
    /// [`resize`](Self::resize) does.
    pub(super) fn resize_to(
        &mut self,
        raster: &Raster,
        window: Window,
        size: (u32, u32),
    ) -> Result<Raster, Error> {
        let Window {
            x,
            y,
            width,
            height,
        } = window;
        self.resize_part(raster, [x, y, width, height], size)
    }

    /// Resizes pixels or planes, and turns the square upright. The resulting chroma has half the
    /// samples of luma in each direction, rounded up.
    pub(super) fn resize_picture(
        &mut self,
        picture: &Picture,
        window: Window,
        orientation: Orientation,
        edge_px: u32,
    ) -> Result<Picture, Error> {
        let planes = match picture {
            Picture::Pixels(raster) => {
                let resized = self.resize(raster, window, edge_px)?;
                return Ok(Picture::Pixels(orientation.apply(resized)));
            }
            Picture::Planes(planes) => planes,
        };
        // The window of planes is a square.
        let Window {
            x, y, width: edge, ..
        } = window;
        let luma = self.resize_plane(&planes.luma, [x, y, edge, edge], orientation, edge_px)?;
        let chroma_px = edge_px.div_ceil(2);
        // With an odd edge, the last sample is half empty.
        let edge = edge * f64::from(chroma_px * 2) / f64::from(edge_px);
        let (across, down) = (f64::from(planes.shared.0), f64::from(planes.shared.1));
        let mut resize_chroma = |plane: &Raster| {
            let (left, top) = (x / across, y / down);
            let width = (edge / across).min(f64::from(plane.width) - left);
            let height = (edge / down).min(f64::from(plane.height) - top);
            self.resize_plane(plane, [left, top, width, height], orientation, chroma_px)
        };
        let [blue, red] = &planes.chroma;
        Ok(Picture::Planes(Planes {
            luma,
            chroma: [resize_chroma(blue)?, resize_chroma(red)?],
            shared: (2, 2),
        }))
    }

    /// Resizes a part (left, top, width and height) of a plane to an upright square: first along
    /// the columns, then, with rows and columns exchanged, along the columns again. A filter along
    /// rows of single bytes takes five times as long as one along columns, which processes whole
    /// rows at once. And most photos have to be turned anyway.
    fn resize_plane(
        &mut self,
        plane: &Raster,
        [left, top, width, height]: [f64; 4],
        orientation: Orientation,
        edge_px: u32,
    ) -> Result<Raster, Error> {
        // The number of columns that the lobes of the filter cover.
        let reach = 3.0 * (width / f64::from(edge_px)).max(1.0) + 1.0;
        let begin = (left - reach).floor().max(0.0);
        let end = (left + width + reach).ceil().min(f64::from(plane.width));
        let columns = (end - begin) as u32;
        let part = [begin, top, f64::from(columns), height];
        let narrowed = self.resize_part(plane, part, (columns, edge_px))?;

        let turn = if orientation.transposes() {
            orientation
        } else {
            Orientation::UPRIGHT.transposed()
        };
        let turned = turn.apply(narrowed);
        let top = if turn.flips() {
            end - left - width
        } else {
            left - begin
        };
        let part = [0.0, top, f64::from(edge_px), width];
        let resized = self.resize_part(&turned, part, (edge_px, edge_px))?;
        Ok(if orientation.transposes() {
            resized
        } else {
            orientation.transposed().apply(resized)
        })
    }

    /// Resizes a part (left, top, width and height).
    fn resize_part(
        &mut self,
        raster: &Raster,
        [left, top, width, height]: [f64; 4],
        (to_width, to_height): (u32, u32),
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
        let mut target = Image::new(to_width, to_height, pixel_type);
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
            .crop(left, top, width, height)
            .use_alpha(raster.layout.has_alpha());
        self.resizer
            .resize(&source, &mut target, &options)
            .map_err(|error| internal(&error))?;
        // The buffers of one huge picture are not kept for later ones.
        if self.resizer.size_of_internal_buffers() > MAX_KEPT_BYTES {
            self.resizer.reset_internal_buffers();
        }
        Ok(Raster {
            width: to_width,
            height: to_height,
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
        let window = Window::whole(8, 8);
        let small = Workspace::new().resize(&raster, window, 2).unwrap();
        for pixel in small.pixels.chunks_exact(4) {
            assert_eq!(pixel[..3], [255, 0, 0]);
            assert!(pixel[3].abs_diff(127) < 40, "{pixel:?}");
        }
    }

    /// Planes that are turned while they are resized match the pixels, in every orientation.
    #[test]
    fn planes_are_resized_and_turned_as_pixels_are() {
        let plane = |width: u32, height: u32, seed: u32| {
            let pixels = (0..height)
                .flat_map(|y| (0..width).map(move |x| ((x * seed + y * y * 3) % 251) as u8))
                .collect();
            Raster::new(width, height, Layout::Gray, pixels).unwrap()
        };
        let window = Window {
            x: 13.5,
            y: 2.25,
            width: 60.5,
            height: 60.5,
        };
        for number in 1..=8 {
            let orientation = Orientation::from_exif(number);
            let planes = Planes {
                luma: plane(90, 70, 5),
                chroma: [plane(45, 70, 3), plane(45, 70, 7)],
                shared: (2, 1),
            };
            let expect = |plane: &Raster, [left, top, width, height]: [f64; 4], edge_px: u32| {
                let part = [left, top, width, height];
                let resized = Workspace::new().resize_part(plane, part, (edge_px, edge_px));
                orientation.apply(resized.unwrap())
            };
            let Window {
                x, y, width: edge, ..
            } = window;
            let half = [x / 2.0, y, edge / 2.0, edge];
            let expected = [
                expect(&planes.luma, [x, y, edge, edge], 40),
                expect(&planes.chroma[0], half, 20),
                expect(&planes.chroma[1], half, 20),
            ];
            let found = Workspace::new()
                .resize_picture(&Picture::Planes(planes), window, orientation, 40)
                .unwrap();
            let Picture::Planes(Planes { luma, chroma, .. }) = found else {
                panic!("pixels");
            };
            let [blue, red] = chroma;
            for (found, expected) in [luma, blue, red].iter().zip(&expected) {
                let most = (found.pixels.iter().zip(&expected.pixels))
                    .map(|(a, b)| a.abs_diff(*b))
                    .max();
                // The directions are rounded separately and in another order.
                assert!(most <= Some(2), "orientation {number}: {most:?}");
            }
        }
    }
}
