//! Redis at `maxmemory`, with the policy `noeviction`.
//!
//! Uploads are refused and everything else works. Deletes free the memory that uploads need, so no
//! operator has to intervene.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};

use crate::fleet::{Fleet, Plan};
use crate::history::{Act, History, Op, Outcome};
use crate::judgement::{Verdict, Violation};
use crate::load::perform;
use crate::storm::{self, PartResult, conclude, outstanding};

/// The number of avatars. Their user ids have the maximum length, so that they take much memory.
const AVATARS: usize = 400;
/// The number of avatars that are replaced before Redis is full, so that the sweep has work.
const REPLACED: usize = 60;
/// By how many bytes the memory use of Redis exceeds its limit.
const EXCESS_BYTES: u64 = 48 * 1024;
/// The number of concurrent operations.
const AT_ONCE: usize = 8;
/// How long a refusal may take.
const PROMPT: Duration = Duration::from_secs(2);
/// How soon uploads must succeed again after the deletes. The catalog keeps the result of a delete
/// for a minute, to answer a repeated delete.
const RECOVERY_TIME: Duration = Duration::from_secs(75);
/// How long the sweep may take.
const SWEEP: Duration = Duration::from_secs(20);

/// The observations while Redis was full.
#[derive(Clone, Debug, Default)]
struct Observed {
    uploads: Vec<Op>,
    reads: Vec<Op>,
    deletes: Vec<Op>,
    /// Descriptions of images that were not served.
    images_refused: Vec<String>,
    /// The readiness of each replica: HTTP status and `status` field.
    readiness: Vec<(u16, String)>,
    /// Whether the replaced avatars were swept.
    swept: bool,
    /// How long after the deletes uploads succeeded again; `None` if they did not.
    back: Option<Duration>,
}

/// Runs the part.
pub(crate) async fn run(folder: &Path) -> PartResult {
    let mut settings = storm::settings();
    // Redis is full before the first avatar is swept.
    settings.push(("CAMEO_LIFECYCLE__RETIRE_AFTER", "12s".to_owned()));
    settings.push(("CAMEO_CATALOG__EVENTS_KEPT", "100".to_owned()));
    let plan = Plan {
        settings,
        ..Plan::default()
    };
    let fleet = Arc::new(Fleet::start_as(folder, &plan).await);
    let history = History::new(&folder.join("history.log"));
    let begun = Instant::now();
    let mut verdict = Verdict::default();
    let mut seen = Observed::default();

    prepare(&fleet, &history, &mut verdict).await;
    let replaced = 0..REPLACED;
    perform_all(&fleet, &history, replaced, upload, &mut verdict).await;
    let limit = fill(&fleet).await;
    history.log(format_args!("Redis is full: {limit} bytes"));

    // New users, and users who have an avatar.
    for users in [AVATARS..AVATARS + 20, 0..20] {
        let tried = perform_all(&fleet, &history, users, upload, &mut verdict).await;
        seen.uploads.extend(tried);
    }
    seen.reads = perform_all(&fleet, &history, 0..40, |_| Act::Read, &mut verdict).await;
    seen.images_refused = images(&fleet, &seen.reads).await;
    for replica in 0..fleet.replicas() {
        let readiness = fleet.client(replica).readiness().await.unwrap();
        let word = readiness.json()["status"].as_str().map(str::to_owned);
        seen.readiness
            .push((readiness.status, word.unwrap_or_default()));
    }
    let waited = Instant::now();
    while !seen.swept && waited.elapsed() < SWEEP {
        tokio::time::sleep(Duration::from_millis(250)).await;
        seen.swept = outstanding(&fleet).await.is_empty();
    }
    history.log(format_args!("swept: {}", seen.swept));
    // The sweep has freed some memory.
    fill(&fleet).await;
    let before = used(&fleet).await;
    seen.deletes = perform_all(&fleet, &history, 0..AVATARS, |_| Act::Delete, &mut verdict).await;
    let deleted = Instant::now();
    while seen.back.is_none() && deleted.elapsed() < RECOVERY_TIME + SWEEP {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let users = AVATARS + 20..AVATARS + 22;
        let tried = perform_all(&fleet, &history, users, upload, &mut verdict).await;
        seen.back = tried.iter().all(is_done).then(|| deleted.elapsed());
    }
    let freed = before.saturating_sub(used(&fleet).await);
    let worked = begun.elapsed();
    for wrong in violations(&seen) {
        verdict.add(Violation::PartPromise, wrong);
    }
    // The judgement needs no memory limit.
    config(&fleet, "0").await;
    let mut passed = conclude(&fleet, &history, verdict, worked).await;
    let count = |ops: &[Op]| ops.iter().filter(|op| is_done(op)).count();
    let slowest = seen.uploads.iter().map(duration).max().unwrap_or_default();
    passed.summary = format!(
        "{} of {} uploads refused, the slowest after {:.2} s; {} of {} reads answered; readiness \
         {:?}; {} of {} deletes done, {} KiB freed; uploads succeeded again after {}; {}",
        seen.uploads.len() - count(&seen.uploads),
        seen.uploads.len(),
        slowest.as_secs_f64(),
        count(&seen.reads),
        seen.reads.len(),
        seen.readiness,
        count(&seen.deletes),
        seen.deletes.len(),
        freed / 1024,
        seen.back.map_or("never".to_owned(), |back| format!(
            "{:.2} s",
            back.as_secs_f64()
        )),
        passed.summary
    );
    passed
}

/// Descriptions of the promises that did not hold.
fn violations(seen: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut add = |what: String| wrong.push(what);
    for op in &seen.uploads {
        if is_done(op) {
            add(format!("{}: an upload succeeded", op.subject));
        } else if duration(op) > PROMPT {
            add(format!("{}: refused after {:?}", op.subject, duration(op)));
        }
    }
    for op in seen.reads.iter().chain(&seen.deletes) {
        if !is_done(op) {
            add(format!("{}: {:?}: {:?}", op.subject, op.act, op.outcome));
        }
    }
    for image in &seen.images_refused {
        add(image.clone());
    }
    for (status, word) in &seen.readiness {
        if (*status, word.as_str()) != (200, "degraded") {
            add(format!("readiness: {status} {word}"));
        }
    }
    if !seen.swept {
        add("the replaced avatars were not swept".to_owned());
    }
    match seen.back {
        None => add("uploads are refused although there is memory".to_owned()),
        Some(back) if back > RECOVERY_TIME => add(format!("uploads succeed only after {back:?}")),
        Some(_) => {}
    }
    wrong
}

/// Checks that each broken promise is counted.
pub(crate) fn self_test() {
    let op = |act, outcome| Op {
        subject: "a".to_owned(),
        act,
        begun: Duration::ZERO,
        ended: Duration::from_millis(1),
        outcome,
    };
    let upload = upload(0);
    let refused = || Outcome::Unknown("catalog_unavailable".to_owned());
    let clean = Observed {
        uploads: vec![op(upload, refused())],
        reads: vec![op(Act::Read, Outcome::Seen(crate::proof::avatar(1)))],
        deletes: vec![op(Act::Delete, Outcome::Deleted)],
        images_refused: Vec::new(),
        readiness: vec![(200, "degraded".to_owned())],
        swept: true,
        back: Some(Duration::ZERO),
    };
    assert_eq!(violations(&clean), [""; 0]);
    let show = |spoil: &dyn Fn(&mut Observed)| {
        let mut seen = clean.clone();
        spoil(&mut seen);
        assert_eq!(violations(&seen).len(), 1, "{seen:?}");
    };
    show(&|seen| seen.uploads[0].outcome = Outcome::Uploaded(crate::proof::avatar(1)));
    show(&|seen| seen.uploads[0].ended = PROMPT * 2);
    show(&|seen| seen.reads[0].outcome = refused());
    show(&|seen| seen.deletes[0].outcome = refused());
    show(&|seen| seen.images_refused.push("503".to_owned()));
    show(&|seen| seen.readiness[0].0 = 503);
    show(&|seen| seen.readiness[0].1.clear());
    show(&|seen| seen.swept = false);
    show(&|seen| seen.back = None);
    show(&|seen| seen.back = Some(RECOVERY_TIME * 2));
}

fn is_done(op: &Op) -> bool {
    matches!(
        op.outcome,
        Outcome::Uploaded(_) | Outcome::Deleted | Outcome::Seen(_)
    )
}

fn duration(op: &Op) -> Duration {
    op.ended.saturating_sub(op.begun)
}

/// An upload of the next picture. No other upload of this part has its dimensions.
fn upload(_: usize) -> Act {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Act::Upload {
        width: 100 + number % 200,
        height: 100 + number / 200,
    }
}

/// Uploads an avatar for every user. Uploads that fail on a busy machine are repeated.
async fn prepare(fleet: &Fleet, history: &History, verdict: &mut Verdict) {
    for user in 0..AVATARS / AT_ONCE {
        let users = user * AT_ONCE..(user + 1) * AT_ONCE;
        let begun = Instant::now();
        let mut done = false;
        while !done {
            assert!(
                begun.elapsed() < SWEEP,
                "uploads do not succeed before Redis is full"
            );
            let tried = perform_all(fleet, history, users.clone(), upload, verdict).await;
            done = tried.iter().all(is_done);
        }
    }
}

/// Performs an operation for each of these users, through alternating replicas.
async fn perform_all(
    fleet: &Fleet,
    history: &History,
    users: std::ops::Range<usize>,
    act: impl Fn(usize) -> Act,
    verdict: &mut Verdict,
) -> Vec<Op> {
    let act = &act;
    let done = stream::iter(users).map(|number| async move {
        let replica = number % fleet.replicas();
        // A user id has at most 128 characters.
        let subject = format!("{number:0>128}");
        let by = (number, replica);
        perform(&fleet.client(replica), history, by, &subject, act(number)).await
    });
    let done: Vec<_> = done.buffer_unordered(AT_ONCE).collect().await;
    let mut ops = Vec::new();
    for (op, wrong) in done {
        if let Some(wrong) = wrong {
            verdict.add(Violation::WrongAnswer, wrong);
        }
        ops.push(op);
    }
    ops
}

/// Descriptions of images of these avatars that are not served, through the API or by their own
/// path.
async fn images(fleet: &Fleet, reads: &[Op]) -> Vec<String> {
    let mut refused = Vec::new();
    for op in reads.iter().take(10) {
        let Outcome::Seen(avatar) = &op.outcome else {
            continue;
        };
        for replica in 0..fleet.replicas() {
            let client = fleet.client(replica);
            let mut answers = vec![client.image(&op.subject).await];
            for key in avatar.images.keys() {
                answers.push(client.file(key).await);
            }
            for answer in answers {
                let status = answer.map_or(0, |answer| answer.status);
                if status != 200 {
                    refused.push(format!("{}: an image: {status}", op.subject));
                }
            }
        }
    }
    refused
}

/// Sets the memory limit of Redis below its current use. Returns the limit.
async fn fill(fleet: &Fleet) -> u64 {
    let limit = used(fleet).await.saturating_sub(EXCESS_BYTES);
    config(fleet, &limit.to_string()).await;
    limit
}

async fn config(fleet: &Fleet, limit: &str) {
    let words = ["CONFIG", "SET", "maxmemory", limit];
    let _: String = fleet.ask_redis(&words).await.unwrap();
}

async fn used(fleet: &Fleet) -> u64 {
    let info: String = fleet.ask_redis(&["INFO", "memory"]).await.unwrap();
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    used.unwrap().trim().parse().unwrap()
}
