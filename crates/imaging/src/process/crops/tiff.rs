//! Crops of TIFFs: every kind of colour, depth, alpha and compression, in strips and in tiles.

use libjpeg_turbo_rs::{ColorSpace, Encoder, PixelFormat, Subsampling};

use super::super::bitmaps::{BYTE, LONG, SHORT, STRIPS, TILES, pack_bits, tags, tiff};
use super::*;

/// The storage of a TIFF.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an independent choice of a writer"
)]
struct Stored {
    color: Color,
    bits: u32,
    extra: Extra,
    compression: Compression,
    predicted: bool,
    planar: bool,
    parts: Parts,
    big_endian: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts {
    Strips,
    Tiles,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Color {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Inks,
}

/// The sample after the colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extra {
    None,
    /// A sample that is not alpha.
    Other,
    Premultiplied,
    Straight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Lzw,
    Deflate,
    PackBits,
}

/// A TIFF and its pixels, both made from the same samples.
fn case(stored: Stored, orientation: u8, random: &mut fastrand::Rng) -> Case {
    let (width, height, pixels) = any_picture(random);
    let most = (1_u32 << stored.bits) - 1;
    let palette: Vec<[u8; 3]> = (0..=most.min(255))
        .map(|_| [(); 3].map(|()| random.u8(..)))
        .collect();
    let alpha = noise(width as usize, height as usize, 4, random);
    let key = noise(width as usize, height as usize, 5, random);
    let mut samples = Vec::new();
    let mut expected = Vec::new();
    for ((&pixel, &alpha), &key) in pixels.iter().zip(&alpha).zip(&key) {
        let (values, shown) = store(stored, pixel, (alpha, key), &palette);
        samples.push(values);
        expected.extend(shown);
    }
    let channels = samples[0].len();
    let block = if stored.parts == Parts::Tiles {
        (48, 32)
    } else {
        (width as usize, random.usize(1..=height as usize))
    };
    let blocks = blocks(stored, &samples, (width as usize, height as usize), block);
    let number = match stored.color {
        Color::WhiteIsZero => 0,
        Color::BlackIsZero => 1,
        Color::Rgb => 2,
        Color::Palette => 3,
        Color::Inks => 5,
    };
    let compression = match stored.compression {
        Compression::None => 1,
        Compression::Lzw => 5,
        Compression::Deflate => 8,
        Compression::PackBits => 32_773,
    };
    let mut tags = tags(
        (width, height),
        number,
        &vec![stored.bits; channels],
        compression,
    );
    tags.pop();
    tags.push((274, SHORT, vec![orientation.into()]));
    tags.push((284, SHORT, vec![if stored.planar { 2 } else { 1 }]));
    if stored.predicted {
        tags.push((317, SHORT, vec![2]));
    }
    if stored.color == Color::Palette {
        let channel = |channel| {
            palette
                .iter()
                .map(move |color: &[u8; 3]| u32::from(color[channel]) * 257)
        };
        let map = channel(0).chain(channel(1)).chain(channel(2)).collect();
        tags.push((320, SHORT, map));
    }
    match stored.extra {
        Extra::None => {}
        Extra::Other => tags.push((338, SHORT, vec![0])),
        Extra::Premultiplied => tags.push((338, SHORT, vec![1])),
        Extra::Straight => tags.push((338, SHORT, vec![2])),
    }
    let place = if stored.parts == Parts::Tiles {
        tags.push((322, SHORT, vec![block.0 as u32]));
        tags.push((323, SHORT, vec![block.1 as u32]));
        TILES
    } else {
        tags.push((278, LONG, vec![block.1 as u32]));
        STRIPS
    };
    let expected = ::image::RgbaImage::from_raw(width, height, expected).unwrap();
    Case {
        name: format!("TIFF {stored:?} {orientation} {width} × {height}"),
        bytes: tiff(stored.big_endian, &tags, place, &blocks),
        expected: turned(expected.into(), orientation),
        tolerance: 4.0,
        formats: if stored.color == Color::Palette {
            ONLY_PNG
        } else {
            BOTH
        },
        any_alpha: false,
    }
}

/// The samples of a pixel, and the colour and alpha that they show.
fn store(
    stored: Stored,
    [red, green, blue]: [u8; 3],
    (alpha, key): (u8, u8),
    palette: &[[u8; 3]],
) -> (Vec<u32>, [u8; 4]) {
    let most = (1_u32 << stored.bits) - 1;
    let scaled = |value: u8| (u32::from(value) * most + 127) / 255;
    let shown = |value: u32| ((value * 255 + most / 2) / most) as u8;
    let opacity = scaled(alpha);
    let mut values = match stored.color {
        Color::WhiteIsZero | Color::BlackIsZero | Color::Palette => vec![scaled(green)],
        Color::Rgb => [red, green, blue].map(scaled).to_vec(),
        Color::Inks => [255 - red, 255 - green, 255 - blue, key / 3]
            .map(scaled)
            .to_vec(),
    };
    if stored.extra == Extra::Premultiplied {
        for value in &mut values {
            *value = *value * opacity / most;
        }
    }
    let visible = |value: u32| match stored.extra {
        Extra::Premultiplied => (value * 255).checked_div(opacity).unwrap_or(0).min(255) as u8,
        _ => shown(value),
    };
    let [red, green, blue] = match (stored.color, values.as_slice()) {
        (Color::WhiteIsZero, &[gray]) => [255 - visible(gray); 3],
        (Color::BlackIsZero, &[gray]) => [visible(gray); 3],
        (Color::Palette, &[index]) => palette[index as usize],
        (Color::Inks, inks) => by_inks([0, 1, 2, 3].map(|ink| shown(inks[ink]))),
        (_, colors) => [0, 1, 2].map(|color| visible(colors[color])),
    };
    let alpha = match stored.extra {
        Extra::None | Extra::Other => 255,
        Extra::Premultiplied | Extra::Straight => shown(opacity),
    };
    if stored.extra != Extra::None {
        values.push(opacity);
    }
    (values, [red, green, blue, alpha])
}

/// The stored strips or tiles.
fn blocks(
    stored: Stored,
    samples: &[Vec<u32>],
    (width, height): (usize, usize),
    (block_width, block_height): (usize, usize),
) -> Vec<Vec<u8>> {
    let channels = samples[0].len();
    let planes: Vec<Vec<usize>> = if stored.planar {
        (0..channels).map(|channel| vec![channel]).collect()
    } else {
        vec![(0..channels).collect()]
    };
    let mut blocks = Vec::new();
    for plane in &planes {
        for y in (0..height).step_by(block_height) {
            for x in (0..width).step_by(block_width) {
                let rows = if stored.parts == Parts::Tiles {
                    block_height
                } else {
                    block_height.min(height - y)
                };
                let mut data = Vec::new();
                for y in y..y + rows {
                    // A tile continues beyond the edges.
                    let at = |x: usize| y.min(height - 1) * width + x.min(width - 1);
                    let row = (x..x + block_width)
                        .flat_map(|x| plane.iter().map(move |channel| (x, *channel)))
                        .map(|(x, channel)| samples[at(x)][channel]);
                    data.extend(packed_row(stored, row.collect(), plane.len()));
                }
                blocks.push(match stored.compression {
                    Compression::None => data,
                    Compression::Lzw => {
                        weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8)
                            .encode(&data)
                            .unwrap()
                    }
                    Compression::Deflate => fdeflate::compress_to_vec(&data),
                    Compression::PackBits => pack_bits(&data),
                });
            }
        }
    }
    blocks
}

fn packed_row(stored: Stored, mut row: Vec<u32>, channels: usize) -> Vec<u8> {
    if stored.predicted {
        for at in (channels..row.len()).rev() {
            row[at] = row[at].wrapping_sub(row[at - channels]);
        }
    }
    match stored.bits {
        16 if stored.big_endian => row
            .iter()
            .flat_map(|&value| (value as u16).to_be_bytes())
            .collect(),
        16 => row
            .iter()
            .flat_map(|&value| (value as u16).to_le_bytes())
            .collect(),
        bits => row
            .chunks(8 / bits as usize)
            .map(|samples| {
                let places = (1..).map(|place| 8 - place * bits);
                let bits = samples
                    .iter()
                    .zip(places)
                    .map(|(sample, place)| sample << place);
                bits.fold(0, |byte, bits| byte | bits) as u8
            })
            .collect(),
    }
}

#[test]
fn every_crop_of_every_kind_of_tiff_shows_the_stored_pixels() {
    use Color::{BlackIsZero, Inks, Palette, Rgb, WhiteIsZero};

    let mut random = fastrand::Rng::with_seed(31);
    let (mut wrong, mut crops) = (Vec::new(), 0);
    let kinds = [
        (WhiteIsZero, &[1, 2, 4, 8, 16][..], &[Extra::None][..]),
        (BlackIsZero, &[1, 2, 4], &[Extra::None]),
        (
            BlackIsZero,
            &[8, 16],
            &[Extra::None, Extra::Straight, Extra::Premultiplied],
        ),
        (
            Rgb,
            &[8, 16],
            &[
                Extra::None,
                Extra::Other,
                Extra::Straight,
                Extra::Premultiplied,
            ],
        ),
        (Palette, &[1, 2, 4, 8], &[Extra::None]),
        (Inks, &[8, 16], &[Extra::None, Extra::Other]),
    ];
    let compressions = [
        Compression::None,
        Compression::Lzw,
        Compression::Deflate,
        Compression::PackBits,
    ];
    let mut index = 0;
    for (color, depths, extras) in kinds {
        for (&bits, &extra) in depths
            .iter()
            .flat_map(|bits| extras.iter().map(move |extra| (bits, extra)))
        {
            for compression in compressions {
                index += 1;
                let packed = matches!(compression, Compression::Lzw | Compression::Deflate);
                let stored = Stored {
                    color,
                    bits,
                    extra,
                    compression,
                    predicted: bits >= 8 && packed && index % 3 > 0,
                    planar: bits >= 8 && index % 3 == 1,
                    parts: if index / 2 % 2 == 0 {
                        Parts::Tiles
                    } else {
                        Parts::Strips
                    },
                    big_endian: index / 3 % 2 == 0,
                };
                let case = case(stored, (index % 8 + 1) as u8, &mut random);
                wrong.extend(check(&case, 3, &mut random));
                crops += 3;
            }
        }
    }
    assert_none(&wrong, crops);
}

/// Strips and tiles that are JPEGs of their own, with their colours in the directory alone.
#[test]
fn every_crop_of_a_tiff_of_jpegs_shows_the_stored_pixels() {
    let mut random = fastrand::Rng::with_seed(37);
    let (mut wrong, mut crops) = (Vec::new(), 0);
    for (space, number, tiled) in [
        (ColorSpace::Grayscale, 1, false),
        (ColorSpace::YCbCr, 6, false),
        (ColorSpace::YCbCr, 6, true),
        (ColorSpace::Rgb, 2, false),
        (ColorSpace::Rgb, 2, true),
        (ColorSpace::Cmyk, 5, false),
    ] {
        let (width, height, pixels) = any_picture(&mut random);
        let (width, height) = (width as usize, height as usize);
        let (format, stored, channels): (_, Vec<u8>, _) = match space {
            ColorSpace::Grayscale => (
                PixelFormat::Grayscale,
                pixels.iter().map(|pixel| pixel[1]).collect(),
                1,
            ),
            ColorSpace::Cmyk => (
                PixelFormat::Cmyk,
                pixels
                    .iter()
                    .flat_map(|&[red, green, blue]| [red, green, blue, green / 3])
                    .collect(),
                4,
            ),
            _ => (PixelFormat::Rgb, pixels.as_flattened().to_vec(), 3),
        };
        let (across, down) = if tiled { (64, 48) } else { (width, 32) };
        let mut blocks = Vec::new();
        for y in (0..height).step_by(down) {
            for x in (0..width).step_by(across) {
                let rows = if tiled { down } else { down.min(height - y) };
                let at =
                    |x: usize, y: usize| (y.min(height - 1) * width + x.min(width - 1)) * channels;
                let block: Vec<u8> = (y..y + rows)
                    .flat_map(|y| (x..x + across).map(move |x| (x, y)))
                    .flat_map(|(x, y)| &stored[at(x, y)..][..channels])
                    .copied()
                    .collect();
                let encoder = Encoder::new(&block, across, rows, format)
                    .quality(96)
                    .colorspace(space);
                let encoder = match space {
                    ColorSpace::YCbCr => encoder.subsampling(Subsampling::S420),
                    ColorSpace::Rgb => encoder.subsampling(Subsampling::S444),
                    ColorSpace::Cmyk => encoder.write_adobe_marker(false),
                    _ => encoder,
                };
                blocks.push(without_notes(&encoder.encode().unwrap()));
            }
        }
        let mut tags = tags((width as u32, height as u32), number, &vec![8; channels], 7);
        let place = if tiled {
            tags.push((322, SHORT, vec![across as u32]));
            tags.push((323, SHORT, vec![down as u32]));
            TILES
        } else {
            tags.pop();
            tags.push((278, SHORT, vec![down as u32]));
            STRIPS
        };
        // An empty table of what the JPEGs share.
        tags.push((347, BYTE, vec![0xff, 0xd8, 0xff, 0xd9]));
        let case = Case {
            name: format!("TIFF of JPEGs {space:?} {tiled} {width} × {height}"),
            bytes: tiff(false, &tags, place, &blocks),
            expected: of_source(width, height, &stored, false),
            tolerance: 7.0,
            formats: BOTH,
            any_alpha: false,
        };
        wrong.extend(check(&case, 6, &mut random));
        crops += 6;
    }
    assert_none(&wrong, crops);
}

/// A JPEG without JFIF's and Adobe's markers, which would state its colours.
fn without_notes(jpeg: &[u8]) -> Vec<u8> {
    let mut kept = jpeg[..2].to_vec();
    let mut rest = &jpeg[2..];
    while rest[0] == 0xff && rest[1] != 0xda {
        let length = 2 + usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let (segment, behind) = rest.split_at(length);
        if !matches!(segment[1], 0xe0..=0xef) {
            kept.extend(segment);
        }
        rest = behind;
    }
    [&kept, rest].concat()
}
