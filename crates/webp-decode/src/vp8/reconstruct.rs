//! Makes the pixels of a macroblock from its modes and coefficients: prediction and correction.

use super::modes::{Luma, Macroblock, Mode, SubblockMode};
use super::predict::{self, Beside};
use super::residuals::{Neighbors, Residuals};
use super::transform::{self, Pixels4};

/// A plane in lines of one macroblock's width: 16 bytes for luma, 8 for chroma.
pub(super) struct Plane<'a, const EDGE: usize> {
    pub(super) lines: &'a mut [[u8; EDGE]],
    /// The number of macroblocks in a row.
    pub(super) columns: usize,
}

/// The value of pixels above the picture.
const ABOVE: u8 = 127;
/// The value of pixels to the left of the picture.
const LEFT: u8 = 129;

/// State of a macroblock that the macroblock below needs.
#[derive(Clone, Copy)]
pub(super) struct Above {
    pub(super) modes: [SubblockMode; 4],
    pub(super) neighbors: Neighbors,
    /// The last line of each plane, unfiltered.
    y: [u8; 16],
    uv: [[u8; 8]; 2],
}

/// State of a macroblock that the macroblock to its right needs.
pub(super) struct Left {
    pub(super) modes: [SubblockMode; 4],
    pub(super) neighbors: Neighbors,
    y: Side<16>,
    uv: [Side<8>; 2],
}

/// The last column of a plane of a macroblock, and the pixel above it.
#[derive(Clone, Copy)]
struct Side<const EDGE: usize> {
    corner: u8,
    pixels: [u8; EDGE],
}

impl Above {
    /// The state above the picture.
    pub(super) const OUTSIDE: Self = Self {
        modes: [SubblockMode::Dc; 4],
        neighbors: Neighbors::NONE,
        y: [ABOVE; 16],
        uv: [[ABOVE; 8]; 2],
    };
}

impl Left {
    /// The state to the left of a row.
    pub(super) fn outside(row: usize) -> Self {
        let corner = if row == 0 { ABOVE } else { LEFT };
        let side = Side {
            corner,
            pixels: [LEFT; 8],
        };
        Self {
            modes: [SubblockMode::Dc; 4],
            neighbors: Neighbors::NONE,
            y: Side {
                corner,
                pixels: [LEFT; 16],
            },
            uv: [side; 2],
        }
    }
}

/// The position of a macroblock, in macroblocks.
#[derive(Clone, Copy)]
pub(super) struct Position {
    pub(super) row: usize,
    pub(super) column: usize,
}

/// Makes the luma of the macroblock at `position`.
pub(super) fn luma(
    plane: &mut Plane<'_, 16>,
    position: Position,
    block: &Macroblock,
    residuals: Option<&Residuals>,
    above: &mut [Above],
    left: &mut Left,
) {
    let at = position.row * 16 * plane.columns + position.column;
    // The four pixels to the right of those above. In the last column, the last pixel above is
    // repeated.
    let beyond = match above.get(position.column + 1) {
        Some(next) => [next.y[0], next.y[1], next.y[2], next.y[3]],
        None => [above[position.column].y[15]; 4],
    };
    let above = &mut above[position.column].y;
    match &block.luma {
        Luma::Whole(mode) => whole(plane, at, position, *mode, above, &left.y, |plane| {
            if let Some(residuals) = residuals {
                for index in 0..16 {
                    plane.add(at, index % 4 * 4, index / 4 * 4, residuals, index);
                }
            }
        }),
        Luma::Subblocks(modes) => subblocks(plane, at, modes, residuals, above, beyond, &left.y),
    }
    leave(plane, at, above, &mut left.y);
}

/// Makes the chroma of the macroblock at `position`.
pub(super) fn chroma(
    planes: &mut [Plane<'_, 8>; 2],
    position: Position,
    mode: Mode,
    residuals: Option<&Residuals>,
    above: &mut [Above],
    left: &mut Left,
) {
    let above = &mut above[position.column].uv;
    for (number, plane) in planes.iter_mut().enumerate() {
        let at = position.row * 8 * plane.columns + position.column;
        let (above, left) = (&mut above[number], &mut left.uv[number]);
        whole(plane, at, position, mode, above, left, |plane| {
            if let Some(residuals) = residuals {
                for index in 0..4 {
                    let first = 16 + number * 4;
                    plane.add(at, index % 2 * 4, index / 2 * 4, residuals, first + index);
                }
            }
        });
        leave(plane, at, above, left);
    }
}

#[inline(always)]
fn whole<'a, const EDGE: usize>(
    plane: &mut Plane<'a, EDGE>,
    at: usize,
    position: Position,
    mode: Mode,
    above: &[u8; EDGE],
    left: &Side<EDGE>,
    correct: impl FnOnce(&mut Plane<'a, EDGE>),
) {
    let has_beside = (position.row > 0, position.column > 0);
    let pixels = predict::whole(mode, above, &left.pixels, left.corner, has_beside);
    for (y, pixels) in pixels.iter().enumerate() {
        *plane.line_mut(at, y) = *pixels;
    }
    correct(plane);
}

/// Predicts and corrects subblocks in order, because each prediction uses corrected neighbours.
fn subblocks(
    plane: &mut Plane<'_, 16>,
    at: usize,
    modes: &[[SubblockMode; 4]; 4],
    residuals: Option<&Residuals>,
    above: &[u8; 16],
    beyond: [u8; 4],
    left: &Side<16>,
) {
    let mut above_row = [[0; 4]; 5];
    above_row.as_flattened_mut()[..16].copy_from_slice(above);
    // All four rows use the pixels above the macroblock (section 12.3).
    above_row[4] = beyond;
    let mut row_corner = left.corner;
    let lefts = left.pixels.as_chunks::<4>().0;
    for (y, (modes, &left)) in modes.iter().zip(lefts).enumerate() {
        let mut beside = Beside {
            left,
            corner: row_corner,
            above: above_row[0],
            above_right: above_row[1],
        };
        row_corner = left[3];
        for x in 0..4 {
            beside.above = above_row[x];
            beside.above_right = above_row[x + 1];
            let mut pixels = predict::subblock(modes[x], &beside);
            if let Some(differences) = residuals.and_then(|all| all.blocks[y * 4 + x].as_ref()) {
                transform::add(&mut pixels, differences);
            }
            plane.put(at, x * 4, y * 4, &pixels);
            beside.corner = beside.above[3];
            beside.left = [pixels[0][3], pixels[1][3], pixels[2][3], pixels[3][3]];
            above_row[x] = pixels[3];
        }
    }
}

/// Keeps the last line and the last column for the neighbours.
#[inline(always)]
fn leave<const EDGE: usize>(
    plane: &mut Plane<'_, EDGE>,
    at: usize,
    above: &mut [u8; EDGE],
    left: &mut Side<EDGE>,
) {
    left.corner = above[EDGE - 1];
    for (y, pixel) in left.pixels.iter_mut().enumerate() {
        *pixel = plane.line_mut(at, y)[EDGE - 1];
    }
    *above = *plane.line_mut(at, EDGE - 1);
}

impl<const EDGE: usize> Plane<'_, EDGE> {
    /// Line `y` of the macroblock whose first line is `at`.
    #[inline(always)]
    pub(super) fn line_mut(&mut self, at: usize, y: usize) -> &mut [u8; EDGE] {
        &mut self.lines[at + y * self.columns]
    }

    #[inline(always)]
    fn put(&mut self, at: usize, x: usize, y: usize, pixels: &Pixels4) {
        for (line, pixels) in pixels.iter().enumerate() {
            self.line_mut(at, y + line)[x..x + 4].copy_from_slice(pixels);
        }
    }

    /// Adds the residuals of a block to the pixels at `x` and `y`.
    #[inline(always)]
    fn add(&mut self, at: usize, x: usize, y: usize, residuals: &Residuals, index: usize) {
        let Some(differences) = &residuals.blocks[index] else {
            return;
        };
        let mut pixels = [[0; 4]; 4];
        for (line, pixels) in pixels.iter_mut().enumerate() {
            pixels.copy_from_slice(&self.line_mut(at, y + line)[x..x + 4]);
        }
        transform::add(&mut pixels, differences);
        self.put(at, x, y, &pixels);
    }
}
