//! Power cuts: Redis syncs to the disk once a second, and loses the end of its append-only file.
//!
//! While users send requests, Redis is killed, its file is cut to an earlier length, and Redis
//! starts again with the older state. An operator runs `cameo rebuild` while users continue, and
//! `cameo gc` at the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinHandle;

use crate::fleet::{Dependency, Fleet, Plan};
use crate::history::{History, Outcome};
use crate::judgement::{Verdict, Violation};
use crate::load::Load;
use crate::storm::{self, GRACE, ORPHAN_GRACE, PartResult, UPLOAD_DEADLINE, conclude};

/// How often the power is cut.
const CUTS: usize = 3;
/// How long users send requests before each cut, and between the cut and the rebuild.
const WORK: Duration = Duration::from_secs(4);
const BEFORE_REBUILD: Duration = Duration::from_secs(2);
/// The age of the lost writes: with `everysec` it may be up to two seconds.
const LOST_MS: std::ops::Range<u64> = 800..1900;
/// The interval at which the length of the append-only file is recorded.
const RECORDING_INTERVAL: Duration = Duration::from_millis(10);

/// Runs the part with this seed.
pub(crate) async fn run(folder: &Path, seed: u64) -> PartResult {
    let plan = Plan {
        settings: storm::settings(),
        redis_options: &["--appendfsync", "everysec", "--aof-load-truncated", "yes"],
        ..Plan::default()
    };
    let fleet = Arc::new(Fleet::start_as(folder, &plan).await);
    let history = Arc::new(History::new(&folder.join("history.log")));
    let mut rng = Rng::with_seed(seed);
    let mut wrong = Verdict::default();
    let begun = Instant::now();
    let load = Load::start(&fleet, &history, GRACE, &mut rng);
    let mut lost = Vec::new();
    for number in 0..CUTS {
        let file = AppendOnlyFile::watch(&folder.join("redis"));
        tokio::time::sleep(WORK).await;
        lost.push(cut(&fleet, &history, file, number, &mut rng).await);
        tokio::time::sleep(BEFORE_REBUILD).await;
        rebuild(&fleet, &history, &mut wrong).await;
        history.end_loss();
    }
    tokio::time::sleep(WORK).await;
    let worked = begun.elapsed();
    wrong.merge(load.stop().await);
    fleet.ready().await;
    history.log("the users have stopped");
    // Objects without a record are garbage when no upload can be in progress any more.
    tokio::time::sleep(UPLOAD_DEADLINE * 2 + ORPHAN_GRACE).await;
    let words = ["gc", "--min-age", "0s", "--max-deletes", "100000"];
    let collected = fleet.operate(&words).await;
    if !collected.status.success() {
        wrong.add(Violation::PartPromise, describe("gc", &collected));
    }
    let mut passed = conclude(&fleet, &history, wrong, worked).await;
    if lost.iter().sum::<usize>() == 0 {
        let nothing = "the cuts lost no acknowledged change".to_owned();
        passed.verdict.add(Violation::PartPromise, nothing);
    }
    passed.summary = format!(
        "{CUTS} power cuts lost {lost:?} acknowledged changes; {}; {}",
        first_line(&collected.stdout),
        passed.summary
    );
    passed
}

/// Kills Redis, cuts its file and starts it again. Returns the number of acknowledged changes that
/// were lost.
async fn cut(
    fleet: &Fleet,
    history: &History,
    file: AppendOnlyFile,
    number: usize,
    rng: &mut Rng,
) -> usize {
    let redis = fleet.dependency(Dependency::Redis);
    history.log("power cut");
    history.begin_loss();
    redis.kill().await;
    let killed = history.now();
    let age = Duration::from_millis(rng.u64(LOST_MS));
    let (since, length) = file.cut(age, number % 2 == 1, rng);
    history.log(format_args!("Redis is {since:?} older, at byte {length}"));
    redis.start().await;
    while !fleet.accepts_writes(Dependency::Redis).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let from = killed.saturating_sub(since);
    let ops = history.ops().into_iter();
    let lost = ops.filter(|op| {
        let acknowledged = matches!(op.outcome, Outcome::Uploaded(_) | Outcome::Deleted);
        acknowledged && op.ended > from && !op.overlaps(&history.losses())
    });
    lost.count()
}

/// Rebuilds like an operator: uses `--force` if the output of the command suggests it.
async fn rebuild(fleet: &Fleet, history: &History, wrong: &mut Verdict) {
    history.log("rebuild");
    let mut rebuilt = fleet.operate(&["rebuild"]).await;
    if !rebuilt.status.success() && describe("", &rebuilt).contains("--force") {
        rebuilt = fleet.operate(&["rebuild", "--force"]).await;
    }
    history.log(describe("rebuild", &rebuilt));
    if !rebuilt.status.success() {
        wrong.add(Violation::PartPromise, describe("rebuild", &rebuilt));
    }
}

fn describe(command: &str, output: &std::process::Output) -> String {
    let (said, cried) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{command}: {}: {said}{cried}", output.status)
}

fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().next().unwrap_or_default().to_owned()
}

/// The append-only file, and its recorded lengths.
struct AppendOnlyFile {
    path: PathBuf,
    recording: JoinHandle<()>,
    lengths: Arc<std::sync::Mutex<Vec<(Instant, u64)>>>,
}

impl AppendOnlyFile {
    /// Starts recording the length of the file that Redis writes in this folder.
    fn watch(folder: &Path) -> Self {
        let files = std::fs::read_dir(folder.join("appendonlydir")).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files
            .filter(|path| path.to_string_lossy().ends_with(".incr.aof"))
            .collect();
        files.sort_by_key(|path| path.metadata().unwrap().modified().unwrap());
        let path = files.pop().expect("Redis has an append-only file");
        let lengths = Arc::new(std::sync::Mutex::new(Vec::new()));
        let recording = tokio::spawn({
            let (path, lengths) = (path.clone(), Arc::clone(&lengths));
            async move {
                loop {
                    let length = path.metadata().unwrap().len();
                    lengths.lock().unwrap().push((Instant::now(), length));
                    tokio::time::sleep(RECORDING_INTERVAL).await;
                }
            }
        });
        Self {
            path,
            recording,
            lengths,
        }
    }

    /// Cuts the file to its length of `age` ago, or in the middle of one of the entries that
    /// followed. Returns the exact age and the new length.
    fn cut(self, age: Duration, in_an_entry: bool, rng: &mut Rng) -> (Duration, u64) {
        self.recording.abort();
        let lengths = self.lengths.lock().unwrap();
        let now = Instant::now();
        let whole = self.path.metadata().unwrap().len();
        let is_older = |(at, _): &&(Instant, u64)| now.duration_since(*at) >= age;
        let (at, older) = lengths.iter().rev().find(is_older).copied().unwrap();
        let length = if in_an_entry && whole > older + 2 {
            // An entry has some hundred bytes, so this is rarely the end of one.
            rng.u64(older + 1..whole.min(older + 4096))
        } else {
            older
        };
        let file = File::options().write(true).open(&self.path).unwrap();
        file.set_len(length).unwrap();
        (now.duration_since(at), length)
    }
}
