//! A decorator that counts and times the operations of a store.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Checkup, Object, RangedObject, Store, StoreError, StoredUpload};
use crate::avatar::{AvatarId, ObjectKey, SubjectHash};
use crate::telemetry::{Metrics, Operations};

/// A store whose operations are counted and timed. Reading the bytes of an object is not timed,
/// because the client decides how fast it reads.
pub(crate) struct MeteredStore {
    inner: Arc<dyn Store>,
    operations: Operations,
}

impl MeteredStore {
    /// Wraps `inner`, and reports its operations to `metrics`.
    pub(crate) fn new(inner: Arc<dyn Store>, metrics: &Metrics) -> Self {
        Self {
            inner,
            operations: metrics.operations("store"),
        }
    }
}

#[async_trait]
impl Store for MeteredStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError> {
        let answer = self.inner.put(key, body);
        self.operations.measure("put", answer).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        self.operations.measure("get", self.inner.get(key)).await
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, StoreError> {
        let answer = self.inner.get_range(key, range);
        self.operations.measure("get_range", answer).await
    }

    async fn presign(&self, key: &ObjectKey, ttl: Duration) -> Result<Option<String>, StoreError> {
        self.inner.presign(key, ttl).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let answer = self.inner.delete(key);
        self.operations.measure("delete", answer).await
    }

    async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
        let answer = self.inner.list(avatar);
        self.operations.measure("list", answer).await
    }

    async fn uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError> {
        let answer = self.inner.uploads(after);
        self.operations.measure("uploads", answer).await
    }

    async fn policies(&self, after: Option<SubjectHash>) -> Result<Vec<SubjectHash>, StoreError> {
        let answer = self.inner.policies(after);
        self.operations.measure("policies", answer).await
    }

    async fn check(&self) -> Result<Checkup, StoreError> {
        self.operations.measure("check", self.inner.check()).await
    }

    fn losses(&self) -> u64 {
        self.inner.losses()
    }
}
