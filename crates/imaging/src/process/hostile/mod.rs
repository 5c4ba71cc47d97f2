//! Hostile pictures.

mod avif;
mod bmp;
mod frames;
mod gif;
mod heif;
mod jpeg;
mod order;
mod png;
mod tiff;
mod webp;

use std::time::{Duration, Instant};

use super::tests::recipe;
use super::*;

/// The shortest of three runs of `work`: the CPU time of this thread if the kernel counts it,
/// because other programs run too.
fn time(work: impl Fn()) -> Duration {
    (0..3)
        .map(|_| {
            let (start, before) = (Instant::now(), ran());
            work();
            match (before, ran()) {
                (Some(before), Some(after)) => after.saturating_sub(before),
                _ => start.elapsed(),
            }
        })
        .min()
        .unwrap()
}

/// The CPU time of this thread, on Linux.
fn ran() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ran = stat.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(ran))
}

/// A damaged picture is refused, or processed within its bounds.
fn assert_bounded(bytes: &[u8]) {
    let recipe = Recipe {
        limits: Limits {
            max_edge_px: 300,
            ..recipe().limits
        },
        formats: vec![crate::Format::Jpeg],
        ..recipe()
    };
    match super::tests::run(bytes, &recipe, None) {
        Ok((processed, _)) => assert!(processed.source.width.max(processed.source.height) <= 300),
        Err(error) => assert!(!matches!(error, Error::Internal { .. }), "{error:?}"),
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/");
    std::fs::read(folder.to_owned() + name).unwrap()
}

#[test]
fn a_small_header_with_a_huge_claim_is_refused_at_once() {
    let webp = b"RIFF\x18\0\0\0WEBPVP8L\x0c\0\0\0\x2f\x7f\xfe\x9f\x0f\0\0\0\0\0\0\0";
    let gif = b"GIF89a\x80\x3e\x80\x3e\0\0\0,\0\0\0\0\x80\x3e\x80\x3e\0\x02\0;";
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x3e\x80\0\0\x3e\x80\x08\x06\0\0\0\0\0\0\0\0\0\0\0IDAT\0\0\0\0";
    let bmp = bitmaps::bmp(
        &bitmaps::bmp_header(40, (16_000, 16_000), 8, 1),
        &[],
        &[0, 1],
    );
    let tags = bitmaps::tags((16_000, 16_000), 1, &[8], 8);
    let tiff = bitmaps::tiff(false, &tags, bitmaps::STRIPS, &[vec![0]]);
    for bytes in [&webp[..], gif, png, &jpeg::scans(16000, 1), &bmp, &tiff] {
        assert_refused_for_16000_px(bytes);
    }
}

/// In under 5 ms of processor time.
fn assert_refused_for_16000_px(bytes: &[u8]) {
    let refused = probe(bytes, &recipe().limits);
    assert!(
        matches!(
            refused,
            Err(Error::DimensionsTooLarge {
                width: 16000,
                height: 16000,
                ..
            })
        ),
        "{refused:?}"
    );
    let taken = time(|| drop(probe(bytes, &recipe().limits)));
    assert!(taken < Duration::from_millis(5), "{taken:?}");
}

#[test]
fn bytes_that_only_resemble_a_picture_are_refused() {
    for (bytes, found) in [
        (&b""[..], "an empty file"),
        (b"%PDF-1.4 and more", "a PDF document"),
        (
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            "an SVG drawing",
        ),
        (b"MZ\x90\0\x03\0\0\0\x04\0\0\0", "an executable program"),
        (
            b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0",
            "a file of type image/bmp",
        ),
    ] {
        match probe(bytes, &recipe().limits) {
            Err(Error::UnsupportedFormat { found: words, .. }) => assert_eq!(words, found),
            other => panic!("{other:?}"),
        }
    }
}
