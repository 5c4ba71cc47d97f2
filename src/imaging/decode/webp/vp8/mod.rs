//! Key frames of VP8 (RFC 6386), which is what lossy WebP pictures are.
//!
//! Macroblock rows go through four steps, each still in the processor's cache from the one before:
//! their modes are read ([`modes`]), their coefficients ([`residuals`]), each macroblock is
//! predicted and corrected ([`predict`], [`transform`]), and then the row is filtered
//! ([`loop_filter`]), of which the prediction of the next one must not see anything: it is given
//! a copy of the last line.

// The loops over bits, pixels and lanes are written in small functions.
#![allow(clippy::inline_always)]

mod bool_decoder;
mod header;
mod loop_filter;
mod modes;
mod predict;
mod residuals;
mod rgb;
mod tables;
mod transform;

use self::header::{CUT_OFF, FrameHeader, Reason, Strength};
use self::loop_filter::{Edges, Plane};
use self::modes::{Luma, Macroblock, Mode, SubblockMode};
use self::predict::Beside;
use self::residuals::{Filled, Neighbors, Residuals, TokenProbabilities};
use crate::avatar::SourceFormat;
use crate::imaging::Error;
use crate::imaging::control::Control;

/// A decoded picture in three planes, of which those of chroma are of half the size in both
/// directions, rounded up. Colours are those of ITU-R BT.601 in limited range. Rows of the planes
/// are whole macroblocks long, and so are their columns.
pub(in crate::imaging) struct Planes {
    pub(in crate::imaging) width: u32,
    pub(in crate::imaging) height: u32,
    pub(in crate::imaging) y: Vec<u8>,
    pub(in crate::imaging) y_stride: usize,
    pub(in crate::imaging) u: Vec<u8>,
    pub(in crate::imaging) v: Vec<u8>,
    pub(in crate::imaging) uv_stride: usize,
}

/// Decodes the payload of a chunk `VP8 `.
///
/// # Errors
///
/// [`Error::Corrupt`] unless every macroblock was decoded from data that is there, and what
/// `control` says, which is asked before every row of macroblocks.
pub(super) fn decode(payload: &[u8], control: &Control) -> Result<Planes, Error> {
    let header = FrameHeader::read(payload).map_err(corrupt)?;
    let mut frame = Frame::new(header);
    for row in 0..frame.rows {
        control.check()?;
        frame.decode_row(row).map_err(corrupt)?;
    }
    Ok(frame.planes)
}

/// What [`decode`] takes for a picture of this size, its result included: an upper bound.
pub(super) fn memory_bytes(width: u32, height: u32) -> u64 {
    let columns = u64::from(width.div_ceil(16));
    let rows = u64::from(height.div_ceil(16));
    let of_column = size_of::<Above>() + size_of::<(Strength, bool)>();
    // Three planes of whole macroblocks, what is known of the row above, and the tables.
    columns * rows * 384 + columns * of_column as u64 + (16 << 10)
}

fn corrupt(reason: Reason) -> Error {
    Error::Corrupt {
        format: SourceFormat::Webp,
        reason,
    }
}

/// A frame that is being decoded.
struct Frame<'a> {
    header: FrameHeader<'a>,
    probabilities: TokenProbabilities,
    strengths: Option<[[Strength; 2]; 4]>,
    planes: Planes,
    /// Of macroblocks.
    rows: usize,
    /// What was learnt of the row above, by column.
    above: Vec<Above>,
    /// How the current row is filtered.
    filtering: Vec<(Strength, bool)>,
    residuals: Residuals,
}

/// What a macroblock leaves for the one below.
#[derive(Clone, Copy)]
struct Above {
    modes: [SubblockMode; 4],
    neighbors: Neighbors,
    /// The last line of each plane, not filtered.
    y: [u8; 16],
    uv: [[u8; 8]; 2],
}

/// The pixels of a macroblock as it is made, with those beside it.
struct Canvas {
    /// From the second row and ninth column on; above them the row above and four pixels of its
    /// next macroblock, before them the column to the left.
    y: [[u8; 32]; 17],
    /// U and V, in the same way.
    uv: [[[u8; 16]; 9]; 2],
}

/// The column of a canvas where the macroblock begins.
const START: usize = 8;

/// What lies above the picture.
const ABOVE: u8 = 127;
/// What lies to the left of the picture.
const LEFT: u8 = 129;

impl<'a> Frame<'a> {
    fn new(header: FrameHeader<'a>) -> Self {
        let columns = header.width.div_ceil(16) as usize;
        let rows = header.height.div_ceil(16) as usize;
        let above = Above {
            modes: [SubblockMode::Dc; 4],
            neighbors: Neighbors::default(),
            y: [ABOVE; 16],
            uv: [[ABOVE; 8]; 2],
        };
        Self {
            probabilities: TokenProbabilities::from(&header.probabilities),
            strengths: header.filter_strengths(),
            planes: Planes {
                width: header.width,
                height: header.height,
                y: vec![0; columns * rows * 256],
                y_stride: columns * 16,
                u: vec![0; columns * rows * 64],
                v: vec![0; columns * rows * 64],
                uv_stride: columns * 8,
            },
            rows,
            above: vec![above; columns],
            filtering: vec![(Strength::default(), false); columns],
            residuals: Residuals::default(),
            header,
        }
    }

    fn decode_row(&mut self, row: usize) -> Result<(), Reason> {
        let mut canvas = Canvas::at_left(row == 0);
        let mut left_modes = [SubblockMode::Dc; 4];
        let mut left_neighbors = Neighbors::default();
        let partition = row & (self.header.partitions.len() - 1);
        let mut tokens = self.header.partitions[partition];
        let mut modes = self.header.modes;
        for column in 0..self.above.len() {
            let above = &mut self.above[column];
            let block =
                Macroblock::read(&mut modes, &self.header, &mut above.modes, &mut left_modes);
            let has_y2 = matches!(block.luma, Luma::Whole(_));
            let is_filled = if block.is_skipped {
                above.neighbors.clear(has_y2);
                left_neighbors.clear(has_y2);
                false
            } else {
                self.residuals.read(
                    &mut tokens,
                    &self.probabilities,
                    &self.header.quantizers[usize::from(block.segment)],
                    has_y2,
                    &mut above.neighbors,
                    &mut left_neighbors,
                )
            };
            if let Some(strengths) = &self.strengths {
                let strength = strengths[usize::from(block.segment)][usize::from(!has_y2)];
                self.filtering[column] = (strength, is_filled || !has_y2);
            }
            self.reconstruct(row, column, &block, is_filled, &mut canvas);
        }
        if modes.is_past_end() || tokens.is_past_end() {
            return Err(CUT_OFF);
        }
        self.header.modes = modes;
        self.header.partitions[partition] = tokens;
        if self.strengths.is_some() {
            self.filter_row(row);
        }
        Ok(())
    }

    fn reconstruct(
        &mut self,
        row: usize,
        column: usize,
        block: &Macroblock,
        is_filled: bool,
        canvas: &mut Canvas,
    ) {
        let beyond = match self.above.get(column + 1) {
            Some(next) => [next.y[0], next.y[1], next.y[2], next.y[3]],
            None => [self.above[column].y[15]; 4],
        };
        let above = &mut self.above[column];
        canvas.put_above(above, beyond);
        let residuals = is_filled.then_some(&self.residuals);
        let has_beside = (row > 0, column > 0);
        canvas.make_luma(&block.luma, residuals, has_beside);
        canvas.make_chroma(block.chroma, residuals, has_beside);
        canvas.leave_below(above);

        let Planes {
            y_stride,
            uv_stride,
            ..
        } = self.planes;
        let at = row * 16 * y_stride + column * 16;
        let lines = self.planes.y[at..].chunks_mut(y_stride);
        for (line, from) in lines.zip(&canvas.y[1..]) {
            line[..16].copy_from_slice(&from[START..START + 16]);
        }
        let at = row * 8 * uv_stride + column * 8;
        for (plane, canvas) in [&mut self.planes.u, &mut self.planes.v]
            .into_iter()
            .zip(&canvas.uv)
        {
            let lines = plane[at..].chunks_mut(uv_stride);
            for (line, from) in lines.zip(&canvas[1..]) {
                line[..8].copy_from_slice(&from[START..START + 8]);
            }
        }
        canvas.step_right();
    }

    fn filter_row(&mut self, row: usize) {
        let Planes {
            y_stride,
            uv_stride,
            ..
        } = self.planes;
        let mut y = Plane {
            pixels: &mut self.planes.y,
            stride: y_stride,
        };
        let mut uv = [&mut self.planes.u, &mut self.planes.v].map(|pixels| Plane {
            pixels,
            stride: uv_stride,
        });
        for (column, &(strength, inner)) in self.filtering.iter().enumerate() {
            if strength.edge_limit == 0 {
                continue;
            }
            let edges = Edges {
                left: column > 0,
                top: row > 0,
                inner,
            };
            let at = row * 16 * y_stride + column * 16;
            if self.header.filter.simple {
                loop_filter::simple_luma(&mut y, at, strength, edges);
            } else {
                loop_filter::normal_luma(&mut y, at, strength, edges);
                let at = row * 8 * uv_stride + column * 8;
                loop_filter::normal_chroma(&mut uv, at, strength, edges);
            }
        }
    }
}

impl Canvas {
    /// With what lies to the left of a row of macroblocks.
    fn at_left(is_first_row: bool) -> Self {
        let mut canvas = Self {
            y: [[LEFT; 32]; 17],
            uv: [[[LEFT; 16]; 9]; 2],
        };
        if is_first_row {
            canvas.y[0] = [ABOVE; 32];
            canvas.uv[0][0] = [ABOVE; 16];
            canvas.uv[1][0] = [ABOVE; 16];
        }
        canvas
    }

    /// Takes what lies above, and the four pixels to the right of that. Subblocks below the first
    /// row have the same to the right of what lies above them (section 12.3).
    fn put_above(&mut self, above: &Above, beyond: [u8; 4]) {
        self.y[0][START..START + 16].copy_from_slice(&above.y);
        for y in [0, 4, 8, 12] {
            self.y[y][START + 16..START + 20].copy_from_slice(&beyond);
        }
        for (canvas, above) in self.uv.iter_mut().zip(&above.uv) {
            canvas[0][START..].copy_from_slice(above);
        }
    }

    fn leave_below(&self, above: &mut Above) {
        above.y.copy_from_slice(&self.y[16][START..START + 16]);
        for (canvas, above) in self.uv.iter().zip(&mut above.uv) {
            above.copy_from_slice(&canvas[8][START..]);
        }
    }

    /// Makes the right column the left one of the next macroblock.
    fn step_right(&mut self) {
        for line in &mut self.y {
            line[START - 1] = line[START + 15];
        }
        for line in self.uv.as_flattened_mut() {
            line[START - 1] = line[START + 7];
        }
    }

    fn make_luma(&mut self, luma: &Luma, residuals: Option<&Residuals>, has_beside: (bool, bool)) {
        match luma {
            Luma::Whole(mode) => {
                let mut above = [0; 16];
                above.copy_from_slice(&self.y[0][START..START + 16]);
                let mut left = [0; 16];
                for (left, line) in left.iter_mut().zip(&self.y[1..]) {
                    *left = line[START - 1];
                }
                let corner = self.y[0][START - 1];
                let pixels = predict::whole(*mode, &above, &left, corner, has_beside);
                for (line, from) in self.y[1..].iter_mut().zip(&pixels) {
                    line[START..START + 16].copy_from_slice(from);
                }
                if let Some(residuals) = residuals {
                    for index in 0..16 {
                        let (x, y) = (START + index % 4 * 4, 1 + index / 4 * 4);
                        add(&mut self.y, x, y, residuals, index);
                    }
                }
            }
            Luma::Subblocks(modes) => {
                for index in 0..16 {
                    let (x, y) = (START + index % 4 * 4, 1 + index / 4 * 4);
                    let beside = self.beside(x, y);
                    let mut pixels = predict::subblock(modes[index / 4][index % 4], &beside);
                    if let Some(residuals) = residuals {
                        residuals.add(index, &mut pixels);
                    }
                    put(&mut self.y, x, y, &pixels);
                }
            }
        }
    }

    fn make_chroma(&mut self, mode: Mode, residuals: Option<&Residuals>, has_beside: (bool, bool)) {
        for (plane, canvas) in self.uv.iter_mut().enumerate() {
            let mut above = [0; 8];
            above.copy_from_slice(&canvas[0][START..]);
            let mut left = [0; 8];
            for (left, line) in left.iter_mut().zip(&canvas[1..]) {
                *left = line[START - 1];
            }
            let pixels = predict::whole(mode, &above, &left, canvas[0][START - 1], has_beside);
            for (line, from) in canvas[1..].iter_mut().zip(&pixels) {
                line[START..].copy_from_slice(from);
            }
            if let Some(residuals) = residuals {
                for index in 0..4 {
                    let (x, y) = (START + index % 2 * 4, 1 + index / 2 * 4);
                    add(canvas, x, y, residuals, 16 + plane * 4 + index);
                }
            }
        }
    }

    fn beside(&self, x: usize, y: usize) -> Beside {
        let mut above = [0; 8];
        above.copy_from_slice(&self.y[y - 1][x..x + 8]);
        let mut left = [0; 4];
        for (left, line) in left.iter_mut().zip(&self.y[y..]) {
            *left = line[x - 1];
        }
        Beside {
            left,
            corner: self.y[y - 1][x - 1],
            above,
        }
    }
}

/// Adds the residuals of a block to the pixels at `x` and `y`.
#[inline(always)]
fn add<const WIDTH: usize>(
    canvas: &mut [[u8; WIDTH]],
    x: usize,
    y: usize,
    residuals: &Residuals,
    index: usize,
) {
    if residuals.filled[index] == Filled::None {
        return;
    }
    let mut pixels = [[0; 4]; 4];
    for (pixels, line) in pixels.iter_mut().zip(&canvas[y..]) {
        pixels.copy_from_slice(&line[x..x + 4]);
    }
    residuals.add(index, &mut pixels);
    put(canvas, x, y, &pixels);
}

#[inline(always)]
fn put<const WIDTH: usize>(
    canvas: &mut [[u8; WIDTH]],
    x: usize,
    y: usize,
    pixels: &transform::Pixels4,
) {
    for (line, pixels) in canvas[y..].iter_mut().zip(pixels) {
        line[x..x + 4].copy_from_slice(pixels);
    }
}

impl Residuals {
    /// Adds what block `index` says to what was predicted for it.
    #[inline(always)]
    fn add(&self, index: usize, pixels: &mut transform::Pixels4) {
        let block = &self.blocks[index];
        match self.filled[index] {
            Filled::None => {}
            Filled::First => transform::add_first(pixels, block[0]),
            Filled::Corner => transform::add_inverse_cosine_of_corner(pixels, block),
            Filled::Any => transform::add_inverse_cosine(pixels, block),
        }
    }
}
