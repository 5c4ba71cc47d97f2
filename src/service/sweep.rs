//! Cleaning up: the objects of uploads that died, and of avatars that were replaced long enough
//! ago.

use futures_util::stream::{self, StreamExt};

use super::{Error, Service};
use crate::avatar::Timestamp;
use crate::catalog::Outstanding;

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Uploads whose objects are gone.
    pub avatars: usize,
    /// Publicly readable objects removed.
    pub objects: usize,
}

/// Ids claimed at once; small enough to be finished well within the lease.
const BATCH: usize = 64;
/// Avatars removed at the same time.
const AT_ONCE: usize = 4;

impl Service {
    /// Removes the objects of everything that is due by `now`. Several processes may sweep at
    /// once; each claims what it removes.
    ///
    /// # Errors
    /// The first failure. What was claimed and not removed is due again after its lease.
    pub async fn sweep(&self, now: Timestamp) -> Result<Swept, Error> {
        let swept = self.sweep_all(now).await;
        self.metrics.sweep_ended(swept.is_ok().then_some(now));
        swept
    }

    async fn sweep_all(&self, now: Timestamp) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        loop {
            let claimed = self
                .catalog
                .claim(now, self.removal_lease(now), BATCH)
                .await?;
            if claimed.is_empty() {
                return Ok(swept);
            }
            self.metrics.sweep_claimed(claimed.len());
            let removed: Vec<_> = stream::iter(claimed)
                .map(|outstanding| self.remove_due(outstanding))
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            // One that cannot be removed does not keep the others.
            for objects in removed {
                swept.objects += objects?;
                swept.avatars += 1;
            }
        }
    }

    async fn remove_due(&self, outstanding: Outstanding) -> Result<usize, Error> {
        let objects = self.remove_objects(outstanding.avatar).await?;
        self.catalog.forget(&outstanding).await?;
        self.metrics.sweep_removed(objects);
        Ok(objects)
    }
}
