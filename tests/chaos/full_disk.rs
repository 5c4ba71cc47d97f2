//! A full disk under one process with a folder and an embedded catalog.
//!
//! Its data lies on a small file system in memory, in a mount namespace of this part's own. Other
//! data fills it while users work, and goes away again. The process is never started again until
//! everything is counted; then it is killed and has to find everything once more.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cameo::catalog::{Catalog, EmbeddedCatalog};
use fastrand::Rng;

use crate::client::Client;
use crate::fleet::{Fleet, Plan, Shape, data_folder};
use crate::history::{Act, History, Op, Outcome};
use crate::judgement::{Broken, Verdict, judge};
use crate::load::{Load, perform};
use crate::storm::{self, GRACE, Passed, UPLOAD_DEADLINE, conclude, look};

/// The word on the command line that runs the part within the namespace, before its folder and
/// seed.
pub(crate) const INSIDE: &str = "full-disk-inside";

/// How much the file system holds.
const SIZE: &str = "32m";
/// How often it is full, how long users work before, and for how long it is.
const TIMES: u32 = 3;
const WORK: Duration = Duration::from_secs(3);
const FULL: Duration = Duration::from_secs(4);
/// When it is certainly full for whatever is asked.
const SETTLED: Duration = Duration::from_millis(500);
/// How soon uploads are taken once there is room again.
const BACK: Duration = Duration::from_secs(5);
/// How long that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Whose avatar nobody changes.
const KEPT: &str = "kept";

/// What was seen while the disk was full, and after.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Uploads that were refused while it was full.
    refused: usize,
    reads: usize,
    /// Reads that were not served, in words.
    reads_refused: Vec<String>,
    /// The status and the word of each readiness while it was full, each once.
    readiness: Vec<(u16, String)>,
    /// How long after there was room uploads were taken again; none where they never were.
    back: Vec<Option<Duration>>,
}

/// Runs by the seed, in a mount namespace of its own.
pub(crate) async fn run(folder: &Path, seed: u64) -> Passed {
    let data = data_folder(folder, 0);
    std::fs::create_dir_all(&data).unwrap();
    let mount = format!("mount -t tmpfs -o size={SIZE},mode=0700 chaos \"$0\" && exec \"$@\"");
    let this = std::env::current_exe().unwrap();
    let mut verdict = Verdict::default();
    let Some(namespace) = namespace().await else {
        panic!(
            "a full disk needs a mount namespace with a tmpfs in it: run this as root, or where \
             users may make namespaces (`unshare -rm mount -t tmpfs chaos /mnt` has to work)"
        );
    };
    let status = tokio::process::Command::new("unshare")
        .arg(namespace)
        .args(["sh", "-c", &mount])
        .args([&data, &this])
        .arg(INSIDE)
        .arg(folder)
        .arg(seed.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .unwrap();
    if !status.success() {
        verdict.add(Broken::PartPromise, format!("the part ended: {status}"));
    }
    let report = std::fs::read_to_string(folder.join("report")).unwrap_or_default();
    let mut lines = report.lines();
    let summary = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        let (name, what) = line.split_once('\t').unwrap();
        let broken = Broken::ALL
            .into_iter()
            .find(|one| format!("{one:?}") == name);
        verdict.add(broken.unwrap(), what);
    }
    Passed { verdict, summary }
}

/// The option of `unshare` that lets this user mount something.
async fn namespace() -> Option<&'static str> {
    for option in ["-m", "-rm"] {
        let tried = tokio::process::Command::new("unshare")
            .args([option, "mount", "-t", "tmpfs", "chaos", "/mnt"])
            .stderr(Stdio::null())
            .status();
        if tried.await.is_ok_and(|status| status.success()) {
            return Some(option);
        }
    }
    None
}

/// Runs within the namespace, and leaves a report: the summary, then a line for all that is broken.
pub(crate) async fn inside(folder: &Path, seed: u64) {
    let passed = run_inside(folder, seed).await;
    let mut report = File::create(folder.join("report")).unwrap();
    writeln!(report, "{}", passed.summary).unwrap();
    for (broken, what) in passed.verdict.all() {
        writeln!(report, "{broken:?}\t{}", what.replace('\n', " ")).unwrap();
    }
}

async fn run_inside(folder: &Path, seed: u64) -> Passed {
    let plan = Plan {
        settings: storm::settings(),
        shape: Shape::Alone,
        ..Plan::default()
    };
    let data = data_folder(folder, 0);
    let fleet = Arc::new(Fleet::start_as(folder, &plan).await);
    let history = Arc::new(History::new(&folder.join("history.log")));
    let mut rng = Rng::with_seed(seed);
    let mut found = Seen::default();
    let client = fleet.client(0);
    upload(&client, &history, KEPT).await;
    let begun = Instant::now();
    let load = Load::start(&fleet, &history, GRACE, &mut rng);
    for _ in 0..TIMES {
        tokio::time::sleep(WORK).await;
        history.tell("the disk is full");
        let since = history.now();
        let ballast = Ballast::fill(&data);
        while_full(&fleet, ballast, &mut found).await;
        history.tell("the disk has room");
        found.refused += refused(&history.ops(), since + SETTLED);
        found.back.push(back(&client, &history).await);
    }
    let worked = begun.elapsed();
    let mut on_the_way = load.stop().await;
    for wrong in wrong(&found) {
        on_the_way.add(Broken::PartPromise, wrong);
    }
    let mut passed = conclude(&fleet, &history, on_the_way, worked).await;
    for path in left_over(&data) {
        passed.verdict.add(Broken::Orphan, path);
    }
    // Everything is on the disk, too.
    for left in swept(&fleet, &data).await {
        passed.verdict.add(Broken::Outstanding, left);
    }
    let again = judge(
        Verdict::default(),
        &history.ops(),
        &look(&fleet, &history).await,
    );
    for (broken, what) in again.all() {
        let after = format!("after a kill and a start: {what}");
        passed.verdict.add(broken, after);
    }
    passed.summary = format!(
        "full {TIMES} times for {} s; {} uploads refused, {} of {} reads served, readiness {:?}; \
         uploads work again after {:?}; {}",
        FULL.as_secs(),
        found.refused,
        found.reads - found.reads_refused.len(),
        found.reads,
        found.readiness,
        found.back,
        passed.summary
    );
    passed
}

/// Kills the process, reads in its catalog what the sweep has yet to do, and starts it again, until
/// there is nothing or for as long as the sweep may take; gives what is left.
async fn swept(fleet: &Fleet, data: &Path) -> Vec<String> {
    let begun = Instant::now();
    loop {
        fleet.replica(0).kill().await;
        let left = {
            let catalog = EmbeddedCatalog::open(&data.join("catalog.redb"), 1).unwrap();
            catalog.outstanding().await.unwrap()
        };
        fleet.replica(0).start().await;
        fleet.ready().await;
        if left.is_empty() || begun.elapsed() > PATIENCE {
            let told = left.iter().map(|one| format!("{one:?}"));
            return told.collect();
        }
        tokio::time::sleep(UPLOAD_DEADLINE).await;
    }
}

/// Reads the avatar that nobody changes, and asks for readiness, while other data keeps the disk
/// full.
async fn while_full(fleet: &Fleet, mut ballast: Ballast, found: &mut Seen) {
    let client = fleet.client(0);
    let begun = Instant::now();
    let mut asked = Instant::now();
    while begun.elapsed() < FULL {
        ballast.top_up();
        tokio::time::sleep(Duration::from_millis(20)).await;
        if begun.elapsed() < SETTLED || asked.elapsed() < Duration::from_millis(200) {
            continue;
        }
        asked = Instant::now();
        let json = client.avatar(KEPT).await.unwrap();
        let mut answers = vec![json.status, client.image(KEPT).await.unwrap().status];
        for key in json.avatar().iter().flat_map(|avatar| avatar.images.keys()) {
            answers.push(client.file(key).await.unwrap().status);
        }
        found.reads += answers.len();
        let refused = answers.iter().filter(|status| **status != 200);
        found
            .reads_refused
            .extend(refused.map(|status| format!("a read: {status}")));
        if begun.elapsed() > FULL / 2 {
            let readiness = client.readiness().await.unwrap();
            let word = readiness.json()["status"].as_str().map(str::to_owned);
            let told = (readiness.status, word.unwrap_or_default());
            if !found.readiness.contains(&told) {
                found.readiness.push(told);
            }
        }
    }
}

/// What was not as promised.
fn wrong(found: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    if found.refused == 0 {
        wrong.push("no upload was refused".to_owned());
    }
    if found.reads == 0 {
        wrong.push("nothing was read".to_owned());
    }
    wrong.extend(found.reads_refused.iter().cloned());
    for (status, word) in &found.readiness {
        if *status != 200 {
            wrong.push(format!("readiness: {status} {word}"));
        }
    }
    // For a moment after a delete the disk has room, and readiness may say so.
    if !found.readiness.iter().any(|(_, word)| word == "degraded") {
        wrong.push("readiness does not tell that the disk is full".to_owned());
    }
    for back in &found.back {
        match back {
            None => wrong.push("uploads are refused although there is room".to_owned()),
            Some(back) if *back > BACK => wrong.push(format!("uploads work after {back:?}")),
            Some(_) => {}
        }
    }
    wrong
}

/// Each promise is broken once, and counted.
pub(crate) fn self_test() {
    let clean = Seen {
        refused: 1,
        reads: 1,
        reads_refused: Vec::new(),
        readiness: vec![(200, "degraded".to_owned())],
        back: vec![Some(Duration::ZERO)],
    };
    assert_eq!(wrong(&clean), [""; 0]);
    let show = |spoil: &dyn Fn(&mut Seen)| {
        let mut found = clean.clone();
        spoil(&mut found);
        assert_eq!(wrong(&found).len(), 1, "{found:?}");
    };
    show(&|found| found.refused = 0);
    show(&|found| found.reads = 0);
    show(&|found| found.reads_refused.push("503".to_owned()));
    show(&|found| found.readiness[0].0 = 503);
    show(&|found| found.readiness[0].1.clear());
    show(&|found| found.back[0] = None);
    show(&|found| found.back[0] = Some(BACK * 2));
}

/// Uploads that were asked for since then and refused with 503.
fn refused(ops: &[Op], since: Duration) -> usize {
    let uploads = ops.iter().filter(|op| op.begun >= since);
    let uploads = uploads.filter(|op| matches!(op.act, Act::Upload { .. }));
    let refused = uploads.filter(|op| match &op.outcome {
        Outcome::Refused(code) => code != "superseded",
        Outcome::Unknown(_) => true,
        _ => false,
    });
    refused.count()
}

/// How long until uploads are taken again.
async fn back(client: &Client, history: &History) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if upload(client, history, "back").await {
            return Some(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// Uploads a picture that no other upload of this part has; tells whether it was taken.
async fn upload(client: &Client, history: &History, subject: &str) -> bool {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (width, height) = (400 + number % 100, 100 + number / 100);
    let act = Act::Upload { width, height };
    let (op, _) = perform(client, history, (99, 0), subject, act).await;
    matches!(op.outcome, Outcome::Uploaded(_))
}

/// Files that belong neither to the catalog nor to an avatar.
fn left_over(data: &Path) -> Vec<String> {
    let temporary = std::fs::read_dir(data.join("store/tmp"));
    let temporary = temporary.into_iter().flatten().flatten();
    temporary
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// Other data that fills the disk; it goes away with the value.
struct Ballast {
    path: PathBuf,
    file: File,
}

impl Ballast {
    fn fill(folder: &Path) -> Self {
        let path = folder.join("ballast");
        let file = File::create(&path).unwrap();
        let mut ballast = Self { path, file };
        ballast.top_up();
        ballast
    }

    /// Takes whatever room there is.
    fn top_up(&mut self) {
        for size in [64 * 1024, 4 * 1024, 1] {
            let piece = vec![0; size];
            while self.file.write_all(&piece).is_ok() {}
        }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}
