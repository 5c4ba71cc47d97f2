//! Records whose objects are gone, after the store lost all that it held.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tracing::info;

use super::{Error, Service};
use crate::avatar::AvatarId;
use crate::catalog::Cursor;
use crate::telemetry::Health;

/// Avatars whose objects are looked for at the same time.
const CONCURRENCY: usize = 8;
/// Pages of records looked at in one go. The next go continues where this one ends. Empty pages do
/// not count: a new catalog of many partitions has one for each.
const MAX_PAGES: usize = 4;

/// How far records were compared with the store.
#[derive(Default)]
pub(super) struct Losses(Mutex<State>);

#[derive(Default)]
struct State {
    /// The store's losses that were looked into.
    known: u64,
    /// Where the next records to look at are; `None` where every record has objects.
    next: Option<Cursor>,
}

impl Losses {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// Degraded while records may name objects that the store has lost.
    pub(super) fn losses_health(&self) -> Health {
        let state = self.losses.lock();
        if state.next.is_none() && state.known == self.store.losses() {
            return Health::Healthy;
        }
        let reason = "the bucket was lost and made again, and avatars of before have no images; \
                      restore its objects, upload them again, or drop them with `cameo gc`";
        Health::Degraded(reason.to_owned())
    }

    /// Where the store has lost its objects, looks whether records still name them. It stops at the
    /// first such record, and begins there the next time.
    ///
    /// # Errors
    /// [`Error::Catalog`], [`Error::Storage`]: the next call continues.
    pub async fn look_for_losses(&self) -> Result<(), Error> {
        let losses = self.store.losses();
        let mut from = {
            let mut state = self.losses.lock();
            if state.known != losses {
                state.known = losses;
                state.next = Some(Cursor::START);
            }
            match &state.next {
                Some(next) => next.clone(),
                None => return Ok(()),
            }
        };
        let mut pages = 0;
        while pages < MAX_PAGES {
            let page = self.catalog.page(&from).await?;
            pages += usize::from(!page.records.is_empty());
            let has_objects = stream::iter(page.records)
                .map(|(_, record)| self.has_objects(record.avatar_id))
                .buffered(CONCURRENCY)
                .try_all(|has_objects| async move { has_objects });
            if !has_objects.await? {
                return Ok(());
            }
            let Some(next) = page.next else {
                self.losses.lock().next = None;
                info!("every record has its objects");
                return Ok(());
            };
            self.losses.lock().next = Some(next.clone());
            from = next;
        }
        Ok(())
    }

    async fn has_objects(&self, avatar: AvatarId) -> Result<bool, Error> {
        Ok(!self.store.list(avatar).await?.is_empty())
    }
}
