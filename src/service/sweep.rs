//! The sweep: removes the objects of uploads that were abandoned, and of avatars that were replaced
//! longer than `lifecycle.retire_after` ago.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use futures_util::stream::{self, StreamExt};
use tracing::{info, warn};

use super::{Error, Service};
use crate::avatar::{AvatarId, ObjectKey, Timestamp};
use crate::catalog::{Claimed, Due, Invalidated};
use crate::telemetry::chain;

/// The result of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Avatars that were removed.
    pub avatars: usize,
    /// Renditions that were removed.
    pub objects: usize,
    /// Avatars that could not be removed. Each one is due again after its lease.
    pub failed: usize,
}

/// The avatars that could not be removed so far. Each failure is logged once.
#[derive(Default)]
pub(super) struct Undeletable(Mutex<HashSet<AvatarId>>);

/// Maximum number of avatars in [`Undeletable`]. Further failures are counted but not logged.
const MAX_UNDELETABLE: usize = 1000;

/// Ids claimed at once. A sweep removes that many well within the lease.
const BATCH: usize = 64;
/// Avatars removed at the same time.
const CONCURRENCY: usize = 4;

impl Service {
    /// Removes the objects of all avatars that are due. Several processes may sweep at once, because
    /// each one claims the avatars that it removes.
    ///
    /// # Errors
    /// If the catalog fails, or if the store fails for every avatar. An avatar that was claimed but
    /// not removed is due again after its lease. It is no error if only some avatars cannot be
    /// removed.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let swept = self.sweep_all().await;
        let ended = Timestamp::now();
        self.metrics.sweep_ended(swept.is_ok().then_some(ended));
        swept
    }

    async fn sweep_all(&self) -> Result<Swept, Error> {
        let compared = self.find_losses().await;
        let swept = self.remove_all_due().await;
        compared.and(swept)
    }

    async fn remove_all_due(&self) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        loop {
            let claimed = self.catalog.claim(self.removal_lease(), BATCH).await?;
            if claimed.is_empty() {
                return Ok(swept);
            }
            self.metrics.sweep_claimed(claimed.len());
            let removed: Vec<_> = stream::iter(claimed)
                .map(|claimed| async move {
                    let avatar = claimed.outstanding.avatar;
                    (avatar, self.remove_due(claimed).await)
                })
                .buffer_unordered(CONCURRENCY)
                .collect()
                .await;
            let (mut handled, mut failed) = (0, None);
            // An avatar that cannot be removed does not stop the others.
            for (avatar, objects) in removed {
                self.note_removal(avatar, objects.as_ref().err());
                match objects {
                    Ok(Some(objects)) => {
                        swept.objects += objects;
                        swept.avatars += 1;
                        handled += 1;
                    }
                    Ok(None) => handled += 1,
                    Err(error) => {
                        swept.failed += 1;
                        failed.get_or_insert(error);
                    }
                }
            }
            // If no avatar could be removed, the store is down. The rest is left to the next sweep.
            if let Some(error) = failed
                && handled == 0
            {
                return Err(error);
            }
        }
    }

    /// Counts a failed removal, and logs it if the last attempt for this avatar did not fail.
    fn note_removal(&self, avatar: AvatarId, failure: Option<&Error>) {
        let undeletable = self.undeletable.0.lock();
        let mut undeletable = undeletable.unwrap_or_else(PoisonError::into_inner);
        let Some(error) = failure else {
            if undeletable.remove(&avatar) {
                info!(%avatar, "an avatar that could not be removed before is removed now");
            }
            return;
        };
        self.metrics.sweep_failed_to_remove();
        if undeletable.len() < MAX_UNDELETABLE && undeletable.insert(avatar) {
            warn!(%avatar, error = %chain(error), "an avatar cannot be removed yet");
        }
    }

    /// Removes the objects of an avatar that is due. Returns the number of renditions among them;
    /// `None` if the objects are kept.
    async fn remove_due(&self, claimed: Claimed) -> Result<Option<usize>, Error> {
        let Claimed { outstanding, due } = claimed;
        let avatar = outstanding.avatar;
        let Due::Expired { overdue } = due else {
            let objects = self.remove_objects(avatar).await?;
            self.catalog.forget(&outstanding).await?;
            self.metrics.sweep_removed(objects);
            return Ok(Some(objects));
        };
        // A catalog that lost its last writes may have acknowledged the upload. A rebuild restores it
        // if it is complete, so a complete upload is kept for `lifecycle.orphan_grace`.
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
        // A write of the abandoned upload may still be on its way, delayed by the network or the
        // store. So the id is not forgotten: it is due again after its lease, and its objects are
        // removed once more.
        let objects = self.remove_objects(avatar).await?;
        self.metrics.sweep_removed(objects);
        Ok(Some(objects))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use bytes::Bytes;
    use cameo_testing::photos::AVIF_AS_JPEG;

    use super::*;
    use crate::avatar::{Account, ObjectKey, SubjectId};
    use crate::catalog::{Precondition, Uploader, contract};
    use crate::service::Upload;
    use crate::service::testing::{Parts, StoreChanges};
    use crate::storage::contract::rendition;
    use crate::storage::{Store, StoreError};

    /// Sweeps an upload as abandoned as soon as it has written an object.
    struct SweptUnderWay {
        clock: Arc<contract::ManualClock>,
        sweeper: Service,
        is_swept: AtomicBool,
        written_after: AtomicUsize,
    }

    #[async_trait]
    impl StoreChanges for SweptUnderWay {
        async fn after_put(&self, _key: &ObjectKey) -> Result<(), StoreError> {
            if self.is_swept.swap(true, Ordering::Relaxed) {
                self.written_after.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            self.clock.advance(Duration::from_hours(1));
            let swept = self.sweeper.sweep().await.unwrap();
            assert_eq!(swept.avatars, 1);
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_avatar_that_cannot_be_removed_stops_no_other_and_is_due_again() {
        let parts = Parts::new();
        let service = parts.service();
        // More avatars than a sweep claims at once.
        let (minute, stuck) = (Duration::from_mins(1), 7);
        for number in 0..100 {
            let subject = SubjectId::new(number.to_string()).unwrap();
            let key = rendition(number);
            let reserved =
                parts
                    .catalog
                    .reserve(&subject, key.avatar().unwrap(), minute, Uploader::Ordinary);
            reserved.await.unwrap().unwrap();
            if number != stuck {
                parts
                    .store
                    .put(&key, Bytes::from_static(b"x"))
                    .await
                    .unwrap();
            }
        }
        // A folder with the name of an object cannot be removed as an object.
        let place = rendition(stuck).to_string();
        let place = parts.folder.path().join("store").join(place);
        std::fs::create_dir_all(place.join("in the way")).unwrap();

        parts.clock.advance(Duration::from_hours(1));
        let swept = service.sweep().await.unwrap();
        assert_eq!((swept.avatars, swept.failed), (99, 1));
        let left = parts.store.uploads(None).await.unwrap();
        let left: Vec<_> = left.iter().map(|upload| upload.avatar).collect();
        assert_eq!(left, [rendition(stuck).avatar().unwrap()]);
        let metrics = service
            .metrics
            .text(crate::telemetry::Exposition::Prometheus)
            .unwrap();
        assert!(
            metrics.contains("cameo_sweep_avatar_failures_total 1"),
            "{metrics}"
        );

        std::fs::remove_dir_all(place).unwrap();
        // The objects of abandoned uploads are removed twice before the id is forgotten.
        for _ in 0..2 {
            parts.clock.advance(Duration::from_hours(2));
            assert_eq!(service.sweep().await.unwrap().failed, 0);
        }
        assert_eq!(parts.catalog.outstanding().await.unwrap(), []);
    }

    #[tokio::test]
    async fn an_upload_that_continues_after_its_sweep_leaves_nothing() {
        let parts = Parts::new();
        let (service, store) = parts.service_with(SweptUnderWay {
            clock: parts.clock.clone(),
            sweeper: parts.service(),
            is_swept: AtomicBool::new(false),
            written_after: AtomicUsize::new(0),
        });
        let subject = SubjectId::new("42").unwrap();
        let upload = Upload {
            subject: subject.clone(),
            bytes: Bytes::from_static(AVIF_AS_JPEG),
            crop: None,
            precondition: Precondition::Anything,
            uploader: Uploader::Ordinary,
        };
        let account = Account::User(subject.clone());
        let admission = service.admit(account, AVIF_AS_JPEG.len()).await.unwrap();
        let uploaded = service.upload(admission, upload, std::future::pending());
        let error = uploaded.await.unwrap_err();
        assert!(matches!(error, Error::TimedOut), "{error:?}");

        // Five more renditions and the manifest were written after the sweep.
        assert_eq!(store.changes.written_after.load(Ordering::Relaxed), 6);
        assert_eq!(parts.store.uploads(None).await.unwrap(), []);
        assert_eq!(parts.catalog.get(&subject).await.unwrap(), None);
        // Its objects are removed once more, in case a write was still on its way.
        parts.clock.advance(Duration::from_hours(2));
        assert_eq!(service.sweep().await.unwrap().avatars, 1);
        assert_eq!(parts.catalog.outstanding().await.unwrap(), []);
        assert_eq!(contract::events(&*parts.catalog).await, []);
    }
}
