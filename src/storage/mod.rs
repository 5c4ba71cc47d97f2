//! The object store, which holds the renditions and manifests.
//!
//! A [`Store`] holds objects under the keys of [`ObjectKey`]. All of them but the policies of subjects
//! are immutable. It does not know records or HTTP. Every adapter passes the same `contract` suite.

#[cfg(test)]
pub(crate) mod contract;
mod disk;
mod metered;
mod resilience;
mod s3;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, StreamExt};

pub(crate) use disk::DiskStore;
pub(crate) use metered::MeteredStore;
pub(crate) use resilience::{RetryPolicy, RetryingStore};
pub(crate) use s3::{S3StartError, S3Store};

use crate::avatar::{AvatarId, ObjectKey, SubjectHash, Timestamp};
use crate::telemetry::Health;

/// An object store.
///
/// Every adapter guarantees:
/// - An object exists completely or not at all. No reader ever sees a partial object, even after a
///   crash.
/// - An object that `put` acknowledged survives the death of the process and of the machine.
/// - Callers write a key of an upload with one content only, because avatar ids are never reused. So
///   an operation can be repeated, and a repetition changes nothing. Only a subject's policy has a
///   key whose content changes. `put` replaces it as a whole, and the last write wins.
/// - If the caller drops the future, the operation is either done or not done, never half done. A
///   dropped `put` may still complete later.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes an object, with the content type and cache policy of its key.
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError>;

    /// Opens an object; `None` if it does not exist.
    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError>;

    /// Opens a part of an object; `None` if the object does not exist. `range` holds the offsets of
    /// the first and of the last byte. An end beyond the object's last byte means that last byte.
    async fn get_range(
        &self,
        key: &ObjectKey,
        range: RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, StoreError>;

    /// A URL under which anyone can read the object for the duration `ttl`; `None` if the store makes no
    /// such URLs. It asks no server, and the object need not exist.
    async fn presign(
        &self,
        _key: &ObjectKey,
        _ttl: Duration,
    ) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// Removes an object durably. A missing object is not an error.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Every object of one upload, the manifest first; empty if there are none.
    async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError>;

    /// The next page of uploads that have objects, after `after`, in the order of their ids as text.
    /// Empty after the last upload.
    async fn uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError>;

    /// The next page of subjects whose policy is stored, after `after`, in the order of their hashes.
    /// Empty after the last one.
    async fn policies(&self, after: Option<SubjectHash>) -> Result<Vec<SubjectHash>, StoreError>;

    /// Tests the store: writes, reads and deletes a probe object. Repeated failed or dropped checks
    /// leave at most one probe object. A store that can be read but not written is
    /// [degraded](Health::Degraded), which is not an error.
    async fn check(&self) -> Result<Checkup, StoreError>;

    /// How often all objects were lost since the store was opened, opening included: the bucket did
    /// not exist and was created. After a loss records may name objects that are gone.
    fn losses(&self) -> u64 {
        0
    }
}

/// The result of [`Store::check`] for a store that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkup {
    /// Who reads public objects.
    pub public_read: PublicRead,
    /// Whether the store also accepts writes.
    pub health: Health,
}

/// Who can read public objects directly from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicRead {
    /// Anyone. The check tested this.
    Anyone,
    /// No anonymous reader: the service, or a server in front of it, delivers the objects.
    Proxy,
    /// Anyone should, but the store refused an anonymous read.
    Refused,
}

/// A summary of the stored objects of one upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUpload {
    /// The upload.
    pub avatar: AvatarId,
    /// The time at which its latest object was written, by the store's clock.
    pub written: Timestamp,
    /// Whether its manifest exists.
    pub has_manifest: bool,
    /// The number of objects.
    pub objects: u64,
    /// Their total size in bytes.
    pub bytes: u64,
}

/// Groups listed objects by upload.
#[derive(Default)]
struct Uploads(BTreeMap<String, StoredUpload>);

impl Uploads {
    /// Counts an object. A path that is not an [`ObjectKey`] of an upload is ignored.
    fn add(&mut self, path: &str, written: Timestamp, bytes: u64) {
        let Some(key) = ObjectKey::parse(path) else {
            return;
        };
        let Some(avatar) = key.avatar() else {
            return;
        };
        let upload = self.0.entry(avatar.to_string()).or_insert(StoredUpload {
            avatar,
            written,
            has_manifest: false,
            objects: 0,
            bytes: 0,
        });
        upload.written = upload.written.max(written);
        upload.has_manifest |= matches!(key, ObjectKey::Manifest { .. });
        upload.objects += 1;
        upload.bytes += bytes;
    }

    fn in_order(self) -> Vec<StoredUpload> {
        self.0.into_values().collect()
    }
}

/// An open object.
pub struct Object {
    /// Its size in bytes.
    pub len: u64,
    /// Its bytes, read on demand. A stream that ends early ends with an error.
    pub body: Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>,
}

/// The result of [`Store::get_range`].
pub enum RangedObject {
    /// The part of the object that the range covers.
    Part {
        /// The offset of the part's first byte.
        first: u64,
        /// The whole object's size in bytes.
        total: u64,
        /// The part: its length and its bytes, at least one.
        part: Object,
    },
    /// The object has no byte in the range.
    Unsatisfiable {
        /// The whole object's size in bytes.
        total: u64,
    },
}

/// The offsets that `range` covers in an object of `total` bytes; `None` if it covers no byte.
fn covered(range: &RangeInclusive<u64>, total: u64) -> Option<RangeInclusive<u64>> {
    let first = *range.start();
    let last = (*range.end()).min(total.checked_sub(1)?);
    (first <= last).then_some(first..=last)
}

impl Object {
    /// Reads the whole object into memory.
    ///
    /// # Errors
    /// If reading fails or the body ends early.
    pub async fn into_bytes(mut self) -> Result<Bytes, StoreError> {
        let mut bytes = BytesMut::with_capacity(usize::try_from(self.len).unwrap_or(0));
        while let Some(chunk) = self.body.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes.freeze())
    }
}

/// A store operation failed. The source has the details. They are for the log only, not for clients.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store could not {operation}")]
pub struct StoreError {
    operation: &'static str,
    is_transient: bool,
    #[source]
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    /// An error of `operation` (such as "write an object"), caused by `source`.
    pub fn new(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            operation,
            is_transient: false,
            source: Arc::from(source.into()),
        }
    }

    /// Like [`new`](Self::new), for a failure that a retry may overcome.
    pub fn transient(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            is_transient: true,
            ..Self::new(operation, source)
        }
    }

    /// Whether a retry may succeed.
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }
}
