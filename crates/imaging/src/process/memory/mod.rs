//! Compares the real peak memory of processing with the estimate.
//!
//! The kernel measures it, so nothing is missed: the largest resident size of a process that does
//! nothing else, less its size before. Its allocator returns every large block to the system at
//! once, so that memory left over from one picture does not hide that of the next. The process that
//! decodes AV1 is not measured; its limit is added instead.

mod pictures;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use super::fixtures::fixtures;
use super::*;
use crate::Target;
use crate::executor::Task;
use crate::{Format, SourceFormat, VariantName};

/// The size from which the allocator maps blocks separately.
const MIN_APART_BYTES: &str = "32768";

/// The number of processes that measure at the same time.
const MEASURING: usize = 2;

/// An executor that always has an idle thread.
struct AlwaysIdle;

impl Executor for AlwaysIdle {
    fn offer(&self, task: Task) -> bool {
        thread::spawn(task);
        true
    }
}

/// The outputs to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The default outputs of the service.
    Usual,
    /// The default outputs of a ninth of the picture.
    Part,
    /// One small size.
    One,
    /// The usual sizes in every format, and an original.
    All,
    /// The usual outputs, and an original.
    Original,
    /// The usual formats, and animated renditions.
    AnimatedRenditions,
    /// Two sizes that are encoded thoroughly, at the highest quality.
    Finest,
}

impl Kind {
    fn recipe(self) -> Recipe {
        let sizes: &[u32] = match self {
            Self::One => &[64],
            Self::Finest => &[511, 512],
            _ => &[64, 128, 256, 512, 1024],
        };
        Recipe {
            limits: Limits {
                formats: SourceFormat::ALL.to_vec(),
                min_edge_px: 1,
                max_edge_px: 8192,
                max_frames: 200,
            },
            variants: (sizes.iter())
                .map(|&edge_px| Target {
                    name: VariantName::new(format!("v{edge_px}")).unwrap(),
                    edge_px,
                })
                .collect(),
            formats: match self {
                Self::All => Format::ALL.to_vec(),
                _ => vec![Format::Webp, Format::Jpeg],
            },
            webp_quality: if self == Self::Finest { 100 } else { 80 },
            jpeg_quality: if self == Self::Finest { 100 } else { 82 },
            background: [255; 3],
            animated: self == Self::AnimatedRenditions,
            keep_original: matches!(self, Self::All | Self::Original),
        }
    }

    /// A crop in the middle, whose edges do not match the edges of blocks.
    fn crop(self, bytes: &[u8], recipe: &Recipe) -> Option<Crop> {
        let probe = probe(bytes, &recipe.limits).unwrap();
        (self == Self::Part).then_some(Crop {
            x: probe.width / 2 - 3,
            y: probe.height / 2 - 3,
            width: probe.width / 3,
            height: probe.height / 3,
        })
    }
}

/// The estimated and the measured bytes of one picture with a recipe.
#[derive(Debug)]
struct Measured {
    case: String,
    estimate: u64,
    peak: u64,
}

/// Measures the memory of making these outputs.
fn measure(name: &str, bytes: &Bytes, kind: Kind) -> Measured {
    let recipe = kind.recipe();
    let crop = kind.crop(bytes, &recipe);
    let peak = peak_of(|| process_all(bytes, &recipe, crop));
    Measured {
        case: format!("{name}, {kind:?}"),
        estimate: probe_for(bytes, &recipe, crop).unwrap().memory_bytes,
        peak,
    }
}

/// Processes a picture like a worker, and keeps all outputs until the end.
fn process_all(bytes: &Bytes, recipe: &Recipe, crop: Option<Crop>) {
    let mut outputs = Vec::new();
    let mut workspace = Workspace::new();
    let mut emit = |output| {
        outputs.push(output);
        ControlFlow::Continue(())
    };
    process_with(
        bytes.clone(),
        recipe,
        crop,
        &Control::unlimited(),
        &mut workspace,
        &AlwaysIdle,
        &mut emit,
    )
    .unwrap();
}

/// The peak memory of this process during `work`, less the memory before and less the pages of its
/// own program that were read meanwhile, which stay.
fn peak_of(work: impl FnOnce()) -> u64 {
    // Resets the peak to the current size (proc_pid_clear_refs(5)).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, program) = (status_bytes("VmRSS"), status_bytes("RssFile"));
    work();
    let read = status_bytes("RssFile").saturating_sub(program);
    status_bytes("VmHWM").saturating_sub(before + read)
}

fn status_bytes(key: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

const WHICH: &str = "CAMEO_TEST_MEASURES";

#[test]
#[ignore = "not a test: a process that measures some of the pictures"]
fn measuring() {
    // With huge pages, a block that is hardly used would count completely.
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true).unwrap();
    let which: usize = std::env::var(WHICH).unwrap().parse().unwrap();
    for (name, bytes) in fixtures().into_iter().skip(which).step_by(MEASURING) {
        let bytes = Bytes::from(bytes);
        for kind in [Kind::AnimatedRenditions, Kind::Part] {
            print(&measure(&name, &bytes, kind));
        }
    }
    for (name, kinds, make) in pictures::ALL.iter().skip(which).step_by(MEASURING) {
        let bytes = Bytes::from(make());
        for &kind in *kinds {
            print(&measure(name, &bytes, kind));
        }
    }
}

/// Prints the result on a line of its own.
fn print(
    Measured {
        case,
        estimate,
        peak,
    }: &Measured,
) {
    println!("\nmeasured\t{case}\t{estimate}\t{peak}");
}

/// Collects the results of the measuring processes.
fn measured() -> Vec<Measured> {
    let processes: Vec<_> = (0..MEASURING)
        .map(|which| {
            Command::new(std::env::current_exe().unwrap())
                .args(["process::memory::measuring", "--exact", "--ignored"])
                .args(["--nocapture", "--test-threads=1"])
                .env(WHICH, which.to_string())
                .env("MALLOC_ARENA_MAX", "1")
                .env("MALLOC_MMAP_THRESHOLD_", MIN_APART_BYTES)
                .env("MALLOC_TRIM_THRESHOLD_", "0")
                .env("MALLOC_TOP_PAD_", "0")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut found = Vec::new();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{printed}");
        for line in printed.lines() {
            let words: Vec<_> = line.split('\t').collect();
            if let ["measured", case, estimate, peak] = words[..] {
                found.push(Measured {
                    case: case.to_owned(),
                    estimate: estimate.parse().unwrap(),
                    peak: peak.parse().unwrap(),
                });
            }
        }
    }
    found
}

#[test]
fn no_picture_takes_more_memory_than_its_estimate() {
    let measured = measured();
    let made = pictures::ALL.iter().map(|(_, kinds, _)| kinds.len());
    let cases = fixtures().len() * 2 + made.sum::<usize>();
    assert_eq!(measured.len(), cases);
    for Measured {
        case,
        estimate,
        peak,
    } in &measured
    {
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        println!("{case}: {:.1} of {:.1} MiB", mib(*peak), mib(*estimate));
    }
    let too_much: Vec<_> = (measured.iter())
        .filter(|found| found.peak > found.estimate)
        .collect();
    assert!(too_much.is_empty(), "{too_much:#?}");
}
