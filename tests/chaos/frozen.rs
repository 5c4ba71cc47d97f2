//! A frozen replica: it stands still in the middle of uploads for longer than two deadlines, and
//! then goes on as if nothing had been.
//!
//! Meanwhile the other replica serves users and sweeps what the frozen one has begun.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::task::JoinSet;

use crate::fleet::{Dependency, Fleet};
use crate::history::{Act, History, Outcome};
use crate::judgement::Broken;
use crate::load::{Load, perform, subjects};
use crate::proxy::Way;
use crate::storm::{self, GRACE, Passed, UPLOAD_DEADLINE, conclude, outstanding};

/// How often it is frozen, and for how long.
const FREEZES: usize = 3;
const FROZEN: Duration = Duration::from_secs(2 * UPLOAD_DEADLINE.as_secs() + 1);
/// Uploads under way when it is frozen: as many for users of their own as for those whom others
/// change meanwhile.
const UPLOADS: usize = 8;
/// How much longer each of their requests to the bucket takes, so that they are in the middle.
const DELAY: Duration = Duration::from_millis(120);
/// When it is frozen, after they have begun.
const AFTER_MS: std::ops::Range<u64> = 150..1200;

/// Runs by the seed.
pub(crate) async fn run(folder: &Path, seed: u64) -> Passed {
    let fleet = Arc::new(Fleet::start(folder, &storm::settings()).await);
    let history = Arc::new(History::new(&folder.join("history.log")));
    let mut rng = Rng::with_seed(seed);
    let begun = Instant::now();
    let load = Load::through(vec![1], &fleet, &history, GRACE, &mut rng);
    let mut found = Vec::new();
    let (mut caught, mut reserved, mut taken) = (0, 0, 0);
    for number in 0..FREEZES {
        fleet.set_way(Some(0), Dependency::Bucket, Way::Delay(DELAY));
        let mut uploads = JoinSet::new();
        for upload in 0..UPLOADS {
            let (client, history) = (fleet.client(0), Arc::clone(&history));
            let subject = if upload % 2 == 0 {
                format!("frozen-{number}-{upload}")
            } else {
                subjects().nth(upload).unwrap()
            };
            // Other users' pictures are smaller.
            let (width, height) = (400 + number as u32, 100 + upload as u32);
            let act = Act::Upload { width, height };
            uploads.spawn(async move {
                perform(&client, &history, (100 + upload, 0), &subject, act).await
            });
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(AFTER_MS))).await;
        let frozen = history.now();
        fleet.replica(0).stop().await;
        history.tell("replica 0 is frozen");
        fleet.set_way(Some(0), Dependency::Bucket, Way::Pass);
        let own = format!("pending: frozen-{number}-");
        let pending = outstanding(&fleet).await;
        reserved += pending.iter().filter(|name| name.starts_with(&own)).count();
        tokio::time::sleep(FROZEN).await;
        history.tell("replica 0 goes on");
        fleet.replica(0).go_on().await;
        while let Some(done) = uploads.join_next().await {
            let (op, wrong) = done.unwrap();
            // The time that a picture may take is over when its replica goes on.
            found.extend(wrong.filter(|wrong| !wrong.contains("too_complex")));
            caught += usize::from(op.ended > frozen);
            let late = op.ended > frozen && matches!(op.outcome, Outcome::Uploaded(_));
            taken += usize::from(late);
        }
    }
    let worked = begun.elapsed();
    let mut on_the_way = load.stop().await;
    for wrong in found {
        on_the_way.add(Broken::WrongAnswer, wrong);
    }
    if reserved == 0 {
        let none = "no upload was in the middle when its replica was frozen";
        on_the_way.add(Broken::PartPromise, none);
    }
    fleet.ready().await;
    let mut passed = conclude(&fleet, &history, on_the_way, worked).await;
    passed.summary = format!(
        "a replica frozen {FREEZES} times for {} s, {caught} uploads in the middle, {reserved} of \
         those that could be told had their version, {taken} were acknowledged afterwards; {}",
        FROZEN.as_secs(),
        passed.summary
    );
    passed
}
