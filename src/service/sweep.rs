//! Cleaning up: the objects of uploads that died, and of avatars that were replaced long enough
//! ago.

use futures_util::stream::{self, StreamExt};

use super::{Error, Service};
use crate::avatar::{ObjectKey, Timestamp};
use crate::catalog::{Claimed, Due, Invalidated};

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
    /// Removes the objects of everything that is due. Several processes may sweep at once; each
    /// claims what it removes.
    ///
    /// # Errors
    /// The first failure. What was claimed and not removed is due again after its lease.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let swept = self.sweep_all().await;
        let ended = Timestamp::now();
        self.metrics.sweep_ended(swept.is_ok().then_some(ended));
        swept
    }

    async fn sweep_all(&self) -> Result<Swept, Error> {
        self.look_for_losses().await?;
        let mut swept = Swept::default();
        loop {
            let claimed = self.catalog.claim(self.removal_lease(), BATCH).await?;
            if claimed.is_empty() {
                return Ok(swept);
            }
            self.metrics.sweep_claimed(claimed.len());
            let removed: Vec<_> = stream::iter(claimed)
                .map(|claimed| self.remove_due(claimed))
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            // One that cannot be removed does not keep the others.
            for objects in removed {
                if let Some(objects) = objects? {
                    swept.objects += objects;
                    swept.avatars += 1;
                }
            }
        }
    }

    /// Removes the objects of an upload that is due, and tells how many of them anyone could read;
    /// `None` if they are kept.
    async fn remove_due(&self, claimed: Claimed) -> Result<Option<usize>, Error> {
        let Claimed { outstanding, due } = claimed;
        let avatar = outstanding.avatar;
        let Due::Expired { overdue } = due else {
            let objects = self.remove_objects(avatar).await?;
            self.catalog.forget(&outstanding).await?;
            self.metrics.sweep_removed(objects);
            return Ok(Some(objects));
        };
        // The upload may have been acknowledged by a catalog that lost its last writes. A rebuild
        // restores it if it is complete, so it stays for a while.
        let left = self.settings.orphan_grace.saturating_sub(overdue);
        if !left.is_zero() {
            let stored = self.store.list(avatar).await?;
            if stored.contains(&ObjectKey::Manifest { avatar }) {
                self.catalog.defer(&outstanding, left).await?;
                return Ok(None);
            }
        }
        let lease = self.removal_lease();
        if self.catalog.invalidate(&outstanding, lease).await? == Invalidated::Kept {
            return Ok(None);
        }
        // A write of a dead upload may still be on its way: the network or the store held it up, and
        // it is carried out all the same. So the upload is not forgotten. It comes due again after
        // its lease, and is looked at once more.
        let objects = self.remove_objects(avatar).await?;
        self.metrics.sweep_removed(objects);
        Ok(Some(objects))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::avatar::{AvatarId, ObjectKey, SubjectId};
    use crate::catalog::{Catalog, Precondition, contract};
    use crate::service::Upload;
    use crate::service::testing::Parts;
    use crate::storage::{
        Checkup, DiskStore, Object, RangedObject, Store, StoreError, StoredUpload,
    };

    const PICTURE: &[u8] = include_bytes!("../../tests/fixtures/baseline.jpg");

    /// A store in which an upload is swept as one that died, as soon as it has written an object.
    struct SweptUnderWay {
        store: Arc<DiskStore>,
        clock: Arc<contract::ManualClock>,
        sweeper: Service,
        is_swept: AtomicBool,
        written_after: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Store for SweptUnderWay {
        async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError> {
            self.store.put(key, body).await?;
            if self.is_swept.swap(true, Ordering::Relaxed) {
                self.written_after.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            self.clock.advance(Duration::from_hours(1));
            let swept = self.sweeper.sweep().await.unwrap();
            assert_eq!(swept.avatars, 1);
            Ok(())
        }

        async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
            self.store.get(key).await
        }

        async fn get_range(
            &self,
            key: &ObjectKey,
            range: RangeInclusive<u64>,
        ) -> Result<Option<RangedObject>, StoreError> {
            self.store.get_range(key, range).await
        }

        async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
            self.store.delete(key).await
        }

        async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
            self.store.list(avatar).await
        }

        async fn uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError> {
            self.store.uploads(after).await
        }

        async fn check(&self) -> Result<Checkup, StoreError> {
            self.store.check().await
        }
    }

    #[tokio::test]
    async fn an_upload_that_goes_on_after_it_was_swept_leaves_nothing() {
        let parts = Parts::new();
        let written_after = Arc::new(AtomicUsize::new(0));
        let service = parts.service_on(Arc::new(SweptUnderWay {
            store: parts.store.clone(),
            clock: parts.clock.clone(),
            sweeper: parts.service(),
            is_swept: AtomicBool::new(false),
            written_after: Arc::clone(&written_after),
        }));
        let subject = SubjectId::new("42").unwrap();
        let upload = Upload {
            subject: subject.clone(),
            bytes: Bytes::from_static(PICTURE),
            crop: None,
            precondition: Precondition::Anything,
        };
        let account = crate::service::Account::User(subject.clone());
        let admission = service.admit(account, PICTURE.len()).await.unwrap();
        let uploaded = service.upload(admission, upload, std::future::pending());
        let error = uploaded.await.unwrap_err();
        assert!(matches!(error, Error::TimedOut), "{error:?}");

        // Five more renditions and the manifest were written, that at least after the sweep.
        assert_eq!(written_after.load(Ordering::Relaxed), 6);
        assert_eq!(parts.store.uploads(None).await.unwrap(), []);
        assert_eq!(parts.catalog.get(&subject).await.unwrap(), None);
        // It is looked at once more, in case something of it is still on its way.
        parts.clock.advance(Duration::from_hours(2));
        assert_eq!(service.sweep().await.unwrap().avatars, 1);
        assert_eq!(parts.catalog.outstanding().await.unwrap(), []);
        assert_eq!(contract::events(&*parts.catalog).await, []);
    }
}
