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

/// The position of the square in the decoded picture, which may be smaller than the stored picture
/// and larger than the square. In pixels of the decoded picture, with fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) edge: f64,
}

impl Window {
    /// The whole of a square raster.
    pub(super) fn of(raster: &Raster) -> Self {
        Self {
            x: 0.0,
            y: 0.0,
            edge: f64::from(raster.width),
        }
    }
}

impl From<Square> for Window {
    fn from(square: Square) -> Self {
        Self {
            x: f64::from(square.x),
            y: f64::from(square.y),
            edge: f64::from(square.edge),
        }
    }
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
