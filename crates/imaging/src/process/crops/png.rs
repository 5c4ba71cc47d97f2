//! Crops of PNGs: every colour type and bit depth, with and without transparency.

use super::super::tests::exif;
use super::*;

/// The storage of a PNG.
#[derive(Clone, Copy, Debug)]
struct Stored {
    color: ::png::ColorType,
    depth: u8,
    /// Whether a colour or palette entries are transparent.
    keyed: bool,
}

/// A PNG and its pixels, both made from the same samples.
fn png(stored: Stored, orientation: u8, random: &mut fastrand::Rng) -> Case {
    use ::png::ColorType;

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
    let mut encoder = ::png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(::png::BitDepth::from_u8(depth).unwrap());
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
    writer.write_chunk(::png::chunk::eXIf, &exif).unwrap();
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
fn every_crop_of_every_kind_of_png_shows_the_stored_pixels() {
    use ::png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};

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
