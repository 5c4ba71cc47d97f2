//! Decodes key frames of VP8 (RFC 6386), the coding of lossy WebP pictures.
//!
//! Each row of macroblocks goes through four steps: reading the prediction modes ([`modes`]),
//! reading the coefficients ([`residuals`]), predicting and correcting pixels ([`reconstruct`]),
//! and filtering ([`loop_filter`]). The row stays in the processor's cache between the steps. The
//! prediction of the next row needs unfiltered pixels, so it uses a copy of the last line.

// The loops over bits, pixels and lanes consist of small functions.
#![allow(clippy::inline_always)]

mod bool_decoder;
mod header;
mod loop_filter;
mod modes;
mod predict;
mod reconstruct;
mod residuals;
mod rgb;
mod tables;
mod transform;

use self::header::{CUT_OFF, FrameHeader, Reason, Strength};
use self::loop_filter::Edges;
use self::modes::{Luma, Macroblock};
use self::reconstruct::{Above, Left, Plane, Position};
use self::residuals::{Residuals, TokenProbabilities};
use crate::Error;
use crate::interrupt::Interrupt;

/// A decoded picture in three planes. Chroma has half the width and height of luma, rounded up.
/// Colours are those of ITU-R BT.601 in limited range. Rows and columns of the planes are padded to
/// whole macroblocks.
pub(crate) struct Planes {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) y: Vec<u8>,
    pub(crate) y_stride: usize,
    pub(crate) u: Vec<u8>,
    pub(crate) v: Vec<u8>,
    pub(crate) uv_stride: usize,
}

/// Decodes the payload of a chunk `VP8 `.
///
/// # Errors
///
/// [`Error::Corrupt`] unless the data holds every macroblock; [`Error::Interrupted`], which is
/// checked before every row of macroblocks.
pub(super) fn decode(payload: &[u8], interrupt: Interrupt<'_>) -> Result<Planes, Error> {
    let header = FrameHeader::read(payload).map_err(Error::Corrupt)?;
    let mut frame = Frame::new(header);
    for row in 0..frame.rows {
        interrupt.check()?;
        frame.decode_row(row).map_err(Error::Corrupt)?;
    }
    Ok(frame.into_planes())
}

/// Upper bound on the memory of [`decode`] for a picture of this size, its result included.
pub(super) fn memory_bytes(width: u32, height: u32) -> u64 {
    let columns = u64::from(width.div_ceil(16));
    let rows = u64::from(height.div_ceil(16));
    let of_column = size_of::<Above>() + size_of::<(Strength, bool)>();
    // Three planes of whole macroblocks, the state of the row above, and the tables.
    columns * rows * 384 + columns * of_column as u64 + (16 << 10)
}

/// A frame that is being decoded.
struct Frame<'a> {
    header: FrameHeader<'a>,
    probabilities: TokenProbabilities,
    strengths: Option<[[Strength; 2]; 4]>,
    /// In macroblocks.
    columns: usize,
    rows: usize,
    y: Vec<[u8; 16]>,
    u: Vec<[u8; 8]>,
    v: Vec<[u8; 8]>,
    /// The state of the row above, by column.
    above: Vec<Above>,
    /// The filter strength of the current row by column, and whether edges inside the macroblock
    /// are filtered too.
    filtering: Vec<(Strength, bool)>,
    residuals: Residuals,
}

impl<'a> Frame<'a> {
    fn new(header: FrameHeader<'a>) -> Self {
        let columns = header.width.div_ceil(16) as usize;
        let rows = header.height.div_ceil(16) as usize;
        Self {
            probabilities: TokenProbabilities::from(&header.probabilities),
            strengths: header.filter_strengths(),
            columns,
            rows,
            y: vec![[0; 16]; columns * rows * 16],
            u: vec![[0; 8]; columns * rows * 8],
            v: vec![[0; 8]; columns * rows * 8],
            above: vec![Above::OUTSIDE; columns],
            filtering: vec![(Strength::default(), false); columns],
            residuals: Residuals::default(),
            header,
        }
    }

    fn into_planes(self) -> Planes {
        Planes {
            width: self.header.width,
            height: self.header.height,
            y: self.y.into_flattened(),
            y_stride: self.columns * 16,
            u: self.u.into_flattened(),
            v: self.v.into_flattened(),
            uv_stride: self.columns * 8,
        }
    }

    fn decode_row(&mut self, row: usize) -> Result<(), Reason> {
        let columns = self.columns;
        let partition = row & (self.header.partitions.len() - 1);
        let mut tokens = self.header.partitions[partition];
        let mut modes = self.header.modes;
        let mut left = Left::outside(row);
        let mut y = Plane {
            lines: &mut self.y,
            columns,
        };
        let mut uv = [&mut self.u, &mut self.v].map(|lines| Plane { lines, columns });
        for column in 0..columns {
            let position = Position { row, column };
            let above = &mut self.above[column];
            let block =
                Macroblock::read(&mut modes, &self.header, &mut above.modes, &mut left.modes);
            let has_y2 = matches!(block.luma, Luma::Whole(_));
            let is_filled = if block.is_skipped {
                above.neighbors.clear(has_y2);
                left.neighbors.clear(has_y2);
                false
            } else {
                self.residuals.read(
                    &mut tokens,
                    &self.probabilities,
                    &self.header.quantizers[usize::from(block.segment)],
                    has_y2,
                    &mut above.neighbors,
                    &mut left.neighbors,
                )
            };
            if let Some(strengths) = &self.strengths {
                let strength = strengths[usize::from(block.segment)][usize::from(!has_y2)];
                self.filtering[column] = (strength, is_filled || !has_y2);
            }
            let residuals = is_filled.then_some(&self.residuals);
            let above = &mut self.above;
            reconstruct::luma(&mut y, position, &block, residuals, above, &mut left);
            reconstruct::chroma(&mut uv, position, block.chroma, residuals, above, &mut left);
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

    fn filter_row(&mut self, row: usize) {
        let columns = self.columns;
        let mut y = Plane {
            lines: &mut self.y,
            columns,
        };
        let mut uv = [&mut self.u, &mut self.v].map(|lines| Plane { lines, columns });
        for (column, &(strength, inner)) in self.filtering.iter().enumerate() {
            if strength.edge_limit == 0 {
                continue;
            }
            let edges = Edges {
                left: column > 0,
                top: row > 0,
                inner,
            };
            let at = row * 16 * columns + column;
            if self.header.filter.simple {
                loop_filter::simple_luma(&mut y, at, strength, edges);
            } else {
                loop_filter::normal_luma(&mut y, at, strength, edges);
                let at = row * 8 * columns + column;
                loop_filter::normal_chroma(&mut uv, at, strength, edges);
            }
        }
    }
}

#[cfg(test)]
mod tests;
