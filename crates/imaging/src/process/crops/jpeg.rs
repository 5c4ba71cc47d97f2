//! Crops of JPEGs: every colour space, sampling and coding.

use libjpeg_turbo_rs::{ColorSpace, Encoder, PixelFormat};

use super::super::tests::{exif, png_of};
use super::*;

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

#[test]
fn every_crop_of_every_kind_of_jpeg_equals_that_of_another_decoder() {
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

/// Rare samplings use a decoding path of their own, which must refuse incomplete data too.
#[test]
fn a_truncated_jpeg_of_a_rare_sampling_is_corrupt() {
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
fn a_crop_of_a_cmyk_picture_shows_the_right_part() {
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
        let found = png_of(&outputs, 64);
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
