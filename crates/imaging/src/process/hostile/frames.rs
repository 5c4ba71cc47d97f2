//! Animations with more frames than are allowed.

use super::super::tests::{recipe, run};
use super::super::*;
use super::fixture;

const FRAMES: u32 = 380;

fn gif() -> Vec<u8> {
    let mut bytes = b"GIF89a\x40\0\x40\0\x80\0\0\x80\x80\x80\0\0\0".to_vec();
    for _ in 0..FRAMES {
        bytes.extend(b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0");
    }
    bytes.push(b';');
    bytes
}

/// The fixture with its last frame repeated many times.
fn webp() -> Vec<u8> {
    let mut bytes = fixture("moving.webp");
    let frames = memchr::memmem::find_iter(&bytes, b"ANMF").count();
    let last = memchr::memmem::rfind(&bytes, b"ANMF").unwrap();
    let frame = bytes[last..].to_vec();
    for _ in frames..FRAMES as usize {
        bytes.extend(&frame);
    }
    let length = (bytes.len() as u32 - 8).to_le_bytes();
    bytes[4..8].copy_from_slice(&length);
    bytes
}

/// The fixture, changed to state many more frames.
fn png() -> Vec<u8> {
    let mut bytes = fixture("moving.png");
    let at = memchr::memmem::find(&bytes, b"acTL").unwrap();
    bytes[at + 4..at + 8].copy_from_slice(&FRAMES.to_be_bytes());
    let sum = crc(&bytes[at..at + 12]);
    bytes[at + 12..at + 16].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The checksum of a chunk (PNG, annex D).
fn crc(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1));
    !bytes
        .iter()
        .fold(!0, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), step))
}

#[test]
fn the_number_of_frames_does_not_matter_if_only_the_first_is_used() {
    for (name, bytes) in [("GIF", gif()), ("WebP", webp()), ("PNG", png())] {
        let found = probe_for(&bytes, &recipe(), None).unwrap();
        assert_eq!(found.frames, FRAMES, "{name}");
        let (processed, outputs) = run(&bytes, &recipe(), None).unwrap();
        assert!(processed.source.animated, "{name}");
        assert!(!outputs.is_empty());
        for output in outputs {
            assert!(matches!(output, Output::Rendition(rendition, _) if !rendition.animated));
        }
        let kept = Recipe {
            animated: true,
            ..recipe()
        };
        let too_many = Error::TooManyFrames {
            frames: FRAMES,
            max_frames: 200,
        };
        assert_eq!(
            probe_for(&bytes, &kept, None),
            Err(too_many.clone()),
            "{name}"
        );
        assert_eq!(
            run(&bytes, &kept, None).map(|_| ()),
            Err(too_many),
            "{name}"
        );
    }
}
