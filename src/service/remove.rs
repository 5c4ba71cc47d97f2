//! Removes the avatar of a subject with all its objects.

use super::{Error, Service};
use crate::avatar::{Record, SubjectId};
use crate::catalog::{Precondition, PreconditionFailed};

/// What a removal removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The record that was current.
    pub record: Record,
    /// Number of renditions that were removed.
    pub objects: usize,
}

impl Service {
    /// Removes the subject's avatar, the avatars that it replaced, and uploads under way. When this
    /// returns, none of their objects is left. If the future is dropped, the next call or the sweep
    /// removes the rest.
    ///
    /// # Errors
    /// - [`Error::PreconditionFailed`]: nothing has changed.
    /// - [`Error::NotFound`]: there is no current avatar. Objects that an earlier removal left are
    ///   removed all the same.
    /// - [`Error::Storage`]: the avatar is not current any more, but objects may be left. The next
    ///   call or the sweep removes them.
    /// - [`Error::Catalog`]: the outcome is unknown.
    pub async fn remove(
        &self,
        subject: &SubjectId,
        precondition: &Precondition,
    ) -> Result<Removal, Error> {
        let lease = self.removal_lease();
        let removed = self.catalog.remove(subject, precondition, lease).await?;
        let removed = removed.map_err(|PreconditionFailed| Error::PreconditionFailed)?;
        let removed = removed.ok_or(Error::NotFound)?;
        // The catalog does not forget the ids yet. A write that was given up may still be carried
        // out, and restore an object that is removed here. The sweep removes the objects once more
        // after the lease.
        let avatars = removed.outstanding.iter().map(|one| one.avatar);
        let objects = self.remove_objects_of(avatars.collect()).await?;
        let record = removed.record.ok_or(Error::NotFound)?;
        Ok(Removal { record, objects })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::super::REMOVALS;
    use super::super::testing::Parts;
    use super::*;
    use crate::avatar::{AvatarId, ObjectKey};
    use crate::catalog::{Precondition, contract};
    use crate::storage::{
        Checkup, DiskStore, Object, RangedObject, Store, StoreError, StoredUpload,
    };

    /// A store that records the order of deletes. Each delete takes 10 ms.
    struct RecordingStore {
        store: Arc<DiskStore>,
        deleted: Mutex<Vec<ObjectKey>>,
        under_way: AtomicUsize,
        most: AtomicUsize,
    }

    #[async_trait]
    impl Store for RecordingStore {
        async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError> {
            self.store.put(key, body).await
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
            let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(under_way, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.store.delete(key).await?;
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            self.deleted.lock().unwrap().push(key.clone());
            Ok(())
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
    async fn a_delete_removes_all_manifests_before_other_objects_and_several_objects_at_once() {
        let parts = Parts::new();
        let subject = SubjectId::new("42").unwrap();
        for number in 1..=4 {
            let mut record = contract::record(number, 0);
            let avatar = record.avatar_id;
            let hour = Duration::from_hours(1);
            let reserved = parts.catalog.reserve(&subject, avatar, hour).await.unwrap();
            record.version = reserved.version;
            record.reserved_at = reserved.reserved_at;
            let anything = Precondition::Anything;
            let replaced = parts.catalog.replace(&subject, &record, &anything, hour);
            replaced.await.unwrap();
            let renditions = record
                .renditions
                .iter()
                .map(|one| ObjectKey::of_rendition(avatar, one));
            for key in renditions.chain([ObjectKey::Manifest { avatar }]) {
                parts
                    .store
                    .put(&key, Bytes::from_static(b"x"))
                    .await
                    .unwrap();
            }
        }
        let store = Arc::new(RecordingStore {
            store: parts.store.clone(),
            deleted: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let removal = parts
            .service_on(store.clone())
            .remove(&subject, &Precondition::Anything)
            .await;
        assert_eq!(removal.unwrap().objects, 40);
        let deleted = store.deleted.lock().unwrap();
        let are_manifests: Vec<_> = deleted
            .iter()
            .map(|key| matches!(key, ObjectKey::Manifest { .. }))
            .collect();
        assert_eq!(are_manifests.len(), 44);
        assert!(
            are_manifests[..4].iter().all(|manifest| *manifest),
            "{deleted:?}"
        );
        let most = store.most.load(Ordering::Relaxed);
        assert!(most > 1 && most <= REMOVALS, "{most} at once");
    }
}
