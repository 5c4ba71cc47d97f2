//! Processes generated pictures completely.

use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};

use super::*;
use crate::Target;
use crate::raster::Raster;
use crate::{Format, SourceFormat, VariantName};

pub(crate) fn recipe() -> Recipe {
    Recipe {
        limits: Limits {
            formats: SourceFormat::ALL.to_vec(),
            min_edge_px: 10,
            max_edge_px: 4096,
            max_frames: 200,
        },
        variants: [("small", 64), ("full", 200), ("medium", 128)]
            .map(|(name, edge_px)| Target {
                name: VariantName::new(name).unwrap(),
                edge_px,
            })
            .to_vec(),
        formats: vec![Format::Webp, Format::Jpeg, Format::Png],
        webp_quality: 80,
        jpeg_quality: 82,
        background: [255, 255, 255],
        animated: false,
        keep_original: false,
    }
}

pub(super) fn run(
    bytes: &[u8],
    recipe: &Recipe,
    crop: Option<Crop>,
) -> Result<(Processed, Vec<Output>), Error> {
    let mut outputs = Vec::new();
    let processed = process(
        Bytes::copy_from_slice(bytes),
        recipe,
        crop,
        &Control::unlimited(),
        &mut Workspace::new(),
        &mut |output| {
            outputs.push(output);
            ControlFlow::Continue(())
        },
    )?;
    Ok((processed, outputs))
}

/// The PNG rendition of `edge` pixels, decoded.
pub(super) fn png_of(outputs: &[Output], edge: u32) -> Raster {
    let bytes = outputs
        .iter()
        .find_map(|output| match output {
            Output::Rendition(rendition, bytes)
                if rendition.format == Format::Png && rendition.width == edge =>
            {
                Some(bytes)
            }
            _ => None,
        })
        .unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let layout = match info.color_type {
        png::ColorType::Rgba => Layout::Rgba,
        _ => Layout::Rgb,
    };
    Raster::new(info.width, info.height, layout, pixels).unwrap()
}

fn pixel(raster: &Raster, x: u32, y: u32) -> &[u8] {
    let channels = raster.layout.channels();
    let at = (y * raster.width + x) as usize * channels;
    &raster.pixels[at..at + channels]
}

#[track_caller]
pub(super) fn assert_close(found: &[u8], expected: &[u8]) {
    assert!(
        found.len() == expected.len()
            && found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 6),
        "found {found:?}, expected {expected:?}"
    );
}

pub(super) const RED: [u8; 3] = [220, 30, 30];
pub(super) const GREEN: [u8; 3] = [30, 180, 30];
pub(super) const BLUE: [u8; 3] = [30, 30, 220];
pub(super) const YELLOW: [u8; 3] = [220, 220, 30];

/// Quarters: red and green above blue and yellow.
fn quarters(width: usize, height: usize) -> Vec<u8> {
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            pixels.extend(match (x < width / 2, y < height / 2) {
                (true, true) => RED,
                (false, true) => GREEN,
                (true, false) => BLUE,
                (false, false) => YELLOW,
            });
        }
    }
    pixels
}

pub(super) fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    exif
}

pub(super) fn jpeg(width: usize, height: usize, orientation: u8) -> Vec<u8> {
    let exif = exif(orientation);
    Encoder::new(&quarters(width, height), width, height, PixelFormat::Rgb)
        .quality(95)
        .subsampling(Subsampling::S444)
        .exif_data(&exif)
        .comment("Here was Kilroy")
        .encode()
        .unwrap()
}

/// The corners of a picture with quarters, clockwise from the upper left.
fn corners(raster: &Raster) -> [&[u8]; 4] {
    let (near, far) = (raster.width / 4, raster.width * 3 / 4);
    [(near, near), (far, near), (far, far), (near, far)].map(|(x, y)| pixel(raster, x, y))
}

#[test]
fn every_variant_is_emitted_in_every_format_from_the_largest_to_the_smallest() {
    let (processed, outputs) = run(&jpeg(640, 480, 1), &recipe(), None).unwrap();
    let found: Vec<_> = outputs
        .iter()
        .map(|output| match output {
            Output::Rendition(rendition, bytes) => {
                assert_eq!(rendition.bytes, bytes.len() as u64);
                (
                    rendition.variant.to_string(),
                    rendition.format,
                    rendition.width,
                    rendition.height,
                )
            }
            Output::Original(..) => panic!("no original was asked for"),
        })
        .collect();
    let expected: Vec<_> = [("full", 200), ("medium", 128), ("small", 64)]
        .into_iter()
        .flat_map(|(name, edge)| {
            [Format::Webp, Format::Jpeg, Format::Png]
                .map(|format| (name.to_owned(), format, edge, edge))
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(
        (processed.source.width, processed.source.height),
        (640, 480)
    );
    assert!(!processed.placeholder.thumbhash.is_empty());
}

#[test]
fn a_jpeg_is_turned_upright_from_every_orientation() {
    // The corners of the stored quarters in each orientation.
    let shown = [
        [RED, GREEN, YELLOW, BLUE],
        [GREEN, RED, BLUE, YELLOW],
        [YELLOW, BLUE, RED, GREEN],
        [BLUE, YELLOW, GREEN, RED],
        [RED, BLUE, YELLOW, GREEN],
        [BLUE, RED, GREEN, YELLOW],
        [YELLOW, GREEN, RED, BLUE],
        [GREEN, YELLOW, BLUE, RED],
    ];
    for (orientation, expected) in (1..).zip(shown) {
        let (processed, outputs) = run(&jpeg(640, 480, orientation), &recipe(), None).unwrap();
        let size = (processed.source.width, processed.source.height);
        assert_eq!(
            size,
            if orientation < 5 {
                (640, 480)
            } else {
                (480, 640)
            }
        );
        let medium = png_of(&outputs, 128);
        for (found, expected) in corners(&medium).into_iter().zip(expected) {
            assert_close(found, &expected);
        }
    }
}

#[test]
fn a_crop_is_in_pixels_of_the_upright_picture() {
    // Stored 640 × 480, shown 480 × 640 as blue, red above yellow, green.
    let crop = Crop {
        x: 250,
        y: 10,
        width: 220,
        height: 300,
    };
    let (_, outputs) = run(&jpeg(640, 480, 6), &recipe(), Some(crop)).unwrap();
    for found in corners(&png_of(&outputs, 200)) {
        assert_close(found, &RED);
    }
}

#[test]
fn nothing_is_ever_enlarged() {
    let (_, outputs) = run(&jpeg(100, 90, 1), &recipe(), None).unwrap();
    for output in &outputs {
        let Output::Rendition(rendition, _) = output else {
            continue;
        };
        let expected = if rendition.variant.as_str() == "small" {
            64
        } else {
            90
        };
        assert_eq!((rendition.width, rendition.height), (expected, expected));
    }
    assert_eq!(outputs.len(), 9);
}

#[test]
fn no_rendition_contains_metadata_of_the_upload() {
    let recipe = Recipe {
        keep_original: true,
        ..recipe()
    };
    let (_, outputs) = run(&jpeg(640, 480, 6), &recipe, None).unwrap();
    for output in outputs {
        let (Output::Rendition(_, bytes) | Output::Original(_, bytes)) = output;
        for word in [
            &b"Exif"[..],
            b"EXIF",
            b"eXIf",
            b"Kilroy",
            b"ICC",
            b"iCCP",
            b"XMP",
        ] {
            assert!(!bytes.windows(word.len()).any(|window| window == word));
        }
    }
}

#[test]
fn a_truncated_upload_is_corrupt() {
    let whole = jpeg(640, 480, 1);
    for cut in [whole.len() / 2, whole.len() - 100] {
        assert!(
            matches!(
                run(&whole[..cut], &recipe(), None),
                Err(Error::Corrupt {
                    format: SourceFormat::Jpeg,
                    ..
                })
            ),
            "cut at {cut} of {}",
            whole.len()
        );
    }
}

#[test]
fn limits_are_checked_before_anything_is_decoded() {
    let bytes = jpeg(640, 480, 6);
    let with = |min_edge_px, max_edge_px, formats: &[SourceFormat]| {
        let limits = Limits {
            formats: formats.to_vec(),
            min_edge_px,
            max_edge_px,
            max_frames: 1,
        };
        probe(&bytes, &limits)
    };
    let jpeg = [SourceFormat::Jpeg];
    assert!(matches!(
        with(10, 600, &jpeg),
        Err(Error::DimensionsTooLarge {
            width: 480,
            height: 640,
            max_edge_px: 600
        })
    ));
    assert!(matches!(
        with(500, 700, &jpeg),
        Err(Error::DimensionsTooSmall {
            width: 480,
            height: 640,
            min_edge_px: 500
        })
    ));
    let refused = with(10, 700, &[SourceFormat::Png]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a JPEG picture is not accepted; send PNG"
    );
}

#[test]
fn cmyk_is_converted_however_it_is_stored() {
    use libjpeg_turbo_rs::ColorSpace;
    // Yellow and magenta together, without cyan and black: red.
    let inks = [0_u8, 255, 255, 0];
    for space in [ColorSpace::Cmyk, ColorSpace::Ycck] {
        for adobe in [true, false] {
            if space == ColorSpace::Ycck && !adobe {
                continue; // Nothing else says that it is YCCK.
            }
            let pixel = inks.map(|ink| if adobe { 255 - ink } else { ink });
            let bytes = Encoder::new(&pixel.repeat(64 * 64), 64, 64, PixelFormat::Cmyk)
                .quality(95)
                .colorspace(space)
                .write_adobe_marker(adobe)
                .encode()
                .unwrap();
            let (_, outputs) = run(&bytes, &recipe(), None).unwrap();
            assert_close(pixel_of_middle(&png_of(&outputs, 64)), &[255, 0, 0]);
        }
    }
}

fn pixel_of_middle(raster: &Raster) -> &[u8] {
    pixel(raster, raster.width / 2, raster.height / 2)
}

#[test]
fn work_after_the_deadline_is_too_complex() {
    let result = process(
        Bytes::from(jpeg(640, 480, 1)),
        &recipe(),
        None,
        &Control::starting_now(std::time::Duration::ZERO, crate::CancelToken::new()),
        &mut Workspace::new(),
        &mut |_| panic!("there was no time for anything"),
    );
    assert!(matches!(result, Err(Error::TooComplex { .. })));
}

#[test]
fn cancelled_work_ends() {
    let mut given = 0;
    let result = process(
        Bytes::from(jpeg(640, 480, 1)),
        &recipe(),
        None,
        &Control::unlimited(),
        &mut Workspace::new(),
        &mut |_| {
            given += 1;
            ControlFlow::Break(())
        },
    );
    assert_eq!((result, given), (Err(Error::Cancelled), 1));
}

/// Quarters as HEIC, with transformations in the container.
fn heic(width: usize, height: usize, alpha: u8) -> Vec<u8> {
    let data = quarters(width, height)
        .as_chunks::<3>()
        .0
        .iter()
        .flat_map(|&[red, green, blue]| [red, green, blue, alpha].map(u16::from))
        .collect();
    let image = heifer::Image {
        width: width as u32,
        height: height as u32,
        bit_depth: 8,
        has_alpha: alpha < 255,
        data,
    };
    heifer::encode(&image, &heifer::EncodeOptions::default()).unwrap()
}

#[test]
fn a_heic_picture_is_decoded_at_every_scale() {
    let bytes = heic(600, 450, 255);
    let probe = probe(&bytes, &recipe().limits).unwrap();
    assert_eq!(
        (probe.format, probe.width, probe.height),
        (SourceFormat::Heic, 600, 450)
    );
    // 200 px are decoded at half the size, 300 px at full size.
    for edge_px in [200, 300] {
        let mut recipe = recipe();
        recipe.variants[1].edge_px = edge_px;
        let (_, outputs) = run(&bytes, &recipe, None).unwrap();
        let expected = [RED, GREEN, YELLOW, BLUE];
        for (found, expected) in corners(&png_of(&outputs, edge_px))
            .into_iter()
            .zip(expected)
        {
            assert_close(found, &expected);
        }
    }
}

#[test]
fn alpha_of_a_heic_picture_is_kept() {
    let (_, outputs) = run(&heic(300, 300, 100), &recipe(), None).unwrap();
    let found = png_of(&outputs, 128);
    assert_close(pixel(&found, 20, 20), &[RED[0], RED[1], RED[2], 100]);
}

#[test]
fn a_truncated_heic_picture_is_corrupt() {
    let whole = heic(600, 450, 255);
    for cut in [whole.len() - 10, whole.len() / 2, 100] {
        assert!(matches!(
            run(&whole[..cut], &recipe(), None),
            Err(Error::Corrupt {
                format: SourceFormat::Heic,
                ..
            })
        ));
    }
}

#[test]
fn a_gif_of_the_largest_size_is_accepted() {
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, 4096, 4096, &[0, 0, 0, 200, 10, 10]).unwrap();
    let frame = gif::Frame::from_indexed_pixels(4096, 4096, vec![1; 4096 * 4096], None);
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    run(&bytes, &recipe(), None).unwrap();
}

#[test]
fn the_colours_of_transparent_pixels_are_removed() {
    let mut raster = Raster {
        width: 2,
        height: 1,
        layout: Layout::Rgba,
        pixels: vec![1, 2, 3, 0, 4, 5, 6, 7],
    };
    raster.forget_hidden_colors();
    assert_eq!(raster.pixels, [0, 0, 0, 0, 4, 5, 6, 7]);
}
