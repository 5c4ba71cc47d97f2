//! Crops, compared with the same part of a full decode by another library.
//!
//! The pictures are noise of several sizes, so that no two parts look alike. A crop is right if it
//! is close to the result of the other library, and closer to it than to the same part moved by one
//! output pixel in any direction.

use ::image::imageops::{self, FilterType};
use ::image::{DynamicImage, Rgba32FImage};
use libjpeg_turbo_rs::{ColorSpace, Encoder, PixelFormat};

use super::fixtures::fixtures;
use super::tests::{exif, recipe, run};
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
        if let Err(how) = check_one(case, &premultiplied, crop, edge_px, format) {
            let Crop { x, y, .. } = crop;
            let name = &case.name;
            wrong.push(format!(
                "{name}: {edge} px at {x},{y} as {format:?} of {edge_px} px: {how}"
            ));
        }
    }
    wrong
}

fn check_one(
    case: &Case,
    premultiplied: &Rgba32FImage,
    crop: Crop,
    edge_px: u32,
    format: Format,
) -> Result<(), String> {
    let recipe = Recipe {
        variants: vec![Target {
            name: VariantName::new("one").unwrap(),
            edge_px,
        }],
        formats: vec![format],
        jpeg_quality: 95,
        ..recipe()
    };
    let (_, outputs) = run(&case.bytes, &recipe, Some(crop)).map_err(|error| error.to_string())?;
    let [Output::Rendition(rendition, bytes)] = outputs.as_slice() else {
        return Err(format!("{} outputs", outputs.len()));
    };
    if (rendition.width, rendition.height) != (edge_px, edge_px) {
        return Err(format!("it is {} px wide", rendition.width));
    }
    let mut found = self::premultiplied(&::image::load_from_memory(bytes).unwrap());
    let part = imageops::crop_imm(premultiplied, crop.x, crop.y, crop.width, crop.height);
    let mut expected = imageops::resize(&part.to_image(), edge_px, edge_px, FilterType::Lanczos3);
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
    // A JPEG subsamples chroma, which matters in small pictures.
    let coded = if format == Format::Jpeg { 3.0 } else { 0.0 };
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

/// The coding of a JPEG.
#[derive(Clone, Copy, Debug)]
enum Coding {
    Baseline,
    Restarts,
    Progressive,
}

/// The sampling factors of a JPEG's channels; usual ones come first.
const THREE: [[(u8, u8); 3]; 10] = [
    [(1, 1), (1, 1), (1, 1)],
    [(2, 1), (1, 1), (1, 1)],
    [(2, 2), (1, 1), (1, 1)],
    [(1, 2), (1, 1), (1, 1)],
    [(4, 1), (1, 1), (1, 1)],
    [(4, 2), (1, 1), (1, 1)],
    [(2, 2), (1, 2), (1, 2)],
    [(2, 2), (2, 1), (2, 1)],
    [(2, 2), (1, 1), (2, 1)],
    [(1, 1), (2, 2), (1, 1)],
];

const FOUR: [[(u8, u8); 4]; 6] = [
    [(1, 1); 4],
    [(2, 2), (1, 1), (1, 1), (2, 2)],
    [(2, 1), (1, 1), (1, 1), (2, 1)],
    [(1, 2), (1, 1), (1, 1), (1, 2)],
    [(2, 2), (1, 1), (1, 1), (1, 1)],
    [(2, 1), (1, 1), (1, 1), (1, 1)],
];

fn jpeg(
    (space, factors): (ColorSpace, &[(u8, u8)]),
    coding: Coding,
    orientation: u8,
    random: &mut fastrand::Rng,
) -> Case {
    let (width, height) = (random.usize(90..=260), random.usize(90..=260));
    let rare = factors.iter().any(|factor| *factor > factors[0]);
    let pixels = picture(width, height, if rare { 7 } else { 3 }, random);
    let (format, stored, adobe): (_, Vec<u8>, _) = match space {
        ColorSpace::Grayscale => (
            PixelFormat::Grayscale,
            pixels.iter().map(|pixel| pixel[1]).collect(),
            false,
        ),
        ColorSpace::Cmyk | ColorSpace::Ycck => {
            let key = noise(width, height, 5, random);
            let inks = pixels.iter().zip(&key).flat_map(|(pixel, &key)| {
                let [cyan, magenta, yellow] = pixel.map(|light| 255 - light);
                [cyan, magenta, yellow, key / 3]
            });
            let adobe = space == ColorSpace::Ycck || random.bool();
            let stored = inks.map(|ink| if adobe { 255 - ink } else { ink });
            (PixelFormat::Cmyk, stored.collect(), adobe)
        }
        _ => (PixelFormat::Rgb, pixels.as_flattened().to_vec(), false),
    };
    let exif = exif(orientation);
    let encoder = Encoder::new(&stored, width, height, format)
        .quality(96)
        .colorspace(space)
        .sampling_factors(factors.to_vec())
        .exif_data(&exif);
    let encoder = match space {
        ColorSpace::Cmyk | ColorSpace::Ycck => encoder.write_adobe_marker(adobe),
        _ => encoder,
    };
    let encoder = match coding {
        Coding::Baseline => encoder,
        Coding::Restarts => encoder.restart_blocks(3),
        Coding::Progressive => encoder.progressive(true),
    };
    let name = format!("{space:?} {factors:?} {coding:?} {orientation} {width} × {height}");
    let bytes = encoder
        .encode()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    // The other library decodes chroma finer than luma incorrectly. The source of such a picture is
    // known, apart from coding losses.
    let (expected, tolerance) = if rare {
        (of_source(width, height, &stored, adobe), 9.0)
    } else {
        let expected = by_zune(&bytes, adobe);
        (
            expected.unwrap_or_else(|| panic!("{name}: not by zune")),
            7.0,
        )
    };
    Case {
        expected: turned(expected, orientation),
        name,
        bytes,
        tolerance,
        formats: BOTH,
        any_alpha: false,
    }
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

#[test]
fn every_crop_of_every_kind_of_jpeg_shows_what_another_decoder_shows() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut wrong = Vec::new();
    let mut crops = 0;
    let gray = [
        (ColorSpace::Grayscale, &[(1, 1)][..]),
        (ColorSpace::Grayscale, &[(2, 2)][..]),
    ];
    let three = THREE
        .iter()
        .map(|factors| (ColorSpace::YCbCr, &factors[..]));
    let rgb = [
        (ColorSpace::Rgb, &THREE[0][..]),
        (ColorSpace::Rgb, &THREE[2][..]),
    ];
    let cmyk = FOUR.iter().map(|factors| (ColorSpace::Cmyk, &factors[..]));
    let ycck = FOUR.iter().map(|factors| (ColorSpace::Ycck, &factors[..]));
    let kinds = gray
        .into_iter()
        .chain(three)
        .chain(rgb)
        .chain(cmyk)
        .chain(ycck);
    let codings = [Coding::Baseline, Coding::Restarts, Coding::Progressive];
    for (index, kind) in kinds.enumerate() {
        for (number, coding) in codings.into_iter().enumerate() {
            let orientation = ((index * 3 + number) % 8 + 1) as u8;
            let case = jpeg(kind, coding, orientation, &mut random);
            wrong.extend(check(&case, 5, &mut random));
            crops += 5;
        }
    }
    assert_none(&wrong, crops);
}

/// A random picture of a random size.
fn any_picture(random: &mut fastrand::Rng) -> (u32, u32, Vec<[u8; 3]>) {
    let (width, height) = (random.usize(90..=200), random.usize(90..=200));
    let pixels = picture(width, height, 3, random);
    (width as u32, height as u32, pixels)
}

/// The storage of a PNG.
#[derive(Clone, Copy, Debug)]
struct Stored {
    color: png::ColorType,
    depth: u8,
    /// Whether a colour or palette entries are transparent.
    keyed: bool,
}

/// A PNG and its pixels, both made from the same samples.
fn png(stored: Stored, orientation: u8, random: &mut fastrand::Rng) -> Case {
    use png::ColorType;

    let (width, height, pixels) = any_picture(random);
    let Stored {
        color,
        depth,
        keyed,
    } = stored;
    let most = (1_u32 << depth) - 1;
    let alpha = noise(width as usize, height as usize, 4, random);
    let palette: Vec<[u8; 3]> = (0..=most.min(255))
        .map(|_| [(); 3].map(|()| random.u8(..)))
        .collect();
    let opacity: Vec<u8> = palette.iter().map(|_| random.u8(..)).collect();
    let scaled = |value: u8| (u32::from(value) * most + 127) / 255;
    let shown = |value: u32| ((value * 255 + most / 2) / most) as u8;
    let mut samples = Vec::new();
    let mut expected = Vec::new();
    let key = scaled(128);
    for (&[red, green, blue], &alpha) in pixels.iter().zip(&alpha) {
        let values = match color {
            ColorType::Grayscale => vec![scaled(green)],
            ColorType::GrayscaleAlpha => vec![scaled(green), scaled(alpha)],
            ColorType::Indexed => vec![(u32::from(green) * (palette.len() as u32 - 1) + 127) / 255],
            ColorType::Rgb => [red, green, blue].map(scaled).to_vec(),
            ColorType::Rgba => [red, green, blue, alpha].map(scaled).to_vec(),
        };
        let hidden = keyed && values.iter().all(|value| *value == key);
        expected.extend(match (color, values.as_slice()) {
            (ColorType::Indexed, &[index]) => {
                let [red, green, blue] = palette[index as usize];
                let alpha = if keyed { opacity[index as usize] } else { 255 };
                [red, green, blue, alpha]
            }
            (_, &[gray]) => {
                let gray = shown(gray);
                [gray, gray, gray, if hidden { 0 } else { 255 }]
            }
            (_, &[gray, alpha]) => [shown(gray), shown(gray), shown(gray), shown(alpha)],
            (_, &[red, green, blue]) => [
                shown(red),
                shown(green),
                shown(blue),
                if hidden { 0 } else { 255 },
            ],
            (_, values) => [0, 1, 2, 3].map(|at| shown(values[at])),
        });
        samples.push(values);
    }
    let rows = samples.chunks_exact(width as usize);
    let data: Vec<u8> = rows.flat_map(|row| packed(&row.concat(), depth)).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::from_u8(depth).unwrap());
    if color == ColorType::Indexed {
        encoder.set_palette(palette.as_flattened().to_vec());
        if keyed {
            encoder.set_trns(opacity);
        }
    } else if keyed {
        let channels = if color == ColorType::Rgb { 3 } else { 1 };
        encoder.set_trns((key as u16).to_be_bytes().repeat(channels));
    }
    let mut writer = encoder.write_header().unwrap();
    let exif = exif(orientation);
    writer.write_chunk(png::chunk::eXIf, &exif).unwrap();
    writer.write_image_data(&data).unwrap();
    writer.finish().unwrap();
    let expected = ::image::RgbaImage::from_raw(width, height, expected).unwrap();
    Case {
        name: format!("PNG {stored:?} {orientation} {width} × {height}"),
        bytes,
        expected: turned(expected.into(), orientation),
        tolerance: 4.0,
        formats: if color == ColorType::Indexed {
            ONLY_PNG
        } else {
            BOTH
        },
        any_alpha: false,
    }
}

/// Packs a row of samples of the given bit depth.
fn packed(samples: &[u32], depth: u8) -> Vec<u8> {
    let samples_of_byte = usize::from(8 / depth.min(8));
    match depth {
        16 => samples
            .iter()
            .flat_map(|&value| (value as u16).to_be_bytes())
            .collect(),
        8 => samples.iter().map(|&value| value as u8).collect(),
        _ => samples
            .chunks(samples_of_byte)
            .map(|chunk| {
                let bits = (1..)
                    .zip(chunk)
                    .map(|(at, &value)| value << (8 - at * u32::from(depth)));
                bits.sum::<u32>() as u8
            })
            .collect(),
    }
}

#[test]
fn every_crop_of_every_kind_of_png_shows_what_was_stored() {
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};

    let mut random = fastrand::Rng::with_seed(11);
    let (mut wrong, mut crops) = (Vec::new(), 0);
    let kinds = [
        (Grayscale, &[1, 2, 4, 8, 16][..], &[false, true][..]),
        (GrayscaleAlpha, &[8, 16], &[false]),
        (Indexed, &[1, 2, 4, 8], &[false, true]),
        (Rgb, &[8, 16], &[false, true]),
        (Rgba, &[8, 16], &[false]),
    ];
    let mut orientation = 0;
    for (color, depths, keys) in kinds {
        for (&depth, &keyed) in depths
            .iter()
            .flat_map(|depth| keys.iter().map(move |key| (depth, key)))
        {
            orientation = orientation % 8 + 1;
            let stored = Stored {
                color,
                depth,
                keyed,
            };
            wrong.extend(check(
                &png(stored, orientation, &mut random),
                6,
                &mut random,
            ));
            crops += 6;
        }
    }
    assert_none(&wrong, crops);
}

/// A GIF whose only frame covers a part of it.
fn gif(random: &mut fastrand::Rng) -> Case {
    let (width, height, pixels) = any_picture(random);
    let (left, top) = (random.u32(0..width / 4), random.u32(0..height / 4));
    let (across, down) = (
        width - left - random.u32(0..9),
        height - top - random.u32(0..9),
    );
    // Three bits of red and green, two of blue; the last colour is transparent.
    let index = |[red, green, blue]: [u8; 3]| (red >> 5 << 5) | (green >> 5 << 2) | blue >> 6;
    let color = |index: u8| [index >> 5, index >> 2 & 7].map(|part| part * 36);
    let shown = |index: u8| [color(index)[0], color(index)[1], (index & 3) * 85];
    let palette: Vec<u8> = (0..=255).flat_map(shown).collect();
    let mut expected = ::image::RgbaImage::new(width, height);
    let mut indices = Vec::new();
    for y in 0..down {
        for x in 0..across {
            let at = ((y + top) * width + x + left) as usize;
            let index = index(pixels[at]);
            indices.push(index);
            let [red, green, blue] = shown(index);
            if index != 255 {
                expected.put_pixel(x + left, y + top, ::image::Rgba([red, green, blue, 255]));
            }
        }
    }
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, width as u16, height as u16, &palette).unwrap();
    let frame = gif::Frame {
        left: left as u16,
        top: top as u16,
        ..gif::Frame::from_indexed_pixels(across as u16, down as u16, indices, Some(255))
    };
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    Case {
        name: format!("GIF {width} × {height}"),
        bytes,
        expected: expected.into(),
        tolerance: 4.0,
        formats: ONLY_PNG,
        any_alpha: false,
    }
}

/// WebP of three kinds, decoded by `image-webp`.
fn webp(kind: usize, orientation: u8, random: &mut fastrand::Rng) -> Case {
    let (width, height, pixels) = any_picture(random);
    let encoded = if kind == 0 {
        let pixels = pixels.as_flattened().to_vec();
        encode::encode_rgb(width, height, pixels, Format::Webp, &recipe()).unwrap()
    } else {
        let alpha = noise(width as usize, height as usize, 4, random);
        let (color, pixels) = if kind == 1 {
            (
                ::image::ExtendedColorType::Rgb8,
                pixels.as_flattened().to_vec(),
            )
        } else {
            let with_alpha = pixels
                .iter()
                .zip(&alpha)
                .flat_map(|(&[r, g, b], &a)| [r, g, b, a]);
            (::image::ExtendedColorType::Rgba8, with_alpha.collect())
        };
        let mut encoded = Vec::new();
        ::image::codecs::webp::WebPEncoder::new_lossless(&mut encoded)
            .encode(&pixels, width, height, color)
            .unwrap();
        encoded
    };
    let expected = ::image::load_from_memory(&encoded).unwrap();
    Case {
        name: format!("WebP {kind} {orientation} {width} × {height}"),
        bytes: webp_with_exif((width, height), &encoded, &exif(orientation), kind == 2),
        expected: turned(expected, orientation),
        tolerance: 4.0,
        formats: BOTH,
        any_alpha: false,
    }
}

/// A simple WebP in the extended form (RFC 9649, 2.7).
fn webp_with_exif((width, height): (u32, u32), simple: &[u8], exif: &[u8], alpha: bool) -> Vec<u8> {
    let chunk = |name: &[u8; 4], payload: &[u8]| {
        let mut chunk = [&name[..], &(payload.len() as u32).to_le_bytes(), payload].concat();
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    };
    let flags = if alpha { 0x18 } else { 0x08 };
    let [w0, w1, w2, _] = (width - 1).to_le_bytes();
    let [h0, h1, h2, _] = (height - 1).to_le_bytes();
    let extended = chunk(b"VP8X", &[flags, 0, 0, 0, w0, w1, w2, h0, h1, h2]);
    let body = [&extended, &simple[12..], &chunk(b"EXIF", exif)].concat();
    let length = (body.len() as u32 + 4).to_le_bytes();
    [&b"RIFF"[..], &length, b"WEBP", &body].concat()
}

#[test]
fn every_crop_of_a_gif_and_of_every_kind_of_webp_shows_what_another_decoder_shows() {
    let mut random = fastrand::Rng::with_seed(13);
    let (mut wrong, mut crops) = (Vec::new(), 0);
    for _ in 0..4 {
        wrong.extend(check(&gif(&mut random), 6, &mut random));
        crops += 6;
    }
    for orientation in 1..=8 {
        for kind in 0..3 {
            let case = webp(kind, orientation, &mut random);
            wrong.extend(check(&case, 3, &mut random));
            crops += 3;
        }
    }
    assert_none(&wrong, crops);
}

/// All fixtures show the same face as a JPEG that another library decodes.
#[test]
fn every_crop_of_the_fixtures_shows_the_same_part_of_the_face() {
    let fixtures = fixtures();
    let face = by_zune(&fixtures["samples-444.jpg"], false).unwrap();
    let mut random = fastrand::Rng::with_seed(17);
    let (mut wrong, mut crops) = (Vec::new(), 0);
    for (name, bytes) in &fixtures {
        let other_colors = ["display-p3", "adobe", "coded", "gray", "inks", "one-bit"];
        // Their first frames show only a part of the face.
        let other_parts = ["moving.gif", "moving.png", "moving.webp"];
        if other_colors.iter().any(|other| name.starts_with(other))
            || other_parts.contains(&name.as_str())
        {
            continue;
        }
        let probe = probe(bytes, &recipe().limits).unwrap();
        let (width, height) = (probe.width, probe.height);
        // Pixels that Pillow made transparent are not compared.
        let transparent = ["alpha", "palette", "gray-alpha", "premultiplied"];
        let any_alpha = transparent.iter().any(|kind| name.starts_with(kind));
        let case = Case {
            name: name.clone(),
            bytes: bytes.clone(),
            expected: face.resize_exact(width, height, FilterType::Lanczos3),
            tolerance: 10.0,
            formats: if any_alpha { ONLY_PNG } else { BOTH },
            any_alpha,
        };
        wrong.extend(check(&case, 8, &mut random));
        crops += 8;
    }
    assert_none(&wrong, crops);
}

/// HEIC with one tile and with several.
#[test]
fn every_crop_of_a_heic_shows_what_was_stored() {
    let mut random = fastrand::Rng::with_seed(19);
    let (mut wrong, mut crops) = (Vec::new(), 0);
    for (width, height) in [(201, 143), (600, 330)] {
        let pixels = picture(width, height, 4, &mut random);
        let options = heifer::EncodeOptions {
            quality: 95,
            ..heifer::EncodeOptions::default()
        };
        let (across, down) = (width as u32, height as u32);
        let bytes = heifer::encode_rgb8(across, down, pixels.as_flattened(), &options).unwrap();
        let case = Case {
            name: format!("HEIC {width} × {height}"),
            bytes,
            expected: of_source(width, height, pixels.as_flattened(), false),
            tolerance: 6.0,
            formats: BOTH,
            any_alpha: false,
        };
        wrong.extend(check(&case, 12, &mut random));
        crops += 12;
    }
    assert_none(&wrong, crops);
}

/// Rare samplings use a decoding path of their own, which must refuse incomplete data too.
#[test]
fn a_jpeg_of_a_rare_sampling_that_is_cut_off_is_corrupt() {
    let mut random = fastrand::Rng::with_seed(23);
    for (space, factors) in [
        (ColorSpace::YCbCr, &THREE[9][..]),
        (ColorSpace::Cmyk, &FOUR[4]),
    ] {
        for coding in [Coding::Baseline, Coding::Progressive] {
            let bytes = jpeg((space, factors), coding, 1, &mut random).bytes;
            run(&bytes, &recipe(), None).unwrap();
            for cut in [bytes.len() / 2, bytes.len() - 100] {
                let result = run(&bytes[..cut], &recipe(), None).map(|_| ());
                assert!(
                    matches!(result, Err(Error::Corrupt { .. })),
                    "{space:?} {coding:?} cut at {cut}: {result:?}"
                );
            }
        }
    }
}

/// Three stripes of ink, stored like Adobe's programs do. The square shows the middle.
#[test]
fn the_middle_of_a_picture_of_inks_is_its_middle() {
    let inks = [
        [0_u8, 255, 255, 255],
        [255, 0, 255, 255],
        [255, 255, 0, 255],
    ];
    let stored: Vec<u8> = (0..300)
        .flat_map(|_| (0..600).flat_map(|x| inks[x / 200]))
        .collect();
    for space in [ColorSpace::Cmyk, ColorSpace::Ycck] {
        let bytes = Encoder::new(&stored, 600, 300, PixelFormat::Cmyk)
            .quality(95)
            .colorspace(space)
            .write_adobe_marker(true)
            .encode()
            .unwrap();
        let (_, outputs) = run(&bytes, &recipe(), None).unwrap();
        let found = super::tests::png_of(&outputs, 64);
        let row = found.pixels[64 * 32 * 3..].as_chunks::<3>().0;
        // 50 px of the first stripe, all of the second, 50 px of the third.
        for (x, expected) in [(4, [0, 255, 255]), (32, [255, 0, 255]), (59, [255, 255, 0])] {
            let near = row[x]
                .iter()
                .zip(&expected)
                .all(|(a, b)| a.abs_diff(*b) < 24);
            assert!(near, "{space:?} at {x}: {:?}", row[x]);
        }
    }
}
