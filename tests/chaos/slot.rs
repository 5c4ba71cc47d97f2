//! A Redis Cluster that moves slots while users send requests. Some slots stay half-moved.
//!
//! While the keys of a slot are on two masters, no script that needs several of them can run.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cluster::Move;
use crate::fleet::{Fleet, Plan, Shape};
use crate::history::{Act, History, Op, Outcome};
use crate::judgement::Violation;
use crate::load::Load;
use crate::storm::{self, GRACE, PartResult, conclude};

/// The number of slots that move with only a short pause in the middle, and the length of the
/// pause.
const QUICK: usize = 6;
const QUICK_PAUSE: Duration = Duration::from_millis(150);
/// The number of slots that stay half-moved, and for how long.
const HALF_MOVED: usize = 2;
const HALF_MOVED_FOR: Duration = Duration::from_secs(6);
/// The pause between two moves.
const PAUSE: Duration = Duration::from_millis(1500);
/// How long an answer may take meanwhile. A delete has four steps in the catalog, and each waits up
/// to three seconds for the slot to be whole.
const BOUND: Duration = Duration::from_secs(15);
/// How soon everything must work once a slot is whole again.
const RECOVERY_TIME: Duration = Duration::from_secs(2);
/// One in this many operations may fail while no slot stays half-moved.
const ONE_FAILURE_IN: usize = 50;

/// The move of one slot.
#[derive(Clone, Debug)]
struct Moved {
    time: Range<Duration>,
    stays_half_moved: bool,
    /// Whether the readiness of a replica reported it.
    is_reported: bool,
}

/// Runs the part with this seed.
pub(crate) async fn run(folder: &Path, seed: u64) -> PartResult {
    let plan = Plan {
        settings: storm::settings(),
        shape: Shape::Cluster,
        ..Plan::default()
    };
    let fleet = Arc::new(Fleet::start_as(folder, &plan).await);
    let history = Arc::new(History::new(&folder.join("history.log")));
    let mut rng = Rng::with_seed(seed);
    let begun = Instant::now();
    let load = Load::start(&fleet, &history, GRACE, &mut rng);
    tokio::time::sleep(PAUSE * 2).await;
    let mut partitions: Vec<usize> = (0..16).collect();
    rng.shuffle(&mut partitions);
    let mut moves = Vec::new();
    for (number, partition) in partitions.iter().take(QUICK + HALF_MOVED).enumerate() {
        let stays_half_moved = number >= QUICK;
        moves.push(move_slot(&fleet, &history, *partition, stays_half_moved).await);
        tokio::time::sleep(PAUSE).await;
    }
    tokio::time::sleep(RECOVERY_TIME).await;
    let worked = begun.elapsed();
    let mut during_run = load.stop().await;
    let ops = history.ops();
    for wrong in violations(&ops, &moves) {
        during_run.add(Violation::PartPromise, wrong);
    }
    let mut passed = conclude(&fleet, &history, during_run, worked).await;
    let figures = [false, true].map(|stays_half_moved| figures(&ops, &moves, stays_half_moved));
    passed.summary = format!(
        "{QUICK} slots moved: {}; {HALF_MOVED} slots left half-moved for {} s: {}; {}",
        figures[0],
        HALF_MOVED_FOR.as_secs(),
        figures[1],
        passed.summary
    );
    passed
}

/// Moves the slot of a partition to the next master, with a pause in the middle of the move.
async fn move_slot(
    fleet: &Fleet,
    history: &History,
    partition: usize,
    stays_half_moved: bool,
) -> Moved {
    let key = format!("cameo:{{p{partition:02}}}:subjects");
    let since = history.now();
    history.log(format_args!("partition {partition} moves"));
    let moving = Move::begin(fleet.redis_addresses(), &key).await;
    let left = moving.remaining_keys().await;
    history.log(format_args!(
        "{left} of its keys are still on the old master"
    ));
    let mut is_reported = false;
    if stays_half_moved {
        let begun = Instant::now();
        while begun.elapsed() < HALF_MOVED_FOR {
            for replica in 0..fleet.replicas() {
                let readiness = fleet.client(replica).readiness().await.unwrap();
                is_reported |= readiness.json()["status"] != "ready";
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    } else {
        tokio::time::sleep(QUICK_PAUSE).await;
    }
    moving.finish().await;
    history.log(format_args!("partition {partition} has moved"));
    Moved {
        time: since..history.now(),
        stays_half_moved,
        is_reported,
    }
}

/// Descriptions of the promises that did not hold.
fn violations(ops: &[Op], moves: &[Moved]) -> Vec<String> {
    let mut wrong = Vec::new();
    for op in ops {
        let took = op.ended.saturating_sub(op.begun);
        if took > BOUND {
            wrong.push(format!("{}: {:?} took {took:?}", op.subject, op.act));
        }
    }
    for moved in moves.iter().filter(|moved| moved.stays_half_moved) {
        if !moved.is_reported {
            wrong.push(format!("readiness does not report {moved:?}"));
        }
    }
    let left: Vec<_> = moves
        .iter()
        .filter(|moved| moved.stays_half_moved)
        .map(|moved| moved.time.start..moved.time.end + RECOVERY_TIME)
        .collect();
    let others = ops.iter().filter(|op| !op.overlaps(&left));
    let failed: Vec<_> = others.clone().filter(|op| has_failed(op)).collect();
    if failed.len() * ONE_FAILURE_IN > others.count() {
        for op in failed {
            let (at, outcome) = (op.begun, &op.outcome);
            wrong.push(format!(
                "{} at {at:?}: {:?}: {outcome:?}",
                op.subject, op.act
            ));
        }
    }
    wrong
}

/// Checks that each broken promise is counted.
pub(crate) fn self_test() {
    let at = Duration::from_secs;
    let op = |begun: u64, outcome| Op {
        subject: "a".to_owned(),
        act: Act::Delete,
        begun: at(begun),
        ended: at(begun) + Duration::from_millis(5),
        outcome,
    };
    let failed = || Outcome::Unknown("catalog_unavailable".to_owned());
    let moves = [Moved {
        time: at(10)..at(20),
        stays_half_moved: true,
        is_reported: true,
    }];
    let ops = vec![op(5, Outcome::Deleted), op(15, failed()), op(21, failed())];
    assert_eq!(violations(&ops, &moves), [""; 0]);
    let mut late = ops.clone();
    late[0].ended = late[0].begun + BOUND * 2;
    assert_eq!(violations(&late, &moves).len(), 1);
    let mut early = ops.clone();
    early[0].outcome = failed();
    assert_eq!(violations(&early, &moves).len(), 1);
    let mut unreported = moves;
    unreported[0].is_reported = false;
    assert_eq!(violations(&ops, &unreported).len(), 1);
}

fn has_failed(op: &Op) -> bool {
    match &op.outcome {
        Outcome::Refused(code) => code != "superseded",
        Outcome::Unknown(_) => true,
        _ => false,
    }
}

fn figures(ops: &[Op], moves: &[Moved], stays_half_moved: bool) -> String {
    let times: Vec<_> = moves
        .iter()
        .filter(|moved| moved.stays_half_moved == stays_half_moved)
        .map(|moved| moved.time.clone())
        .collect();
    let during = ops.iter().filter(|op| op.overlaps(&times));
    let slowest = during
        .clone()
        .map(|op| op.ended.saturating_sub(op.begun))
        .max();
    format!(
        "{} of {} operations failed, the slowest answer took {:.2} s",
        during.clone().filter(|op| has_failed(op)).count(),
        during.count(),
        slowest.unwrap_or_default().as_secs_f64()
    )
}
