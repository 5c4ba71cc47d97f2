//! What a macroblock is predicted to be (section 12 of RFC 6386).

// Pixels are named as in the figures of the RFC.
#![allow(clippy::many_single_char_names)]

use super::modes::{Mode, SubblockMode};
use super::transform::Pixels4;

/// What lies beside a luma subblock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside {
    /// From the top.
    pub(super) left: [u8; 4],
    pub(super) corner: u8,
    /// From the left; the latter four lie above the next subblock.
    pub(super) above: [u8; 8],
}

/// Predicts `EDGE` rows of as many pixels from those above and to the left (sections 12.2 and
/// 12.3). Outside the picture the left ones are 129 and the upper ones 127, except for
/// [`Mode::Dc`], which leaves them out: there they are `None`.
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
        Mode::TrueMotion => left.map(|left| {
            let difference = i16::from(left) - i16::from(corner);
            above.map(|above| (i16::from(above) + difference).clamp(0, 255) as u8)
        }),
        Mode::Vertical => [*above; EDGE],
        Mode::Horizontal => left.map(|left| [left; EDGE]),
    }
}

/// Predicts a luma subblock (section 12.3).
pub(super) fn subblock(mode: SubblockMode, beside: &Beside) -> Pixels4 {
    let [i, j, k, l] = beside.left;
    let x = beside.corner;
    let [a, b, c, d, e, f, g, h] = beside.above;
    // What lies beside it, from the bottom left to the top right, smoothed.
    let edge = [l, k, j, i, x, a, b, c, d, e, f, g, h];
    let smooth = |at: usize| mean3(edge[at.max(1) - 1], edge[at], edge[(at + 1).min(12)]);
    let between = |at: usize| mean2(edge[at], edge[at + 1]);
    match mode {
        SubblockMode::Dc => {
            let sum = [a, b, c, d, i, j, k, l].map(u16::from).iter().sum::<u16>();
            [[((sum + 4) >> 3) as u8; 4]; 4]
        }
        SubblockMode::TrueMotion => beside.left.map(|left| {
            let difference = i16::from(left) - i16::from(x);
            [a, b, c, d].map(|above| (i16::from(above) + difference).clamp(0, 255) as u8)
        }),
        SubblockMode::Vertical => [[5, 6, 7, 8].map(smooth); 4],
        SubblockMode::Horizontal => [3, 2, 1, 0].map(|at| [smooth(at); 4]),
        SubblockMode::LeftDown => diagonal([0, 1, 2, 3], [6, 7, 8, 9, 10, 11, 12].map(smooth)),
        SubblockMode::RightDown => diagonal([3, 2, 1, 0], [1, 2, 3, 4, 5, 6, 7].map(smooth)),
        SubblockMode::VerticalRight => {
            let [even, odd] = [[4, 5, 6, 7].map(between), [4, 5, 6, 7].map(smooth)];
            let [third, fourth] = [smooth(3), smooth(2)];
            [
                even,
                odd,
                [third, even[0], even[1], even[2]],
                [fourth, odd[0], odd[1], odd[2]],
            ]
        }
        SubblockMode::VerticalLeft => {
            let [even, odd] = [[5, 6, 7, 8].map(between), [6, 7, 8, 9].map(smooth)];
            [
                even,
                odd,
                [even[1], even[2], even[3], smooth(10)],
                [odd[1], odd[2], odd[3], smooth(11)],
            ]
        }
        SubblockMode::HorizontalDown => {
            let [m0, m1, m2, m3] = [0, 1, 2, 3].map(between);
            let [s1, s2, s3, s4, s5, s6] = [1, 2, 3, 4, 5, 6].map(smooth);
            diagonal([6, 4, 2, 0], [m0, s1, m1, s2, m2, s3, m3, s4, s5, s6])
        }
        SubblockMode::HorizontalUp => {
            let [m0, m1, m2] = [0, 1, 2].map(between);
            let [s0, s1, s2] = [0, 1, 2].map(smooth);
            diagonal([0, 2, 4, 6], [m2, s2, m1, s1, m0, s0, l, l, l, l])
        }
    }
}

/// Rows of four pixels of `line`, which begin where `starts` says.
fn diagonal<const LENGTH: usize>(starts: [usize; 4], line: [u8; LENGTH]) -> Pixels4 {
    starts.map(|at| [line[at], line[at + 1], line[at + 2], line[at + 3]])
}

fn mean2(a: u8, b: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + 1) >> 1) as u8
}

fn mean3(a: u8, b: u8, c: u8) -> u8 {
    ((u16::from(a) + 2 * u16::from(b) + u16::from(c) + 2) >> 2) as u8
}
