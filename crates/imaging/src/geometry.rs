//! Chooses the part of a picture that becomes the avatar.

use super::raster::Raster;
use super::{Crop, Error};

/// A square of whole pixels within a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Square {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) edge: u32,
}

impl Square {
    /// Chooses the largest centred square of an upright picture of `width` by `height`, or of
    /// `crop`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCrop`] if the crop is empty or not within the picture.
    pub(super) fn choose(width: u32, height: u32, crop: Option<Crop>) -> Result<Self, Error> {
        let crop = crop.unwrap_or(Crop {
            x: 0,
            y: 0,
            width,
            height,
        });
        let fits = |from: u32, length: u32, limit: u32| {
            length > 0 && from.checked_add(length).is_some_and(|end| end <= limit)
        };
        if !fits(crop.x, crop.width, width) || !fits(crop.y, crop.height, height) {
            return Err(Error::InvalidCrop {
                crop,
                width,
                height,
            });
        }
        let edge = crop.width.min(crop.height);
        Ok(Self {
            x: crop.x + (crop.width - edge) / 2,
            y: crop.y + (crop.height - edge) / 2,
            edge,
        })
    }
}

/// A rectangle of whole pixels within a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Area {
    /// The whole of a picture.
    pub(super) const fn whole(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// The number of pixels.
    pub(super) fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

impl From<Square> for Area {
    fn from(Square { x, y, edge }: Square) -> Self {
        Self {
            x,
            y,
            width: edge,
            height: edge,
        }
    }
}

/// The position of an area in the decoded picture, which may be smaller than the stored picture and
/// larger than the area. In pixels of the decoded picture, with fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Window {
    /// The whole of a raster of `width` by `height`.
    pub(super) fn whole(width: u32, height: u32) -> Self {
        Area::whole(width, height).into()
    }

    /// The whole of a raster.
    pub(super) fn of(raster: &Raster) -> Self {
        Self::whole(raster.width, raster.height)
    }

    /// The position of a square that lies in `area`, if this window is the position of `area`.
    pub(super) fn of_square(self, area: Area, square: Square) -> Self {
        if area == Area::from(square) {
            return self;
        }
        let (across, down) = (
            self.width / f64::from(area.width),
            self.height / f64::from(area.height),
        );
        let (left, top) = (
            f64::from(square.x - area.x) * across,
            f64::from(square.y - area.y) * down,
        );
        // Rounding must not move the end of the square beyond the end of the area.
        Self {
            x: self.x + left,
            y: self.y + top,
            width: (f64::from(square.edge) * across).min(self.width - left),
            height: (f64::from(square.edge) * down).min(self.height - top),
        }
    }
}

impl From<Area> for Window {
    fn from(area: Area) -> Self {
        Self {
            x: f64::from(area.x),
            y: f64::from(area.y),
            width: f64::from(area.width),
            height: f64::from(area.height),
        }
    }
}

impl From<Square> for Window {
    fn from(square: Square) -> Self {
        Area::from(square).into()
    }
}

/// The longest side of an original in pixels.
pub(super) const MAX_ORIGINAL_EDGE_PX: u32 = 2048;

/// The width and height of the original of a picture of this width and height.
pub(super) fn original_size(width: u32, height: u32) -> (u32, u32) {
    let longer = width.max(height);
    if longer <= MAX_ORIGINAL_EDGE_PX {
        return (width, height);
    }
    let scaled = |side: u32| {
        let scaled = u64::from(side) * u64::from(MAX_ORIGINAL_EDGE_PX) + u64::from(longer) / 2;
        ((scaled / u64::from(longer)) as u32).max(1)
    };
    (scaled(width), scaled(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_crop_the_largest_centred_square_is_chosen() {
        let square = Square::choose(1000, 701, None).unwrap();
        assert_eq!((square.x, square.y, square.edge), (149, 0, 701));
    }

    #[test]
    fn the_largest_centred_square_of_a_crop_is_chosen() {
        let crop = Crop {
            x: 10,
            y: 20,
            width: 30,
            height: 50,
        };
        let square = Square::choose(100, 100, Some(crop)).unwrap();
        assert_eq!((square.x, square.y, square.edge), (10, 30, 30));
    }

    #[test]
    fn an_original_keeps_its_proportions_and_is_never_enlarged() {
        for (size, expected) in [
            ((100, 60), (100, 60)),
            ((2048, 2048), (2048, 2048)),
            ((4096, 2048), (2048, 1024)),
            ((3000, 4000), (1536, 2048)),
            ((2049, 1), (2048, 1)),
            ((8192, 1), (2048, 1)),
            ((u32::MAX, 3), (2048, 1)),
        ] {
            assert_eq!(original_size(size.0, size.1), expected, "{size:?}");
        }
    }

    #[test]
    fn a_square_is_found_in_the_window_of_its_area() {
        let area = Area {
            x: 10,
            y: 20,
            width: 300,
            height: 200,
        };
        let window = Window {
            x: 1.0,
            y: 2.0,
            width: 150.0,
            height: 100.0,
        };
        let square = Square {
            x: 110,
            y: 20,
            edge: 200,
        };
        let expected = Window {
            x: 51.0,
            y: 2.0,
            width: 100.0,
            height: 100.0,
        };
        assert_eq!(window.of_square(area, square), expected);
    }

    #[test]
    fn a_crop_that_leaves_the_picture_is_refused() {
        for (x, y, width, height) in [
            (0, 0, 0, 10),
            (91, 0, 10, 10),
            (0, 100, 1, 1),
            (u32::MAX, 0, 2, 2),
        ] {
            let crop = Crop {
                x,
                y,
                width,
                height,
            };
            assert!(matches!(
                Square::choose(100, 100, Some(crop)),
                Err(Error::InvalidCrop { .. })
            ));
        }
    }
}
