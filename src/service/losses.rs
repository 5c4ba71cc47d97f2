//! Detects records whose objects are gone because the store lost its contents.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tracing::info;

use super::{Error, Service};
use crate::avatar::AvatarId;
use crate::catalog::Cursor;
use crate::telemetry::Health;

/// Avatars whose objects are listed at the same time.
const CONCURRENCY: usize = 8;
/// Pages of records that one call compares. The next call continues after them. Empty pages do not
/// count, because a new catalog has an empty page for each partition.
const MAX_PAGES: usize = 4;

/// Records that are compared when a process starts.
const SAMPLE: usize = 64;

/// The progress of the comparison of records with the store.
#[derive(Default)]
pub(super) struct Losses(Mutex<State>);

#[derive(Default)]
struct State {
    /// The store's count of losses at the last comparison.
    known: u64,
    /// The position of the next records to compare; `None` if every record has objects.
    next: Option<Cursor>,
}

impl Losses {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    /// The health of the store: degraded while records may name objects that it has lost.
    pub(super) fn losses_health(&self) -> Health {
        let state = self.losses.lock();
        if state.next.is_none() && state.known == self.store.losses() {
            return Health::Healthy;
        }
        let reason = "the bucket was lost and made again, or objects were deleted from the store: \
                      some avatars have no images; restore the objects, upload them again, or drop them with `cameo gc`";
        Health::Degraded(reason.to_owned())
    }

    /// Checks whether the first records have objects. If one has none, the next calls of
    /// [`find_losses`](Self::find_losses) compare all records. A process calls this at its start,
    /// because the loss may have happened before.
    ///
    /// # Errors
    /// [`Error::Catalog`], [`Error::Storage`]
    pub async fn check_first_records(&self) -> Result<(), Error> {
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

    /// If the store has lost objects, checks whether records still name them. Stops at the first such
    /// record; the next call begins there.
    ///
    /// # Errors
    /// [`Error::Catalog`], [`Error::Storage`]: the next call continues.
    pub async fn find_losses(&self) -> Result<(), Error> {
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
    use crate::catalog::{Precondition, Uploader, contract};
    use crate::storage::Store;
    use crate::telemetry::Health;

    #[tokio::test]
    async fn a_new_process_reports_records_without_objects_until_none_is_left() {
        let parts = Parts::new();
        let who = SubjectId::new("42").unwrap();
        let mut record = contract::record(1, 1);
        let minute = Duration::from_mins(1);
        let reserved = parts
            .catalog
            .reserve(&who, record.avatar_id, minute, Uploader::Ordinary)
            .await;
        let reserved = reserved.unwrap().unwrap();
        (record.version, record.reserved_at) = (reserved.version, reserved.reserved_at);
        let anything = Precondition::Anything;
        let replaced = parts
            .catalog
            .replace(&who, &record, &anything, minute, Uploader::Ordinary)
            .await;
        replaced.unwrap();
        let health = async |service: &super::Service| {
            service.find_losses().await.unwrap();
            service.check_store().await.unwrap().health
        };
        for _ in 0..2 {
            let service = parts.service();
            assert_eq!(health(&service).await, Health::Healthy);
            service.check_first_records().await.unwrap();
            let degraded = health(&service).await;
            assert!(matches!(degraded, Health::Degraded(_)), "{degraded:?}");
        }
        let service = parts.service();
        service.check_first_records().await.unwrap();
        let avatar = record.avatar_id;
        let manifest = ObjectKey::Manifest { avatar };
        parts.store.put(&manifest, "{}".into()).await.unwrap();
        assert_eq!(health(&service).await, Health::Healthy);
    }
}
