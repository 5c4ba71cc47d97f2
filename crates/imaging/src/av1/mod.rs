//! AV1, the coding inside AVIF.
//!
//! The decoder is `rav1d`, a port of dav1d to Rust: it is fast, and much of it is `unsafe`. A panic in
//! it ends the process. So a caller that allows AVIF must run the whole pipeline in a separate process
//! per picture, as the service does.
//!
//! Safe code of this crate reads the stream's header ([`sequence`]) first. It gives the shape of the
//! picture. If the decoder finds another shape, the picture is refused.

mod decoder;
mod sequence;

pub(super) use decoder::decode;
pub(super) use sequence::Sequence;

/// The number of chroma samples relative to luma samples (AV1, 6.4.2).
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

/// The size and the sample format of a decoded picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) width: u32,
    pub(super) height: u32,
    /// 8, 10 or 12
    pub(super) bit_depth: u8,
    pub(super) chroma: Chroma,
}

impl Shape {
    /// The width and height of each plane in samples; (0, 0) for a missing plane.
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

    /// The number of samples of all planes together.
    pub(super) fn samples(&self) -> u64 {
        self.planes()
            .iter()
            .map(|&(width, height)| u64::from(width) * u64::from(height))
            .sum()
    }

    /// Bytes per sample in the decoder.
    fn sample_bytes(&self) -> u8 {
        if self.bit_depth > 8 { 2 } else { 1 }
    }

    /// Upper bound on the peak memory of decoding.
    pub(super) fn memory_bytes(&self, stream_bytes: usize) -> u64 {
        // The picture, a second one for film grain or a coarser layer, the data of each block and
        // superblock row, and the returned samples of 16 bits each.
        let picture = self.samples() * u64::from(self.sample_bytes());
        let blocks = u64::from(self.width) * u64::from(self.height);
        DECODER_BYTES + 2 * stream_bytes as u64 + 2 * picture + blocks + self.samples() * 2
    }
}

/// The decoder's tables and contexts.
const DECODER_BYTES: u64 = 24 << 20;

#[cfg(test)]
mod tests;
