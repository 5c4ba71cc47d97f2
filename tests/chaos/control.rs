//! The control: detects whether late answers are due to a busy machine and not to the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::fleet::{Dependency, Fleet, REPLICAS};

/// How long an answer without any dependency may take if the machine is fit for measuring.
const PROMPT: Duration = Duration::from_millis(200);
/// How often a result that is not as promised is measured while the machine is too busy.
pub(crate) const TRIES: usize = 4;

/// Continuously sends liveness requests to the replicas, and writes to the dependencies.
pub(crate) struct Control {
    worst_ms: Arc<AtomicU64>,
    asking: JoinSet<()>,
}

impl Control {
    /// Starts the requests, except to the dependency that is `down`.
    pub(crate) fn start(fleet: &Arc<Fleet>, down: Dependency) -> Self {
        let worst_ms = Arc::new(AtomicU64::new(0));
        let mut asking = JoinSet::new();
        for replica in 0..REPLICAS {
            let (client, worst) = (fleet.client(replica), Arc::clone(&worst_ms));
            asking.spawn(async move {
                loop {
                    let begun = Instant::now();
                    client.is_live().await;
                    note(&worst, begun).await;
                }
            });
        }
        for which in Dependency::ALL {
            if which == down {
                continue;
            }
            let (fleet, worst) = (Arc::clone(fleet), Arc::clone(&worst_ms));
            asking.spawn(async move {
                loop {
                    let begun = Instant::now();
                    fleet.accepts_writes(which).await;
                    note(&worst, begun).await;
                }
            });
        }
        Self { worst_ms, asking }
    }

    /// Ends the requests. Returns the longest time if the machine was too busy to measure.
    pub(crate) fn was_busy(self) -> Option<Duration> {
        let Self {
            worst_ms,
            mut asking,
        } = self;
        asking.abort_all();
        let worst = Duration::from_millis(worst_ms.load(Ordering::Relaxed));
        (worst > PROMPT).then_some(worst)
    }
}

async fn note(worst_ms: &AtomicU64, begun: Instant) {
    worst_ms.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(30)).await;
}
