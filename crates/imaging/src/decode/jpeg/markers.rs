//! Reads the markers of a JPEG file without decoding anything.

use super::super::{CONTRADICTION, MAX_PROFILE_BYTES, Size};
use crate::orientation::Orientation;

/// The coding of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Sequential, Huffman-coded.
    Baseline,
    Progressive,
    Arithmetic,
    Lossless,
    Hierarchical,
}

/// The contents of the markers.
#[derive(Clone, Debug)]
pub(super) struct Markers {
    pub(super) coding: Coding,
    /// Bits per sample.
    pub(super) precision: u8,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) components: u8,
    /// The sampling factors of the components, across and down (T.81, A.1.1).
    factors: Vec<(u8, u8)>,
    /// The samples of all components together, padded to whole blocks. With subsampled chroma they
    /// are fewer than pixels times channels.
    pub(super) samples: u64,
    /// The number of passes over the picture, counted up to its end.
    pub(super) scans: u32,
    pub(super) orientation: Orientation,
    /// Adobe's colour transform, if its marker is present.
    adobe_transform: Option<u8>,
    /// The chunks of the ICC profile; no more is kept than a profile needs.
    pub(super) profile_bytes: u64,
    /// Upper bound on the memory in which a decoder may keep segments that are not part of the
    /// picture.
    pub(super) kept_bytes: u64,
}

/// The overhead of a kept segment, beside its bytes.
const KEPT_SEGMENT_BYTES: u64 = 160;

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
/// `DNL`: the number of lines, stated after they are coded.
const DNL: u8 = 0xdc;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP2: u8 = 0xe2;
const APP14: u8 = 0xee;
const APP15: u8 = 0xef;
const COM: u8 = 0xfe;
const PROFILE_LABEL: &[u8] = b"ICC_PROFILE\0";

impl Markers {
    /// Reads the markers of one picture. Bytes behind its end are ignored.
    ///
    /// # Errors
    ///
    /// A reason that is safe to show.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut frame = None;
        let mut lines = None;
        let mut scans = 0_u32;
        let mut orientation = None;
        let mut adobe_transform = None;
        let mut profile_bytes = 0;
        let mut kept_bytes = 0;
        for (marker, payload) in Segments::of(bytes) {
            if matches!(marker, APP0..=APP15 | COM) {
                kept_bytes += payload.len() as u64 + KEPT_SEGMENT_BYTES;
            }
            match marker {
                marker if is_frame(marker) => {
                    let first = frame.replace((marker, payload)).is_none();
                    first.then_some(()).ok_or(CONTRADICTION)?;
                }
                DNL => lines = payload.first_chunk(),
                SOS => scans = scans.saturating_add(1),
                APP1 if orientation.is_none() && payload.starts_with(b"Exif\0\0") => {
                    orientation = Some(Orientation::from_exif_data(payload));
                }
                APP2 if payload.starts_with(PROFILE_LABEL) => profile_bytes += payload.len() as u64,
                APP14 if payload.starts_with(b"Adobe") => {
                    adobe_transform = payload.get(11).copied();
                }
                _ => {}
            }
        }
        let (marker, frame) = frame.ok_or("it has no frame header")?;
        let &[precision, h1, h0, w1, w0, components, ..] = frame else {
            return Err("its frame header is cut off");
        };
        let width = u32::from(u16::from_be_bytes([w1, w0]));
        let height = u32::from(u16::from_be_bytes([h1, h0]));
        if width == 0 || height == 0 {
            return Err("its header gives no size");
        }
        if lines.is_some_and(|lines| *lines != [h1, h0]) {
            return Err(CONTRADICTION);
        }
        let damaged = "its frame header is damaged";
        let factors = factors(frame.get(6..).unwrap_or_default(), components).ok_or(damaged)?;
        let samples = samples(width, height, &factors);
        Ok(Self {
            coding: match marker {
                0xc0 | 0xc1 => Coding::Baseline,
                0xc2 => Coding::Progressive,
                0xc3 => Coding::Lossless,
                0xc9..=0xcb => Coding::Arithmetic,
                _ => Coding::Hierarchical,
            },
            precision,
            width,
            height,
            components,
            factors,
            samples,
            scans,
            orientation: orientation.unwrap_or_default(),
            adobe_transform,
            profile_bytes: profile_bytes.min(MAX_PROFILE_BYTES as u64),
            kept_bytes,
        })
    }

    /// The largest sampling factors of all components, across and down.
    pub(super) fn max_factors(&self) -> (u8, u8) {
        max_factors(&self.factors)
    }

    /// The sampling factors of the components, across and down.
    pub(super) fn factors(&self) -> &[(u8, u8)] {
        &self.factors
    }

    /// Whether the sampling is one that the decoder converts to pixels: the first component has the
    /// most samples, and all others have a whole fraction of them. Of four components, the second
    /// and third share a fraction, and the fourth has as many samples as the first.
    pub(super) fn sampling_is_usual(&self) -> bool {
        let most = self.max_factors();
        let divides =
            |factor: &(u8, u8)| most.0.is_multiple_of(factor.0) && most.1.is_multiple_of(factor.1);
        match self.factors.as_slice() {
            [_] => true,
            [first, second, third] => *first == most && divides(second) && divides(third),
            [first, second, third, fourth] => {
                *first == most && fourth == first && second == third && divides(second)
            }
            _ => false,
        }
    }

    /// Whether the second and the third component have the same sampling.
    pub(super) fn chroma_is_sampled_alike(&self) -> bool {
        matches!(self.factors.as_slice(), [_, second, third] if second == third)
    }

    /// Whether inks are stored inverted. In practice only Adobe's programs write four inks; they
    /// invert them and mark the file.
    pub(super) const fn inks_are_inverted(&self) -> bool {
        self.adobe_transform.is_some()
    }

    /// Joins the chunks of the embedded ICC profile. `None` if there is none, if it is incomplete,
    /// or if it is larger than a profile needs.
    pub(super) fn icc_profile(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.profile_bytes == 0 {
            return None;
        }
        let mut chunks: Vec<(u8, &[u8])> = Vec::new();
        let mut expected = None;
        for (marker, payload) in Segments::of(bytes).take_while(|(marker, _)| *marker != SOS) {
            if marker != APP2 {
                continue;
            }
            if let Some([number, count, data @ ..]) = payload.strip_prefix(PROFILE_LABEL) {
                expected.get_or_insert(usize::from(*count));
                chunks.push((*number, data));
            }
        }
        chunks.sort_by_key(|(number, _)| *number);
        chunks.dedup_by_key(|(number, _)| *number);
        let size: usize = chunks.iter().map(|(_, data)| data.len()).sum();
        if expected != Some(chunks.len()) || size > MAX_PROFILE_BYTES {
            return None;
        }
        Some(chunks.iter().flat_map(|(_, data)| *data).copied().collect())
    }
}

/// Reads the size in the first frame header, and the orientation in any marker before the first
/// scan.
pub(in crate::decode) fn claimed_size(bytes: &[u8]) -> Option<Size> {
    let before_scans = || Segments::of(bytes).take_while(|(marker, _)| *marker != SOS);
    let (_, frame) = before_scans().find(|(marker, _)| is_frame(*marker))?;
    let &[h1, h0, w1, w0] = frame.get(1..5)? else {
        return None;
    };
    let exif = before_scans()
        .find(|(marker, payload)| *marker == APP1 && payload.starts_with(b"Exif\0\0"));
    Some(Size {
        width: u16::from_be_bytes([w1, w0]).into(),
        height: u16::from_be_bytes([h1, h0]).into(),
        orientation: exif.map_or(Orientation::UPRIGHT, |(_, payload)| {
            Orientation::from_exif_data(payload)
        }),
    })
}

const fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

/// Reads the sampling factors of the components, three bytes each.
fn factors(bytes: &[u8], components: u8) -> Option<Vec<(u8, u8)>> {
    let factors: Vec<(u8, u8)> = bytes
        .chunks_exact(3)
        .take(components.into())
        .map(|component| (component[1] >> 4, component[1] & 15))
        .collect();
    let real = |factor: u8| (1..=4).contains(&factor);
    let all = !factors.is_empty() && factors.len() == usize::from(components);
    let real = factors
        .iter()
        .all(|factor| real(factor.0) && real(factor.1));
    (all && real).then_some(factors)
}

fn max_factors(factors: &[(u8, u8)]) -> (u8, u8) {
    let across = factors.iter().map(|factor| factor.0).max();
    let down = factors.iter().map(|factor| factor.1).max();
    (across.unwrap_or(1), down.unwrap_or(1))
}

/// Counts the samples, given the sampling factors of the components.
fn samples(width: u32, height: u32, factors: &[(u8, u8)]) -> u64 {
    let (across, down) = max_factors(factors);
    let units = |edge: u32, factor: u8| u64::from(edge).div_ceil(8 * u64::from(factor));
    let blocks: u64 = factors
        .iter()
        .map(|factor| u64::from(factor.0) * u64::from(factor.1))
        .sum();
    units(width, across) * units(height, down) * blocks * 64
}

/// Iterates over the marker segments of one picture and skips entropy-coded data.
struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Segments<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // Before the first scan this finds the next byte at once; after a scan it skips the
            // coded data.
            let at = memchr::memchr(0xff, self.rest)?;
            self.rest = &self.rest[at..];
            let &marker = self.rest.get(1)?;
            match marker {
                // A fill byte; the marker follows.
                0xff => self.rest = &self.rest[1..],
                // A stuffed 0xff, a restart marker, or a marker without data.
                0x00 | 0x01 | 0xd0..=0xd7 | SOI => self.rest = &self.rest[2..],
                EOI => {
                    self.rest = &[];
                    return None;
                }
                _ => {
                    let length =
                        usize::from(u16::from_be_bytes([*self.rest.get(2)?, *self.rest.get(3)?]));
                    let payload = self.rest.get(4..2 + length)?;
                    self.rest = &self.rest[2 + length..];
                    return Some((marker, payload));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: &[u8] = b"\xff\xc2\0\x0b\x08\0\x20\0\x10\x01\x01\x11\0";
    const SCAN: &[u8] = b"\xff\xda\0\x08\x01\x01\0\0\0\0\x12\xff\0\x34\xff\xd0\x56";

    #[test]
    fn scans_are_counted_through_stuffing_and_restarts() {
        let bytes = [b"\xff\xd8", FRAME, SCAN, SCAN, SCAN, b"\xff\xd9", SCAN].concat();
        let markers = Markers::read(&bytes).unwrap();
        assert_eq!((markers.width, markers.height, markers.scans), (16, 32, 3));
        assert_eq!(markers.coding, Coding::Progressive);
    }

    #[test]
    fn subsampled_chroma_has_fewer_samples() {
        let chroma = |luma: u8| [1, luma, 0, 2, 0x11, 0, 3, 0x11, 0];
        let count = |width, height, bytes: &[u8]| {
            factors(bytes, 3).map(|factors| samples(width, height, &factors))
        };
        assert_eq!(count(64, 32, &chroma(0x11)), Some(64 * 32 * 3));
        assert_eq!(count(64, 32, &chroma(0x22)), Some(64 * 32 * 3 / 2));
        assert_eq!(count(63, 17, &chroma(0x22)), Some(64 * 32 * 3 / 2));
        assert_eq!(count(64, 32, &chroma(0x01)), None);
        assert_eq!(count(64, 32, &chroma(0x15)), None);
        assert_eq!(count(64, 32, &chroma(0x11)[..8]), None);
    }

    #[test]
    fn a_size_is_claimed_only_by_a_frame_header_and_needs_no_picture() {
        assert!(Markers::read(b"\xff\xd8\xff\xd9").is_err());
        assert_eq!(
            Markers::read(&[b"\xff\xd8", FRAME].concat()).unwrap().scans,
            0
        );
        assert!(Markers::read(&[b"\xff\xd8", &FRAME[..7]].concat()).is_err());
    }

    #[test]
    fn a_picture_of_two_sizes_is_refused() {
        let second = b"\xff\xc0\0\x0b\x08\x40\0\x40\0\x01\x01\x11\0";
        let lines = |count: u8| [0xff, 0xdc, 0, 4, 0, count];
        for parts in [
            &[FRAME, second, SCAN][..],
            &[FRAME, SCAN, second, SCAN],
            &[FRAME, FRAME, SCAN],
            &[FRAME, SCAN, &lines(16)],
        ] {
            let bytes = [&[&b"\xff\xd8"[..]], parts].concat().concat();
            assert_eq!(Markers::read(&bytes).unwrap_err(), CONTRADICTION);
        }
        let bytes = [b"\xff\xd8", FRAME, SCAN, &lines(32)].concat();
        assert_eq!(Markers::read(&bytes).unwrap().height, 32);
        // Markers behind the end are ignored.
        let bytes = [b"\xff\xd8", FRAME, SCAN, b"\xff\xd9", second].concat();
        assert_eq!(Markers::read(&bytes).unwrap().height, 32);
    }

    #[test]
    fn the_chunks_of_a_profile_are_joined_in_order() {
        let piece = |number: u8, data: &[u8]| {
            let mut segment = vec![0xff, APP2];
            let length = (2 + PROFILE_LABEL.len() + 2 + data.len()) as u16;
            segment.extend_from_slice(&length.to_be_bytes());
            segment.extend_from_slice(PROFILE_LABEL);
            segment.extend_from_slice(&[number, 2]);
            segment.extend_from_slice(data);
            segment
        };
        let (first, second) = (piece(1, b"one"), piece(2, b"two"));
        let bytes = [b"\xff\xd8", &second[..], &first, FRAME, SCAN].concat();
        let markers = Markers::read(&bytes).unwrap();
        assert_eq!(markers.icc_profile(&bytes).unwrap(), b"onetwo");
        let bytes = [b"\xff\xd8", &second[..], FRAME, SCAN].concat();
        let markers = Markers::read(&bytes).unwrap();
        assert_eq!(markers.icc_profile(&bytes), None);
    }
}
