//! The storm: users at work while everything fails, and the count afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Avatar;
use crate::faults::Schedule;
use crate::fleet::{Fleet, REPLICAS, Shape};
use crate::history::{Act, History, Op, Outcome};
use crate::judgement::{Broken, Remains, Verdict, judge};
use crate::load::{Load, left_after, subjects};

/// `lifecycle.retire_after`
pub(crate) const GRACE: Duration = Duration::from_secs(6);
/// `lifecycle.upload_deadline`
pub(crate) const UPLOAD_DEADLINE: Duration = Duration::from_secs(5);
/// `lifecycle.orphan_grace`
pub(crate) const ORPHAN_GRACE: Duration = Duration::from_secs(10);
/// How long the sweep may take on a busy machine once everything works. What died is due after the
/// deadline; what a dead sweep had claimed, after another one.
const SWEEP: Duration = Duration::from_mins(1);
/// What came of a storm.
pub(crate) struct Passed {
    pub(crate) verdict: Verdict,
    /// What was done and what happened, in words.
    pub(crate) summary: String,
}

/// Short times and no limits, as environment variables.
pub(crate) fn settings() -> Vec<(&'static str, String)> {
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    vec![
        ("CAMEO_LIMITS__ENABLED", "false".to_owned()),
        ("CAMEO_LIFECYCLE__RETIRE_AFTER", seconds(GRACE)),
        ("CAMEO_LIFECYCLE__UPLOAD_DEADLINE", seconds(UPLOAD_DEADLINE)),
        ("CAMEO_LIFECYCLE__ORPHAN_GRACE", seconds(ORPHAN_GRACE)),
        ("CAMEO_LIFECYCLE__SWEEP_EVERY", "300ms".to_owned()),
    ]
}

/// Runs for about `length`, by the seed.
pub(crate) async fn run(folder: &Path, seed: u64, length: Duration) -> Passed {
    let fleet = Arc::new(Fleet::start(folder, &settings()).await);
    let history = Arc::new(History::new(&folder.join("history.log")));
    let mut rng = Rng::with_seed(seed);
    let schedule = Schedule::new(&mut rng, length, UPLOAD_DEADLINE);
    let (enough, asking) = ask_whether_they_are_ready(&fleet);
    let load = Load::start(&fleet, &history, GRACE, &mut rng);
    let begun = Instant::now();
    schedule.run(&fleet, &history).await;
    tokio::time::sleep(length.saturating_sub(begun.elapsed())).await;
    history.tell("the faults are over");
    fleet.heal().await;
    fleet.ready().await;
    history.tell("every replica is ready");
    let on_the_way = load.stop().await;
    history.tell("the users have stopped");
    // To its end: a check that is given up in the middle leaves its probe to a later one.
    drop(enough);
    asking.join_all().await;
    let mut passed = conclude(&fleet, &history, on_the_way, length).await;
    passed.summary = format!("{} faults; {}", schedule.len(), passed.summary);
    if passed.verdict.is_clean() {
        notices_what_is_broken(&fleet, &history).await;
    }
    passed
}

/// Waits for the sweep, looks at what remains, and judges a run of this length.
pub(crate) async fn conclude(
    fleet: &Fleet,
    history: &History,
    on_the_way: Verdict,
    length: Duration,
) -> Passed {
    let swept = wait_for_the_sweep(fleet, history).await;
    history.tell("looking at what remains");
    let remains = look(fleet, history).await;
    let ops = history.ops();
    let mut verdict = judge(on_the_way, &ops, &remains);
    let summary = summary(&ops, swept);
    let count =
        |outcome: fn(&Outcome) -> bool| ops.iter().filter(|op| outcome(&op.outcome)).count();
    let acknowledged = count(|outcome| matches!(outcome, Outcome::Uploaded(_) | Outcome::Deleted));
    // One a second makes a run worth judging, however busy the machine.
    if (acknowledged as u64) < length.as_secs() {
        let few = format!("only {acknowledged} changes were acknowledged in the whole run");
        verdict.add(Broken::WrongAnswer, few);
    }
    for broken in Broken::ALL {
        if verdict.count(broken) > 0 {
            history.tell(format_args!("{broken:?}: {}", verdict.count(broken)));
        }
    }
    Passed { verdict, summary }
}

/// Asks every replica every second, as an orchestrator does, until the sender is dropped.
pub(crate) fn ask_whether_they_are_ready(fleet: &Arc<Fleet>) -> (watch::Sender<()>, JoinSet<()>) {
    let (enough, watched) = watch::channel(());
    let mut asking = JoinSet::new();
    for replica in 0..fleet.replicas() {
        let (client, mut watched) = (fleet.client(replica), watched.clone());
        asking.spawn(async move {
            let second = Duration::from_secs(1);
            while tokio::time::timeout(second, watched.changed())
                .await
                .is_err()
            {
                client.is_ready().await;
            }
        });
    }
    (enough, asking)
}

/// Waits until nothing is outstanding and nothing lies there that no record names, or for as long
/// as that may take; tells how long it took.
pub(crate) async fn wait_for_the_sweep(fleet: &Fleet, history: &History) -> Duration {
    let begun = Instant::now();
    while begun.elapsed() < SWEEP {
        // The checks that this takes are what removes the probes of processes that were killed.
        for replica in 0..fleet.replicas() {
            fleet.client(replica).is_ready().await;
        }
        if outstanding(fleet).await.is_empty() {
            let remains = look(fleet, history).await;
            let verdict = judge(Verdict::default(), &[], &remains);
            if verdict.count(Broken::Orphan) == 0 {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    begun.elapsed()
}

/// What is there.
pub(crate) async fn look(fleet: &Fleet, history: &History) -> Remains {
    let mut subjects: BTreeSet<String> = subjects().collect();
    subjects.extend(history.ops().into_iter().map(|op| op.subject));
    let mut remains = Remains {
        objects: fleet.eye.objects("").await,
        outstanding: outstanding(fleet).await,
        ended: fleet.ended_by_themselves().await,
        losses: history.losses(),
        ..Remains::default()
    };
    for replica in 0..fleet.replicas() {
        let client = fleet.client(replica);
        let mut told = BTreeMap::new();
        for subject in subjects.clone() {
            let answer = client.avatar(&subject).await.unwrap();
            assert!([200, 404].contains(&answer.status), "{}", answer.status);
            let avatar = answer.avatar();
            for (key, length) in avatar.iter().flat_map(|avatar| &avatar.images) {
                let image = client.file(key).await.unwrap();
                let whole = image.status == 200 && image.body.len() as u64 == *length;
                if !whole {
                    let told = format!("{subject}: replica {replica}: {} {key}", image.status);
                    remains.unreadable.push(told);
                }
            }
            told.insert(subject, avatar);
        }
        remains.told.push(told);
    }
    remains.sums = sums(fleet).await;
    remains
}

/// Avatars, objects and bytes, as the catalog has added them up: from Redis itself, or the objects
/// alone as an embedded catalog's process tells them.
async fn sums(fleet: &Fleet) -> [Option<u64>; 3] {
    if fleet.shape() == Shape::Alone {
        let overview = fleet.client(0).overview().await.unwrap().json();
        let objects = overview["storage"]["total_files"].as_u64();
        return [None, Some(objects.unwrap_or(u64::MAX)), None];
    }
    let mut sums = [0; 3];
    for partition in 0..16 {
        let key = format!("cameo:{{p{partition:02}}}:stats");
        let fields: BTreeMap<String, u64> = fleet.ask_redis(&["HGETALL", &key]).await.unwrap();
        for (name, amount) in fields {
            let kind = name.split(':').next().unwrap_or_default();
            let place = ["avatars", "objects", "bytes"]
                .iter()
                .position(|one| *one == kind);
            sums[place.expect("the catalog counts nothing else")] += amount;
        }
    }
    sums.map(Some)
}

/// The members of pending and retired in every partition, straight from Redis.
pub(crate) async fn outstanding(fleet: &Fleet) -> Vec<String> {
    if fleet.shape() == Shape::Alone {
        // The embedded catalog belongs to its process: it is read when that has ended.
        return Vec::new();
    }
    let mut all = Vec::new();
    for partition in 0..16 {
        for set in ["pending", "retired"] {
            let key = format!("cameo:{{p{partition:02}}}:{set}");
            let names: Vec<Vec<u8>> = fleet.ask_redis(&["ZRANGE", &key, "0", "-1"]).await.unwrap();
            for name in names {
                let subject = name.split(|byte| *byte == 0).next().unwrap_or_default();
                let subject = String::from_utf8_lossy(subject);
                all.push(format!("{set}: {subject} {:x?}", &name[subject.len()..]));
            }
        }
    }
    all
}

/// What was done and what came of it, in words.
fn summary(ops: &[Op], swept: Duration) -> String {
    let count = |wanted: fn(&Op) -> bool| ops.iter().filter(|op| wanted(op)).count();
    format!(
        "{} uploads, {} of them acknowledged and {} without a clear answer; {} \
         deletes, {} and {}; {} reads, {} answered; swept {:.1} s after the last user stopped",
        count(|op| matches!(op.act, Act::Upload { .. })),
        count(|op| matches!(op.outcome, Outcome::Uploaded(_))),
        count(|op| matches!(
            (op.act, &op.outcome),
            (Act::Upload { .. }, Outcome::Unknown(_))
        )),
        count(|op| op.act == Act::Delete),
        count(|op| op.outcome == Outcome::Deleted),
        count(|op| matches!((op.act, &op.outcome), (Act::Delete, Outcome::Unknown(_)))),
        count(|op| op.act == Act::Read),
        count(|op| {
            let answered = matches!(op.outcome, Outcome::Seen(_) | Outcome::Nothing);
            op.act == Act::Read && answered
        }),
        swept.as_secs_f64(),
    )
}

/// Breaks what was just found whole, in the fleet itself, and sees to it that the judgement tells.
async fn notices_what_is_broken(fleet: &Fleet, history: &History) {
    let ops = &history.ops()[..];
    let clean = look(fleet, history).await;
    let judged = async || judge(Verdict::default(), ops, &look(fleet, history).await);
    let current: Vec<(String, Avatar)> = clean.told[0]
        .iter()
        .filter_map(|(subject, avatar)| Some((subject.clone(), avatar.clone()?)))
        .collect();
    let [(one, avatar), (other, _), ..] = &current[..] else {
        panic!("too few avatars to break anything");
    };
    let expect = |verdict: &Verdict, broken: Broken, count: usize| {
        assert_eq!(verdict.count(broken), count, "{broken:?}\n{verdict}");
    };

    // An object that nothing names.
    let stray = format!("public/avatars/{}/stray.webp", "a".repeat(26));
    fleet.eye.put(&stray, b"x").await;
    expect(&judged().await, Broken::Orphan, 1);
    fleet.eye.remove(&stray).await;

    // An object that a delete has left.
    let deleted = ops.iter().rev().find_map(|op| {
        let uploads = history.uploads_of(&op.subject).into_iter();
        let mut uploads = uploads.filter(|(upload, _)| upload.precedes(op));
        let (_, avatar) = uploads.by_ref().max_by_key(|(_, avatar)| avatar.version)?;
        (op.outcome == Outcome::Deleted).then_some((op, avatar))
    });
    let (delete, taken) = deleted.expect("something was deleted");
    let left = format!("public/avatars/{}/left.webp", taken.id);
    assert!(left_after(&fleet.eye, history, delete).await.is_empty());
    fleet.eye.put(&left, b"x").await;
    assert_eq!(left_after(&fleet.eye, history, delete).await.len(), 1);
    fleet.eye.remove(&left).await;

    // A record that is taken away, one that is put back after its time, a forged one.
    let key_of = async |subject: &str| {
        for partition in 0..16 {
            let key = format!("cameo:{{p{partition:02}}}:subjects");
            if fleet.ask_redis(&["HEXISTS", &key, subject]).await == Ok(true) {
                return key;
            }
        }
        panic!("{subject} has no record");
    };
    let (key, other_key) = (key_of(one).await, key_of(other).await);
    let entry: Vec<u8> = fleet.ask_redis(&["HGET", &key, one]).await.unwrap();
    let others: Vec<u8> = fleet.ask_redis(&["HGET", &other_key, other]).await.unwrap();
    let set = async |entry: &[u8]| {
        let words = [b"HSET", key.as_bytes(), one.as_bytes(), entry];
        fleet.ask_redis::<i64>(&words).await.unwrap();
    };
    fleet.ask_redis::<i64>(&["HDEL", &key, one]).await.unwrap();
    let verdict = judged().await;
    let acknowledged = ops.iter().filter(|op| op.subject == *one);
    let deleted = acknowledged.clone().any(|op| op.act == Act::Delete);
    if !deleted {
        expect(&verdict, Broken::UploadLost, 1);
    }
    expect(&verdict, Broken::Orphan, avatar.images.len() + 1);
    expect(&verdict, Broken::SumsDiffer, 1);
    set(&others).await;
    let verdict = judged().await;
    expect(&verdict, Broken::NeverUploaded, 1);
    set(&entry).await;
    assert!(judged().await.is_clean(), "it was put right again");

    // Something is under way for ever.
    let pending = key.replace("subjects", "pending");
    let name = format!("{one}\0{}", "x".repeat(16));
    let add = ["ZADD", &pending, "99999999999999", &name];
    fleet.ask_redis::<i64>(&add).await.unwrap();
    expect(&judged().await, Broken::Outstanding, 1);
    let take = ["ZREM", &pending, &name];
    fleet.ask_redis::<i64>(&take).await.unwrap();

    // An object of a record is gone; each replica says so too.
    let Some(object) = avatar.images.keys().next() else {
        panic!("{one} has no image");
    };
    fleet.eye.remove(object).await;
    let verdict = judged().await;
    expect(&verdict, Broken::ObjectMissing, 1);
    expect(&verdict, Broken::UploadLost, REPLICAS);
}
