//! The control: whether the machine, and not the program, is what makes things late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::fleet::{Dependency, Fleet, REPLICAS};

/// How long an answer that waits for nothing may take on a machine that can be measured on.
const PROMPT: Duration = Duration::from_millis(200);
/// How often something is measured that was not as promised while the machine was too busy.
pub(crate) const TRIES: usize = 4;

/// Asks the replicas for what needs no dependency, and the dependencies themselves to write, all the
/// while.
pub(crate) struct Control {
    worst_ms: Arc<AtomicU64>,
    asking: JoinSet<()>,
}

impl Control {
    /// Begins to ask; what is `down` is left out.
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
                    fleet.answers(which).await;
                    note(&worst, begun).await;
                }
            });
        }
        Self { worst_ms, asking }
    }

    /// Ends it, and tells whether the machine was too busy for what was measured to count.
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
