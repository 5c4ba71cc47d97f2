//! Crops of BMPs: every bit depth, both compressions, masks, and rows from both ends.

use super::super::bitmaps::{bmp, bmp_header};
use super::*;

/// The storage of a BMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// A palette of this many bits.
    Palette(u16),
    /// A palette of 4 or 8 bits, in runs.
    Runs(u16),
    /// 5 bits of each colour.
    Sixteen,
    /// Masks of 5, 6 and 5 bits.
    Masks16,
    TwentyFour,
    /// 24 bits with the oldest header.
    Core,
    ThirtyTwo,
    /// Masks of 8 bits each, with alpha.
    Masks32,
}

/// A BMP and its pixels, both made from the same samples.
fn case(stored: Stored, from_top: bool, random: &mut fastrand::Rng) -> Case {
    let (width, height, pixels) = any_picture(random);
    let alpha = noise(width as usize, height as usize, 4, random);
    let colors = match stored {
        Stored::Palette(bits) | Stored::Runs(bits) => 1 << bits,
        _ => 0,
    };
    let palette: Vec<[u8; 3]> = (0..colors)
        .map(|_| [(); 3].map(|()| random.u8(..)))
        .collect();
    let mut expected = Vec::new();
    let mut rows = Vec::new();
    let width_px = width as usize;
    for (row, alpha) in pixels.chunks(width_px).zip(alpha.chunks(width_px)) {
        let mut data = Vec::new();
        for (&pixel, &alpha) in row.iter().zip(alpha) {
            let ([red, green, blue], bytes) = store(stored, pixel, alpha, &palette);
            let opacity = if stored == Stored::Masks32 {
                alpha
            } else {
                255
            };
            expected.extend([red, green, blue, opacity]);
            data.extend(bytes);
        }
        rows.push(match stored {
            Stored::Palette(bits) => padded(packed(&data, bits)),
            Stored::Runs(bits) => runs(&data, bits),
            _ => padded(data),
        });
    }
    if !from_top {
        rows.reverse();
    }
    let mut data = rows.concat();
    if matches!(stored, Stored::Runs(_)) {
        data.extend([0, 1]);
    }
    let (across, down) = (width.cast_signed(), height.cast_signed());
    let size = (across, if from_top { -down } else { down });
    let (header, between) = headers(stored, size, &palette);
    let expected = ::image::RgbaImage::from_raw(width, height, expected).unwrap();
    Case {
        name: format!("BMP {stored:?} {from_top} {width} × {height}"),
        bytes: bmp(&header, &between, &data),
        expected: expected.into(),
        tolerance: 4.0,
        formats: if colors > 0 { ONLY_PNG } else { BOTH },
        any_alpha: false,
    }
}

/// The colour that is shown, and its stored form: bytes, or an index of the palette.
fn store(stored: Stored, pixel: [u8; 3], alpha: u8, palette: &[[u8; 3]]) -> ([u8; 3], Vec<u8>) {
    let [red, green, blue] = pixel;
    let five = |value: u8| u16::from(value >> 3);
    let six = |value: u8| u16::from(value >> 2);
    let shown = |value: u16, most: u16| ((value * 255 + most / 2) / most) as u8;
    match stored {
        Stored::Palette(_) | Stored::Runs(_) => {
            let index = usize::from(green) * palette.len() / 256;
            (palette[index], vec![index as u8])
        }
        Stored::Sixteen => {
            let value = five(red) << 10 | five(green) << 5 | five(blue);
            let color = pixel.map(|value| shown(five(value), 31));
            (color, value.to_le_bytes().to_vec())
        }
        Stored::Masks16 => {
            let value = five(red) << 11 | six(green) << 5 | five(blue);
            let color = [
                shown(five(red), 31),
                shown(six(green), 63),
                shown(five(blue), 31),
            ];
            (color, value.to_le_bytes().to_vec())
        }
        Stored::TwentyFour | Stored::Core => (pixel, vec![blue, green, red]),
        // The fourth byte has no meaning.
        Stored::ThirtyTwo => (pixel, vec![blue, green, red, alpha]),
        // In the order of the masks.
        Stored::Masks32 => (pixel, vec![red, green, blue, alpha]),
    }
}

/// The information header, and the masks or the palette behind it.
fn headers(stored: Stored, size: (i32, i32), palette: &[[u8; 3]]) -> (Vec<u8>, Vec<u8>) {
    let masks =
        |masks: &[u32]| -> Vec<u8> { masks.iter().flat_map(|mask| mask.to_le_bytes()).collect() };
    let quad = |&[red, green, blue]: &[u8; 3]| [blue, green, red, 0];
    let quads = palette.iter().flat_map(quad).collect();
    match stored {
        Stored::Palette(bits) => (bmp_header(40, size, bits, 0), quads),
        Stored::Runs(bits) => {
            let compression = if bits == 8 { 1 } else { 2 };
            (bmp_header(40, size, bits, compression), quads)
        }
        Stored::Sixteen => (bmp_header(40, size, 16, 0), vec![]),
        Stored::Masks16 => (
            bmp_header(40, size, 16, 3),
            masks(&[0xf800, 0x07e0, 0x001f]),
        ),
        Stored::TwentyFour => (bmp_header(124, size, 24, 0), vec![]),
        Stored::Core => {
            let [w0, w1, ..] = size.0.to_le_bytes();
            let [h0, h1, ..] = size.1.to_le_bytes();
            (vec![12, 0, 0, 0, w0, w1, h0, h1, 1, 0, 24, 0], vec![])
        }
        Stored::ThirtyTwo => (bmp_header(40, size, 32, 0), vec![]),
        Stored::Masks32 => {
            let mut header = bmp_header(108, size, 32, 3);
            header[40..56].copy_from_slice(&masks(&[0xff, 0xff00, 0xff_0000, 0xff00_0000]));
            (header, vec![])
        }
    }
}

/// A row in whole groups of four bytes.
fn padded(mut row: Vec<u8>) -> Vec<u8> {
    row.resize(row.len().next_multiple_of(4), 0);
    row
}

/// Palette indices of this many bits; the first is in the highest bits.
fn packed(indices: &[u8], bits: u16) -> Vec<u8> {
    let in_byte = usize::from(8 / bits);
    let byte = |indices: &[u8]| {
        let places = (1..).map(|place| 8 - place * bits);
        let bits = indices
            .iter()
            .zip(places)
            .map(|(index, place)| index << place);
        bits.fold(0, |byte, bits| byte | bits)
    };
    indices.chunks(in_byte).map(byte).collect()
}

/// A row in runs and literals, and the end of the row.
fn runs(indices: &[u8], bits: u16) -> Vec<u8> {
    let mut row = Vec::new();
    for (number, part) in indices.chunks(11).enumerate() {
        if number % 2 == 0 && part.len() > 2 {
            let literal = packed(part, bits);
            row.extend([0, part.len() as u8]);
            row.extend(&literal);
            row.resize(row.len().next_multiple_of(2), 0);
        } else {
            for &index in part {
                row.extend([1, if bits == 4 { index << 4 } else { index }]);
            }
        }
    }
    row.extend([0, 0]);
    row
}

#[test]
fn every_crop_of_every_kind_of_bmp_shows_the_stored_pixels() {
    let mut random = fastrand::Rng::with_seed(29);
    let (mut wrong, mut crops) = (Vec::new(), 0);
    for stored in [
        Stored::Palette(1),
        Stored::Palette(2),
        Stored::Palette(4),
        Stored::Palette(8),
        Stored::Runs(4),
        Stored::Runs(8),
        Stored::Sixteen,
        Stored::Masks16,
        Stored::TwentyFour,
        Stored::Core,
        Stored::ThirtyTwo,
        Stored::Masks32,
    ] {
        for from_top in [false, true] {
            if from_top && matches!(stored, Stored::Runs(_) | Stored::Core) {
                continue; // There is none.
            }
            wrong.extend(check(&case(stored, from_top, &mut random), 6, &mut random));
            crops += 6;
        }
    }
    assert_none(&wrong, crops);
}
