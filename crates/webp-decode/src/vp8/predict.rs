//! Predicts the pixels of a macroblock (section 12 of RFC 6386).

// The names of pixels are those of the figures of the RFC.
#![allow(clippy::many_single_char_names)]

use super::modes::{Mode, SubblockMode};
use super::transform::Pixels4;

/// The pixels beside a luma subblock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    /// From the top.
    pub(super) left: [u8; 4],
    pub(super) corner: u8,
    /// From the left.
    pub(super) above: [u8; 4],
    pub(super) above_right: [u8; 4],
}

/// Predicts `EDGE` rows of `EDGE` pixels from those above and to the left (sections 12.2 and 12.3).
/// Outside the picture, pixels to the left are 129 and pixels above are 127. [`Mode::Dc`] ignores
/// pixels outside the picture.
#[inline(always)]
pub(super) fn whole<const EDGE: usize>(
    mode: Mode,
    above: &[u8; EDGE],
    left: &[u8; EDGE],
    corner: u8,
    (has_above, has_left): (bool, bool),
) -> [[u8; EDGE]; EDGE] {
    match mode {
        Mode::Dc => {
            let sum = |pixels: &[u8; EDGE]| pixels.iter().map(|&p| u32::from(p)).sum::<u32>();
            let edge = EDGE as u32;
            let mean = match (has_above, has_left) {
                (true, true) => (sum(above) + sum(left) + edge) / (2 * edge),
                (true, false) => (sum(above) + edge / 2) / edge,
                (false, true) => (sum(left) + edge / 2) / edge,
                (false, false) => 128,
            };
            [[mean as u8; EDGE]; EDGE]
        }
        Mode::TrueMotion => true_motion(above, left, corner),
        Mode::Vertical => [*above; EDGE],
        Mode::Horizontal => {
            let mut rows = [[0; EDGE]; EDGE];
            for (row, left) in rows.iter_mut().zip(left) {
                *row = [*left; EDGE];
            }
            rows
        }
    }
}

/// Predicts a luma subblock (section 12.3).
#[inline(always)]
pub(super) fn subblock(mode: SubblockMode, beside: &Beside) -> Pixels4 {
    let [i, j, k, l] = beside.left;
    let x = beside.corner;
    let [a, b, c, d] = beside.above;
    let [e, f, g, h] = beside.above_right;
    // The pixels beside it, from the bottom left to the top right; `s` smooths them, `m` takes
    // means of neighbours.
    let edge = [l, k, j, i, x, a, b, c, d, e, f, g, h];
    let s = |at: usize| mean3(edge[at.max(1) - 1], edge[at], edge[(at + 1).min(12)]);
    let m = |at: usize| mean2(edge[at], edge[at + 1]);
    match mode {
        SubblockMode::Dc => {
            let all = [a, b, c, d, i, j, k, l];
            let sum = all.iter().map(|&pixel| u16::from(pixel)).sum::<u16>();
            [[((sum + 4) >> 3) as u8; 4]; 4]
        }
        SubblockMode::TrueMotion => true_motion(&beside.above, &beside.left, x),
        SubblockMode::Vertical => [[s(5), s(6), s(7), s(8)]; 4],
        SubblockMode::Horizontal => [[s(3); 4], [s(2); 4], [s(1); 4], [s(0); 4]],
        SubblockMode::LeftDown => {
            let line = [s(6), s(7), s(8), s(9), s(10), s(11), s(12)];
            diagonal([0, 1, 2, 3], line)
        }
        SubblockMode::RightDown => {
            let line = [s(1), s(2), s(3), s(4), s(5), s(6), s(7)];
            diagonal([3, 2, 1, 0], line)
        }
        SubblockMode::VerticalRight => [
            [m(4), m(5), m(6), m(7)],
            [s(4), s(5), s(6), s(7)],
            [s(3), m(4), m(5), m(6)],
            [s(2), s(4), s(5), s(6)],
        ],
        SubblockMode::VerticalLeft => [
            [m(5), m(6), m(7), m(8)],
            [s(6), s(7), s(8), s(9)],
            [m(6), m(7), m(8), s(10)],
            [s(7), s(8), s(9), s(11)],
        ],
        SubblockMode::HorizontalDown => {
            let line = [m(0), s(1), m(1), s(2), m(2), s(3), m(3), s(4), s(5), s(6)];
            diagonal([6, 4, 2, 0], line)
        }
        SubblockMode::HorizontalUp => {
            let line = [m(2), s(2), m(1), s(1), m(0), s(0), l, l, l, l];
            diagonal([0, 2, 4, 6], line)
        }
    }
}

/// Adds the differences along the left edge to the pixels along the upper one.
#[inline(always)]
fn true_motion<const EDGE: usize>(
    above: &[u8; EDGE],
    left: &[u8; EDGE],
    corner: u8,
) -> [[u8; EDGE]; EDGE] {
    let mut rows = [*above; EDGE];
    for (row, left) in rows.iter_mut().zip(left) {
        let difference = i16::from(*left) - i16::from(corner);
        for pixel in row {
            *pixel = (i16::from(*pixel) + difference).clamp(0, 255) as u8;
        }
    }
    rows
}

/// Four rows of four pixels of `line` that begin at `starts`.
#[inline(always)]
fn diagonal<const LENGTH: usize>(starts: [usize; 4], line: [u8; LENGTH]) -> Pixels4 {
    let row = |at: usize| [line[at], line[at + 1], line[at + 2], line[at + 3]];
    [
        row(starts[0]),
        row(starts[1]),
        row(starts[2]),
        row(starts[3]),
    ]
}

fn mean2(a: u8, b: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + 1) >> 1) as u8
}

fn mean3(a: u8, b: u8, c: u8) -> u8 {
    ((u16::from(a) + 2 * u16::from(b) + u16::from(c) + 2) >> 2) as u8
}
