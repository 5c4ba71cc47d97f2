//! A Redis Cluster that moves slots while users work, some of them left half-moved.
//!
//! As long as the keys of a slot lie on two masters, no script that needs several of them can run.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cluster::Move;
use crate::fleet::{Fleet, Plan, Shape};
use crate::history::{Act, History, Op, Outcome};
use crate::judgement::Broken;
use crate::load::Load;
use crate::storm::{self, GRACE, Passed, conclude};

/// Slots that are moved without a pause, but for this one in the middle.
const QUICK: usize = 6;
const QUICK_PAUSE: Duration = Duration::from_millis(150);
/// Slots that are left half-moved, for so long.
const LEFT: usize = 2;
const LEFT_FOR: Duration = Duration::from_secs(6);
/// Between two moves.
const PAUSE: Duration = Duration::from_millis(1500);
/// How long any answer may take meanwhile: a delete has four steps of the catalog, and each waits
/// three seconds for a slot to be whole.
const BOUND: Duration = Duration::from_secs(15);
/// How soon everything works once a slot is whole again.
const BACK: Duration = Duration::from_secs(2);
/// Of how many changes one may fail though no slot is left half-moved.
const ONE_IN: usize = 50;

/// One slot that was moved.
#[derive(Clone, Debug)]
struct Moved {
    time: Range<Duration>,
    is_left: bool,
    /// Whether some replica's readiness told it.
    is_told: bool,
}

/// Runs by the seed.
pub(crate) async fn run(folder: &Path, seed: u64) -> Passed {
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
    for (number, partition) in partitions.iter().take(QUICK + LEFT).enumerate() {
        let is_left = number >= QUICK;
        moves.push(move_slot(&fleet, &history, *partition, is_left).await);
        tokio::time::sleep(PAUSE).await;
    }
    tokio::time::sleep(BACK).await;
    let worked = begun.elapsed();
    let mut on_the_way = load.stop().await;
    let ops = history.ops();
    for wrong in wrong(&ops, &moves) {
        on_the_way.add(Broken::PartPromise, wrong);
    }
    let mut passed = conclude(&fleet, &history, on_the_way, worked).await;
    let figures = [false, true].map(|is_left| figures(&ops, &moves, is_left));
    passed.summary = format!(
        "{QUICK} slots moved: {}; {LEFT} slots left half-moved for {} s: {}; {}",
        figures[0],
        LEFT_FOR.as_secs(),
        figures[1],
        passed.summary
    );
    passed
}

/// Moves the slot of a partition to the next master, with a pause in the middle.
async fn move_slot(fleet: &Fleet, history: &History, partition: usize, is_left: bool) -> Moved {
    let key = format!("cameo:{{p{partition:02}}}:subjects");
    let since = history.now();
    history.tell(format_args!("partition {partition} moves"));
    let moving = Move::begin(fleet.redis_addresses(), &key).await;
    let left = moving.left().await;
    history.tell(format_args!("{left} of its keys are still there"));
    let mut is_told = false;
    if is_left {
        let begun = Instant::now();
        while begun.elapsed() < LEFT_FOR {
            for replica in 0..fleet.replicas() {
                let told = fleet.client(replica).readiness().await.unwrap();
                is_told |= told.json()["status"] != "ready";
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    } else {
        tokio::time::sleep(QUICK_PAUSE).await;
    }
    moving.finish().await;
    history.tell(format_args!("partition {partition} has moved"));
    Moved {
        time: since..history.now(),
        is_left,
        is_told,
    }
}

/// What was not as promised.
fn wrong(ops: &[Op], moves: &[Moved]) -> Vec<String> {
    let mut wrong = Vec::new();
    for op in ops {
        let took = op.ended.saturating_sub(op.begun);
        if took > BOUND {
            wrong.push(format!("{}: {:?} took {took:?}", op.subject, op.act));
        }
    }
    for moved in moves.iter().filter(|moved| moved.is_left) {
        if !moved.is_told {
            wrong.push(format!("readiness does not tell of {moved:?}"));
        }
    }
    let left: Vec<_> = moves
        .iter()
        .filter(|moved| moved.is_left)
        .map(|moved| moved.time.start..moved.time.end + BACK)
        .collect();
    let others = ops.iter().filter(|op| !op.overlaps(&left));
    let failed: Vec<_> = others.clone().filter(|op| has_failed(op)).collect();
    if failed.len() * ONE_IN > others.count() {
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

/// Each promise is broken once, and counted.
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
        is_left: true,
        is_told: true,
    }];
    let ops = vec![op(5, Outcome::Deleted), op(15, failed()), op(21, failed())];
    assert_eq!(wrong(&ops, &moves), [""; 0]);
    let mut late = ops.clone();
    late[0].ended = late[0].begun + BOUND * 2;
    assert_eq!(wrong(&late, &moves).len(), 1);
    let mut early = ops.clone();
    early[0].outcome = failed();
    assert_eq!(wrong(&early, &moves).len(), 1);
    let mut untold = moves;
    untold[0].is_told = false;
    assert_eq!(wrong(&ops, &untold).len(), 1);
}

fn has_failed(op: &Op) -> bool {
    match &op.outcome {
        Outcome::Refused(code) => code != "superseded",
        Outcome::Unknown(_) => true,
        _ => false,
    }
}

fn figures(ops: &[Op], moves: &[Moved], is_left: bool) -> String {
    let times: Vec<_> = moves
        .iter()
        .filter(|moved| moved.is_left == is_left)
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
