//! One upload: from the bytes of a picture to the record that makes it the current avatar.
//!
//! An upload has two halves. [`make`](super::make) stores the objects of a new avatar;
//! [`commit`](super::commit) makes it current. An upload that fails in either half changes nothing
//! for its user.

use std::pin::pin;

use bytes::Bytes;
use cameo_imaging::Crop;

use super::admission::Admission;
use super::make::Picture;
use super::{Error, Service};
use crate::avatar::{Record, SubjectId};
use crate::catalog::{Precondition, Uploader};

/// The part of `lifecycle.upload_deadline` after which an upload aborts. It aborts before the sweep
/// could treat it as abandoned.
const ABORT_AFTER: f32 = 0.8;

/// One upload.
pub struct Upload {
    /// The user whose avatar it becomes.
    pub subject: SubjectId,
    /// The bytes of an image file.
    pub bytes: Bytes,
    /// The part of the picture that the client chose.
    pub crop: Option<Crop>,
    /// The condition that the current avatar must meet.
    pub precondition: Precondition,
    /// Who uploads.
    pub uploader: Uploader,
}

impl Service {
    /// Makes the picture the subject's avatar. Stops if `given_up` is done before the commit begins.
    ///
    /// When this returns a record, it and every object that it names are durable. After an error,
    /// and if the future is dropped before the commit, the subject's avatar is unchanged, and the
    /// sweep removes what was written. [`Error::Catalog`] from the commit is the exception: its
    /// outcome is unknown.
    ///
    /// # Errors
    /// Every kind but [`Error::NotFound`].
    pub async fn upload(
        &self,
        admission: Admission,
        upload: Upload,
        given_up: impl Future<Output = ()>,
    ) -> Result<Record, Error> {
        let Upload {
            subject,
            bytes,
            crop,
            precondition,
            uploader,
        } = upload;
        let limit = self.settings.upload_deadline.mul_f32(ABORT_AFTER);
        let mut abort = pin!(async {
            tokio::select! {
                () = given_up => Error::GivenUp,
                () = tokio::time::sleep(limit) => Error::TimedOut,
            }
        });
        let prepare = async {
            let admitted = admission.complete(bytes.len()).await?;
            self.expect(&subject, &precondition).await?;
            Ok::<_, Error>(admitted)
        };
        let admitted = tokio::select! {
            admitted = prepare => admitted?,
            aborted = &mut abort => return Err(aborted),
        };
        let picture = Picture { bytes, crop };
        let record = self
            .make_objects(&subject, uploader, picture, admitted, abort)
            .await?;
        self.commit(&subject, record, &precondition, uploader).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use async_trait::async_trait;
    use cameo_testing::photos::AVIF_AS_JPEG;
    use cameo_testing::redis::RedisServer;

    use super::super::testing::{ChangedStore, Parts, StoreChanges};
    use super::*;
    use crate::avatar::{Account, ObjectKey};
    use crate::catalog::{InitialState, Records, RedisCatalog};
    use crate::config::{Partitions, RedisSettings};
    use crate::storage::{Store, StoreError};

    /// Loses the answer to a write of such an object.
    struct LosesAnswer {
        to: fn(&ObjectKey) -> bool,
        /// Stopped when the answer is lost.
        catalog: Option<Mutex<RedisServer>>,
        deleted: Mutex<Vec<ObjectKey>>,
    }

    #[async_trait]
    impl StoreChanges for LosesAnswer {
        async fn after_put(&self, key: &ObjectKey) -> Result<(), StoreError> {
            if !(self.to)(key) {
                return Ok(());
            }
            if let Some(catalog) = &self.catalog {
                catalog.lock().unwrap().kill();
            }
            Err(StoreError::new("write an object", "its answer was lost"))
        }

        async fn before_delete(&self, key: &ObjectKey) {
            self.deleted.lock().unwrap().push(key.clone());
        }
    }

    /// Uploads a picture and returns the error.
    async fn failed_upload(service: &Service) -> Error {
        let subject = SubjectId::new("42").unwrap();
        let account = Account::User(subject.clone());
        let admission = service.admit(account, AVIF_AS_JPEG.len()).await.unwrap();
        let upload = Upload {
            subject,
            bytes: Bytes::from_static(AVIF_AS_JPEG),
            crop: None,
            precondition: Precondition::Anything,
            uploader: Uploader::Ordinary,
        };
        let uploaded = service.upload(admission, upload, std::future::pending());
        uploaded.await.unwrap_err()
    }

    #[tokio::test]
    async fn an_upload_that_fails_before_its_manifest_asks_the_store_for_nothing_more() {
        let parts = Parts::new();
        let (service, store) = parts.service_with(LosesAnswer {
            to: |key| !matches!(key, ObjectKey::Manifest { .. }),
            catalog: None,
            deleted: Mutex::default(),
        });
        let error = failed_upload(&service).await;
        assert!(matches!(error, Error::Storage(_)), "{error:?}");
        assert_eq!(*store.changes.deleted.lock().unwrap(), []);
    }

    #[tokio::test]
    async fn a_failed_upload_leaves_no_manifest_even_if_the_catalog_is_down() {
        let parts = Parts::new();
        let server = RedisServer::start();
        let settings = RedisSettings {
            address: server.url().parse().unwrap(),
            partitions: Partitions::new(16).unwrap(),
            events_kept: 100,
            wait: None,
            wait_timeout: Duration::from_secs(3),
        };
        let catalog = RedisCatalog::open(&settings).await.unwrap().0;
        catalog.initialize(InitialState::New).await.unwrap();
        let store = ChangedStore {
            store: parts.store.clone(),
            changes: LosesAnswer {
                to: |key| matches!(key, ObjectKey::Manifest { .. }),
                catalog: Some(Mutex::new(server)),
                deleted: Mutex::default(),
            },
        };
        let service = Parts::service_of(Arc::new(store), Arc::new(catalog));
        let error = failed_upload(&service).await;
        assert!(matches!(error, Error::Storage(_)), "{error:?}");
        let left = parts.store.uploads(None).await.unwrap();
        assert_eq!(left.len(), 1);
        assert!(!left[0].has_manifest);
    }
}
