//! The frame header (sections 9 and 19.2 of RFC 6386).

use super::bool_decoder::BoolDecoder;
use super::tables::{
    AC_QUANTIZERS, COEFFICIENT_PROBABILITIES, COEFFICIENT_UPDATES, DC_QUANTIZERS, Probabilities,
};

/// Why a frame is refused, in words that are safe to show.
pub(super) type Reason = &'static str;

pub(super) const CUT_OFF: Reason = "it ends before its last row";
const DAMAGED: Reason = "its header is damaged";

/// The header of a key frame. `modes` reads the rest of the first partition: the prediction modes
/// of the macroblocks.
pub(super) struct FrameHeader<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) segments: Segments,
    pub(super) filter: Filter,
    /// By segment.
    pub(super) quantizers: [Quantizers; 4],
    pub(super) probabilities: Probabilities,
    /// The probability that a macroblock has coefficients; `None` if macroblocks do not say so.
    pub(super) skip_probability: Option<u8>,
    pub(super) modes: BoolDecoder<'a>,
    /// One, two, four or eight; rows of macroblocks use them in turn.
    pub(super) partitions: Vec<BoolDecoder<'a>>,
}

/// The segments that macroblocks belong to, and their parameters (section 9.3).
#[derive(Default)]
pub(super) struct Segments {
    pub(super) enabled: bool,
    /// The probabilities of the tree that codes the segment of each macroblock.
    pub(super) tree: Option<[u8; 3]>,
    /// Whether the numbers below are added to those of the frame; otherwise they replace them.
    relative: bool,
    quantizer: [i32; 4],
    filter_level: [i32; 4],
}

/// The loop filter (sections 9.3, 9.6 and 15).
pub(super) struct Filter {
    pub(super) simple: bool,
    /// 0 to 63; 0 for none.
    level: i32,
    sharpness: i32,
    deltas: Option<FilterDeltas>,
}

/// The changes to the filter level that apply to key frames.
#[derive(Clone, Copy, Default)]
struct FilterDeltas {
    intra: i32,
    subblocks: i32,
}

/// The factors of coefficients: of the first coefficient of a block, and of the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantizers {
    pub(super) y: [i32; 2],
    pub(super) y2: [i32; 2],
    pub(super) uv: [i32; 2],
}

/// The strength of the filter at the edges of a macroblock (section 15.2).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strength {
    /// 0 if nothing is filtered. Edges between macroblocks add 4.
    pub(super) edge_limit: u8,
    pub(super) interior_limit: u8,
    pub(super) hev_threshold: u8,
}

impl<'a> FrameHeader<'a> {
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, Reason> {
        let (tag, rest) = payload.split_first_chunk::<3>().ok_or(CUT_OFF)?;
        let tag = u32::from_le_bytes([tag[0], tag[1], tag[2], 0]);
        let (is_key_frame, version, is_shown) = (tag & 1 == 0, tag >> 1 & 7, tag >> 4 & 1 == 1);
        if !is_key_frame || version > 3 || !is_shown {
            return Err(DAMAGED);
        }
        let (start, rest) = rest.split_first_chunk::<7>().ok_or(CUT_OFF)?;
        let &[0x9d, 0x01, 0x2a, w0, w1, h0, h1] = start else {
            return Err(DAMAGED);
        };
        let edge = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
        let (width, height) = (edge(w0, w1), edge(h0, h1));
        if width == 0 || height == 0 {
            return Err(DAMAGED);
        }
        let (first, rest) = rest.split_at_checked((tag >> 5) as usize).ok_or(CUT_OFF)?;

        let mut bits = BoolDecoder::new(first);
        // The colour space and the clamping type: neither changes the result here.
        bits.literal(2);
        let segments = Segments::read(&mut bits);
        let filter = Filter::read(&mut bits);
        let partitions = partitions(bits.literal(2), rest)?;
        let quantizers = quantizers(&mut bits, &segments);
        // Whether the probabilities apply to later frames; there are none.
        bits.flag();
        let probabilities = probabilities(&mut bits);
        let skip_probability = bits.flag().then(|| bits.literal(8) as u8);
        if bits.is_past_end() {
            return Err(CUT_OFF);
        }
        Ok(Self {
            width,
            height,
            segments,
            filter,
            quantizers,
            probabilities,
            skip_probability,
            modes: bits,
            partitions,
        })
    }

    /// The strengths of the filter by segment, for macroblocks predicted as a whole and for those
    /// predicted by subblocks. `None` if the frame is not filtered (section 9.6).
    pub(super) fn filter_strengths(&self) -> Option<[[Strength; 2]; 4]> {
        if self.filter.level == 0 {
            return None;
        }
        let of_segment = |segment: usize| {
            let base = match (self.segments.enabled, self.segments.relative) {
                (false, _) => self.filter.level,
                (true, false) => self.segments.filter_level[segment],
                (true, true) => self.filter.level + self.segments.filter_level[segment],
            };
            let deltas = self.filter.deltas.unwrap_or_default();
            let whole = base + deltas.intra;
            [whole, whole + deltas.subblocks].map(|level| self.filter.strength(level))
        };
        Some([0, 1, 2, 3].map(of_segment))
    }
}

impl Segments {
    fn read(bits: &mut BoolDecoder<'_>) -> Self {
        let mut segments = Self {
            enabled: bits.flag(),
            ..Self::default()
        };
        if !segments.enabled {
            return segments;
        }
        let updates_map = bits.flag();
        if bits.flag() {
            segments.relative = !bits.flag();
            segments.quantizer = [(); 4].map(|()| bits.optional_signed(7).unwrap_or(0));
            segments.filter_level = [(); 4].map(|()| bits.optional_signed(6).unwrap_or(0));
        }
        if updates_map {
            let mut probability = || {
                if bits.flag() {
                    bits.literal(8) as u8
                } else {
                    255
                }
            };
            segments.tree = Some([(); 3].map(|()| probability()));
        }
        segments
    }
}

impl Filter {
    fn read(bits: &mut BoolDecoder<'_>) -> Self {
        let simple = bits.flag();
        let level = bits.literal(6).cast_signed();
        let sharpness = bits.literal(3).cast_signed();
        let deltas = bits.flag().then(|| {
            let mut deltas = FilterDeltas::default();
            if bits.flag() {
                // The first of each four applies to key frames.
                let [intra, ..] = [(); 4].map(|()| bits.optional_signed(6));
                let [subblocks, ..] = [(); 4].map(|()| bits.optional_signed(6));
                deltas.intra = intra.unwrap_or(0);
                deltas.subblocks = subblocks.unwrap_or(0);
            }
            deltas
        });
        Self {
            simple,
            level,
            sharpness,
            deltas,
        }
    }

    fn strength(&self, level: i32) -> Strength {
        let level = level.clamp(0, 63);
        if level == 0 {
            return Strength::default();
        }
        let interior = match self.sharpness {
            0 => level,
            sharpness => (level >> if sharpness > 4 { 2 } else { 1 }).min(9 - sharpness),
        };
        let interior = interior.max(1);
        Strength {
            edge_limit: (2 * level + interior) as u8,
            interior_limit: interior as u8,
            hev_threshold: u8::from(level >= 15) + u8::from(level >= 40),
        }
    }
}

/// Reads the partitions of coefficients: three bytes for the size of each but the last, then their
/// data (section 9.5).
fn partitions(log2_count: u32, rest: &[u8]) -> Result<Vec<BoolDecoder<'_>>, Reason> {
    let count = 1 << log2_count;
    let (sizes, mut rest) = rest.split_at_checked(3 * (count - 1)).ok_or(CUT_OFF)?;
    let mut partitions = Vec::with_capacity(count);
    for size in sizes.as_chunks::<3>().0 {
        let size = u32::from_le_bytes([size[0], size[1], size[2], 0]) as usize;
        let (partition, others) = rest.split_at(size.min(rest.len()));
        partitions.push(BoolDecoder::new(partition));
        rest = others;
    }
    partitions.push(BoolDecoder::new(rest));
    Ok(partitions)
}

/// Reads the factors of coefficients (sections 9.6 and 14.1).
fn quantizers(bits: &mut BoolDecoder<'_>, segments: &Segments) -> [Quantizers; 4] {
    let base = bits.literal(7).cast_signed();
    let deltas: [i32; 5] = [(); 5].map(|()| bits.optional_signed(4).unwrap_or(0));
    [0, 1, 2, 3].map(|segment: usize| {
        let index = match (segments.enabled, segments.relative) {
            (false, _) => base,
            (true, false) => segments.quantizer[segment],
            (true, true) => base + segments.quantizer[segment],
        };
        let dc = |delta: i32, most: i32| {
            i32::from(DC_QUANTIZERS[(index + delta).clamp(0, most) as usize])
        };
        let ac = |delta: i32| i32::from(AC_QUANTIZERS[(index + delta).clamp(0, 127) as usize]);
        Quantizers {
            y: [dc(deltas[0], 127), ac(0)],
            y2: [dc(deltas[1], 127) * 2, (ac(deltas[2]) * 155 / 100).max(8)],
            uv: [dc(deltas[3], 117), ac(deltas[4])],
        }
    })
}

/// Reads the probabilities of coefficients that the frame changes (section 13.4).
fn probabilities(bits: &mut BoolDecoder<'_>) -> Probabilities {
    let mut probabilities = COEFFICIENT_PROBABILITIES;
    let all = probabilities.as_flattened_mut().as_flattened_mut();
    let updates = COEFFICIENT_UPDATES.as_flattened().as_flattened();
    for (probability, &kept) in all
        .as_flattened_mut()
        .iter_mut()
        .zip(updates.as_flattened())
    {
        if bits.read(kept) {
            *probability = bits.literal(8) as u8;
        }
    }
    probabilities
}
