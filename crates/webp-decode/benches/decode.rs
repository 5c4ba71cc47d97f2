//! Compares this decoder with `image-webp` and libwebp: CPU time and peak memory.
//!
//! ```text
//! cargo bench -p cameo-webp-decode --bench decode -- [--rounds N] [PHOTO]
//! ```
//!
//! `PHOTO` is a JPEG; the default is `target/bench/phone-12mp.jpg`, which `scripts/bench-photo.sh`
//! makes. Its centre, 1500 px wide after it is halved, is encoded with loss, without loss, and with
//! loss and an alpha channel. libwebp encodes all three.
//!
//! CPU is the thread's time for one decode to RGB, or to RGBA if there is alpha: the median of the
//! rounds, in which the decoders take turns. Peak memory is the largest resident size of a process
//! that decodes the picture once, above the size that it had before.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its results and stops at the first fault"
)]
#![allow(unsafe_code, reason = "libwebp is a C library")]

use std::ffi::c_int;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, slice};

use cameo_webp_decode::{Area, Content, Layout, WebP};
use libwebp_sys::{
    WebPConfig, WebPDecodeRGB, WebPDecodeRGBA, WebPEncode, WebPFree, WebPMemoryWrite,
    WebPMemoryWriter, WebPMemoryWriterInit, WebPPicture, WebPPictureFree, WebPPictureImportRGBA,
};

type Decode = fn(&[u8]) -> Vec<u8>;

const DECODERS: [(&str, Decode); 4] = [
    ("this crate", whole),
    ("this crate, a quarter", quarter),
    ("image-webp", image_webp),
    ("libwebp", libwebp),
];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, name, file] = arguments.as_slice()
        && flag == "--memory"
    {
        return print_memory(name, Path::new(file));
    }
    let (mut rounds, mut photo) = (15, None);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().unwrap().parse().unwrap(),
            _ => photo = Some(PathBuf::from(argument)),
        }
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    let photo = photo.unwrap_or_else(|| target.join("phone-12mp.jpg"));
    let (width, height, pixels) = centre(&fs::read(photo).unwrap());
    for (name, lossless, alpha) in [
        ("lossy", false, false),
        ("lossy with alpha", false, true),
        ("lossless", true, false),
    ] {
        let bytes = encode(width, height, &pixels, lossless, alpha);
        println!("{name}, {width} × {height} px, {} kB", bytes.len() / 1000);
        let file = target.join("decode.webp");
        fs::write(&file, &bytes).unwrap();
        let mut times = vec![Vec::new(); DECODERS.len()];
        for _ in 0..rounds {
            for ((_, decode), times) in DECODERS.iter().zip(&mut times) {
                let before = cpu_ns();
                std::hint::black_box(decode(&bytes));
                times.push(cpu_ns() - before);
            }
        }
        for ((name, _), mut times) in DECODERS.iter().zip(times) {
            times.sort_unstable();
            let cpu_ms = times[rounds / 2] as f64 / 1e6;
            let memory_mb = memory_of(name, &file);
            println!("    {name:<22} {cpu_ms:>7.1} ms {memory_mb:>7.1} MB");
        }
    }
}

fn whole(bytes: &[u8]) -> Vec<u8> {
    decode(bytes, Area::whole)
}

fn quarter(bytes: &[u8]) -> Vec<u8> {
    decode(bytes, |width, height| Area {
        x: width / 4,
        y: height / 4,
        width: width / 2,
        height: height / 2,
    })
}

fn decode(bytes: &[u8], area: impl Fn(u32, u32) -> Area) -> Vec<u8> {
    let file = WebP::parse(bytes).unwrap();
    let Content::Still(Some(picture)) = file.content() else {
        panic!("it is a still")
    };
    let layout = if picture.has_alpha() {
        Layout::Rgba
    } else {
        Layout::Rgb
    };
    let area = area(picture.width(), picture.height());
    picture.decode(area, layout, &|| true).unwrap()
}

fn image_webp(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = image_webp::WebPDecoder::new(Cursor::new(bytes)).unwrap();
    let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
    decoder.read_image(&mut pixels).unwrap();
    pixels
}

fn libwebp(bytes: &[u8]) -> Vec<u8> {
    let alpha = image_webp::WebPDecoder::new(Cursor::new(bytes))
        .unwrap()
        .has_alpha();
    let (mut width, mut height) = (0, 0);
    // SAFETY: libwebp reads `bytes.len()` bytes and gives `height` rows of `width` pixels, which are
    // freed when their last one was read.
    unsafe {
        let decode = if alpha { WebPDecodeRGBA } else { WebPDecodeRGB };
        let pixels = decode(bytes.as_ptr(), bytes.len(), &raw mut width, &raw mut height);
        assert!(!pixels.is_null());
        let channels = if alpha { 4 } else { 3 };
        let all = slice::from_raw_parts(pixels, (width * height * channels) as usize);
        // The caller gets one byte: a copy would count as libwebp's work.
        let last = vec![all[all.len() - 1]];
        WebPFree(pixels.cast());
        last
    }
}

/// The centre of a JPEG at half its size, as RGBA: at most 1500 px a side.
fn centre(jpeg: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut decoder =
        zune_jpeg::JpegDecoder::new(zune_jpeg::zune_core::bytestream::ZCursor::new(jpeg));
    let pixels = decoder.decode().unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    let (columns, rows) = ((width / 2).min(1500), (height / 2).min(1500));
    let (left, top) = (width / 2 - columns, height / 2 - rows);
    let mut half = Vec::with_capacity(columns * rows * 4);
    for y in 0..rows {
        for x in 0..columns {
            for channel in 0..3 {
                let at = |x: usize, y: usize| u32::from(pixels[(y * width + x) * 3 + channel]);
                let (x, y) = (left + x * 2, top + y * 2);
                let sum = at(x, y) + at(x + 1, y) + at(x, y + 1) + at(x + 1, y + 1);
                half.push((sum / 4) as u8);
            }
            half.push(255);
        }
    }
    (columns as u32, rows as u32, half)
}

fn encode(width: u32, height: u32, pixels: &[u8], lossless: bool, alpha: bool) -> Vec<u8> {
    let mut pixels = pixels.to_vec();
    if alpha {
        // A disc with a soft edge.
        let middle = (f64::from(width) / 2.0, f64::from(height) / 2.0);
        for (index, pixel) in pixels.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let (x, y) = (index as u32 % width, index as u32 / width);
            let distance = (f64::from(x) - middle.0).hypot(f64::from(y) - middle.1);
            pixel[3] = ((middle.0.min(middle.1) - distance) * 4.0).clamp(0.0, 255.0) as u8;
        }
    }
    let mut config = WebPConfig::new().unwrap();
    config.lossless = c_int::from(lossless);
    config.quality = if lossless { 75.0 } else { 85.0 };
    let mut picture = WebPPicture::new().unwrap();
    picture.use_argb = 1;
    picture.width = width.cast_signed();
    picture.height = height.cast_signed();
    // SAFETY: the pixels are `height` rows of `width` pixels of four bytes, which libwebp copies; the
    // writer outlives the encoder, and what it holds is never freed.
    unsafe {
        let stride = picture.width * 4;
        assert_ne!(
            WebPPictureImportRGBA(&raw mut picture, pixels.as_ptr(), stride),
            0
        );
        let mut writer = std::mem::zeroed::<WebPMemoryWriter>();
        WebPMemoryWriterInit(&raw mut writer);
        picture.writer = Some(WebPMemoryWrite);
        picture.custom_ptr = (&raw mut writer).cast();
        assert_ne!(WebPEncode(&raw const config, &raw mut picture), 0);
        WebPPictureFree(&raw mut picture);
        slice::from_raw_parts(writer.mem, writer.size).to_vec()
    }
}

/// Runs one decoder in a process of its own; gives the peak memory in MB.
fn memory_of(name: &str, file: &Path) -> f64 {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--memory", name])
        .arg(file)
        .output()
        .unwrap();
    let kb: f64 = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    kb * 1024.0 / 1e6
}

fn print_memory(name: &str, file: &Path) {
    let (_, decode) = DECODERS.iter().find(|(known, _)| *known == name).unwrap();
    let bytes = fs::read(file).unwrap();
    let before = status_kb("VmRSS:");
    std::hint::black_box(decode(&bytes));
    println!("{}", status_kb("VmHWM:") - before);
}

/// The CPU time of this thread in ns.
fn cpu_ns() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

fn status_kb(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
