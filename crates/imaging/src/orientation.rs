//! The orientation of a stored picture, and turning it upright.

use super::geometry::Square;
use super::raster::Raster;

/// The eight orientations of EXIF (CIPA DC-008, tag 0x0112).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Orientation {
    /// Whether rows and columns are exchanged; applied first.
    transpose: bool,
    /// Whether columns are then reversed.
    mirror: bool,
    /// Whether rows are then reversed.
    flip: bool,
}

impl Orientation {
    pub(super) const UPRIGHT: Self = Self::new(false, false, false);

    const fn new(transpose: bool, mirror: bool, flip: bool) -> Self {
        Self {
            transpose,
            mirror,
            flip,
        }
    }

    /// The orientation of an EXIF number, 1 to 8. Other numbers mean upright, as in viewers.
    pub(super) const fn from_exif(value: u16) -> Self {
        match value {
            2 => Self::new(false, true, false),
            3 => Self::new(false, true, true),
            4 => Self::new(false, false, true),
            5 => Self::new(true, false, false),
            6 => Self::new(true, true, false),
            7 => Self::new(true, true, true),
            8 => Self::new(true, false, true),
            _ => Self::UPRIGHT,
        }
    }

    /// This orientation, followed by quarter turns to the left.
    pub(super) const fn then_rotated_left(self, quarters: u8) -> Self {
        let mut turned = self;
        let mut left = quarters % 4;
        while left > 0 {
            // A turn to the left exchanges rows and columns and then reverses the rows. An earlier
            // reversal changes its direction.
            turned = Self::new(!turned.transpose, turned.flip, !turned.mirror);
            left -= 1;
        }
        turned
    }

    /// This orientation, followed by an exchange of left and right.
    pub(super) const fn then_mirrored(self) -> Self {
        Self::new(self.transpose, !self.mirror, self.flip)
    }

    /// This orientation, followed by an exchange of top and bottom.
    pub(super) const fn then_flipped(self) -> Self {
        Self::new(self.transpose, self.mirror, !self.flip)
    }

    /// Reads the orientation from EXIF data: a TIFF header and its first directory, with or without
    /// the `Exif\0\0` that JPEG puts before it. Broken data means upright.
    pub(super) fn from_exif_data(data: &[u8]) -> Self {
        let tiff = data.strip_prefix(b"Exif\0\0").unwrap_or(data);
        orientation_tag(tiff).map_or(Self::UPRIGHT, Self::from_exif)
    }

    /// The orientation that remains for a picture whose rows and columns are already exchanged.
    pub(super) const fn transposed(self) -> Self {
        Self::new(!self.transpose, self.mirror, self.flip)
    }

    /// Whether rows and columns are exchanged.
    pub(super) const fn transposes(self) -> bool {
        self.transpose
    }

    /// Whether rows are reversed.
    pub(super) const fn flips(self) -> bool {
        self.flip
    }

    /// The upright width and height of a picture stored as `width` by `height`.
    pub(super) const fn upright_size(self, width: u32, height: u32) -> (u32, u32) {
        if self.transpose {
            (height, width)
        } else {
            (width, height)
        }
    }

    /// The position of a square of the upright picture in the stored picture of `width` by
    /// `height`.
    pub(super) const fn to_stored(self, square: Square, width: u32, height: u32) -> Square {
        let (upright_width, upright_height) = self.upright_size(width, height);
        let x = if self.mirror {
            upright_width - square.x - square.edge
        } else {
            square.x
        };
        let y = if self.flip {
            upright_height - square.y - square.edge
        } else {
            square.y
        };
        let (x, y) = if self.transpose { (y, x) } else { (x, y) };
        Square {
            x,
            y,
            edge: square.edge,
        }
    }

    /// Turns a stored picture upright.
    pub(super) fn apply(self, stored: Raster) -> Raster {
        if self == Self::UPRIGHT {
            return stored;
        }
        let pixels = match stored.layout.channels() {
            1 => self.turn::<1>(&stored),
            2 => self.turn::<2>(&stored),
            3 => self.turn::<3>(&stored),
            _ => self.turn::<4>(&stored),
        };
        let (width, height) = self.upright_size(stored.width, stored.height);
        Raster {
            width,
            height,
            layout: stored.layout,
            pixels,
        }
    }

    /// Works by blocks, so that the rows read and the rows written stay in the cache.
    fn turn<const N: usize>(self, stored: &Raster) -> Vec<u8> {
        let (source, _) = stored.pixels.as_chunks::<N>();
        let (stored_width, stored_height) = (stored.width as usize, stored.height as usize);
        let (width, height) = if self.transpose {
            (stored_height, stored_width)
        } else {
            (stored_width, stored_height)
        };
        let mut turned = vec![[0; N]; source.len()];
        for block_y in (0..height).step_by(BLOCK) {
            for block_x in (0..width).step_by(BLOCK) {
                for y in block_y..(block_y + BLOCK).min(height) {
                    let from_y = if self.flip { height - 1 - y } else { y };
                    for x in block_x..(block_x + BLOCK).min(width) {
                        let from_x = if self.mirror { width - 1 - x } else { x };
                        let from = if self.transpose {
                            from_x * stored_width + from_y
                        } else {
                            from_y * stored_width + from_x
                        };
                        turned[y * width + x] = source[from];
                    }
                }
            }
        }
        turned.into_flattened()
    }
}

/// The edge of a block in pixels.
const BLOCK: usize = 32;

fn orientation_tag(tiff: &[u8]) -> Option<u16> {
    let big_endian = match tiff.get(..4)? {
        b"II*\0" => false,
        b"MM\0*" => true,
        _ => return None,
    };
    let read_u16 = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    };
    let bytes = tiff.get(4..8)?.try_into().ok()?;
    let directory = if big_endian {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    } as usize;
    let count = usize::from(read_u16(directory)?);
    (0..count)
        .map(|index| directory + 2 + index * 12)
        .take_while(|&entry| entry < tiff.len())
        .find(|&entry| read_u16(entry) == Some(0x0112))
        .and_then(|entry| read_u16(entry + 8))
}

#[cfg(test)]
mod tests {
    use super::super::raster::Layout;
    use super::*;

    /// `F` in 2 × 3 pixels has no symmetry; each stored form comes back the same.
    #[test]
    fn every_orientation_is_turned_upright() {
        let upright = Raster::new(2, 3, Layout::Gray, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let stored: [(u32, u32, [u8; 6]); 8] = [
            (2, 3, [1, 2, 3, 4, 5, 6]),
            (2, 3, [2, 1, 4, 3, 6, 5]),
            (2, 3, [6, 5, 4, 3, 2, 1]),
            (2, 3, [5, 6, 3, 4, 1, 2]),
            (3, 2, [1, 3, 5, 2, 4, 6]),
            (3, 2, [2, 4, 6, 1, 3, 5]),
            (3, 2, [6, 4, 2, 5, 3, 1]),
            (3, 2, [5, 3, 1, 6, 4, 2]),
        ];
        for (number, (width, height, pixels)) in (1..).zip(stored) {
            let stored = Raster::new(width, height, Layout::Gray, pixels.to_vec()).unwrap();
            let turned = Orientation::from_exif(number).apply(stored);
            assert_eq!(turned, upright, "orientation {number}");
        }
    }

    #[test]
    fn turns_add_up() {
        let upright = Raster::new(2, 3, Layout::Gray, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let left = Orientation::UPRIGHT.then_rotated_left(1);
        let turned = left.apply(upright.clone());
        assert_eq!(
            (turned.width, &turned.pixels[..]),
            (3, &[2, 4, 6, 1, 3, 5][..])
        );
        for number in 1..=8 {
            let first = Orientation::from_exif(number);
            let stepwise = |step: Orientation| step.apply(first.apply(upright.clone()));
            let at_once = |both: Orientation| both.apply(upright.clone());
            assert_eq!(at_once(first.then_rotated_left(1)), stepwise(left));
            assert_eq!(
                at_once(first.then_mirrored()),
                stepwise(Orientation::from_exif(2))
            );
            assert_eq!(
                at_once(first.then_flipped()),
                stepwise(Orientation::from_exif(4))
            );
        }
    }

    #[test]
    fn a_square_of_the_upright_picture_is_found_in_the_stored_one() {
        for number in 1..=8 {
            let orientation = Orientation::from_exif(number);
            let (width, height) = (5, 9);
            let stored: Vec<u8> = (0..width * height).map(|index| index as u8).collect();
            let stored = Raster::new(width, height, Layout::Gray, stored).unwrap();
            let (upright_width, upright_height) = orientation.upright_size(width, height);
            let upright = orientation.apply(stored.clone());
            let square = Square {
                x: upright_width - 3,
                y: upright_height - 2,
                edge: 2,
            };
            let expected = cut(&upright, square);
            let found = cut(&stored, orientation.to_stored(square, width, height));
            assert_eq!(orientation.apply(found), expected, "orientation {number}");
        }
    }

    fn cut(raster: &Raster, square: Square) -> Raster {
        let pixels = (square.y..square.y + square.edge)
            .flat_map(|y| (square.x..square.x + square.edge).map(move |x| (x, y)))
            .map(|(x, y)| raster.pixels[(y * raster.width + x) as usize])
            .collect();
        Raster::new(square.edge, square.edge, raster.layout, pixels).unwrap()
    }

    #[test]
    fn the_tag_is_read_in_both_byte_orders_and_broken_data_means_upright() {
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let big = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let turned = Orientation::from_exif(6);
        assert_eq!(Orientation::from_exif_data(little), turned);
        assert_eq!(Orientation::from_exif_data(big), turned);
        for end in 0..little.len() - 8 {
            Orientation::from_exif_data(&little[..end]);
        }
        assert_eq!(
            Orientation::from_exif_data(b"II*\0\xff\xff\xff\xff"),
            Orientation::UPRIGHT
        );
    }
}
