//! The store: where renditions lie.
//!
//! A [`Store`] keeps immutable objects under the keys of [`ObjectKey`]. It knows nothing of
//! subjects, records or HTTP. Every adapter passes the same `contract` suite.

#[cfg(test)]
pub(crate) mod contract;
mod disk;
mod metered;
mod resilience;
mod s3;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, StreamExt};

pub use disk::DiskStore;
pub use metered::MeteredStore;
pub use resilience::{RetryPolicy, RetryingStore};
pub use s3::{S3StartError, S3StartupWarning, S3Store};

use crate::avatar::{AvatarId, ObjectKey, Timestamp};
use crate::telemetry::Health;

/// Where renditions lie.
///
/// What holds for every adapter:
/// - An object is either there whole or not there: nobody ever sees half of one, whatever dies.
/// - What `put` acknowledged survives the death of the process and of the machine.
/// - A key is written at most once with one content (avatar ids are never reused), so every
///   operation may be repeated, and a repetition changes nothing.
/// - Dropping a future leaves the operation done or not done, never half done; a dropped `put` may
///   still complete afterwards.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes an object, with the content type and cache policy of its key.
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError>;

    /// Opens an object; `None` where there is none.
    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError>;

    /// Opens a part of an object; `None` where there is no object. `range` holds the offsets of the
    /// first and of the last byte. An end beyond the object's last byte stands for that byte.
    async fn get_range(
        &self,
        key: &ObjectKey,
        range: RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, StoreError>;

    /// Removes an object and says so durably. Removing one that is not there is success.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Every object of one upload, its manifest first; empty where there is none.
    async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError>;

    /// The uploads that have objects, in the order of their ids as text, some at a time: those
    /// after `after`. Empty where there are no more.
    async fn uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError>;

    /// Writes, reads and deletes an object of its own, to tell whether the store really works, and
    /// what holds of it. However often it fails or is dropped, it leaves at most one object.
    /// A store that can be read but not written is [degraded](Health::Degraded); that is no error.
    async fn check(&self) -> Result<Checkup, StoreError>;

    /// How often, since the store was opened, all of its objects turned out to be lost (the bucket
    /// was not there and was made), opening included. Records may then name objects that are gone.
    fn losses(&self) -> u64 {
        0
    }
}

/// What was seen to hold of a store that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkup {
    /// Who reads public objects.
    pub public_read: PublicRead,
    /// Whether the store also takes writes.
    pub health: Health,
}

/// Who reads public objects straight from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicRead {
    /// Anyone, as was just tried.
    Anyone,
    /// Nobody needs to: the service hands them out, or a server in front does.
    Proxy,
    /// Anyone should, but was refused.
    Refused,
}

/// What is stored of one upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredUpload {
    /// Which upload.
    pub avatar: AvatarId,
    /// When its latest object was written, by the store's clock.
    pub written: Timestamp,
    /// Whether its manifest is there.
    pub has_manifest: bool,
    /// How many objects there are.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// Adds objects up to uploads.
#[derive(Default)]
struct Uploads(BTreeMap<String, StoredUpload>);

impl Uploads {
    /// Counts an object; one that is none of this program's is not counted.
    fn add(&mut self, path: &str, written: Timestamp, bytes: u64) {
        let Some(key) = ObjectKey::parse(path) else {
            return;
        };
        let avatar = key.avatar();
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
    /// Its bytes, read as they are asked for. A stream that ends early ends in an error.
    pub body: Pin<Box<dyn Stream<Item = Result<Bytes, StoreError>> + Send>>,
}

/// What a store has of a range of an object.
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

/// The offsets that `range` covers in an object of `total` bytes; `None` where it covers none.
fn covered(range: &RangeInclusive<u64>, total: u64) -> Option<RangeInclusive<u64>> {
    let first = *range.start();
    let last = (*range.end()).min(total.checked_sub(1)?);
    (first <= last).then_some(first..=last)
}

impl Object {
    /// Reads the whole object into memory.
    ///
    /// # Errors
    /// Whatever reading it meets.
    pub async fn into_bytes(mut self) -> Result<Bytes, StoreError> {
        let mut bytes = BytesMut::with_capacity(usize::try_from(self.len).unwrap_or(0));
        while let Some(chunk) = self.body.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes.freeze())
    }
}

/// Why the store did not do as asked. What happened is in the source; it is for the log alone.
#[derive(Debug, thiserror::Error)]
#[error("the store could not {operation}")]
pub struct StoreError {
    operation: &'static str,
    is_transient: bool,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    /// The store failed at `operation` ("write an object") because of `source`.
    pub fn new(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            operation,
            is_transient: false,
            source: source.into(),
        }
    }

    /// The same, of a failure that may be over when the operation is tried again.
    pub fn passing(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            is_transient: true,
            ..Self::new(operation, source)
        }
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }
}
