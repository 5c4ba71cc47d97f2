//! The filter that smooths the edges of blocks (section 15 of RFC 6386).
//!
//! Every function filters sixteen places along an edge at once, with one array for each distance
//! from the edge, so that the compiler can use vector instructions. Vertical edges are transposed
//! first.

use super::header::Strength;
use super::reconstruct::Plane;

/// Sixteen pixels in a row or in a column.
type Lanes = [u8; 16];

/// Which edges of a macroblock are filtered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edges {
    pub(super) left: bool,
    pub(super) top: bool,
    /// The edges between the subblocks.
    pub(super) inner: bool,
}

/// Filters the luma of the macroblock that begins at `at` with the simple filter (section 15.2).
pub(super) fn simple_luma(plane: &mut Plane<'_, 16>, at: usize, strength: Strength, edges: Edges) {
    luma(plane, at, edges, |lanes, is_inner| {
        simple(lanes, strength, is_inner);
    });
}

/// Filters the luma of the macroblock that begins at `at` with the normal filter (section 15.3).
pub(super) fn normal_luma(plane: &mut Plane<'_, 16>, at: usize, strength: Strength, edges: Edges) {
    luma(plane, at, edges, |lanes, is_inner| {
        normal(lanes, strength, is_inner);
    });
}

/// Filters the luma of a macroblock. Calls `filter` for each edge; its second argument says whether
/// the edge is an inner one.
#[inline(always)]
fn luma(
    plane: &mut Plane<'_, 16>,
    at: usize,
    edges: Edges,
    filter: impl Fn(&mut [Lanes; 8], bool),
) {
    // Four rows above the macroblock and its own sixteen.
    let mut rows = [[0; 16]; 20];
    let (above, own) = rows.split_at_mut(4);
    for (y, row) in own.iter_mut().enumerate() {
        *row = *plane.line_mut(at, y);
    }
    if edges.left || edges.inner {
        // Four columns to the left of the macroblock and its own sixteen.
        let mut columns = [[0; 16]; 20];
        for (columns, own) in columns[4..]
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(own.as_chunks().0)
        {
            *columns = turned(own);
        }
        if edges.left {
            let mut left = [[0; 4]; 16];
            for (y, left) in left.iter_mut().enumerate() {
                left.copy_from_slice(&plane.line_mut(at - 1, y)[12..]);
            }
            columns[..4].copy_from_slice(&columns_of(&left));
            filter(beside(&mut columns, 4), false);
            for columns in columns[..4].as_chunks().0 {
                for (y, left) in rows_of(columns).iter().enumerate() {
                    plane.line_mut(at - 1, y)[12..].copy_from_slice(left);
                }
            }
        }
        if edges.inner {
            for position in [8, 12, 16] {
                filter(beside(&mut columns, position), true);
            }
        }
        for (own, columns) in own
            .as_chunks_mut()
            .0
            .iter_mut()
            .zip(columns[4..].as_chunks().0)
        {
            *own = turned(columns);
        }
    }
    let top = if edges.top { 4 } else { 0 };
    let at = at - top * plane.columns;
    if edges.top {
        for (y, row) in above.iter_mut().enumerate() {
            *row = *plane.line_mut(at, y);
        }
        filter(beside(&mut rows, 4), false);
    }
    if edges.inner {
        for position in [8, 12, 16] {
            filter(beside(&mut rows, position), true);
        }
    }
    for (y, row) in rows[4 - top..].iter().enumerate() {
        *plane.line_mut(at, y) = *row;
    }
}

/// Filters U and V of the macroblock that begins at `at`, both at once, with the normal filter.
pub(super) fn normal_chroma(
    planes: &mut [Plane<'_, 8>; 2],
    at: usize,
    strength: Strength,
    edges: Edges,
) {
    // Four columns to the left and eight of the macroblock; U above V.
    let mut rows = [[0; 16]; 16];
    for (rows, plane) in rows
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .zip(planes.iter_mut())
    {
        for (y, row) in rows.iter_mut().enumerate() {
            row[4..12].copy_from_slice(plane.line_mut(at, y));
            if edges.left {
                row[..4].copy_from_slice(&plane.line_mut(at - 1, y)[4..]);
            }
        }
    }
    if edges.left || edges.inner {
        let mut columns = turned(&rows);
        if edges.left {
            normal(beside(&mut columns, 4), strength, false);
        }
        if edges.inner {
            normal(beside(&mut columns, 8), strength, true);
        }
        rows = turned(&columns);
    }
    // Four rows above and eight of the macroblock; U beside V.
    let mut lanes = [[0; 16]; 12];
    let top = if edges.top { 4 } else { 0 };
    for (number, plane) in planes.iter_mut().enumerate() {
        let rows = &rows[number * 8..][..8];
        let half = number * 8..number * 8 + 8;
        if edges.left {
            for (y, row) in rows.iter().enumerate() {
                plane.line_mut(at - 1, y)[4..].copy_from_slice(&row[..4]);
            }
        }
        for (lane, row) in lanes[4..].iter_mut().zip(rows) {
            lane[half.clone()].copy_from_slice(&row[4..12]);
        }
        let above = at - top * plane.columns;
        for (y, lane) in lanes[4 - top..4].iter_mut().enumerate() {
            lane[half.clone()].copy_from_slice(plane.line_mut(above, y));
        }
    }
    if edges.top {
        normal(beside(&mut lanes, 4), strength, false);
    }
    if edges.inner {
        normal(beside(&mut lanes, 8), strength, true);
    }
    for (number, plane) in planes.iter_mut().enumerate() {
        let half = number * 8..number * 8 + 8;
        let at = at - top * plane.columns;
        for (y, lane) in lanes[4 - top..].iter().enumerate() {
            plane.line_mut(at, y).copy_from_slice(&lane[half.clone()]);
        }
    }
}

/// The four lanes before `position` and the four from it on.
#[inline(always)]
fn beside(lanes: &mut [Lanes], position: usize) -> &mut [Lanes; 8] {
    &mut lanes[position - 4..].as_chunks_mut().0[0]
}

/// Transposes sixteen rows.
#[inline(always)]
fn turned(rows: &[Lanes; 16]) -> [Lanes; 16] {
    shuffled(&shuffled(&shuffled(&shuffled(rows))))
}

/// Transposes short rows into columns.
#[inline(always)]
fn columns_of(rows: &[[u8; 4]; 16]) -> [Lanes; 4] {
    let mut lanes = [[0; 16]; 4];
    lanes
        .as_flattened_mut()
        .copy_from_slice(rows.as_flattened());
    shuffled(&shuffled(&shuffled(&shuffled(&lanes))))
}

/// Transposes columns into short rows.
#[inline(always)]
fn rows_of(columns: &[Lanes; 4]) -> [[u8; 4]; 16] {
    let mut rows = [[0; 4]; 16];
    let lanes = shuffled(&shuffled(columns));
    rows.as_flattened_mut()
        .copy_from_slice(lanes.as_flattened());
    rows
}

/// A perfect shuffle: interleaves the first half of all bytes with the second half. With 2ⁿ bytes
/// it rotates the n bits of every byte's index by one, so that several shuffles transpose a matrix.
#[inline(always)]
fn shuffled<const COUNT: usize>(lanes: &[Lanes; COUNT]) -> [Lanes; COUNT] {
    let mut mixed = [[0; 16]; COUNT];
    let (upper, lower) = lanes.split_at(COUNT / 2);
    for ((mixed, upper), lower) in mixed
        .as_chunks_mut::<2>()
        .0
        .iter_mut()
        .zip(upper)
        .zip(lower)
    {
        let pairs = mixed.as_flattened_mut().as_chunks_mut::<2>().0;
        for ((pair, upper), lower) in pairs.iter_mut().zip(upper).zip(lower) {
            *pair = [*upper, *lower];
        }
    }
    mixed
}

/// A pixel as a signed value, as the filters use it.
#[inline(always)]
fn signed(pixel: u8) -> i8 {
    (pixel ^ 0x80).cast_signed()
}

#[inline(always)]
fn unsigned(value: i8) -> u8 {
    value.cast_unsigned() ^ 0x80
}

/// All bits set for true, none for false.
#[inline(always)]
fn mask(condition: bool) -> i8 {
    -i8::from(condition)
}

/// Whether the step across an edge is small enough to be an artefact of coding (section 15.2): 2 ·
/// |p0 - q0| + |p1 - q1| / 2 is at most the limit.
#[inline(always)]
fn is_within([p1, p0, q0, q1]: [u8; 4], limit: u8) -> bool {
    let step = p0.abs_diff(q0);
    step.saturating_add(step)
        .saturating_add(p1.abs_diff(q1) >> 1)
        <= limit
}

/// The correction of the step across an edge, from four signed pixels: `common_adjust` of the RFC.
#[inline(always)]
fn adjustment(outer: i8, p0: i8, q0: i8) -> i8 {
    let step = q0.saturating_sub(p0);
    outer
        .saturating_add(step)
        .saturating_add(step)
        .saturating_add(step)
}

#[inline(never)]
fn simple(lanes: &mut [Lanes; 8], strength: Strength, is_inner: bool) {
    let limit = strength.edge_limit + if is_inner { 0 } else { 4 };
    let [_, _, p1, mut p0, mut q0, q1, _, _] = *lanes;
    for i in 0..16 {
        let filters = is_within([p1[i], p0[i], q0[i], q1[i]], limit);
        let (a1, a0) = (signed(p1[i]), signed(p0[i]));
        let (b0, b1) = (signed(q0[i]), signed(q1[i]));
        let a = adjustment(a1.saturating_sub(b1), a0, b0) & mask(filters);
        q0[i] = unsigned(b0.saturating_sub(a.saturating_add(4) >> 3));
        p0[i] = unsigned(a0.saturating_add(a.saturating_add(3) >> 3));
    }
    lanes[3] = p0;
    lanes[4] = q0;
}

#[inline(never)]
fn normal(lanes: &mut [Lanes; 8], strength: Strength, is_inner: bool) {
    let [p3, mut p2, mut p1, mut p0, mut q0, mut q1, mut q2, q3] = *lanes;
    let limit = strength.edge_limit + if is_inner { 0 } else { 4 };
    let Strength {
        interior_limit,
        hev_threshold,
        ..
    } = strength;
    // The places that are filtered, and the places with a high variance beside the edge.
    let mut filters = [0; 16];
    let mut varies = [0; 16];
    for i in 0..16 {
        let steep = p1[i].abs_diff(p0[i]).max(q1[i].abs_diff(q0[i]));
        let most = p3[i]
            .abs_diff(p2[i])
            .max(p2[i].abs_diff(p1[i]))
            .max(q3[i].abs_diff(q2[i]))
            .max(q2[i].abs_diff(q1[i]))
            .max(steep);
        filters[i] =
            mask(is_within([p1[i], p0[i], q0[i], q1[i]], limit)) & mask(most <= interior_limit);
        varies[i] = mask(steep > hev_threshold);
    }
    if filters == [0; 16] {
        return;
    }
    if is_inner {
        for i in 0..16 {
            let (a1, a0) = (signed(p1[i]), signed(p0[i]));
            let (b0, b1) = (signed(q0[i]), signed(q1[i]));
            let a = adjustment(a1.saturating_sub(b1) & varies[i], a0, b0) & filters[i];
            let near = a.saturating_add(4) >> 3;
            let far = ((near + 1) >> 1) & !varies[i];
            q0[i] = unsigned(b0.saturating_sub(near));
            p0[i] = unsigned(a0.saturating_add(a.saturating_add(3) >> 3));
            q1[i] = unsigned(b1.saturating_sub(far));
            p1[i] = unsigned(a1.saturating_add(far));
        }
    } else {
        let mut wides = [0; 16];
        for i in 0..16 {
            let (a1, a0) = (signed(p1[i]), signed(p0[i]));
            let (b0, b1) = (signed(q0[i]), signed(q1[i]));
            let a = adjustment(a1.saturating_sub(b1), a0, b0) & filters[i];
            let narrow = a & varies[i];
            q0[i] = unsigned(b0.saturating_sub(narrow.saturating_add(4) >> 3));
            p0[i] = unsigned(a0.saturating_add(narrow.saturating_add(3) >> 3));
            wides[i] = a & !varies[i];
        }
        for (p, q, weight) in [
            (&mut p0, &mut q0, 27),
            (&mut p1, &mut q1, 18),
            (&mut p2, &mut q2, 9),
        ] {
            for i in 0..16 {
                let a = ((i16::from(wides[i]) * weight + 63) >> 7) as i8;
                q[i] = unsigned(signed(q[i]).saturating_sub(a));
                p[i] = unsigned(signed(p[i]).saturating_add(a));
            }
        }
    }
    *lanes = [p3, p2, p1, p0, q0, q1, q2, q3];
}
