//! Wrong clocks: the clocks of the two replicas differ by six minutes, without any effect.
//!
//! `libfaketime` makes the clock of one replica three minutes fast and of the other three minutes
//! slow. Deadlines and grace periods are seconds here, so any use of a replica's clock would violate
//! them.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::fleet::{Fleet, Plan};
use crate::history::{Act, History, Op, Outcome};
use crate::judgement::{Verdict, Violation};
use crate::load::Load;
use crate::storm::{self, GRACE, PartResult, conclude};

/// The errors of the clocks.
const SKEWS: [&str; 2] = ["+180s", "-180s"];
/// How long users send requests.
const WORK: Duration = Duration::from_secs(16);
/// One in this many changes may fail without a fault, because on a busy machine Redis may answer
/// later than a replica waits.
const ONE_FAILURE_IN: usize = 50;

/// Runs the part with this seed.
pub(crate) async fn run(folder: &Path, seed: u64) -> PartResult {
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
    let apart = clock_difference(&fleet).await;
    if !(Duration::from_secs(350)..Duration::from_secs(370)).contains(&apart) {
        let apart = format!("the clocks are {apart:?} apart, not six minutes");
        wrong.add(Violation::PartPromise, apart);
    }
    let history = Arc::new(History::new(&folder.join("history.log")));
    let mut rng = Rng::with_seed(seed);
    let begun = Instant::now();
    let load = Load::start(&fleet, &history, GRACE, &mut rng);
    tokio::time::sleep(WORK / 2).await;
    // With a fast clock, uploads in progress look old. `gc` must not treat them as garbage.
    history.log("gc with a fast clock");
    let words = ["gc", "--min-age", "0s", "--max-deletes", "100000"];
    let collected = fleet.operate(&words).await;
    if !collected.status.success() {
        let output = String::from_utf8_lossy(&collected.stdout);
        wrong.add(Violation::PartPromise, format!("gc: {output}"));
    }
    tokio::time::sleep(WORK / 2).await;
    let worked = begun.elapsed();
    wrong.merge(load.stop().await);
    let ops = history.ops();
    let (failed, changes) = failed_changes(&ops);
    if failed.len() * ONE_FAILURE_IN > changes {
        for op in &failed {
            let failed = format!("{}: {:?} was answered {:?}", op.subject, op.act, op.outcome);
            wrong.add(Violation::PartPromise, failed);
        }
    }
    let mut passed = conclude(&fleet, &history, wrong, worked).await;
    passed.summary = format!(
        "clocks {} s apart; {} of {changes} changes failed without a fault; {}",
        apart.as_secs(),
        failed.len(),
        passed.summary
    );
    passed
}

/// The changes that failed, and the number of all changes.
pub(crate) fn failed_changes(ops: &[Op]) -> (Vec<&Op>, usize) {
    let changes = ops.iter().filter(|op| op.act != Act::Read);
    let failed = changes.clone().filter(|op| match &op.outcome {
        Outcome::Refused(code) => code != "superseded",
        Outcome::Unknown(_) => true,
        _ => false,
    });
    (failed.collect(), changes.count())
}

/// The difference of the replicas' clocks, by the `Date` headers of their answers.
async fn clock_difference(fleet: &Fleet) -> Duration {
    let mut times = Vec::new();
    for replica in 0..fleet.replicas() {
        let answer = fleet.client(replica).readiness().await.unwrap();
        let rfc2822 = &time::format_description::well_known::Rfc2822;
        let at = time::OffsetDateTime::parse(answer.header("date"), rfc2822);
        times.push(at.unwrap_or(time::OffsetDateTime::UNIX_EPOCH));
    }
    (times[0] - times[1]).unsigned_abs()
}

/// Installs `libfaketime` if it is missing, and returns its path.
fn install() -> String {
    let need = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/need.sh");
    let installed = Command::new(need).arg("faketime").status().unwrap();
    assert!(installed.success(), "faketime could not be installed");
    // The command sets this variable for its child, so printing it shows the path of the library.
    let words = ["-f", "+1s", "printenv", "LD_PRELOAD"];
    let printed = Command::new("faketime").args(words).output().unwrap();
    let library = String::from_utf8(printed.stdout).unwrap().trim().to_owned();
    assert!(library.contains("libfaketime"), "{library:?}");
    library
}
