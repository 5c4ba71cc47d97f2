//! The storm: users send requests while everything fails; afterwards violations are counted.

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
use crate::judgement::{FinalState, Verdict, Violation, judge};
use crate::load::{Load, objects_left_after, subjects};

/// `lifecycle.retire_after`
pub(crate) const GRACE: Duration = Duration::from_secs(6);
/// `lifecycle.upload_deadline`
pub(crate) const UPLOAD_DEADLINE: Duration = Duration::from_secs(5);
/// `lifecycle.orphan_grace`
pub(crate) const ORPHAN_GRACE: Duration = Duration::from_secs(10);
/// How long the sweep may take on a busy machine once everything works. Abandoned uploads are due
/// after the upload deadline. Claims of a killed sweep expire after another deadline.
const SWEEP: Duration = Duration::from_mins(1);

/// The result of a part.
pub(crate) struct PartResult {
    pub(crate) verdict: Verdict,
    /// A description of the operations and their outcomes.
    pub(crate) summary: String,
}

/// Settings with short times and without rate limits, as environment variables.
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

/// Runs the storm for about `length` with this seed.
pub(crate) async fn run(folder: &Path, seed: u64, length: Duration) -> PartResult {
    let fleet = Arc::new(Fleet::start(folder, &settings()).await);
    let history = Arc::new(History::new(&folder.join("history.log")));
    let mut rng = Rng::with_seed(seed);
    let schedule = Schedule::new(&mut rng, length, UPLOAD_DEADLINE);
    let (enough, asking) = poll_readiness(&fleet);
    let load = Load::start(&fleet, &history, GRACE, &mut rng);
    let begun = Instant::now();
    schedule.run(&fleet, &history).await;
    tokio::time::sleep(length.saturating_sub(begun.elapsed())).await;
    history.log("the faults are over");
    fleet.heal().await;
    fleet.ready().await;
    history.log("every replica is ready");
    let during_run = load.stop().await;
    history.log("the users have stopped");
    // The last readiness checks must complete: an interrupted check leaves its probe object.
    drop(enough);
    asking.join_all().await;
    let mut passed = conclude(&fleet, &history, during_run, length).await;
    passed.summary = format!("{} faults; {}", schedule.len(), passed.summary);
    if passed.verdict.is_clean() {
        check_that_damage_is_noticed(&fleet, &history).await;
    }
    passed
}

/// Waits for the sweep, observes the final state, and judges a run of this length.
pub(crate) async fn conclude(
    fleet: &Fleet,
    history: &History,
    during_run: Verdict,
    length: Duration,
) -> PartResult {
    let swept = wait_for_the_sweep(fleet, history).await;
    history.log("observing the final state");
    let state = observe(fleet, history).await;
    let ops = history.ops();
    let mut verdict = judge(during_run, &ops, &state);
    let summary = summary(&ops, swept);
    let count =
        |outcome: fn(&Outcome) -> bool| ops.iter().filter(|op| outcome(&op.outcome)).count();
    let acknowledged = count(|outcome| matches!(outcome, Outcome::Uploaded(_) | Outcome::Deleted));
    // A run needs at least one acknowledged change per second to be meaningful.
    if (acknowledged as u64) < length.as_secs() {
        let few = format!("only {acknowledged} changes were acknowledged in the whole run");
        verdict.add(Violation::WrongAnswer, few);
    }
    for violation in Violation::ALL {
        if verdict.count(violation) > 0 {
            history.log(format_args!("{violation:?}: {}", verdict.count(violation)));
        }
    }
    PartResult { verdict, summary }
}

/// Requests the readiness of every replica every second, like an orchestrator, until the sender is
/// dropped.
pub(crate) fn poll_readiness(fleet: &Arc<Fleet>) -> (watch::Sender<()>, JoinSet<()>) {
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

/// Waits until nothing is outstanding and every object belongs to a record, but at most for
/// `SWEEP`. Returns the time that this took.
pub(crate) async fn wait_for_the_sweep(fleet: &Fleet, history: &History) -> Duration {
    let begun = Instant::now();
    while begun.elapsed() < SWEEP {
        // The readiness checks also remove the probe objects of killed processes.
        for replica in 0..fleet.replicas() {
            fleet.client(replica).is_ready().await;
        }
        if outstanding(fleet).await.is_empty() {
            let state = observe(fleet, history).await;
            let verdict = judge(Verdict::default(), &[], &state);
            if verdict.count(Violation::Orphan) == 0 {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    begun.elapsed()
}

/// Observes the state of the fleet: avatars, objects, totals and outstanding removals.
pub(crate) async fn observe(fleet: &Fleet, history: &History) -> FinalState {
    let mut subjects: BTreeSet<String> = subjects().collect();
    subjects.extend(history.ops().into_iter().map(|op| op.subject));
    let mut state = FinalState {
        objects: fleet.store.objects("").await,
        outstanding: outstanding(fleet).await,
        ended: fleet.ended_by_themselves().await,
        losses: history.losses(),
        ..FinalState::default()
    };
    for replica in 0..fleet.replicas() {
        let client = fleet.client(replica);
        let mut reported = BTreeMap::new();
        for subject in subjects.clone() {
            let answer = client.avatar(&subject).await.unwrap();
            assert!([200, 404].contains(&answer.status), "{}", answer.status);
            let avatar = answer.avatar();
            for (key, length) in avatar.iter().flat_map(|avatar| &avatar.images) {
                let image = client.file(key).await.unwrap();
                let whole = image.status == 200 && image.body.len() as u64 == *length;
                if !whole {
                    let description =
                        format!("{subject}: replica {replica}: {} {key}", image.status);
                    state.unreadable.push(description);
                }
            }
            reported.insert(subject, avatar);
        }
        state.reported.push(reported);
    }
    state.sums = sums(fleet).await;
    state
}

/// The totals of the catalog: avatars, objects and bytes. They come from Redis. With an embedded
/// catalog only the objects are known, from the process.
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
            sums[place.expect("a total of avatars, objects or bytes")] += amount;
        }
    }
    sums.map(Some)
}

/// The members of pending and retired in every partition, read directly from Redis.
pub(crate) async fn outstanding(fleet: &Fleet) -> Vec<String> {
    if fleet.shape() == Shape::Alone {
        // The embedded catalog can only be read when its process has ended.
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

/// Describes the operations and their outcomes.
fn summary(ops: &[Op], swept: Duration) -> String {
    let count = |wanted: fn(&Op) -> bool| ops.iter().filter(|op| wanted(op)).count();
    format!(
        "{} uploads, {} of them acknowledged and {} with an unknown outcome; {} \
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
            let answered = matches!(op.outcome, Outcome::Seen(_) | Outcome::NotFound);
            op.act == Act::Read && answered
        }),
        swept.as_secs_f64(),
    )
}

async fn restart_replicas(fleet: &Fleet) {
    for number in 0..fleet.replicas() {
        fleet.replica(number).kill().await;
        fleet.replica(number).start().await;
    }
    fleet.ready().await;
}

/// Damages the fleet after a clean run, and checks that the judgement counts each damage.
async fn check_that_damage_is_noticed(fleet: &Fleet, history: &History) {
    let ops = &history.ops()[..];
    let clean = observe(fleet, history).await;
    let judged = async || {
        // The replicas keep records and images in memory, and do not notice a change that is made
        // without them.
        restart_replicas(fleet).await;
        judge(Verdict::default(), ops, &observe(fleet, history).await)
    };
    let current: Vec<(String, Avatar)> = clean.reported[0]
        .iter()
        .filter_map(|(subject, avatar)| Some((subject.clone(), avatar.clone()?)))
        .collect();
    let [(one, avatar), (other, _), ..] = &current[..] else {
        panic!("too few avatars for this check");
    };
    let expect = |verdict: &Verdict, violation: Violation, count: usize| {
        assert_eq!(verdict.count(violation), count, "{violation:?}\n{verdict}");
    };

    // A stray object, which no record names.
    let stray = format!("public/avatars/{}/stray.webp", "a".repeat(26));
    fleet.store.put(&stray, b"x").await;
    expect(&judged().await, Violation::Orphan, 1);
    fleet.store.remove(&stray).await;

    // An object of a deleted avatar.
    let deleted = ops.iter().rev().find_map(|op| {
        let uploads = history.uploads_of(&op.subject).into_iter();
        let mut uploads = uploads.filter(|(upload, _)| upload.precedes(op));
        let (_, avatar) = uploads.by_ref().max_by_key(|(_, avatar)| avatar.version)?;
        (op.outcome == Outcome::Deleted).then_some((op, avatar))
    });
    let (delete, taken) = deleted.expect("a deleted avatar");
    let left = format!("public/avatars/{}/left.webp", taken.id);
    assert!(
        objects_left_after(&fleet.store, history, delete)
            .await
            .is_empty()
    );
    fleet.store.put(&left, b"x").await;
    assert_eq!(
        objects_left_after(&fleet.store, history, delete)
            .await
            .len(),
        1
    );
    fleet.store.remove(&left).await;

    // A record is removed, replaced by the record of another subject, and restored.
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
        expect(&verdict, Violation::UploadLost, 1);
    }
    expect(&verdict, Violation::Orphan, avatar.images.len() + 1);
    expect(&verdict, Violation::SumsDiffer, 1);
    set(&others).await;
    let verdict = judged().await;
    expect(&verdict, Violation::NeverUploaded, 1);
    set(&entry).await;
    assert!(judged().await.is_clean(), "the restored record is right");

    // An upload is pending for ever.
    let pending = key.replace("subjects", "pending");
    let name = format!("{one}\0{}", "x".repeat(16));
    let add = ["ZADD", &pending, "99999999999999", &name];
    fleet.ask_redis::<i64>(&add).await.unwrap();
    expect(&judged().await, Violation::Outstanding, 1);
    let take = ["ZREM", &pending, &name];
    fleet.ask_redis::<i64>(&take).await.unwrap();

    // An object of a record is missing, and each replica fails to serve it.
    let Some(object) = avatar.images.keys().next() else {
        panic!("{one} has no image");
    };
    fleet.store.remove(object).await;
    let verdict = judged().await;
    expect(&verdict, Violation::ObjectMissing, 1);
    expect(&verdict, Violation::UploadLost, REPLICAS);
}
