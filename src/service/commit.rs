//! Makes objects that were stored the current avatar of a subject.
//!
//! The commit is one atomic step of the catalog, and the only moment at which anything changes: the
//! record becomes current, the avatar that it replaces is retired, and the event is appended.

use tracing::warn;

use super::{Error, Service};
use crate::avatar::{AvatarId, Record, SubjectId};
use crate::catalog::{Invalidated, Outstanding, Precondition, Replaced, Uploader};
use crate::telemetry::chain;

impl Service {
    /// Makes a record of [`make_objects`](Self::make_objects) the subject's current avatar, if the
    /// precondition holds, no lock stops the uploader, and no later upload or delete came first.
    ///
    /// # Errors
    /// After [`Error::PreconditionFailed`], [`Error::Superseded`], [`Error::Locked`] and
    /// [`Error::TimedOut`] the avatar is not current and never will be; its objects are removed. After [`Error::Catalog`] the
    /// outcome is unknown: the record may be current. Its objects stay, and the sweep decides.
    pub(super) async fn commit(
        &self,
        subject: &SubjectId,
        record: Record,
        precondition: &Precondition,
        uploader: Uploader,
    ) -> Result<Record, Error> {
        let retire_after = self.settings.retire_after;
        let replaced = self
            .catalog
            .replace(subject, &record, precondition, retire_after, uploader)
            .await;
        // After an error the record may be current.
        self.records.invalidate(subject);
        let replaced = replaced?;
        let refusal = match replaced {
            Replaced::Committed => return Ok(record),
            Replaced::Superseded => Error::Superseded,
            Replaced::PreconditionFailed => Error::PreconditionFailed,
            Replaced::Locked => self.locked(subject).await,
            // A sweep claimed the id. Objects that were written after the sweep are still there.
            Replaced::NotPending => Error::TimedOut,
        };
        self.abandon(subject, record.avatar_id).await;
        Err(refusal)
    }

    /// The error of an upload that a lock refused. The lock is read for the answer. If it cannot be
    /// read, the upload is refused all the same.
    pub(super) async fn locked(&self, subject: &SubjectId) -> Error {
        Error::Locked(self.catalog.lock(subject).await.ok().flatten())
    }

    /// Checks a precondition before any work is done. The commit checks it again.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`], [`Error::Catalog`]
    pub(super) async fn expect(
        &self,
        subject: &SubjectId,
        precondition: &Precondition,
    ) -> Result<(), Error> {
        let holds = match precondition {
            Precondition::Anything => true,
            precondition => precondition.holds(self.current_id(subject).await?),
        };
        holds.then_some(()).ok_or(Error::PreconditionFailed)
    }

    /// Makes sure that a refused avatar never becomes current, and removes its objects, the manifest
    /// first. If this fails, the sweep removes them.
    pub(super) async fn abandon(&self, subject: &SubjectId, avatar: AvatarId) {
        let removed = async {
            match self.invalidate(subject, avatar).await? {
                Invalidated::Removable => self.remove_objects(avatar).await.map(drop),
                Invalidated::Kept => Ok(()),
            }
        };
        if let Err(error) = removed.await {
            warn!(
                %avatar,
                error = %chain(&error),
                "the objects of a refused upload are left to the sweep"
            );
        }
    }

    /// Makes sure that an avatar that is not current never becomes current.
    pub(super) async fn invalidate(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
    ) -> Result<Invalidated, Error> {
        let outstanding = Outstanding {
            subject: subject.clone(),
            avatar,
        };
        let lease = self.removal_lease();
        Ok(self.catalog.invalidate(&outstanding, lease).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::avatar::{Account, ObjectKey};
    use crate::service::Upload;
    use crate::service::make::Picture;
    use crate::service::testing::{Parts, StoreChanges};
    use crate::storage::{Store, StoreError};

    #[tokio::test]
    async fn a_lock_that_overtakes_an_upload_refuses_it_and_nothing_of_it_is_left() {
        const PICTURE: &[u8] = include_bytes!("../../tests/fixtures/baseline.jpg");

        let parts = Parts::new();
        let service = parts.service();
        let who = SubjectId::new("42").unwrap();
        for uploader in [Uploader::Ordinary, Uploader::Admin] {
            service.unlock(&who).await.unwrap();
            let account = Account::User(who.clone());
            let admission = service.admit(account, PICTURE.len()).await.unwrap();
            let admitted = admission.complete(PICTURE.len()).await.unwrap();
            let picture = Picture {
                bytes: Bytes::from_static(PICTURE),
                crop: None,
            };
            let made =
                service.make_objects(&who, uploader, picture, admitted, std::future::pending());
            let record = made.await.unwrap();
            let avatar = record.avatar_id;
            assert!(!parts.store.list(avatar).await.unwrap().is_empty());
            let lock = service.set_lock(&who, "spam", None).await.unwrap();
            let anything = Precondition::Anything;
            match (
                service.commit(&who, record, &anything, uploader).await,
                uploader,
            ) {
                (Ok(_), Uploader::Admin) => {}
                (Err(Error::Locked(Some(refused))), Uploader::Ordinary) => {
                    assert_eq!(refused, lock);
                    assert_eq!(parts.store.list(avatar).await.unwrap(), []);
                    assert!(parts.catalog.get(&who).await.unwrap().is_none());
                }
                (other, _) => panic!("{uploader:?}: {other:?}"),
            }
        }
    }

    /// Counts the objects of uploads that were written.
    #[derive(Default)]
    struct CountsUploads(AtomicUsize);

    #[async_trait]
    impl StoreChanges for CountsUploads {
        async fn after_put(&self, key: &ObjectKey) -> Result<(), StoreError> {
            let of_upload = usize::from(key.avatar().is_some());
            self.0.fetch_add(of_upload, Ordering::Relaxed);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_lock_that_comes_after_the_check_before_the_body_stops_all_writes_to_the_store() {
        const PICTURE: &[u8] = include_bytes!("../../tests/fixtures/baseline.jpg");

        let parts = Parts::new();
        let (service, store) = parts.service_with(CountsUploads::default());
        let who = SubjectId::new("42").unwrap();
        let lock = service.set_lock(&who, "spam", None).await.unwrap();
        for uploader in [Uploader::Ordinary, Uploader::Admin] {
            let admission = service.admit(Account::User(who.clone()), PICTURE.len());
            let upload = Upload {
                subject: who.clone(),
                bytes: Bytes::from_static(PICTURE),
                crop: None,
                precondition: Precondition::Anything,
                uploader,
            };
            let admission = admission.await.unwrap();
            let uploaded = service.upload(admission, upload, std::future::pending());
            match (uploaded.await, uploader) {
                (Err(Error::Locked(Some(refused))), Uploader::Ordinary) => {
                    assert_eq!(refused, lock);
                    assert_eq!(store.changes.0.load(Ordering::Relaxed), 0);
                    assert_eq!(parts.catalog.outstanding().await.unwrap(), []);
                }
                (Ok(_), Uploader::Admin) => {
                    assert_eq!(store.changes.0.load(Ordering::Relaxed), 7);
                }
                (other, _) => panic!("{uploader:?}: {other:?}"),
            }
        }
    }
}
