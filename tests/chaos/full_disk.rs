//! A full disk under one process with a disk store and an embedded catalog.
//!
//! Its data is on a small file system in memory, in a mount namespace of its own. Other data fills
//! the file system while users send requests, and is removed again. The process is not restarted
//! until everything is counted. Then it is killed and started again, and everything is counted
//! again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cameo::catalog::{EmbeddedCatalog, Removals};
use fastrand::Rng;

use crate::client::Client;
use crate::fleet::{Fleet, Plan, Shape, data_folder};
use crate::history::{Act, History, Op, Outcome};
use crate::judgement::{Verdict, Violation, judge};
use crate::load::{Load, perform};
use crate::storm::{self, GRACE, PartResult, UPLOAD_DEADLINE, conclude, observe};

/// The first argument that makes this program run the part inside the namespace. Its folder and
/// seed follow.
pub(crate) const INSIDE: &str = "full-disk-inside";

/// The size of the file system.
const SIZE: &str = "32m";
/// How often the disk is filled, how long users send requests before, and how long it stays full.
const TIMES: u32 = 3;
const WORK: Duration = Duration::from_secs(3);
const FULL: Duration = Duration::from_secs(4);
/// After this time the disk is certainly full for every request.
const SETTLING_TIME: Duration = Duration::from_millis(500);
/// How soon uploads must succeed once there is space again.
const RECOVERY_TIME: Duration = Duration::from_secs(5);
/// How long the run waits for that.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The subject whose avatar does not change.
const KEPT: &str = "kept";

/// The observations while the disk was full, and afterwards.
#[derive(Clone, Debug, Default)]
struct Observed {
    /// The number of uploads that were refused while the disk was full.
    refused: usize,
    reads: usize,
    /// Descriptions of reads that were not served.
    reads_refused: Vec<String>,
    /// The distinct statuses of readiness while the disk was full: HTTP status and `status` field.
    readiness: Vec<(u16, String)>,
    /// How long after there was space uploads succeeded again; `None` if they did not.
    back: Vec<Option<Duration>>,
}

/// Runs the part with this seed, in a mount namespace of its own.
pub(crate) async fn run(folder: &Path, seed: u64) -> PartResult {
    let data = data_folder(folder, 0);
    std::fs::create_dir_all(&data).unwrap();
    let mount = format!("mount -t tmpfs -o size={SIZE},mode=0700 chaos \"$0\" && exec \"$@\"");
    let this = std::env::current_exe().unwrap();
    let mut verdict = Verdict::default();
    let Some(namespace) = namespace().await else {
        panic!(
            "this part needs a mount namespace with a tmpfs: run it as root, or as a user who may \
             create namespaces (`unshare -rm mount -t tmpfs chaos /mnt` must work)"
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
        verdict.add(Violation::PartPromise, format!("the part ended: {status}"));
    }
    let report = std::fs::read_to_string(folder.join("report")).unwrap_or_default();
    let mut lines = report.lines();
    let summary = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        let (name, what) = line.split_once('\t').unwrap();
        let violation = Violation::ALL
            .into_iter()
            .find(|one| format!("{one:?}") == name);
        verdict.add(violation.unwrap(), what);
    }
    PartResult { verdict, summary }
}

/// The option of `unshare` with which this user can mount a file system.
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

/// Runs the part inside the namespace and writes a report: the summary, then one line per
/// violation.
pub(crate) async fn inside(folder: &Path, seed: u64) {
    let passed = run_inside(folder, seed).await;
    let mut report = File::create(folder.join("report")).unwrap();
    writeln!(report, "{}", passed.summary).unwrap();
    for (violation, what) in passed.verdict.all() {
        writeln!(report, "{violation:?}\t{}", what.replace('\n', " ")).unwrap();
    }
}

async fn run_inside(folder: &Path, seed: u64) -> PartResult {
    let plan = Plan {
        settings: storm::settings(),
        shape: Shape::Alone,
        ..Plan::default()
    };
    let data = data_folder(folder, 0);
    let fleet = Arc::new(Fleet::start_as(folder, &plan).await);
    let history = Arc::new(History::new(&folder.join("history.log")));
    let mut rng = Rng::with_seed(seed);
    let mut found = Observed::default();
    let client = fleet.client(0);
    upload(&client, &history, KEPT).await;
    let begun = Instant::now();
    let load = Load::start(&fleet, &history, GRACE, &mut rng);
    for _ in 0..TIMES {
        tokio::time::sleep(WORK).await;
        history.log("the disk is full");
        let since = history.now();
        let ballast = Ballast::fill(&data);
        while_full(&fleet, ballast, &mut found).await;
        history.log("the disk has space");
        found.refused += refused(&history.ops(), since + SETTLING_TIME);
        found.back.push(recovery_time(&client, &history).await);
    }
    let worked = begun.elapsed();
    let mut during_run = load.stop().await;
    for wrong in violations(&found) {
        during_run.add(Violation::PartPromise, wrong);
    }
    let mut passed = conclude(&fleet, &history, during_run, worked).await;
    for path in temporary_files(&data) {
        passed.verdict.add(Violation::Orphan, path);
    }
    // The catalog file must agree too.
    for left in wait_until_swept(&fleet, &data).await {
        passed.verdict.add(Violation::Outstanding, left);
    }
    let again = judge(
        Verdict::default(),
        &history.ops(),
        &observe(&fleet, &history).await,
    );
    for (violation, what) in again.all() {
        let after = format!("after a kill and a restart: {what}");
        passed.verdict.add(violation, after);
    }
    passed.summary = format!(
        "full {TIMES} times for {} s; {} uploads refused, {} of {} reads served, readiness {:?}; \
         uploads succeeded again after {:?}; {}",
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

/// Kills the process, reads the outstanding removals in its catalog file, and starts the process
/// again. Repeats this until nothing is outstanding or the time is over. Returns what is
/// outstanding.
async fn wait_until_swept(fleet: &Fleet, data: &Path) -> Vec<String> {
    let begun = Instant::now();
    loop {
        fleet.replica(0).kill().await;
        let left = {
            let catalog = EmbeddedCatalog::open(&data.join("catalog.redb"), 1).unwrap();
            catalog.outstanding().await.unwrap()
        };
        fleet.replica(0).start().await;
        fleet.ready().await;
        if left.is_empty() || begun.elapsed() > TIMEOUT {
            let described = left.iter().map(|one| format!("{one:?}"));
            return described.collect();
        }
        tokio::time::sleep(UPLOAD_DEADLINE).await;
    }
}

/// Keeps the disk full, and meanwhile reads the unchanged avatar and the readiness.
async fn while_full(fleet: &Fleet, mut ballast: Ballast, found: &mut Observed) {
    let client = fleet.client(0);
    let begun = Instant::now();
    let mut asked = Instant::now();
    while begun.elapsed() < FULL {
        ballast.top_up();
        tokio::time::sleep(Duration::from_millis(20)).await;
        if begun.elapsed() < SETTLING_TIME || asked.elapsed() < Duration::from_millis(200) {
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
            let reported = (readiness.status, word.unwrap_or_default());
            if !found.readiness.contains(&reported) {
                found.readiness.push(reported);
            }
        }
    }
}

/// Descriptions of the promises that did not hold.
fn violations(found: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    if found.refused == 0 {
        wrong.push("no upload was refused".to_owned());
    }
    if found.reads == 0 {
        wrong.push("no read was tried".to_owned());
    }
    wrong.extend(found.reads_refused.iter().cloned());
    for (status, word) in &found.readiness {
        if *status != 200 {
            wrong.push(format!("readiness: {status} {word}"));
        }
    }
    // For a moment after a delete the disk has space, and readiness may report that.
    if !found.readiness.iter().any(|(_, word)| word == "degraded") {
        wrong.push("readiness does not report the full disk".to_owned());
    }
    for back in &found.back {
        match back {
            None => wrong.push("uploads are refused although there is space".to_owned()),
            Some(back) if *back > RECOVERY_TIME => {
                wrong.push(format!("uploads succeed only after {back:?}"));
            }
            Some(_) => {}
        }
    }
    wrong
}

/// Checks that each violation promise is counted.
pub(crate) fn self_test() {
    let clean = Observed {
        refused: 1,
        reads: 1,
        reads_refused: Vec::new(),
        readiness: vec![(200, "degraded".to_owned())],
        back: vec![Some(Duration::ZERO)],
    };
    assert_eq!(violations(&clean), [""; 0]);
    let show = |spoil: &dyn Fn(&mut Observed)| {
        let mut found = clean.clone();
        spoil(&mut found);
        assert_eq!(violations(&found).len(), 1, "{found:?}");
    };
    show(&|found| found.refused = 0);
    show(&|found| found.reads = 0);
    show(&|found| found.reads_refused.push("503".to_owned()));
    show(&|found| found.readiness[0].0 = 503);
    show(&|found| found.readiness[0].1.clear());
    show(&|found| found.back[0] = None);
    show(&|found| found.back[0] = Some(RECOVERY_TIME * 2));
}

/// The number of uploads that began after this time and were refused with 503.
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

/// The time until uploads succeed again.
async fn recovery_time(client: &Client, history: &History) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT {
        if upload(client, history, "back").await {
            return Some(begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// Uploads a picture that no other upload of this part has. Returns whether the upload succeeded.
async fn upload(client: &Client, history: &History, subject: &str) -> bool {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (width, height) = (400 + number % 100, 100 + number / 100);
    let act = Act::Upload { width, height };
    let (op, _) = perform(client, history, (99, 0), subject, act).await;
    matches!(op.outcome, Outcome::Uploaded(_))
}

/// The temporary files that are left in the store.
fn temporary_files(data: &Path) -> Vec<String> {
    let temporary = std::fs::read_dir(data.join("store/tmp"));
    let temporary = temporary.into_iter().flatten().flatten();
    temporary
        .map(|entry| entry.path().display().to_string())
        .collect()
}

/// Other data that fills the disk. Dropping it removes the data.
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

    /// Fills all free space.
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
