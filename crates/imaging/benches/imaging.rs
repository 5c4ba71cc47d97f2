//! Compares the cost of an upload with that of a straightforward pipeline, in the same run.
//!
//! ```text
//! cargo bench -p cameo-imaging --bench imaging -- [--rounds N] [PICTURE]
//! ```
//!
//! `PICTURE` is any picture that Cameo accepts; the straightforward pipeline reads only JPEG. The
//! default is `CAMEO_BENCH_PHOTO`, or else `target/bench/phone-12mp.jpg`, which
//! `scripts/bench-photo.sh` makes.
//!
//! Every pipeline runs on one thread in a process of its own. The rounds of all pipelines are
//! interleaved. CPU is the processor time of the thread in ms (median of the rounds). Peak memory is
//! the largest resident size of the process minus the size before its first picture.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures, and a panic ends it"
)]

use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{env, fs};

use bytes::Bytes;
use cameo_imaging::{
    Control, Crop, Format, Limits, Output, Recipe, SourceFormat, Target, VariantName, Workspace,
    encode_rgb, process,
};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{PixelType, ResizeOptions, Resizer};

const EDGES: [(&str, u32); 5] = [
    ("full", 1024),
    ("large", 512),
    ("medium", 256),
    ("small", 128),
    ("thumbnail", 64),
];

const BOTH: &[Format] = &[Format::Webp, Format::Jpeg];

/// The pipelines: a name, whether it is the straightforward one, and the formats of the output.
const PIPELINES: [(&str, bool, &[Format]); 5] = [
    ("plain", true, BOTH),
    ("cameo", false, BOTH),
    ("cameo-webp", false, &[Format::Webp]),
    ("cameo-jpeg", false, &[Format::Jpeg]),
    // Not measured: bench/imaging/rightness.py and crops.py use this one.
    (FIXTURE, false, &[Format::Png]),
];

const FIXTURE: &str = "fixture";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, pipeline, picture] = arguments.as_slice()
        && flag == "--pipeline"
    {
        return serve(pipeline, Path::new(picture));
    }
    let (mut rounds, mut picture) = (15, None);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => rounds = arguments.next().unwrap().parse().unwrap(),
            _ => picture = Some(PathBuf::from(argument)),
        }
    }
    let picture = picture
        .or_else(|| env::var_os("CAMEO_BENCH_PHOTO").map(PathBuf::from))
        .unwrap_or_else(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            root.join("target/bench/phone-12mp.jpg")
        });
    assert!(
        picture.is_file(),
        "{} does not exist; scripts/bench-photo.sh makes a photo",
        picture.display()
    );
    compare(&picture, rounds);
}

fn compare(picture: &Path, rounds: usize) {
    let is_jpeg = fs::read(picture).unwrap().starts_with(b"\xff\xd8");
    let mut pipelines: Vec<Pipeline> = PIPELINES
        .iter()
        .filter(|(name, plain, _)| (is_jpeg || !plain) && *name != FIXTURE)
        .map(|(name, ..)| Pipeline::start(name, picture))
        .collect();
    for _ in 0..rounds {
        for pipeline in &mut pipelines {
            pipeline.round();
        }
    }
    println!("{}, {rounds} rounds, one thread", picture.display());
    println!(
        "{:<12} {:>8} {:>10} {:>10}",
        "", "CPU ms", "peak MB", "kB out"
    );
    let measured: Vec<_> = pipelines.into_iter().map(Pipeline::finish).collect();
    for found in &measured {
        println!(
            "{:<12} {:>8.1} {:>10.1} {:>10.1}",
            found.name, found.cpu_ms, found.peak_mb, found.output_kb
        );
    }
    let of = |name: &str| measured.iter().find(|found| found.name == name);
    if let (Some(plain), Some(cameo)) = (of("plain"), of("cameo")) {
        println!("cameo / plain: {:.2}", cameo.cpu_ms / plain.cpu_ms);
    }
    if let (Some(both), Some(webp)) = (of("cameo"), of("cameo-webp")) {
        println!(
            "WebP and JPEG / only WebP: {:.2}",
            both.cpu_ms / webp.cpu_ms
        );
    }
}

/// A process that runs one of the pipelines once for each line that it receives.
struct Pipeline {
    name: &'static str,
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    cpu_ms: Vec<f64>,
    peak_mb: f64,
    output_kb: f64,
}

struct Measured {
    name: &'static str,
    cpu_ms: f64,
    peak_mb: f64,
    output_kb: f64,
}

impl Pipeline {
    fn start(name: &'static str, picture: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--pipeline", name])
            .arg(picture)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (ask, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut pipeline = Self {
            name,
            child,
            ask,
            answers: BufReader::new(answers),
            cpu_ms: Vec::new(),
            peak_mb: 0.0,
            output_kb: 0.0,
        };
        // The first round warms up caches and buffers.
        pipeline.round();
        pipeline.cpu_ms.clear();
        pipeline
    }

    fn round(&mut self) {
        writeln!(self.ask).unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let numbers: Vec<f64> = line
            .split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        let [cpu_ms, peak_mb, output_kb] = numbers[..] else {
            panic!("{} ended", self.name)
        };
        self.cpu_ms.push(cpu_ms);
        self.peak_mb = peak_mb;
        self.output_kb = output_kb;
    }

    fn finish(mut self) -> Measured {
        drop(self.ask);
        self.child.wait().unwrap();
        self.cpu_ms.sort_by(f64::total_cmp);
        Measured {
            name: self.name,
            cpu_ms: self.cpu_ms[self.cpu_ms.len() / 2],
            peak_mb: self.peak_mb,
            output_kb: self.output_kb,
        }
    }
}

fn serve(name: &str, picture: &Path) {
    let (_, plain, formats) = PIPELINES
        .into_iter()
        .find(|pipeline| pipeline.0 == name)
        .unwrap();
    let mut recipe = recipe(formats);
    if name == FIXTURE {
        recipe
            .variants
            .retain(|target| target.name.as_str() == "medium");
        recipe.variants[0].edge_px = 128;
    }
    let upload = Bytes::from(fs::read(picture).unwrap());
    let idle_kb = status_kb("VmRSS");
    let mut workspace = Workspace::new();
    let mut resizer = Resizer::new();
    for line in std::io::stdin().lines() {
        // A line has an optional folder for the files, then a crop and the edge of the medium
        // variant.
        let line = line.unwrap();
        let mut words = line.split('\t');
        let folder = words.next().unwrap_or_default();
        let crop = words.next().map(parse_crop);
        if let Some(edge) = words.next() {
            recipe.variants[0].edge_px = edge.parse().unwrap();
        }
        let mut files = Vec::new();
        let before = cpu_ns();
        let output = if plain {
            run_plain(&upload, &recipe, &mut resizer)
        } else {
            files = run_cameo(&upload, &recipe, crop, &mut workspace);
            files.iter().map(|(_, bytes)| bytes.len()).sum()
        };
        let cpu_ms = (cpu_ns() - before) as f64 / 1e6;
        let peak_mb = (status_kb("VmHWM") - idle_kb) as f64 / 1024.0;
        for (name, bytes) in files.iter().filter(|_| !folder.is_empty()) {
            fs::write(Path::new(folder).join(name), bytes).unwrap();
        }
        println!("{cpu_ms} {peak_mb} {}", output as f64 / 1024.0);
    }
}

/// `x,y,width,height`
fn parse_crop(text: &str) -> Crop {
    let numbers: Vec<u32> = text.split(',').map(|n| n.parse().unwrap()).collect();
    let [x, y, width, height] = numbers[..] else {
        panic!("a crop is x,y,width,height")
    };
    Crop {
        x,
        y,
        width,
        height,
    }
}

fn recipe(formats: &[Format]) -> Recipe {
    Recipe {
        limits: Limits {
            formats: SourceFormat::ALL.to_vec(),
            min_edge_px: 1,
            max_edge_px: 4096,
            max_frames: 200,
        },
        variants: EDGES
            .map(|(name, edge_px)| Target {
                name: VariantName::new(name).unwrap(),
                edge_px,
            })
            .to_vec(),
        formats: formats.to_vec(),
        webp_quality: 80,
        jpeg_quality: 82,
        background: [255; 3],
        animated: false,
        keep_original: false,
    }
}

/// Runs Cameo. Returns the files with names such as `medium.webp`.
fn run_cameo(
    upload: &Bytes,
    recipe: &Recipe,
    crop: Option<Crop>,
    workspace: &mut Workspace,
) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    process(
        upload.clone(),
        recipe,
        crop,
        &Control::unlimited(),
        workspace,
        &mut |output| {
            if let Output::Rendition(rendition, bytes) = output {
                let (name, format) = (rendition.variant, rendition.format.name());
                files.push((format!("{name}.{format}"), bytes));
            }
            ControlFlow::Continue(())
        },
    )
    .unwrap();
    files
}

/// The straightforward pipeline: decodes the whole picture with zune-jpeg, resizes it from size to
/// size with `fast_image_resize`, and encodes with libwebp and the JPEG encoder. It does less than
/// Cameo: no orientation, no colour profile, no placeholder. Returns the number of output bytes.
fn run_plain(upload: &Bytes, recipe: &Recipe, resizer: &mut Resizer) -> usize {
    let cursor = zune_jpeg::zune_core::bytestream::ZCursor::new(&upload[..]);
    let mut decoder = zune_jpeg::JpegDecoder::new(cursor);
    let pixels = decoder.decode().unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    let (mut width, mut height) = (width as u32, height as u32);
    let mut level = pixels;
    let mut total = 0;
    for target in &recipe.variants {
        let edge = target.edge_px;
        let square = width.min(height);
        let source = ImageRef::new(width, height, &level, PixelType::U8x3).unwrap();
        let mut smaller = Image::new(edge, edge, PixelType::U8x3);
        let options = ResizeOptions::new().crop(
            f64::from((width - square) / 2),
            f64::from((height - square) / 2),
            f64::from(square),
            f64::from(square),
        );
        resizer.resize(&source, &mut smaller, &options).unwrap();
        level = smaller.into_vec();
        (width, height) = (edge, edge);
        for &format in &recipe.formats {
            total += encode_rgb(edge, edge, level.clone(), format, recipe)
                .unwrap()
                .len();
        }
    }
    total
}

/// The processor time in ns of this thread, and of the processes that it has waited for.
fn cpu_ns() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let own: u64 = stat.split_whitespace().next().unwrap().parse().unwrap();
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // These are cutime and cstime, fields 16 and 17. The second field is a name in parentheses.
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields
        .skip(13)
        .take(2)
        .map(|n| n.parse::<u64>().unwrap())
        .sum();
    own + ticks * 10_000_000
}

fn status_kb(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
