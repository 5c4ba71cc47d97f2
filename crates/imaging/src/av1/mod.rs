//! AV1, the coding inside AVIF.
//!
//! The decoder is `rav1d`, which is dav1d in Rust: quick, and for a good part `unsafe`. A panic in it
//! ends the process. So a caller that allows AVIF runs the whole pipeline in a process that may end
//! at any picture; the service does.
//!
//! The stream's header ([`sequence`]) is read by safe code of this crate, and says what the decoder is
//! asked for. A picture of another shape is refused.

mod decoder;
mod sequence;

pub(super) use decoder::decode;
pub(super) use sequence::Sequence;

/// How many samples of colour there are to those of luma (AV1, 6.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chroma {
    /// None: the picture is grey.
    None,
    /// 4:2:0, half as many across and down.
    Quarter,
    /// 4:2:2, half as many across.
    Half,
    /// 4:4:4
    Full,
}

/// What one decoded picture is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) width: u32,
    pub(super) height: u32,
    /// 8, 10 or 12
    pub(super) bit_depth: u8,
    pub(super) chroma: Chroma,
}

impl Shape {
    /// The width and height of each plane in samples; (0, 0) where there is none.
    pub(super) fn planes(&self) -> [(u32, u32); 3] {
        let (width, height) = (self.width, self.height);
        let chroma = match self.chroma {
            Chroma::None => (0, 0),
            Chroma::Quarter => (width.div_ceil(2), height.div_ceil(2)),
            Chroma::Half => (width.div_ceil(2), height),
            Chroma::Full => (width, height),
        };
        [(width, height), chroma, chroma]
    }

    /// How many samples all planes have together.
    pub(super) fn samples(&self) -> u64 {
        self.planes()
            .iter()
            .map(|&(width, height)| u64::from(width) * u64::from(height))
            .sum()
    }

    /// Bytes for one sample, as the decoder keeps it.
    fn sample_bytes(&self) -> u8 {
        if self.bit_depth > 8 { 2 } else { 1 }
    }

    /// An upper bound on the memory that decoding takes.
    pub(super) fn memory_bytes(&self, stream_bytes: usize) -> u64 {
        // The picture, another one for its film grain or a coarser layer, what is noted of each
        // block and superblock row, and the samples as they are given out, in 16 bits each.
        let picture = self.samples() * u64::from(self.sample_bytes());
        let blocks = u64::from(self.width) * u64::from(self.height);
        DECODER_BYTES + 2 * stream_bytes as u64 + 2 * picture + blocks + self.samples() * 2
    }
}

/// The decoder's tables and contexts.
const DECODER_BYTES: u64 = 24 << 20;

#[cfg(test)]
mod tests;
