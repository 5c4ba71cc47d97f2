//! Reads how each macroblock is predicted (sections 10 and 11 of RFC 6386).

use super::bool_decoder::BoolDecoder;
use super::header::FrameHeader;
use super::tables::SUBBLOCK_MODES;

/// The prediction of the luma or the chroma of a whole macroblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Dc,
    TrueMotion,
    Vertical,
    Horizontal,
}

/// The prediction of a luma subblock, in the order of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SubblockMode {
    #[default]
    Dc,
    TrueMotion,
    Vertical,
    Horizontal,
    RightDown,
    VerticalRight,
    LeftDown,
    VerticalLeft,
    HorizontalDown,
    HorizontalUp,
}

/// The prediction of the luma of a macroblock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Luma {
    Whole(Mode),
    /// Each subblock has its own mode; in rows.
    Subblocks([[SubblockMode; 4]; 4]),
}

/// The description of a macroblock in the first partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Macroblock {
    pub(super) segment: u8,
    /// Whether it has no coefficients.
    pub(super) is_skipped: bool,
    pub(super) luma: Luma,
    pub(super) chroma: Mode,
}

impl From<Mode> for SubblockMode {
    /// The subblock mode that neighbours assume for a macroblock predicted as a whole.
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Dc => Self::Dc,
            Mode::TrueMotion => Self::TrueMotion,
            Mode::Vertical => Self::Vertical,
            Mode::Horizontal => Self::Horizontal,
        }
    }
}

impl Macroblock {
    /// Reads the modes of the next macroblock. `above` and `left` are the modes of the neighbouring
    /// subblocks; they are replaced by those of this macroblock.
    pub(super) fn read(
        outer: &mut BoolDecoder<'_>,
        header: &FrameHeader<'_>,
        above: &mut [SubblockMode; 4],
        left: &mut [SubblockMode; 4],
    ) -> Self {
        // A copy that the compiler keeps in registers.
        let mut copy = *outer;
        let bits = &mut copy;
        let segment = header.segments.tree.map_or(0, |tree| {
            let high = u8::from(bits.read(tree[0]));
            2 * high + u8::from(bits.read(tree[1 + usize::from(high)]))
        });
        let is_skipped = header
            .skip_probability
            .is_some_and(|probability| bits.read(probability));
        let luma = if bits.read(145) {
            let mode = luma_mode(bits);
            *above = [mode.into(); 4];
            *left = [mode.into(); 4];
            Luma::Whole(mode)
        } else {
            let mut modes = [[SubblockMode::Dc; 4]; 4];
            for (row, left) in modes.iter_mut().zip(left) {
                for (mode, above) in row.iter_mut().zip(above.iter_mut()) {
                    *mode = subblock_mode(bits, *above, *left);
                    *above = *mode;
                    *left = *mode;
                }
            }
            Luma::Subblocks(modes)
        };
        let chroma = chroma_mode(bits);
        *outer = copy;
        Self {
            segment,
            is_skipped,
            luma,
            chroma,
        }
    }
}

#[inline(always)]
fn luma_mode(bits: &mut BoolDecoder<'_>) -> Mode {
    match bits.read(156) {
        false if !bits.read(163) => Mode::Dc,
        false => Mode::Vertical,
        true if !bits.read(128) => Mode::Horizontal,
        true => Mode::TrueMotion,
    }
}

#[inline(always)]
fn chroma_mode(bits: &mut BoolDecoder<'_>) -> Mode {
    if !bits.read(142) {
        Mode::Dc
    } else if !bits.read(114) {
        Mode::Vertical
    } else if !bits.read(183) {
        Mode::Horizontal
    } else {
        Mode::TrueMotion
    }
}

/// Reads the mode of a subblock (section 11.2).
#[inline(always)]
fn subblock_mode(
    bits: &mut BoolDecoder<'_>,
    above: SubblockMode,
    left: SubblockMode,
) -> SubblockMode {
    use SubblockMode as M;
    let p = &SUBBLOCK_MODES[above as usize][left as usize];
    if !bits.read(p[0]) {
        M::Dc
    } else if !bits.read(p[1]) {
        M::TrueMotion
    } else if !bits.read(p[2]) {
        M::Vertical
    } else if !bits.read(p[3]) {
        if !bits.read(p[4]) {
            M::Horizontal
        } else if !bits.read(p[5]) {
            M::RightDown
        } else {
            M::VerticalRight
        }
    } else if !bits.read(p[6]) {
        M::LeftDown
    } else if !bits.read(p[7]) {
        M::VerticalLeft
    } else if !bits.read(p[8]) {
        M::HorizontalDown
    } else {
        M::HorizontalUp
    }
}
