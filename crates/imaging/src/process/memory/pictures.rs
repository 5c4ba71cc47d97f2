//! Pictures that are large enough to measure, one for each decoding path, and small files that
//! expand greatly.

use heifer_isobmff::HeifFile;
use heifer_isobmff::writer::{HeifWriter, ImageSpec};
use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};
use png::{BitDepth, ColorType};

use super::super::bitmaps::{self, LONG, STRIPS, TILES};
use super::super::tests::recipe;
use super::Kind::{self, All, AnimatedRenditions, Finest, One, Original, Part, Usual};
use crate::Format;
use crate::encode::{self, Animation};
use crate::planes::Picture;
use crate::raster::{Layout, Raster};

type Make = fn() -> Vec<u8>;

/// Pictures by name, with the outputs to make; each is made on demand.
pub(super) const ALL: &[(&str, &[Kind], Make)] = &[
    ("baseline 420", &[Original, Usual, One], || {
        jpeg(Subsampling::S420, false)
    }),
    ("baseline 444", &[Usual], || jpeg(Subsampling::S444, false)),
    ("progressive 420", &[Usual], || {
        jpeg(Subsampling::S420, true)
    }),
    ("progressive 444", &[Original, One, Part], || {
        jpeg(Subsampling::S444, true)
    }),
    ("inks with a large profile", &[Original, One], inks),
    ("rgba", &[All, One], || {
        png((1200, 1200), (ColorType::Rgba, BitDepth::Eight), false)
    }),
    ("rgb noise", &[All, Usual], || {
        png((1500, 1500), (ColorType::Rgb, BitDepth::Eight), false)
    }),
    ("small rgb noise", &[Finest, Usual], || {
        png((512, 512), (ColorType::Rgb, BitDepth::Eight), false)
    }),
    ("small rgba noise", &[Finest, Usual], || {
        png((512, 512), (ColorType::Rgba, BitDepth::Eight), false)
    }),
    ("png with much Exif", &[One], much_exif_png),
    ("jpeg with many notes", &[One], noted_jpeg),
    ("one bit", &[One], || {
        png((2000, 2000), (ColorType::Grayscale, BitDepth::One), false)
    }),
    ("interlaced rgba", &[One], || {
        png((1000, 1000), (ColorType::Rgba, BitDepth::Eight), true)
    }),
    ("interlaced sixteen", &[Original, Usual], || {
        png((2000, 2000), (ColorType::Rgba, BitDepth::Sixteen), true)
    }),
    ("wide interlaced", &[Original, One], || {
        png((4096, 600), (ColorType::Rgb, BitDepth::Eight), true)
    }),
    ("png with a profile of zeros", &[One], profile_of_zeros),
    ("lossy", &[Usual], || {
        webp(&waves(1500, 1500, 3), 1500, Layout::Rgb)
    }),
    ("lossy with alpha", &[Original, Usual], || {
        webp(&noise(1000 * 1000 * 4), 1000, Layout::Rgba)
    }),
    ("lossless", &[One], || {
        encode::encode_lossless(&raster(waves(1500, 1500, 4), 1500, Layout::Rgba), 0, 0)
    }),
    ("lossless noise", &[Usual], || {
        encode::encode_lossless(&raster(noise(1000 * 1000 * 4), 1000, Layout::Rgba), 0, 0)
    }),
    ("gif", &[Usual, AnimatedRenditions], || gif((240, 240), 40)),
    ("wide gif", &[Original, One], || gif((4096, 900), 1)),
    ("apng", &[Usual, AnimatedRenditions], apng),
    ("moving webp", &[AnimatedRenditions], moving_webp),
    ("heic", &[Original, Usual, Part], || {
        heic(512, &noise(512 * 512 * 4))
    }),
    ("heic with much that is not needed", &[One], padded_heic),
    ("bmp", &[Original, Usual, Part], || bmp(24)),
    ("bmp with alpha", &[One, Usual], || bmp(32)),
    ("tiff that is not compressed", &[Usual], || {
        tiff(1, 16, 1500)
    }),
    ("tiff in one strip", &[Usual, Part], || tiff(8, 16, 1500)),
    ("tiff in strips", &[One], || tiff(5, 8, 16)),
    ("tiff in planes", &[Usual], planar_tiff),
    ("tiff of a JPEG", &[Usual], jpeg_tiff),
];

/// A picture of 24 bits, or of 32 bits with alpha.
fn bmp(bits: u16) -> Vec<u8> {
    let size = (2000, 1500);
    let length = if bits == 24 { 40 } else { 108 };
    let mut header = bitmaps::bmp_header(length, size, bits, if bits == 24 { 0 } else { 3 });
    if bits == 32 {
        for (index, byte) in (0..4).map(|channel| (40 + channel * 5, 0xff)) {
            header[index] = byte;
        }
    }
    bitmaps::bmp(&header, &[], &noise(2000 * 1500 * usize::from(bits) / 8))
}

const TIFF_PX: usize = 1500;

fn packed(compression: u32, data: &[u8]) -> Vec<u8> {
    match compression {
        5 => weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8)
            .encode(data)
            .unwrap(),
        8 => fdeflate::compress_to_vec(data),
        _ => data.to_vec(),
    }
}

/// A picture with alpha in strips of this many rows.
fn tiff(compression: u32, bits: u32, rows: usize) -> Vec<u8> {
    let edge = TIFF_PX as u32;
    let data = noise(TIFF_PX * TIFF_PX * bits as usize / 2);
    let strips: Vec<_> = data
        .chunks(TIFF_PX * rows * bits as usize / 2)
        .map(|strip| packed(compression, strip))
        .collect();
    let mut tags = bitmaps::tags((edge, edge), 2, &[bits; 4], compression);
    tags.pop();
    tags.push((278, LONG, vec![rows as u32]));
    bitmaps::tiff(false, &tags, STRIPS, &strips)
}

/// A picture of four inks in tiles as large as it.
fn planar_tiff() -> Vec<u8> {
    let edge = TIFF_PX as u32;
    let tile = edge.next_multiple_of(16);
    let mut tags = bitmaps::tags((edge, edge), 5, &[16; 4], 8);
    tags.pop();
    tags.extend([
        (284, LONG, vec![2]),
        (322, LONG, vec![tile]),
        (323, LONG, vec![tile]),
    ]);
    let plane = packed(8, &noise((tile * tile * 2) as usize));
    bitmaps::tiff(true, &tags, TILES, &vec![plane; 4])
}

/// A picture whose only strip is a progressive JPEG.
fn jpeg_tiff() -> Vec<u8> {
    let tags = bitmaps::tags((4000, 3000), 6, &[8; 3], 7);
    bitmaps::tiff(false, &tags, STRIPS, &[jpeg(Subsampling::S444, true)])
}

/// Slow waves, which every encoder compresses well: each row is the previous one, shifted.
fn waves(width: usize, height: usize, channels: usize) -> Vec<u8> {
    let length = width * channels;
    let wave = |at: usize| (at / channels % 510).min(509 - at / channels % 510) as u8;
    let row: Vec<u8> = (0..length + height * channels).map(wave).collect();
    let mut pixels = Vec::with_capacity(length * height);
    for y in 0..height {
        pixels.extend_from_slice(&row[y * channels..][..length]);
    }
    pixels
}

/// Noise, which no encoder compresses.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}

fn raster(pixels: Vec<u8>, edge: u32, layout: Layout) -> Raster {
    Raster::new(edge, edge, layout, pixels).unwrap()
}

fn jpeg(subsampling: Subsampling, progressive: bool) -> Vec<u8> {
    let (width, height) = (4000, 3000);
    Encoder::new(&waves(width, height, 3), width, height, PixelFormat::Rgb)
        .subsampling(subsampling)
        .progressive(progressive)
        .encode()
        .unwrap()
}

/// A picture with a profile as large as those of printers: 33 steps of each of four inks.
fn inks() -> Vec<u8> {
    let ramp: Vec<u8> = (0..=255).collect();
    let one = 0x1_0000_u32.to_be_bytes();
    let zero = [0; 4];
    let identity = [one, zero, zero, zero, one, zero, zero, zero, one].concat();
    let head = b"mft1\0\0\0\0\x04\x03\x21\0".to_vec();
    let table = noise(33_usize.pow(4) * 3);
    let lut = [head, identity, ramp.repeat(4), table, ramp.repeat(3)].concat();
    let length = |bytes: usize| (bytes as u32).to_be_bytes();
    let mut header = vec![0; 128];
    header[..4].copy_from_slice(&length(128 + 16 + lut.len()));
    header[8] = 2;
    header[12..24].copy_from_slice(b"prtrCMYKLab ");
    header[36..40].copy_from_slice(b"acsp");
    header[68..80].copy_from_slice(b"\0\0\xf6\xd6\0\x01\0\0\0\0\xd3\x2d");
    let tags = [
        &length(1)[..],
        b"A2B0",
        &length(128 + 16),
        &length(lut.len()),
    ]
    .concat();
    let profile = [header, tags, lut].concat();
    let (width, height) = (1000, 1000);
    Encoder::new(&waves(width, height, 4), width, height, PixelFormat::Cmyk)
        .icc_profile(&profile)
        .encode()
        .unwrap()
}

/// The encoder writes no interlaced pictures. So the rows of all passes are written as the only row
/// of another picture, whose data is put into this one.
fn png(
    (width, height): (u32, u32),
    (color, depth): (ColorType, BitDepth),
    interlaced: bool,
) -> Vec<u8> {
    let bits = color.samples() * depth as usize;
    let row_bytes = |columns: usize| (columns * bits).div_ceil(8);
    let mut info = png::Info::with_size(width, height);
    (info.color_type, info.bit_depth, info.interlaced) = (color, depth, interlaced);
    let mut bytes = Vec::new();
    let encoder = png::Encoder::with_info(&mut bytes, info).unwrap();
    let mut writer = encoder.write_header().unwrap();
    let (width, height) = (width as usize, height as usize);
    if !interlaced {
        writer
            .write_image_data(&noise(row_bytes(width) * height))
            .unwrap();
        writer.finish().unwrap();
        return bytes;
    }
    // The starts of the seven passes, and the distances of their pixels (PNG, 8.2).
    let passes = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ];
    let mut rows = Vec::new();
    for (x, y, across, down) in passes {
        let columns = (width - x).div_ceil(across);
        let row = [vec![0], noise(row_bytes(columns))].concat();
        rows.extend(row.repeat((height - y).div_ceil(down)));
    }
    for data in chunks(&png_row(&rows[1..]), *b"IDAT") {
        writer.write_chunk(png::chunk::IDAT, &data).unwrap();
    }
    drop(writer);
    bytes
}

/// A picture with one row and filter 0.
fn png_row(row: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, row.len() as u32, 1);
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(row).unwrap();
    writer.finish().unwrap();
    bytes
}

/// The payloads of all chunks of a type.
fn chunks(png: &[u8], name: [u8; 4]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut rest = &png[8..];
    while let Some((length, chunk)) = rest.split_first_chunk::<4>() {
        let end = 4 + u32::from_be_bytes(*length) as usize;
        if chunk.starts_with(&name) {
            found.push(chunk[4..end].to_vec());
        }
        rest = &chunk[end + 4..];
    }
    found
}

fn much_exif_png() -> Vec<u8> {
    let exif = [&b"II*\0\x08\0\0\0\0\0\0\0\0\0"[..], &noise(4 << 20)].concat();
    let mut info = png::Info::with_size(100, 100);
    info.exif_metadata = Some(exif.into());
    let mut png = Vec::new();
    let mut writer = png::Encoder::with_info(&mut png, info)
        .unwrap()
        .write_header()
        .unwrap();
    writer.write_image_data(&[128; 100 * 100]).unwrap();
    writer.finish().unwrap();
    png
}

/// Extended XMP in the smallest possible segments.
fn noted_jpeg() -> Vec<u8> {
    const SEGMENTS: u32 = 40_000;
    let label = b"http://ns.adobe.com/xmp/extension/\0";
    let length = 2 + label.len() + 32 + 4 + 4 + 4;
    let notes = (0..SEGMENTS).flat_map(|index| {
        [
            &[0xff, 0xe1, 0, length as u8][..],
            label,
            &[b'A'; 32],
            &(SEGMENTS * 4).to_be_bytes(),
            &(index * 4).to_be_bytes(),
            b"note",
        ]
        .concat()
    });
    let jpeg = jpeg(Subsampling::S420, false);
    let (start, rest) = jpeg.split_at(2);
    [start, &notes.collect::<Vec<u8>>(), rest].concat()
}

/// A few kilobytes that expand to seven megabytes.
fn profile_of_zeros() -> Vec<u8> {
    let data = chunks(&png_row(&vec![0; 7 << 20]), *b"IDAT").concat();
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::new(&mut bytes, 300, 300)
        .write_header()
        .unwrap();
    let profile = [b"of zeros\0\0", &data[..]].concat();
    writer.write_chunk(png::chunk::iCCP, &profile).unwrap();
    writer.write_image_data(&noise(300 * 300)).unwrap();
    writer.finish().unwrap();
    bytes
}

fn webp(pixels: &[u8], edge: u32, layout: Layout) -> Vec<u8> {
    let picture = Picture::Pixels(raster(pixels.to_vec(), edge, layout));
    encode::encode(&picture, Format::Webp, &recipe()).unwrap()
}

fn gif((width, height): (u16, u16), frames: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let palette: Vec<u8> = (0..=255).flat_map(|gray: u8| [gray, gray / 2, 0]).collect();
    let mut encoder = gif::Encoder::new(&mut bytes, width, height, &palette).unwrap();
    let length = usize::from(width) * usize::from(height);
    for number in 0..frames {
        let mut pixels = waves(width.into(), usize::from(height) + 8 * number, 1);
        pixels.drain(..pixels.len() - length);
        let mut frame = gif::Frame::from_indexed_pixels(width, height, pixels, None);
        // The previous pixels must be kept.
        frame.dispose = gif::DisposalMethod::Previous;
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    bytes
}

const MOVING_PX: u32 = 300;

/// Frames that all differ.
fn frames() -> impl Iterator<Item = Vec<u8>> {
    let length = (MOVING_PX * MOVING_PX * 4) as usize;
    let noise = noise(length + 11 * 1001);
    (0..12).map(move |number| noise[number * 1001..][..length].to_vec())
}

fn apng() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, MOVING_PX, MOVING_PX);
    encoder.set_color(ColorType::Rgba);
    encoder.set_animated(12, 0).unwrap();
    encoder.set_dispose_op(png::DisposeOp::Previous).unwrap();
    let mut writer = encoder.write_header().unwrap();
    for frame in frames() {
        writer.write_image_data(&frame).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

fn moving_webp() -> Vec<u8> {
    let mut animation = Animation::new(MOVING_PX, 0, 80).unwrap();
    for frame in frames() {
        let frame = raster(frame, MOVING_PX, Layout::Rgba);
        animation.add(&frame, 50).unwrap();
    }
    animation.finish().unwrap()
}

fn heic(edge: u32, rgba: &[u8]) -> Vec<u8> {
    let options = heifer::EncodeOptions {
        quality: 100,
        ..heifer::EncodeOptions::default()
    };
    heifer::encode_rgba8(edge, edge, rgba, &options).unwrap()
}

/// A small picture with a large unit that decoders skip.
fn padded_heic() -> Vec<u8> {
    let whole = heic(256, &vec![200; 256 * 256 * 4]);
    let file = HeifFile::parse(&whole).unwrap();
    let picture = file.primary_id;
    let config = file.hevc_config(picture).unwrap().unwrap().clone();
    let data = file.item_data(picture).unwrap();
    let (length, rest) = data.split_first_chunk::<4>().unwrap();
    let slice = rest[..u32::from_be_bytes(*length) as usize].to_vec();
    // Filler data (ITU-T H.265, 7.3.2.8), with emulation prevention bytes.
    let filler = [&[38 << 1, 1][..], &[1, 0, 0, 3].repeat(1 << 20)].concat();
    let mut writer = HeifWriter::new();
    let id = writer.add_image(&ImageSpec::new(256, 256, config, &[slice, filler]));
    writer.set_primary(id);
    writer.finish()
}
