//! Redis at `maxmemory`, with nothing that it may evict.
//!
//! Uploads are refused, everything else goes on, and deletes free what uploads need: nobody has to
//! come and help.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};

use crate::fleet::{Fleet, Plan};
use crate::history::{Act, History, Op, Outcome};
use crate::judgement::{Broken, Verdict};
use crate::load::perform;
use crate::storm::{self, Passed, conclude, outstanding};

/// Avatars with ids of the greatest length, so that they weigh something.
const AVATARS: usize = 400;
/// Of them, replaced before Redis is full, so that there is something to sweep.
const REPLACED: usize = 60;
/// How far Redis is over its limit.
const OVER: u64 = 48 * 1024;
/// What is tried at the same time.
const AT_ONCE: usize = 8;
/// How long an answer may take that says no.
const PROMPT: Duration = Duration::from_secs(2);
/// How soon uploads are taken again after the deletes: the catalog keeps for a minute what a delete
/// removed, to answer a repetition of it.
const BACK: Duration = Duration::from_secs(75);
/// How long the sweep may take for what is due.
const SWEEP: Duration = Duration::from_secs(20);

/// What was seen while Redis was full.
#[derive(Clone, Debug, Default)]
struct Seen {
    uploads: Vec<Op>,
    reads: Vec<Op>,
    deletes: Vec<Op>,
    /// Images that were not served, in words.
    images_refused: Vec<String>,
    /// The status and the word that readiness gave.
    readiness: Vec<(u16, String)>,
    /// Whether replaced avatars were swept.
    swept: bool,
    /// How long after the deletes uploads were taken again, where they were.
    back: Option<Duration>,
}

/// Runs.
pub(crate) async fn run(folder: &Path) -> Passed {
    let mut settings = storm::settings();
    // Long enough to fill Redis before anything is swept.
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
    let mut seen = Seen::default();

    prepare(&fleet, &history, &mut verdict).await;
    let replaced = 0..REPLACED;
    all(&fleet, &history, replaced, upload, &mut verdict).await;
    let limit = fill(&fleet).await;
    history.tell(format_args!("Redis is full: {limit} bytes"));

    // New users, and those who have an avatar.
    for users in [AVATARS..AVATARS + 20, 0..20] {
        let tried = all(&fleet, &history, users, upload, &mut verdict).await;
        seen.uploads.extend(tried);
    }
    seen.reads = all(&fleet, &history, 0..40, |_| Act::Read, &mut verdict).await;
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
    history.tell(format_args!("swept: {}", seen.swept));
    // The sweep has freed some memory.
    fill(&fleet).await;
    let before = used(&fleet).await;
    seen.deletes = all(&fleet, &history, 0..AVATARS, |_| Act::Delete, &mut verdict).await;
    let deleted = Instant::now();
    while seen.back.is_none() && deleted.elapsed() < BACK + SWEEP {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let users = AVATARS + 20..AVATARS + 22;
        let tried = all(&fleet, &history, users, upload, &mut verdict).await;
        seen.back = tried.iter().all(is_done).then(|| deleted.elapsed());
    }
    let freed = before.saturating_sub(used(&fleet).await);
    let worked = begun.elapsed();
    for wrong in wrong(&seen) {
        verdict.add(Broken::PartPromise, wrong);
    }
    // What follows is not about memory.
    config(&fleet, "0").await;
    let mut passed = conclude(&fleet, &history, verdict, worked).await;
    let count = |ops: &[Op]| ops.iter().filter(|op| is_done(op)).count();
    let slowest = seen.uploads.iter().map(took).max().unwrap_or_default();
    passed.summary = format!(
        "{} of {} uploads refused, the slowest after {:.2} s; {} of {} reads answered; readiness \
         {:?}; {} of {} deletes done, {} KiB freed; uploads work again after {}; {}",
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

/// What was not as promised.
fn wrong(seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut add = |what: String| wrong.push(what);
    for op in &seen.uploads {
        if is_done(op) {
            add(format!("{}: an upload was taken", op.subject));
        } else if took(op) > PROMPT {
            add(format!("{}: refused after {:?}", op.subject, took(op)));
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
        add("what was due was not swept".to_owned());
    }
    match seen.back {
        None => add("uploads are refused although there is room".to_owned()),
        Some(back) if back > BACK => add(format!("uploads work again after {back:?}")),
        Some(_) => {}
    }
    wrong
}

/// Each promise is broken once, and counted.
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
    let clean = Seen {
        uploads: vec![op(upload, refused())],
        reads: vec![op(Act::Read, Outcome::Seen(crate::proof::avatar(1)))],
        deletes: vec![op(Act::Delete, Outcome::Deleted)],
        images_refused: Vec::new(),
        readiness: vec![(200, "degraded".to_owned())],
        swept: true,
        back: Some(Duration::ZERO),
    };
    assert_eq!(wrong(&clean), [""; 0]);
    let show = |spoil: &dyn Fn(&mut Seen)| {
        let mut seen = clean.clone();
        spoil(&mut seen);
        assert_eq!(wrong(&seen).len(), 1, "{seen:?}");
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
    show(&|seen| seen.back = Some(BACK * 2));
}

fn is_done(op: &Op) -> bool {
    matches!(
        op.outcome,
        Outcome::Uploaded(_) | Outcome::Deleted | Outcome::Seen(_)
    )
}

fn took(op: &Op) -> Duration {
    op.ended.saturating_sub(op.begun)
}

/// The next picture; no other upload of this part has its size.
fn upload(_: usize) -> Act {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Act::Upload {
        width: 100 + number % 200,
        height: 100 + number / 200,
    }
}

/// Uploads an avatar for every user; on a busy machine some uploads need to be repeated.
async fn prepare(fleet: &Fleet, history: &History, verdict: &mut Verdict) {
    for user in 0..AVATARS / AT_ONCE {
        let users = user * AT_ONCE..(user + 1) * AT_ONCE;
        let begun = Instant::now();
        let mut done = false;
        while !done {
            assert!(begun.elapsed() < SWEEP, "uploads work before Redis is full");
            let tried = all(fleet, history, users.clone(), upload, verdict).await;
            done = tried.iter().all(is_done);
        }
    }
}

/// Does this as each of these users, through one replica and the other.
async fn all(
    fleet: &Fleet,
    history: &History,
    users: std::ops::Range<usize>,
    act: impl Fn(usize) -> Act,
    verdict: &mut Verdict,
) -> Vec<Op> {
    let act = &act;
    let done = stream::iter(users).map(|number| async move {
        let replica = number % fleet.replicas();
        // 128 characters, the most that are allowed.
        let subject = format!("{number:0>128}");
        let by = (number, replica);
        perform(&fleet.client(replica), history, by, &subject, act(number)).await
    });
    let done: Vec<_> = done.buffer_unordered(AT_ONCE).collect().await;
    let mut ops = Vec::new();
    for (op, wrong) in done {
        if let Some(wrong) = wrong {
            verdict.add(Broken::WrongAnswer, wrong);
        }
        ops.push(op);
    }
    ops
}

/// The images of these avatars that are not served, by either address.
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

/// Sets the limit below what Redis uses; gives the limit.
async fn fill(fleet: &Fleet) -> u64 {
    let limit = used(fleet).await.saturating_sub(OVER);
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
