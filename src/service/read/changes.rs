//! Follows the events of the catalog, so that changes through other replicas end entries of the
//! caches.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::super::Service;
use crate::avatar::Change;
use crate::catalog::{CatalogError, Cursor};
use crate::telemetry::chain;

/// The pause between two reads of the events. A change reaches every replica within twice this time.
const POLL_INTERVAL: Duration = Duration::from_millis(40);
/// The pause after a failure.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// After this many reads the positions are compared with the catalog's: once a second.
const COMPARED_EVERY: u32 = 25;
/// Events of one partition that are read at once.
const PAGE: usize = 200;

/// Why the events have to be followed from new positions.
enum Interruption {
    /// The catalog failed.
    Failed(CatalogError),
    /// The catalog has lost events: it was emptied, or another server took over.
    EventsLost,
}

impl From<CatalogError> for Interruption {
    fn from(error: CatalogError) -> Self {
        Self::Failed(error)
    }
}

impl Service {
    /// Follows the events of the catalog for ever. Entries of the caches that a change makes wrong
    /// end within a tenth of a second.
    pub async fn follow_changes(&self) -> Infallible {
        let mut has_failed = false;
        loop {
            match self.follow_until_interrupted(&mut has_failed).await {
                Interruption::EventsLost => {
                    info!("events of the catalog are missing; records in memory are read again");
                }
                Interruption::Failed(error) => {
                    if has_failed {
                        debug!(error = %chain(&error), "the events still cannot be followed");
                    } else {
                        has_failed = true;
                        warn!(
                            error = %chain(&error),
                            "the events of the catalog cannot be followed"
                        );
                    }
                    sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    async fn follow_until_interrupted(&self, has_failed: &mut bool) -> Interruption {
        match self.follow(has_failed).await {
            Ok(never) => match never {},
            Err(interruption) => interruption,
        }
    }

    /// Follows the events from the latest ones on.
    async fn follow(&self, has_failed: &mut bool) -> Result<Infallible, Interruption> {
        let following = &self.records.following;
        let mut begun = following.now();
        let mut positions = self.latest_events().await?;
        // Entries that were loaded before may be older than these positions.
        following.restart();
        if std::mem::take(has_failed) {
            info!("the events of the catalog are followed again");
        }
        let mut reads = 0;
        loop {
            following.saw_everything_before(begun);
            sleep(POLL_INTERVAL).await;
            begun = following.now();
            reads += 1;
            let latest = if reads % COMPARED_EVERY == 0 {
                Some(self.latest_events().await?)
            } else {
                None
            };
            let before = positions.clone();
            self.see_new_events(&mut positions).await?;
            if let Some(latest) = latest {
                // A partition without new events must still end where it ended before.
                let ends = before.iter().zip(&positions).zip(&latest);
                for ((before, position), latest) in ends {
                    if before == position && position != latest {
                        return Err(Interruption::EventsLost);
                    }
                }
            }
        }
    }

    /// Reads the events after these positions, and ends the entries that they concern.
    async fn see_new_events(&self, positions: &mut [Cursor]) -> Result<(), CatalogError> {
        loop {
            let mut is_last = true;
            let all = self.catalog.events_of_all(positions, PAGE).await?;
            for (position, events) in positions.iter_mut().zip(all) {
                is_last &= events.len() < PAGE;
                for (cursor, event) in events {
                    self.records.invalidate(&event.subject);
                    if let (Change::Deleted { .. }, Some(previous)) =
                        (&event.change, &event.previous)
                    {
                        self.images.invalidate(previous.avatar_id);
                    }
                    *position = cursor;
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// The positions of the latest events of all partitions.
    async fn latest_events(&self) -> Result<Vec<Cursor>, CatalogError> {
        let partitions = 0..self.catalog.event_partitions();
        try_join_all(partitions.map(|partition| self.catalog.latest_event(partition))).await
    }
}
