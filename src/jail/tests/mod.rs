//! Pictures in real processes, and real attempts to break out of them.
//!
//! The zygote of these tests is this test program, started with arguments that select the test
//! `zygote`. If the bytes of a picture name an [`Attempt`], the worker makes that attempt instead of
//! decoding, after it has given up its rights.

mod break_ins;

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use rustix::stdio::stdout;

use super::wire::{FileTag, Outcome, frame_head, kind};
use super::*;
use crate::avatar::{Format, SourceFormat, VariantName};
use cameo_imaging::{Control, Limits, Target, Workspace, probe_for, process};

#[test]
#[ignore = "not a test: the zygote that the tests start"]
fn zygote() {
    let served = serve_zygote();
    std::process::exit(i32::from(served.is_err()));
}

fn program() -> Program {
    let arguments = [
        "jail::tests::zygote",
        "--exact",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ];
    let path = std::env::current_exe().unwrap();
    Program::new(path, arguments.map(Into::into).to_vec())
}

fn jail() -> Jail {
    Jail::open(program(), 2, Metrics::new()).unwrap()
}

/// An action of a worker instead of decoding.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) enum Attempt {
    /// No action: the worker survives.
    Nothing,
    /// A system call.
    Call(i64, [i64; 6]),
    Panic,
    Abort,
    RecurseForEver,
    AllocateForEver,
    SpinForEver,
    /// Like the one before, with a limit of one second of processor time.
    SpinToTheLimit,
    /// A system call, which the zygote makes before it forks the worker.
    CallInZygote(i64, [i64; 6]),
    /// Files that the recipe does not have.
    WriteForEver,
    /// The head of a file of this length, without the file.
    Announce(u32),
    /// An outcome, after which the worker does not end.
    LingerAfterOutcome,
    /// A file that is no picture.
    SendText,
}

/// The first bytes of a picture that names an attempt.
const MARK: &[u8] = b"an attempt:";

impl Attempt {
    /// The limit of processor time of a worker that makes this attempt, if it has one of its own.
    pub(super) fn cpu_seconds(bytes: &[u8]) -> Option<u64> {
        matches!(Self::named_by(bytes), Some(Self::SpinToTheLimit)).then_some(1)
    }

    /// Whether the bytes name an action of the zygote.
    pub(super) fn is_for_zygote(bytes: &[u8]) -> bool {
        matches!(Self::named_by(bytes), Some(Self::CallInZygote(..)))
    }

    fn picture(&self) -> Bytes {
        let mut bytes = MARK.to_vec();
        bytes.extend(postcard::to_allocvec(self).unwrap());
        bytes.into()
    }

    pub(super) fn named_by(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes.strip_prefix(MARK)?).ok()
    }

    /// Makes the attempt. The outcome reports that the worker has survived it.
    pub(super) fn make(self) -> Outcome {
        match self {
            // The zygote has made its call.
            Self::Nothing | Self::CallInZygote(..) => {}
            Self::Call(number, arguments) => drop(system::call(number, arguments)),
            Self::Panic => {
                let panicked = std::panic::catch_unwind(|| panic!("on purpose"));
                assert!(panicked.is_err());
                return Outcome::Panicked("on purpose".to_owned());
            }
            Self::Abort => std::process::abort(),
            Self::RecurseForEver => drop(recurse(0)),
            Self::AllocateForEver => {
                let mut kept = Vec::new();
                loop {
                    kept.push(vec![1_u8; 1 << 20]);
                }
            }
            Self::SpinForEver | Self::SpinToTheLimit => loop {
                std::hint::spin_loop();
            },
            Self::WriteForEver => loop {
                write(&frame_head(kind::FILE, 1 << 10).unwrap());
                write(&[0; 1 << 10]);
            },
            Self::Announce(length) => {
                write(&frame_head(kind::FILE, length as usize).unwrap());
                loop {
                    std::hint::spin_loop();
                }
            }
            Self::LingerAfterOutcome => {
                let outcome = Outcome::Corrupt(String::new()).to_bytes().unwrap();
                write(&frame_head(kind::OUTCOME, outcome.len()).unwrap());
                write(&outcome);
                loop {
                    std::hint::spin_loop();
                }
            }
            Self::SendText => {
                let tag = FileTag::Rendition {
                    variant: 0,
                    format: Format::Webp,
                    animated: false,
                };
                write(&frame_head(kind::FILE, 12).unwrap());
                write(&tag.to_bytes());
                write(b"<script>");
            }
        }
        Outcome::Failed("survived".to_owned())
    }
}

/// Makes the system call in the zygote that an upload names.
pub(super) fn make_attempt_in_zygote(upload: &OwnedFd) {
    let length = rustix::fs::fstat(upload).unwrap().st_size;
    let bytes = system::map_sealed(upload, length.try_into().unwrap()).unwrap();
    if let Some(Attempt::CallInZygote(number, arguments)) = Attempt::named_by(bytes) {
        system::call(number, arguments);
    }
}

fn write(bytes: &[u8]) {
    let mut left = bytes;
    while let Ok(count @ 1..) = rustix::io::write(stdout(), left) {
        left = &left[count..];
    }
}

#[allow(unconditional_recursion, reason = "the worker runs out of stack")]
fn recurse(depth: u64) -> u64 {
    let kept = [depth; 64];
    recurse(std::hint::black_box(kept)[7] + 1) + kept[9]
}

fn recipe() -> Arc<Recipe> {
    let target = |name, edge_px| Target {
        name: VariantName::new(name).unwrap(),
        edge_px,
    };
    Arc::new(Recipe {
        limits: Limits {
            formats: SourceFormat::ALL.to_vec(),
            min_edge_px: 1,
            max_edge_px: 8192,
            max_frames: 100,
        },
        variants: vec![target("small", 64), target("large", 512)],
        formats: vec![Format::Webp, Format::Jpeg],
        webp_quality: 80,
        jpeg_quality: 80,
        background: [255; 3],
        animated: true,
        keep_original: true,
    })
}

fn picture(bytes: Bytes) -> Picture {
    let recipe = recipe();
    // An attempt has no headers.
    let probe = probe_for(&bytes, &recipe, None).unwrap_or(Probe {
        format: SourceFormat::Png,
        width: 100,
        height: 100,
        frames: 1,
        memory_bytes: 16 << 20,
    });
    Picture {
        bytes,
        recipe,
        crop: None,
        probe,
        deadline: Duration::from_mins(2),
        reserved: Box::new(()),
    }
}

fn fixture(name: &str) -> Bytes {
    cameo_testing::fixture(name).into()
}

fn start(jail: &Jail, picture: Picture) -> Work {
    let (sender, outputs) = mpsc::channel(100);
    let (done, outcome) = oneshot::channel();
    jail.start(picture, sender, done);
    Work {
        outputs,
        outcome,
        cancel: CancelToken::new(),
    }
}

async fn finish(mut work: Work) -> (Vec<Output>, Result<Processed, Error>) {
    let mut files = Vec::new();
    while let Some(file) = work.outputs.recv().await {
        files.push(file);
    }
    (files, work.outcome().await)
}

async fn outcome_of(jail: &Jail, attempt: &Attempt) -> Result<Processed, Error> {
    finish(start(jail, picture(attempt.picture()))).await.1
}

async fn expect_that_others_notice_nothing(jail: &Jail) {
    let (files, outcome) = finish(start(jail, picture(fixture("baseline.jpg")))).await;
    assert_eq!(outcome.map(|_| files.len()), Ok(5));
}

/// The process of a worker that was started, and its zygote's.
async fn processes(jail: &Jail) -> (Pid, Pid) {
    let own = rustix::process::getpid();
    let filters = number_in_status(own, "Seccomp_filters").unwrap();
    loop {
        if let Some(worker) = jail.supervisor.some_process() {
            // The worker inherits two filters of the zygote. The third one is its own.
            if number_in_status(worker, "Seccomp_filters") == Some(filters + 3) {
                let parent = number_in_status(worker, "PPid").and_then(Pid::from_raw);
                return (worker, parent.unwrap());
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A number in the status of a process; `None` if the process has ended.
fn number_in_status(process: Pid, name: &str) -> Option<i32> {
    let status = status_of(process);
    let fields = status.lines().filter_map(|line| line.split_once(":\t"));
    let (_, number) = fields.into_iter().find(|(field, _)| *field == name)?;
    number.parse().ok()
}

fn status_of(process: Pid) -> String {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    fs::read_to_string(path).unwrap_or_default()
}

async fn until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "the condition does not hold"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_worker_makes_the_same_files_as_a_thread() {
    let jail = jail();
    jail.check().await.unwrap();
    for name in PICTURES {
        let bytes = fixture(name);
        let mut expected = Vec::new();
        let processed = process(
            bytes.clone(),
            &recipe(),
            None,
            &Control::unlimited(),
            &mut Workspace::new(),
            &mut |file| {
                expected.push(file);
                ControlFlow::Continue(())
            },
        );
        let (files, outcome) = finish(start(&jail, picture(bytes))).await;
        assert_eq!(outcome, processed, "{name}");
        // A second thread may send the largest file later.
        assert!(sorted(files) == sorted(expected), "{name}");
    }
}

fn sorted(mut files: Vec<Output>) -> Vec<Output> {
    files.sort_by_key(|file| match file {
        Output::Rendition(made, _) => format!("{made:?}"),
        Output::Original(..) => String::new(),
    });
    files
}

const PICTURES: [&str; 14] = [
    "baseline.jpg",
    "progressive.jpg",
    "moving.gif",
    "moving.webp",
    "plain.heic",
    "ten-bit.avif",
    "alpha.avif",
    "alpha.png",
    "lossy.webp",
    "plain.bmp",
    "palette.bmp",
    "phone.tiff",
    "jpeg.tiff",
    "inks-profile.tiff",
];

#[tokio::test]
async fn a_crash_costs_the_picture_that_caused_it_and_nothing_else() {
    let jail = jail();
    for attempt in [
        Attempt::Panic,
        Attempt::Abort,
        Attempt::RecurseForEver,
        Attempt::WriteForEver,
        Attempt::Announce(u32::MAX),
        Attempt::SendText,
    ] {
        let outcome = outcome_of(&jail, &attempt).await;
        assert!(
            matches!(outcome, Err(Error::Corrupt { .. })),
            "{attempt:?}: {outcome:?}"
        );
    }
    let lingering = Attempt::LingerAfterOutcome;
    let outcome = outcome_of(&jail, &lingering).await;
    assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
    until(|| jail.supervisor.running() == 0).await;
    expect_that_others_notice_nothing(&jail).await;
}

#[tokio::test]
async fn a_worker_that_reaches_a_limit_is_too_complex() {
    let jail = jail();
    let outcome = outcome_of(&jail, &Attempt::AllocateForEver).await;
    assert!(
        matches!(outcome, Err(Error::TooComplex { .. })),
        "{outcome:?}"
    );
    let spinning = Picture {
        deadline: Duration::from_millis(200),
        ..picture(Attempt::SpinForEver.picture())
    };
    let outcome = finish(start(&jail, spinning)).await.1;
    assert!(
        matches!(outcome, Err(Error::TooComplex { .. })),
        "{outcome:?}"
    );
    expect_that_others_notice_nothing(&jail).await;
}

#[tokio::test]
async fn a_worker_that_reaches_its_limit_of_processor_time_is_too_complex() {
    let jail = jail();
    // The deadline is two minutes away.
    let begun = Instant::now();
    let outcome = outcome_of(&jail, &Attempt::SpinToTheLimit).await;
    assert!(
        matches!(outcome, Err(Error::TooComplex { .. })),
        "{outcome:?}"
    );
    assert!(begun.elapsed() < Duration::from_mins(1));
    let text = jail
        .metrics
        .text(crate::telemetry::Exposition::Prometheus)
        .unwrap();
    assert!(
        text.contains("cameo_imaging_processes_ended_total{end=\"timed_out\"} 1\n"),
        "{text}"
    );
}

/// Records that it was dropped.
struct Reserved(Arc<AtomicBool>);

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_worker_whose_work_is_cancelled_is_killed_and_keeps_its_reservation_until_then() {
    let jail = jail();
    let released = Arc::<AtomicBool>::default();
    let spinning = Picture {
        reserved: Box::new(Reserved(Arc::clone(&released))),
        ..picture(Attempt::SpinForEver.picture())
    };
    let work = start(&jail, spinning);
    let (worker, _) = processes(&jail).await;
    assert!(!released.load(Ordering::SeqCst));
    drop(work);
    until(|| released.load(Ordering::SeqCst)).await;
    assert!(jail.supervisor.running() == 0);
    assert!(test_kill_process(worker).is_err(), "the worker still runs");
}

#[tokio::test]
async fn a_worker_that_another_process_kills_is_overload_and_not_a_corrupt_picture() {
    let jail = jail();
    let work = start(&jail, picture(Attempt::SpinForEver.picture()));
    let (worker, _) = processes(&jail).await;
    kill_process(worker, Signal::KILL).unwrap();
    let outcome = finish(work).await.1;
    assert!(
        matches!(outcome, Err(Error::Overloaded { .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_worker_that_is_killed_before_it_has_a_picture_costs_no_upload() {
    let jail = jail();
    jail.check().await.unwrap();
    until(|| jail.supervisor.process_ahead().is_some()).await;
    for _ in 0..10 {
        let ahead = jail.supervisor.process_ahead().unwrap();
        kill_process(ahead, Signal::KILL).unwrap();
        until(|| status_of(ahead).is_empty() || status_of(ahead).contains("State:\tZ")).await;
        // The zygote may not have reported its end yet.
        expect_that_others_notice_nothing(&jail).await;
        until(|| {
            let next = jail.supervisor.process_ahead();
            next.is_some_and(|next| next != ahead)
        })
        .await;
    }
}

#[tokio::test]
async fn a_worker_that_waits_has_no_descriptor_but_its_socket_and_ends_with_the_jail() {
    let jail = jail();
    jail.check().await.unwrap();
    until(|| {
        let ahead = jail.supervisor.process_ahead();
        ahead.is_some_and(|ahead| status_of(ahead).starts_with("Name:\tcameo-waiting\n"))
    })
    .await;
    let ahead = jail.supervisor.process_ahead().unwrap();
    let folder = format!("/proc/{}/fd", ahead.as_raw_nonzero());
    until(|| fs::read_dir(&folder).unwrap().count() == 3).await;
    let mut links: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|link| fs::read_link(link.unwrap().path()).unwrap())
        .collect();
    links.dedup();
    assert_eq!(links.len(), 1, "{links:?}");
    drop(jail);
    until(|| status_of(ahead).is_empty() || status_of(ahead).contains("State:\tZ")).await;
}

#[tokio::test]
async fn a_zygote_that_another_process_kills_ends_its_workers_and_is_replaced() {
    let jail = jail();
    let work = start(&jail, picture(Attempt::SpinForEver.picture()));
    let (worker, zygote) = processes(&jail).await;
    kill_process(zygote, Signal::KILL).unwrap();
    let outcome = finish(work).await.1;
    assert!(
        matches!(outcome, Err(Error::Overloaded { .. })),
        "{outcome:?}"
    );
    until(|| status_of(worker).is_empty() || status_of(worker).contains("State:\tZ")).await;
    expect_that_others_notice_nothing(&jail).await;
}

#[tokio::test]
async fn a_zygote_ignores_the_signals_that_end_a_group_of_processes() {
    let jail = jail();
    let work = start(&jail, picture(Attempt::SpinForEver.picture()));
    let (_, zygote) = processes(&jail).await;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        kill_process(zygote, signal).unwrap();
    }
    expect_that_others_notice_nothing(&jail).await;
    assert_eq!(processes(&jail).await.1, zygote);
    drop(work);
}

#[tokio::test]
async fn a_jail_that_is_dropped_leaves_no_process() {
    let jail = jail();
    let _work = start(&jail, picture(Attempt::SpinForEver.picture()));
    let (worker, zygote) = processes(&jail).await;
    drop(jail);
    for process in [worker, zygote] {
        until(|| status_of(process).is_empty() || status_of(process).contains("State:\tZ")).await;
    }
}

#[tokio::test]
async fn a_worker_has_no_environment_no_privilege_and_no_descriptor_but_its_socket() {
    let jail = jail();
    let _work = start(&jail, picture(Attempt::SpinForEver.picture()));
    let (worker, zygote) = processes(&jail).await;
    assert!(status_of(worker).contains("NoNewPrivs:\t1"));
    let folder = |process: Pid| format!("/proc/{}", process.as_raw_nonzero());
    let mut links: Vec<_> = fs::read_dir(folder(worker) + "/fd")
        .unwrap()
        .map(|link| fs::read_link(link.unwrap().path()).unwrap())
        .collect();
    links.dedup();
    assert_eq!(links.len(), 1, "{links:?}");
    assert!(
        links[0].to_str().unwrap().starts_with("socket:"),
        "{links:?}"
    );
    let limits = fs::read_to_string(folder(worker) + "/limits").unwrap();
    for limit in [
        "Max open files",
        "Max core file size",
        "Max file size",
        "Max processes",
    ] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        let values: Vec<_> = line[limit.len()..].split_whitespace().take(2).collect();
        assert_eq!(values, ["0", "0"], "{line}");
    }
    for process in [worker, zygote] {
        let environment = fs::read(folder(process) + "/environ").unwrap();
        assert!(environment.is_empty(), "{environment:?}");
    }
}

#[tokio::test]
async fn a_flood_of_crashes_does_not_stop_others() {
    let jail = jail();
    let crashes: Vec<_> = (0..40)
        .map(|_| start(&jail, picture(Attempt::Abort.picture())))
        .collect();
    let others: Vec<_> = (0..4)
        .map(|_| start(&jail, picture(fixture("baseline.jpg"))))
        .collect();
    for other in others {
        let (files, outcome) = finish(other).await;
        assert_eq!(outcome.map(|_| files.len()), Ok(5));
    }
    for crash in crashes {
        let outcome = finish(crash).await.1;
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
    }
    let text = jail
        .metrics
        .text(crate::telemetry::Exposition::Prometheus)
        .unwrap();
    assert!(
        text.contains("cameo_imaging_zygote_starts_total 1\n"),
        "{text}"
    );
    assert!(
        text.contains("cameo_imaging_processes_ended_total{end=\"crashed\"} 40\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_program_that_is_no_zygote_fails_the_check_within_a_bounded_time() {
    for path in ["/nowhere", "/bin/true"] {
        let program = Program::new(path.into(), Vec::new());
        let jail = Jail::open(program, 1, Metrics::new()).unwrap();
        let checked = jail.check().await;
        assert!(
            matches!(checked, Err(Error::Overloaded { .. })),
            "{checked:?}"
        );
    }
}
