//! A frozen replica: it is stopped in the middle of uploads for longer than two upload deadlines,
//! and then continues.
//!
//! Meanwhile the other replica serves users and sweeps the uploads of the frozen one.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinSet;

use crate::fleet::{Dependency, Fleet};
use crate::history::{Act, History, Outcome};
use crate::judgement::Violation;
use crate::load::{Load, perform, subjects};
use crate::proxy::Link;
use crate::storm::{self, GRACE, PartResult, UPLOAD_DEADLINE, conclude, outstanding};

/// How often the replica is frozen, and for how long.
const FREEZES: usize = 3;
const FROZEN: Duration = Duration::from_secs(2 * UPLOAD_DEADLINE.as_secs() + 1);
/// The number of uploads in progress when the replica is frozen. Half of them have a subject of
/// their own; other users change the subjects of the other half meanwhile.
const UPLOADS: usize = 8;
/// The delay of their requests to the bucket, so that the freeze hits them in the middle.
const DELAY: Duration = Duration::from_millis(120);
/// The time from the begin of the uploads to the freeze.
const AFTER_MS: std::ops::Range<u64> = 150..1200;

/// Runs the part with this seed.
pub(crate) async fn run(folder: &Path, seed: u64) -> PartResult {
    let fleet = Arc::new(Fleet::start(folder, &storm::settings()).await);
    let history = Arc::new(History::new(&folder.join("history.log")));
    let mut rng = Rng::with_seed(seed);
    let begun = Instant::now();
    let load = Load::through(vec![1], &fleet, &history, GRACE, &mut rng);
    let mut found = Vec::new();
    let (mut caught, mut reserved, mut taken) = (0, 0, 0);
    for number in 0..FREEZES {
        fleet.set_link(Some(0), Dependency::Bucket, Link::Delay(DELAY));
        let mut uploads = JoinSet::new();
        for upload in 0..UPLOADS {
            let (client, history) = (fleet.client(0), Arc::clone(&history));
            let subject = if upload % 2 == 0 {
                format!("frozen-{number}-{upload}")
            } else {
                subjects().nth(upload).unwrap()
            };
            // The pictures of other users are smaller.
            let (width, height) = (400 + number as u32, 100 + upload as u32);
            let act = Act::Upload { width, height };
            uploads.spawn(async move {
                perform(&client, &history, (100 + upload, 0), &subject, act).await
            });
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(AFTER_MS))).await;
        let frozen = history.now();
        fleet.replica(0).stop().await;
        history.log("replica 0 is frozen");
        fleet.set_link(Some(0), Dependency::Bucket, Link::Pass);
        let own = format!("pending: frozen-{number}-");
        let pending = outstanding(&fleet).await;
        reserved += pending.iter().filter(|name| name.starts_with(&own)).count();
        tokio::time::sleep(FROZEN).await;
        history.log("replica 0 continues");
        fleet.replica(0).resume().await;
        while let Some(done) = uploads.join_next().await {
            let (op, wrong) = done.unwrap();
            // The processing deadline may have passed when the replica continues.
            found.extend(wrong.filter(|wrong| !wrong.contains("too_complex")));
            caught += usize::from(op.ended > frozen);
            let late = op.ended > frozen && matches!(op.outcome, Outcome::Uploaded(_));
            taken += usize::from(late);
        }
    }
    let worked = begun.elapsed();
    let mut during_run = load.stop().await;
    for wrong in found {
        during_run.add(Violation::WrongAnswer, wrong);
    }
    if reserved == 0 {
        let none = "no upload was in progress when its replica was frozen";
        during_run.add(Violation::PartPromise, none);
    }
    fleet.ready().await;
    let mut passed = conclude(&fleet, &history, during_run, worked).await;
    passed.summary = format!(
        "a replica frozen {FREEZES} times for {} s with {caught} uploads in progress; {reserved} of \
         those with a subject of their own were reserved, {taken} were acknowledged afterwards; {}",
        FROZEN.as_secs(),
        passed.summary
    );
    passed
}
