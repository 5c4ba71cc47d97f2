//! Processes the pictures in `tests/fixtures` completely.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::tests::{png_of, recipe, run};
use super::*;
use crate::raster::Raster;
use crate::{Format, SourceFormat};

/// Every picture by its file name.
pub(super) fn fixtures() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let other = |end: &std::ffi::OsStr| end == "py" || end == "md";
            path.is_file() && !path.extension().is_some_and(other)
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

fn fixture(name: &str) -> Vec<u8> {
    fixtures().remove(name).unwrap()
}

/// The mean difference of the colours of two pictures, over pixels that are opaque in both.
fn difference(one: &Raster, other: &Raster) -> f64 {
    assert_eq!((one.width, one.height), (other.width, other.height));
    let pixels = |raster: &Raster| -> Vec<[u8; 4]> {
        raster
            .pixels
            .chunks_exact(raster.layout.channels())
            .map(|pixel| [pixel[0], pixel[1], pixel[2], *pixel.get(3).unwrap_or(&255)])
            .collect()
    };
    let (mut sum, mut count) = (0_u32, 0_u32);
    for (a, b) in pixels(one).into_iter().zip(pixels(other)) {
        if a[3] == 255 && b[3] == 255 {
            count += 3;
            sum += (0..3)
                .map(|channel| u32::from(a[channel].abs_diff(b[channel])))
                .sum::<u32>();
        }
    }
    f64::from(sum) / f64::from(count.max(1))
}

#[test]
fn every_fixture_gives_upright_renditions_without_its_metadata() {
    for (name, bytes) in fixtures() {
        let recipe = Recipe {
            animated: true,
            keep_original: true,
            ..recipe()
        };
        let (processed, outputs) =
            run(&bytes, &recipe, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        let source = processed.source;
        assert!(source.height > source.width, "{name}: {source:?}");
        assert_eq!(source.animated, name.starts_with("moving"), "{name}");
        check_original(&name, &outputs, &processed.source);
        for output in outputs {
            let (Output::Rendition(_, bytes) | Output::Original(_, bytes)) = output;
            for part in parts_of(&bytes) {
                assert!(NEEDED.contains(&part.as_str()), "{name} leaves {part}");
            }
        }
    }
}

/// Checks that the original shows the whole upright picture: the square in its middle is the largest
/// rendition.
fn check_original(name: &str, outputs: &[Output], source: &Source) {
    let Some(Output::Original(original, bytes)) = outputs.first() else {
        panic!("{name}: the original is not the first output")
    };
    let size = (original.width, original.height);
    assert_eq!(size, (source.width, source.height), "{name}");
    let picture = ::image::load_from_memory(bytes).unwrap();
    assert_eq!((picture.width(), picture.height()), size, "{name}");
    let edge = source.width;
    let top = (source.height - edge) / 2;
    let square = picture.crop_imm(0, top, edge, edge);
    let rendition = png_of(outputs, edge.min(200));
    let filter = ::image::imageops::FilterType::Lanczos3;
    let shrunk = square.resize_exact(rendition.width, rendition.width, filter);
    let shrunk = shrunk.to_rgba8().into_raw();
    let (width, height) = (rendition.width, rendition.height);
    let found = Raster::new(width, height, crate::raster::Layout::Rgba, shrunk).unwrap();
    let difference = difference(&found, &rendition);
    assert!(difference < 4.0, "{name}: {difference}");
}

/// The parts that a rendition may contain. None of them can hold text.
const NEEDED: [&str; 16] = [
    "E0", "DB", "C0", "C4", "DA", "DD", "IHDR", "IDAT", "IEND", "VP8 ", "VP8L", "VP8X", "ALPH",
    "ANIM", "ANMF", "end",
];

/// The markers of a JPEG file or the chunks of a PNG or WebP file, and the bytes after its end.
fn parts_of(bytes: &[u8]) -> Vec<String> {
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut parts = Vec::new();
    let mut at;
    if bytes.starts_with(b"\xff\xd8") {
        at = 2;
        while bytes[at..at + 2] != *b"\xff\xd9" {
            if bytes[at] == 0xff && !matches!(bytes[at + 1], 0 | 0xd0..=0xd7) {
                parts.push(format!("{:02X}", bytes[at + 1]));
                at += 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
            } else {
                at += 1;
            }
        }
        at += 2;
    } else if bytes.starts_with(b"RIFF") {
        at = 12;
        while at < bytes.len() {
            parts.push(name(&bytes[at..at + 4]));
            let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
            at += 8 + length + (length & 1);
        }
    } else {
        at = 8;
        while at < bytes.len() {
            parts.push(name(&bytes[at + 4..at + 8]));
            let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            at += 12 + length;
        }
    }
    parts.push(
        if at == bytes.len() {
            "end"
        } else {
            "trailing bytes"
        }
        .to_owned(),
    );
    parts
}

#[test]
fn every_fixture_shows_the_same_picture() {
    let medium = |name: &str| png_of(&run(&fixture(name), &recipe(), None).unwrap().1, 64);
    let expected = medium("baseline.jpg");
    for (name, most) in [
        ("phone.jpg", 2.0),
        ("progressive.jpg", 0.1),
        ("samples-422.jpg", 1.5),
        ("samples-444.jpg", 2.0),
        ("restarts.jpg", 0.1),
        ("trailing.jpg", 0.1),
        ("alpha.png", 2.5),
        ("palette.png", 8.0),
        ("lying.png", 6.0),
        ("sixteen.png", 2.5),
        ("sixteen-interlaced.png", 2.5),
        ("lossy.webp", 3.0),
        ("lossless.webp", 3.0),
        ("alpha.webp", 3.0),
        ("plain.heic", 2.5),
        ("alpha.heic", 2.5),
        ("phone.heic", 2.5),
        ("ten-bit.heic", 2.5),
        ("plain.avif", 2.5),
        ("alpha.avif", 2.5),
        ("phone.avif", 2.5),
        ("mirrored.avif", 2.5),
        ("identity.heic", 2.5),
        ("identity.avif", 2.5),
        ("film.avif", 2.5),
        ("ten-bit.avif", 2.5),
        ("twelve-bit.avif", 2.5),
        ("lossless.avif", 2.5),
        ("premultiplied.avif", 2.5),
        ("tiles.avif", 2.5),
        ("grain.avif", 3.5),
        ("plain.bmp", 2.5),
        ("palette.bmp", 8.0),
        ("phone.tiff", 2.5),
        ("alpha.tiff", 3.0),
        ("pages.tiff", 8.0),
        ("jpeg.tiff", 3.0),
        ("jpeg-rgb.tiff", 3.0),
    ] {
        let found = difference(&medium(name), &expected);
        println!("{name} {found:.2}");
        assert!(found <= most, "{name} differs by {found}");
    }
    // The colours without conversion and the picture without rotation.
    for (name, least) in [
        ("display-p3.jpg", 2.0),
        ("adobe-rgb.jpg", 2.0),
        ("gray.jpg", 8.0),
        ("gray.avif", 8.0),
    ] {
        let found = difference(&medium(name), &expected);
        assert!(found >= least, "{name} differs by {found} only");
    }
}

#[test]
fn a_profile_is_applied_in_every_format() {
    let medium = |name: &str| png_of(&run(&fixture(name), &recipe(), None).unwrap().1, 64);
    let expected = medium("display-p3.jpg");
    for name in [
        "display-p3.webp",
        "display-p3.heic",
        "display-p3.avif",
        "coded-p3.avif",
        "display-p3.tiff",
    ] {
        let found = difference(&medium(name), &expected);
        assert!(found < 4.0, "{name} differs by {found}");
    }
    let inks = medium("inks-profile.jpg");
    let found = difference(&medium("inks-profile.tiff"), &inks);
    assert!(found < 4.0, "inks differ by {found}");
    // Without the profile.
    let found = difference(&medium("inks.jpg"), &inks);
    assert!(found > 6.0, "inks differ by {found} only");
}

#[test]
fn an_animation_has_animated_renditions_with_its_timing() {
    for (name, frames, plays, first_ms, second_ms) in [
        ("moving.gif", 5, None, 70, 100),
        ("moving.png", 6, Some(3), 100, 200),
        ("moving.webp", 6, Some(3), 100, 200),
    ] {
        let recipe = Recipe {
            animated: true,
            ..recipe()
        };
        let (_, outputs) = run(&fixture(name), &recipe, None).unwrap();
        let mut animated = 0;
        for output in &outputs {
            let Output::Rendition(rendition, bytes) = output else {
                panic!("no original was asked for")
            };
            if !rendition.animated {
                continue;
            }
            animated += 1;
            let mut decoder =
                image_webp::WebPDecoder::new(std::io::Cursor::new(&bytes[..])).unwrap();
            assert_eq!(decoder.dimensions(), (rendition.width, rendition.height));
            assert_eq!(decoder.num_frames(), frames, "{name}");
            let found = match decoder.loop_count() {
                image_webp::LoopCount::Forever => None,
                image_webp::LoopCount::Times(times) => Some(times.get()),
            };
            assert_eq!(found, plays, "{name}");
            let mut buffer = vec![0; decoder.output_buffer_size().unwrap()];
            assert_eq!(decoder.read_frame(&mut buffer).unwrap(), first_ms, "{name}");
            assert_eq!(
                decoder.read_frame(&mut buffer).unwrap(),
                second_ms,
                "{name}"
            );
        }
        assert_eq!(animated, 3, "{name}");
    }
}

#[test]
fn a_truncated_picture_is_refused() {
    for (name, bytes) in fixtures() {
        if name.starts_with("moving") || name == "trailing.jpg" {
            continue;
        }
        for cut in [bytes.len() / 3, bytes.len() / 2, bytes.len() * 9 / 10] {
            let result = run(&bytes[..cut], &recipe(), None);
            assert!(
                matches!(result, Err(Error::Corrupt { .. })),
                "{name} cut at {cut} of {}: {:?}",
                bytes.len(),
                result.map(|(processed, _)| processed)
            );
        }
    }
}

#[test]
fn a_truncated_first_frame_is_refused() {
    for name in ["moving.gif", "moving.png", "moving.webp"] {
        let bytes = fixture(name);
        let cut = bytes.len() / 12;
        let result = run(&bytes[..cut], &recipe(), None);
        assert!(
            matches!(result, Err(Error::Corrupt { .. })),
            "{name}: {result:?}"
        );
    }
}

#[test]
fn an_executor_does_not_change_the_outputs() {
    use std::sync::{Arc, Mutex, mpsc};

    let alone = run(&fixture("phone.jpg"), &recipe(), None).unwrap();
    let pool = crate::Pool::new(2).unwrap();
    for _ in 0..5 {
        let (done, result) = mpsc::channel();
        let outputs = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&outputs);
        let job = crate::Job {
            bytes: fixture("phone.jpg").into(),
            recipe: Arc::new(recipe()),
            crop: None,
            deadline: std::time::Duration::from_mins(1),
            cancel: crate::CancelToken::new(),
            on_output: Box::new(move |output| {
                collected.lock().unwrap().push(output);
                ControlFlow::Continue(())
            }),
            on_done: Box::new(move |result| done.send(result).unwrap()),
        };
        pool.submit(job).unwrap();
        assert_eq!(result.recv().unwrap().as_ref(), Ok(&alone.0));
        let outputs = std::mem::take(&mut *outputs.lock().unwrap());
        assert_eq!(outputs.len(), alone.1.len());
        assert!(outputs.iter().all(|output| alone.1.contains(output)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_picture_is_refused_or_processed_within_bounds(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let all: Vec<_> = fixtures().into_values().collect();
        let mut bytes = which.get(&all).clone();
        for (place, value) in damages {
            *place.get_mut(&mut bytes) = value;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        let recipe = Recipe {
            limits: Limits { max_edge_px: 500, ..recipe().limits },
            formats: vec![Format::Webp],
            animated: true,
            ..recipe()
        };
        match run(&bytes, &recipe, None) {
            Ok((processed, outputs)) => {
                prop_assert!(SourceFormat::ALL.contains(&processed.source.format));
                for output in &outputs {
                    let Output::Rendition(rendition, _) = output else { continue };
                    let asked = recipe.variants.iter().find(|t| t.name == rendition.variant).unwrap();
                    prop_assert!(rendition.width <= asked.edge_px);
                    prop_assert_eq!(rendition.width, rendition.height);
                }
                prop_assert_eq!(run(&bytes, &recipe, None), Ok((processed, outputs)));
            }
            Err(error) => prop_assert!(!matches!(error, Error::Internal { .. }), "{error:?}"),
        }
    }
}
