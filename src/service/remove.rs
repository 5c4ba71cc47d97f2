//! Removes the avatar of a subject with all its objects.

use super::{Error, Service};
use crate::avatar::{Record, SubjectId};
use crate::catalog::{Precondition, PreconditionFailed};

/// The result of a removal.
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
        let removed = self.catalog.remove(subject, precondition, lease).await;
        // After an error the record may be gone.
        self.records.invalidate(subject);
        let removed = removed?;
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
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::super::REMOVALS;
    use super::super::testing::{Parts, StoreChanges};
    use super::*;
    use crate::avatar::ObjectKey;
    use crate::catalog::{Precondition, Uploader, contract};
    use crate::storage::Store;

    /// Records the order of deletes. Each delete takes 10 ms.
    #[derive(Default)]
    struct RecordDeletes {
        deleted: Mutex<Vec<ObjectKey>>,
        under_way: AtomicUsize,
        most: AtomicUsize,
    }

    #[async_trait]
    impl StoreChanges for RecordDeletes {
        async fn before_delete(&self, _key: &ObjectKey) {
            let under_way = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(under_way, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }

        async fn after_delete(&self, key: &ObjectKey) {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            self.deleted.lock().unwrap().push(key.clone());
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
            let reserved = parts
                .catalog
                .reserve(&subject, avatar, hour, Uploader::Ordinary)
                .await
                .unwrap()
                .unwrap();
            record.version = reserved.version;
            record.reserved_at = reserved.reserved_at;
            let anything = Precondition::Anything;
            let replaced =
                parts
                    .catalog
                    .replace(&subject, &record, &anything, hour, Uploader::Ordinary);
            replaced.await.unwrap();
            let renditions = record
                .renditions
                .iter()
                .map(|one| ObjectKey::of_rendition(&record, one));
            for key in renditions.chain([ObjectKey::Manifest { avatar }]) {
                parts
                    .store
                    .put(&key, Bytes::from_static(b"x"))
                    .await
                    .unwrap();
            }
        }
        let (service, store) = parts.service_with(RecordDeletes::default());
        let removal = service.remove(&subject, &Precondition::Anything).await;
        assert_eq!(removal.unwrap().objects, 40);
        let deleted = store.changes.deleted.lock().unwrap();
        let are_manifests: Vec<_> = deleted
            .iter()
            .map(|key| matches!(key, ObjectKey::Manifest { .. }))
            .collect();
        assert_eq!(are_manifests.len(), 44);
        assert!(
            are_manifests[..4].iter().all(|manifest| *manifest),
            "{deleted:?}"
        );
        let most = store.changes.most.load(Ordering::Relaxed);
        assert!(most > 1 && most <= REMOVALS, "{most} at once");
    }
}
