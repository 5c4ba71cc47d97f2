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

/// Records whose objects are looked for when a process starts.
const SAMPLE: usize = 64;

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
        let reason = "the bucket was lost and made again, or objects were deleted from the store: \
                      some avatars have no images; restore the objects, upload them again, or drop them with `cameo gc`";
        Health::Degraded(reason.to_owned())
    }

    /// Looks whether the first records have objects. If one has none,
    /// [`look_for_losses`](Self::look_for_losses) looks at all records. A process calls this when it
    /// starts, because an earlier process, or another replica, may have seen the loss.
    ///
    /// # Errors
    /// [`Error::Catalog`], [`Error::Storage`]
    pub async fn look_at_first_records(&self) -> Result<(), Error> {
        let mut from = Cursor::START;
        let records = loop {
            let page = self.catalog.page(&from).await?;
            match page.next {
                Some(next) if page.records.is_empty() => from = next,
                _ => break page.records,
            }
        };
        let has_objects = stream::iter(records.into_iter().take(SAMPLE))
            .map(|(_, record)| self.has_objects(record.avatar_id))
            .buffered(CONCURRENCY)
            .try_all(|has_objects| async move { has_objects });
        if !has_objects.await? {
            self.losses.lock().next = Some(Cursor::START);
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::Parts;
    use crate::avatar::{ObjectKey, SubjectId};
    use crate::catalog::{Precondition, contract};
    use crate::storage::Store;
    use crate::telemetry::Health;

    #[tokio::test]
    async fn a_process_that_starts_reports_records_whose_objects_are_gone_until_there_are_none() {
        let parts = Parts::new();
        let who = SubjectId::new("42").unwrap();
        let mut record = contract::record(1, 1);
        let minute = Duration::from_mins(1);
        let reserved = parts.catalog.reserve(&who, record.avatar_id, minute).await;
        let reserved = reserved.unwrap();
        (record.version, record.reserved_at) = (reserved.version, reserved.reserved_at);
        let anything = Precondition::Anything;
        let replaced = parts
            .catalog
            .replace(&who, &record, &anything, minute)
            .await;
        replaced.unwrap();
        let health = async |service: &super::Service| {
            service.look_for_losses().await.unwrap();
            service.check_store().await.unwrap().health
        };
        for _ in 0..2 {
            let service = parts.service();
            assert_eq!(health(&service).await, Health::Healthy);
            service.look_at_first_records().await.unwrap();
            let degraded = health(&service).await;
            assert!(matches!(degraded, Health::Degraded(_)), "{degraded:?}");
        }
        let service = parts.service();
        service.look_at_first_records().await.unwrap();
        let avatar = record.avatar_id;
        let manifest = ObjectKey::Manifest { avatar };
        parts.store.put(&manifest, "{}".into()).await.unwrap();
        assert_eq!(health(&service).await, Health::Healthy);
    }
}
