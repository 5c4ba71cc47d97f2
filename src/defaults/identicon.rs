//! The identicon: a pattern of [`ACROSS`] × [`ACROSS`] cells that is its own mirror image.

use super::colors::Tones;
use super::drawing::Drawing;
use super::path::{EDGE, Path, Point, Step};
use crate::avatar::SubjectHash;

/// The number of cells in a row.
const ACROSS: usize = 5;

/// The cells that determine the pattern: those left of the middle, and the middle.
const FREE: usize = ACROSS * ACROSS.div_ceil(2);

/// The side of a cell.
const CELL: i16 = 152;

/// The space around the pattern.
const MARGIN: i16 = (EDGE - CELL * ACROSS as u8 as i16) / 2;

/// The radius of outer corners.
const RADIUS: i16 = 60;

/// The distance from a corner to the control points of its curve.
const HANDLE: i16 = 27;

/// The cells that are filled, in rows from the top.
type Cells = [[bool; ACROSS]; ACROSS];

/// Draws the pattern in a strong colour on a pale ground.
pub(super) fn draw(hash: &SubjectHash, colors: Tones) -> Drawing {
    let cells = cells(hash);
    let mut path = Path::default();
    let top = MARGIN + shift(&cells);
    let places = (0..ACROSS).flat_map(|row| (0..ACROSS).map(move |column| (row, column)));
    for (row, column) in places.filter(|(row, column)| cells[*row][*column]) {
        cell(&mut path, &cells, row, column, top);
    }
    Drawing {
        ground: colors.pale,
        figure: colors.strong,
        path,
    }
}

/// Chooses the cells from the hash. Patterns that are nearly empty or nearly full are hard to tell
/// apart, so it uses the first piece of the hash with a medium number of cells.
fn cells(hash: &SubjectHash) -> Cells {
    // The first byte chooses the colour.
    let pieces = hash.as_bytes()[1..].windows(2);
    let bits = pieces
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]) >> 1)
        .find(|bits| (6..=10).contains(&bits.count_ones()))
        .unwrap_or(0b010_1101_0111_0101);
    let mut cells = Cells::default();
    for index in (0..FREE).filter(|index| bits >> index & 1 == 1) {
        let (row, column) = (index % ACROSS, index / ACROSS);
        cells[row][column] = true;
        cells[row][ACROSS - 1 - column] = true;
    }
    cells
}

/// The distance by which the pattern moves down, so that empty rows above and below it do not put it
/// out of the middle.
fn shift(cells: &Cells) -> i16 {
    let is_empty = |row: &&[bool; ACROSS]| !row.contains(&true);
    let above = cells.iter().take_while(is_empty).count();
    let below = cells.iter().rev().take_while(is_empty).count();
    (length(below) - length(above)) / 2
}

/// The length of some cells beside each other, at most [`ACROSS`].
fn length(cells: usize) -> i16 {
    CELL * i16::from(cells as u8)
}

/// Draws a cell of a pattern that begins at `pattern_top`. A corner is round unless one of the cells
/// beside it there is filled.
fn cell(path: &mut Path, cells: &Cells, row: usize, column: usize, pattern_top: i16) {
    let filled = |down: isize, right: isize| {
        let (row, column) = (
            row.checked_add_signed(down),
            column.checked_add_signed(right),
        );
        let line = row.and_then(|row| cells.get(row));
        line.zip(column).and_then(|(line, column)| line.get(column)) == Some(&true)
    };
    let left = MARGIN + length(column);
    let top = pattern_top + length(row);
    // Each corner, clockwise from the upper left one: its place, and the directions in which the
    // outline arrives at it and leaves it.
    let corners: [(Point, Point, Point); 4] = [
        ((left, top), (0, -1), (1, 0)),
        ((left + CELL, top), (1, 0), (0, 1)),
        ((left + CELL, top + CELL), (0, 1), (-1, 0)),
        ((left, top + CELL), (-1, 0), (0, -1)),
    ];
    for (index, (corner, arriving, leaving)) in corners.into_iter().enumerate() {
        // The neighbours at a corner lie ahead of the arriving direction and against the leaving
        // one.
        let ahead = filled(arriving.1.into(), arriving.0.into());
        let beside = filled((-leaving.1).into(), (-leaving.0).into());
        let go = |to: Point| {
            if index == 0 {
                Step::Move(to)
            } else {
                Step::Line(to)
            }
        };
        if ahead || beside {
            path.push(go(corner));
            continue;
        }
        let away = |direction: Point, distance: i16| {
            (
                corner.0 + direction.0 * distance,
                corner.1 + direction.1 * distance,
            )
        };
        path.push(go(away(arriving, -RADIUS)));
        path.push(Step::Cubic(
            away(arriving, -HANDLE),
            away(leaving, HANDLE),
            away(leaving, RADIUS),
        ));
    }
    path.push(Step::Close);
}
