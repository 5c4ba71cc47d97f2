//! AV1, decoded where it can do no harm.
//!
//! The decoder is `rav1d`, which is dav1d in Rust: quick, and for a good part `unsafe`, and a panic
//! in it ends its process. So it never runs in the process that serves. [`Av1`] starts this program
//! once more for every picture ([`parent`]); what is started goes without every right that decoding
//! does not need, before it sees the first byte of the picture ([`sandbox`]), and answers with as
//! many samples as were asked for ([`child`]). Whatever a picture does to it, the one thing that
//! comes of it is that this picture is refused. From its start to its end such a process costs 2 to
//! 3 ms, most of it of the processor, on two cores of a busy virtual machine, where the decoder itself
//! takes 0.2 ms for the smallest picture (`cargo bench -p cameo-imaging --bench imaging -- --start`
//! measures it).
//!
//! What is asked for is what this process has read for itself in the stream's header
//! ([`sequence`]), so an answer holds nothing to be believed but the samples.

mod child;
mod decoder;
#[cfg(not(fuzzing))]
mod parent;
#[cfg(fuzzing)]
#[path = "here.rs"]
mod parent;
mod sandbox;
mod sequence;

pub use child::serve;
pub use parent::Av1;
pub(super) use parent::Decoder;
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

    /// Bytes for one sample, as the decoder keeps it and as it is sent.
    fn sample_bytes(&self) -> u8 {
        if self.bit_depth > 8 { 2 } else { 1 }
    }

    /// The most that decoding takes in the process that does it: its limit.
    pub(super) fn child_bytes(&self, stream_bytes: usize) -> u64 {
        // The picture, another one for its film grain or a coarser layer, and what is noted of each
        // block and superblock row.
        let picture = self.samples() * u64::from(self.sample_bytes());
        let blocks = u64::from(self.width) * u64::from(self.height);
        CHILD_BYTES + 2 * stream_bytes as u64 + 2 * picture + blocks
    }

    /// The most that decoding takes, in both processes.
    pub(super) fn memory_bytes(&self, stream_bytes: usize) -> u64 {
        // Samples arrive as 16 bits each.
        self.child_bytes(stream_bytes) + self.samples() * 2
    }
}

/// What the process takes before it decodes: its own data, the decoder's tables and contexts.
const CHILD_BYTES: u64 = 24 << 20;

/// What is said to the process, and what it says. Numbers are in the machine's own order: both ends
/// are the same program on the same machine.
mod wire {
    use super::{Chroma, Shape};

    /// The first word of the process, once it has shut itself in.
    pub(super) const READY: [u8; 8] = *b"\0av1 in\n";

    /// The limits that the process is to give itself.
    #[derive(Clone, Copy)]
    pub(super) struct Limits {
        pub(super) memory_bytes: u64,
        pub(super) cpu_seconds: u64,
    }

    impl Limits {
        pub(super) const BYTES: usize = 16;

        pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
            let numbers = [self.memory_bytes, self.cpu_seconds].map(u64::to_ne_bytes);
            let mut bytes = [0; Self::BYTES];
            bytes.copy_from_slice(numbers.as_flattened());
            bytes
        }

        pub(super) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
            let number = |at: usize| {
                let mut number = [0; 8];
                number.copy_from_slice(&bytes[at..at + 8]);
                u64::from_ne_bytes(number)
            };
            Self {
                memory_bytes: number(0),
                cpu_seconds: number(8),
            }
        }
    }

    /// A picture to decode; so many bytes of AV1 follow.
    #[derive(Clone, Copy)]
    pub(super) struct Ask {
        pub(super) stream_bytes: u32,
        pub(super) shape: Shape,
    }

    impl Ask {
        pub(super) const BYTES: usize = 14;

        pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
            let Shape {
                width,
                height,
                bit_depth,
                chroma,
            } = self.shape;
            let mut bytes = [0; Self::BYTES];
            let numbers = [self.stream_bytes, width, height].map(u32::to_ne_bytes);
            bytes[..12].copy_from_slice(numbers.as_flattened());
            bytes[12] = bit_depth;
            bytes[13] = match chroma {
                Chroma::None => 0,
                Chroma::Quarter => 1,
                Chroma::Half => 2,
                Chroma::Full => 3,
            };
            bytes
        }

        pub(super) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
            let number = |at: usize| {
                let mut number = [0; 4];
                number.copy_from_slice(&bytes[at..at + 4]);
                u32::from_ne_bytes(number)
            };
            Self {
                stream_bytes: number(0),
                shape: Shape {
                    width: number(4),
                    height: number(8),
                    bit_depth: bytes[12],
                    chroma: match bytes[13] {
                        0 => Chroma::None,
                        1 => Chroma::Quarter,
                        2 => Chroma::Half,
                        _ => Chroma::Full,
                    },
                },
            }
        }
    }

    /// What came of a picture, in one byte; the samples follow where it was decoded.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Outcome {
        Decoded = 0,
        /// The stream is broken.
        Damaged = 1,
        /// The picture in it is not what its header says.
        OtherShape = 2,
    }
}

#[cfg(test)]
mod tests;
