//! Crops, compared with the same part of a full decode by another library.
//!
//! The pictures are noise of several sizes, so that no two parts look alike. A crop is right if it
//! is close to the result of the other library, and closer to it than to the same part moved by one
//! output pixel in any direction.

mod bmp;
mod fixtures;
mod gif_and_webp;
mod heif;
mod jpeg;
mod png;
mod tiff;

use ::image::imageops::{self, FilterType};
use ::image::{DynamicImage, Rgba32FImage};

use super::tests::{recipe, run};
use super::*;
use crate::Target;
use crate::VariantName;

/// An upload, and the picture that it shows.
struct Case {
    name: String,
    bytes: Vec<u8>,
    /// The whole upright picture, as the other library decodes it.
    expected: DynamicImage,
    /// The largest mean difference (of 255) of a right crop: the effect of lossy coding and of
    /// another chroma filter.
    tolerance: f32,
    /// The format of the result. A JPEG subsamples chroma, which changes pictures of few colours
    /// too much for a comparison.
    formats: &'static [Format],
    /// Whether the alpha of the result is compared.
    any_alpha: bool,
}

/// PNG uses pixels, and JPEG uses planes if the decoder gives them: two paths through the program.
const BOTH: &[Format] = &[Format::Png, Format::Jpeg];
const ONLY_PNG: &[Format] = &[Format::Png];

/// Crops a picture `count` times, at random and at its edges.
fn check(case: &Case, count: usize, random: &mut fastrand::Rng) -> Vec<String> {
    let (width, height) = (case.expected.width(), case.expected.height());
    let premultiplied = premultiplied(&case.expected);
    let shorter = width.min(height);
    let mut wrong = Vec::new();
    for index in 0..count {
        // Some crops have the largest possible size, some are small.
        let edge = match index % 4 {
            0 => shorter,
            1 => random.u32(shorter * 2 / 3..=shorter),
            _ => random.u32((shorter / 4).max(8)..=shorter),
        };
        let place = |length: u32, random: &mut fastrand::Rng| match random.u32(0..6) {
            0 => 0,
            1 => length - edge,
            _ => random.u32(0..=length - edge),
        };
        let crop = Crop {
            x: place(width, random),
            y: place(height, random),
            width: edge,
            height: edge,
        };
        let edge_px = match index % 3 {
            0 => edge,
            1 => random.u32(edge / 2..=edge),
            _ => random.u32(8..=edge),
        }
        .max(8);
        let format = case.formats[index % case.formats.len()];
        let checked = if index % 5 == 0 {
            check_original(case, &premultiplied, crop, edge_px)
        } else {
            check_one(case, &premultiplied, crop, edge_px, format)
        };
        if let Err(how) = checked {
            let Crop { x, y, .. } = crop;
            let name = &case.name;
            wrong.push(format!(
                "{name}: {edge} px at {x},{y} as {format:?} of {edge_px} px: {how}"
            ));
        }
    }
    wrong
}

/// A recipe of one variant.
fn recipe_of(edge_px: u32, format: Format) -> Recipe {
    Recipe {
        variants: vec![Target {
            name: VariantName::new("one").unwrap(),
            edge_px,
        }],
        formats: vec![format],
        jpeg_quality: 95,
        ..recipe()
    }
}

/// Checks an original and, beside it, a variant in PNG.
fn check_original(
    case: &Case,
    premultiplied: &Rgba32FImage,
    crop: Crop,
    edge_px: u32,
) -> Result<(), String> {
    let recipe = Recipe {
        keep_original: true,
        ..recipe_of(edge_px, Format::Png)
    };
    let (_, outputs) = run(&case.bytes, &recipe, Some(crop)).map_err(|error| error.to_string())?;
    let [Output::Original(original, bytes), rendition] = outputs.as_slice() else {
        return Err(format!("{} outputs", outputs.len()));
    };
    let (width, height) = (case.expected.width(), case.expected.height());
    if (original.width, original.height) != (width, height) {
        return Err(format!(
            "the original has {} × {} px",
            original.width, original.height
        ));
    }
    let found = self::premultiplied(&::image::load_from_memory(bytes).unwrap());
    if (found.width(), found.height()) != (width, height) {
        return Err("the original has another size than it says".to_owned());
    }
    compare(case, found, premultiplied.clone(), original.format)
        .map_err(|how| format!("the original: {how}"))?;
    check_rendition(case, premultiplied, crop, edge_px, rendition)
}

fn check_one(
    case: &Case,
    premultiplied: &Rgba32FImage,
    crop: Crop,
    edge_px: u32,
    format: Format,
) -> Result<(), String> {
    let recipe = recipe_of(edge_px, format);
    let (_, outputs) = run(&case.bytes, &recipe, Some(crop)).map_err(|error| error.to_string())?;
    let [rendition] = outputs.as_slice() else {
        return Err(format!("{} outputs", outputs.len()));
    };
    check_rendition(case, premultiplied, crop, edge_px, rendition)
}

fn check_rendition(
    case: &Case,
    premultiplied: &Rgba32FImage,
    crop: Crop,
    edge_px: u32,
    output: &Output,
) -> Result<(), String> {
    let Output::Rendition(rendition, bytes) = output else {
        return Err("no rendition".to_owned());
    };
    if (rendition.width, rendition.height) != (edge_px, edge_px) {
        return Err(format!("it is {} px wide", rendition.width));
    }
    let found = self::premultiplied(&::image::load_from_memory(bytes).unwrap());
    let part = imageops::crop_imm(premultiplied, crop.x, crop.y, crop.width, crop.height);
    let expected = imageops::resize(&part.to_image(), edge_px, edge_px, FilterType::Lanczos3);
    compare(case, found, expected, rendition.format)
}

/// Compares two premultiplied pictures of the same size.
fn compare(
    case: &Case,
    mut found: Rgba32FImage,
    mut expected: Rgba32FImage,
    format: Format,
) -> Result<(), String> {
    if case.any_alpha {
        for (expected, found) in expected.pixels_mut().zip(found.pixels()) {
            expected.0 = expected.0.map(|value| value * found.0[3]);
        }
    }
    if format == Format::Jpeg {
        on_white(&mut expected);
        on_white(&mut found);
    }
    let near = difference(&found, &expected, (0, 0));
    let moved = [(1, 0), (-1, 0), (0, 1), (0, -1)]
        .map(|by| difference(&found, &expected, by))
        .into_iter()
        .fold(f32::INFINITY, f32::min);
    // A JPEG and a lossy WebP subsample chroma, which matters in small pictures; the original is the
    // only WebP here, and it is not shrunk.
    let coded = match format {
        Format::Png => 0.0,
        Format::Jpeg => 3.0,
        Format::Webp => 20.0,
    };
    // A shift is invisible if neighbouring pixels are equal.
    let flat =
        difference(&expected, &expected, (1, 0)).min(difference(&expected, &expected, (0, 1)));
    if near > case.tolerance + coded || (near * 1.3 > moved && flat > 2.0) {
        return Err(format!("differs by {near:.2}, moved by a pixel {moved:.2}"));
    }
    Ok(())
}

/// The mean difference (of 255) of two pictures, the second one moved by some pixels.
fn difference(one: &Rgba32FImage, other: &Rgba32FImage, (right, down): (i32, i32)) -> f32 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (x, y, pixel) in one.enumerate_pixels() {
        let at = (
            x.checked_add_signed(right).filter(|x| *x < other.width()),
            y.checked_add_signed(down).filter(|y| *y < other.height()),
        );
        if let (Some(x), Some(y)) = at {
            let other = other.get_pixel(x, y);
            sum += (pixel.0.iter().zip(&other.0))
                .map(|(a, b)| (a - b).abs())
                .sum::<f32>();
            count += 3.0;
        }
    }
    sum * 255.0 / count
}

/// Premultiplies colours by alpha, as resizing requires.
fn premultiplied(picture: &DynamicImage) -> Rgba32FImage {
    let mut picture = picture.to_rgba32f();
    for pixel in picture.pixels_mut() {
        let [colors @ .., alpha] = &mut pixel.0;
        for color in colors {
            *color *= *alpha;
        }
    }
    picture
}

fn on_white(premultiplied: &mut Rgba32FImage) {
    for pixel in premultiplied.pixels_mut() {
        let [colors @ .., alpha] = &mut pixel.0;
        for color in colors {
            *color += 1.0 - *alpha;
        }
        *alpha = 1.0;
    }
}

/// A plane of noise with details of at least `finest` pixels.
fn noise(width: usize, height: usize, finest: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    let mut plane = vec![128.0_f32; width * height];
    for grain in [finest, finest * 2, finest * 4, finest * 8] {
        let (across, down) = (width / grain + 2, height / grain + 2);
        let knots: Vec<f32> = (0..across * down).map(|_| random.f32() - 0.5).collect();
        for (index, value) in plane.iter_mut().enumerate() {
            let (x, y) = (index % width, index / width);
            let at = |x: usize, y: usize| knots[y * across + x];
            let (left, top) = (x / grain, y / grain);
            let (right, bottom) = (
                (x % grain) as f32 / grain as f32,
                (y % grain) as f32 / grain as f32,
            );
            let upper = at(left, top) * (1.0 - right) + at(left + 1, top) * right;
            let lower = at(left, top + 1) * (1.0 - right) + at(left + 1, top + 1) * right;
            *value += (upper * (1.0 - bottom) + lower * bottom) * 110.0;
        }
    }
    plane
        .into_iter()
        .map(|value| value.clamp(0.0, 255.0) as u8)
        .collect()
}

/// A picture with fine luma and coarser chroma, in RGB.
fn picture(width: usize, height: usize, finest: usize, random: &mut fastrand::Rng) -> Vec<[u8; 3]> {
    let [light, blue, red] = [finest, 9, 9].map(|finest| noise(width, height, finest, random));
    let shift = |light: u8, color: u8| {
        (i32::from(light) + (i32::from(color) - 128) / 2).clamp(0, 255) as u8
    };
    (0..width * height)
        .map(|at| {
            [
                shift(light[at], red[at]),
                light[at],
                shift(light[at], blue[at]),
            ]
        })
        .collect()
}

/// Decodes with a decoder that is independent of the one in use.
fn by_zune(bytes: &[u8], inverted: bool) -> Option<DynamicImage> {
    use zune_jpeg::zune_core::bytestream::ZCursor;
    use zune_jpeg::zune_core::colorspace::ColorSpace;
    use zune_jpeg::zune_core::options::DecoderOptions;

    let mut decoder = zune_jpeg::JpegDecoder::new(ZCursor::new(bytes));
    decoder.decode_headers().unwrap();
    let stored = decoder.input_colorspace().unwrap();
    let four = matches!(stored, ColorSpace::CMYK | ColorSpace::YCCK);
    let wanted = if four {
        ColorSpace::CMYK
    } else {
        ColorSpace::RGB
    };
    let options = DecoderOptions::default().jpeg_set_out_colorspace(wanted);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    let pixels = decoder.decode().ok()?;
    let (width, height) = decoder.dimensions()?;
    let rgb = if four {
        of_inks(&pixels, inverted)
    } else {
        pixels
    };
    let rgb = ::image::RgbImage::from_raw(width as u32, height as u32, rgb)?;
    Some(DynamicImage::ImageRgb8(rgb))
}

/// The colour of four inks on white paper.
fn by_inks([cyan, magenta, yellow, key]: [u8; 4]) -> [u8; 3] {
    let left = |ink: u8| f32::from(255 - ink) * f32::from(255 - key) / 255.0;
    [cyan, magenta, yellow].map(|ink| left(ink).round() as u8)
}

/// The encoded samples: grey, RGB or four inks.
fn of_source(width: usize, height: usize, stored: &[u8], inverted: bool) -> DynamicImage {
    let rgb = match stored.len() / (width * height) {
        1 => stored.iter().flat_map(|&gray| [gray; 3]).collect(),
        3 => stored.to_vec(),
        _ => of_inks(stored, inverted),
    };
    ::image::RgbImage::from_raw(width as u32, height as u32, rgb)
        .unwrap()
        .into()
}

fn of_inks(stored: &[u8], inverted: bool) -> Vec<u8> {
    let (quads, _) = stored.as_chunks::<4>();
    quads
        .iter()
        .flat_map(|quad| by_inks(quad.map(|ink| if inverted { 255 - ink } else { ink })))
        .collect()
}

fn turned(mut stored: DynamicImage, orientation: u8) -> DynamicImage {
    stored.apply_orientation(::image::metadata::Orientation::from_exif(orientation).unwrap());
    stored
}

#[track_caller]
fn assert_none(wrong: &[String], crops: usize) {
    println!("{crops} crops, {} wrong", wrong.len());
    assert!(
        wrong.is_empty(),
        "{} of {crops}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A random picture of a random size.
fn any_picture(random: &mut fastrand::Rng) -> (u32, u32, Vec<[u8; 3]>) {
    let (width, height) = (random.usize(90..=200), random.usize(90..=200));
    let pixels = picture(width, height, 3, random);
    (width as u32, height as u32, pixels)
}
