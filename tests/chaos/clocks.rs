//! Clocks: the two replicas' are six minutes apart, and nothing shows it.
//!
//! `libfaketime` makes the clock of one replica three minutes fast and of the other three minutes
//! slow. Deadlines and graces are seconds here, so that any use of a replica's clock breaks them.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::fleet::{Fleet, Plan};
use crate::history::{Act, History, Op, Outcome};
use crate::judgement::{Broken, Verdict};
use crate::load::Load;
use crate::storm::{self, GRACE, Passed, conclude};

/// How wrong the clocks are.
const SKEWS: [&str; 2] = ["+180s", "-180s"];
/// How long users work.
const WORK: Duration = Duration::from_secs(16);
/// Of how many changes one may fail though nothing is broken: a busy machine lets Redis be silent
/// for longer than it is waited for.
const ONE_IN: usize = 50;

/// Runs by the seed.
pub(crate) async fn run(folder: &Path, seed: u64) -> Passed {
    let library = install();
    let plan = Plan {
        settings: storm::settings(),
        own: SKEWS.map(|skew| {
            let variables = [
                ("LD_PRELOAD", library.as_str()),
                ("FAKETIME", skew),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                ("FAKETIME_DISABLE_SHM", "1"),
                ("NO_FAKE_STAT", "1"),
            ];
            let variables = variables.map(|(name, value)| (name, value.to_owned()));
            variables.to_vec()
        }),
        ..Plan::default()
    };
    let fleet = Arc::new(Fleet::start_as(folder, &plan).await);
    let mut wrong = Verdict::default();
    let apart = apart(&fleet).await;
    if !(Duration::from_secs(350)..Duration::from_secs(370)).contains(&apart) {
        let apart = format!("the clocks are {apart:?} apart, not six minutes");
        wrong.add(Broken::PartPromise, apart);
    }
    let history = Arc::new(History::new(&folder.join("history.log")));
    let mut rng = Rng::with_seed(seed);
    let begun = Instant::now();
    let load = Load::start(&fleet, &history, GRACE, &mut rng);
    tokio::time::sleep(WORK / 2).await;
    // A fast clock makes uploads under way look old. `gc` must not take them for garbage.
    history.tell("gc with a fast clock");
    let words = ["gc", "--min-age", "0s", "--max-deletes", "100000"];
    let collected = fleet.operate(&words).await;
    if !collected.status.success() {
        let told = String::from_utf8_lossy(&collected.stdout);
        wrong.add(Broken::PartPromise, format!("gc: {told}"));
    }
    tokio::time::sleep(WORK / 2).await;
    let worked = begun.elapsed();
    wrong.join(load.stop().await);
    let ops = history.ops();
    let (failed, changes) = needlessly(&ops);
    if failed.len() * ONE_IN > changes {
        for op in &failed {
            let failed = format!("{}: {:?} was answered {:?}", op.subject, op.act, op.outcome);
            wrong.add(Broken::PartPromise, failed);
        }
    }
    let mut passed = conclude(&fleet, &history, wrong, worked).await;
    passed.summary = format!(
        "clocks {} s apart; {} of {changes} changes failed though nothing was broken; {}",
        apart.as_secs(),
        failed.len(),
        passed.summary
    );
    passed
}

/// The changes that failed although nothing was broken, and how many changes there were.
pub(crate) fn needlessly(ops: &[Op]) -> (Vec<&Op>, usize) {
    let changes = ops.iter().filter(|op| op.act != Act::Read);
    let failed = changes.clone().filter(|op| match &op.outcome {
        Outcome::Refused(code) => code != "superseded",
        Outcome::Unknown(_) => true,
        _ => false,
    });
    (failed.collect(), changes.count())
}

/// How far apart the replicas' clocks are, as their answers' dates tell.
async fn apart(fleet: &Fleet) -> Duration {
    let mut times = Vec::new();
    for replica in 0..fleet.replicas() {
        let answer = fleet.client(replica).readiness().await.unwrap();
        let rfc2822 = &time::format_description::well_known::Rfc2822;
        let at = time::OffsetDateTime::parse(answer.header("date"), rfc2822);
        times.push(at.unwrap_or(time::OffsetDateTime::UNIX_EPOCH));
    }
    (times[0] - times[1]).unsigned_abs()
}

/// Makes sure that `libfaketime` is there, and gives its path.
fn install() -> String {
    let need = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/need.sh");
    let installed = Command::new(need).arg("faketime").status().unwrap();
    assert!(installed.success(), "faketime could not be had");
    // The command sets the variable for whatever it runs, and so tells where the library is.
    let words = ["-f", "+1s", "printenv", "LD_PRELOAD"];
    let told = Command::new("faketime").args(words).output().unwrap();
    let library = String::from_utf8(told.stdout).unwrap().trim().to_owned();
    assert!(library.contains("libfaketime"), "{library:?}");
    library
}
