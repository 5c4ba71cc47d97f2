//! Counting and measuring what a catalog is asked, as a decorator round the port.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Catalog, CatalogError, Claimed, Cursor, Outstanding, Page, Precondition, Removed, Replaced,
    Restored, Stats,
};
use crate::avatar::{AvatarId, Event, Record, SubjectId, Timestamp, Version};
use crate::telemetry::{Health, Metrics, Operations};

/// A catalog whose operations are counted and measured.
pub struct MeteredCatalog {
    inner: Arc<dyn Catalog>,
    operations: Operations,
}

impl MeteredCatalog {
    /// The catalog, with its operations counted there.
    pub fn new(inner: Arc<dyn Catalog>, metrics: &Metrics) -> Self {
        Self {
            inner,
            operations: metrics.operations("catalog"),
        }
    }
}

#[async_trait]
impl Catalog for MeteredCatalog {
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError> {
        let answer = self.inner.get(subject);
        self.operations.measure("get", answer).await
    }

    async fn get_many(&self, subjects: &[SubjectId]) -> Result<Vec<Option<Record>>, CatalogError> {
        let answer = self.inner.get_many(subjects);
        self.operations.measure("get_many", answer).await
    }

    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        deadline: Timestamp,
    ) -> Result<Version, CatalogError> {
        let answer = self.inner.reserve(subject, avatar, deadline);
        self.operations.measure("reserve", answer).await
    }

    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        now: Timestamp,
        retire_at: Timestamp,
    ) -> Result<Replaced, CatalogError> {
        let inner = &self.inner;
        let answer = inner.replace(subject, record, precondition, now, retire_at);
        self.operations.measure("replace", answer).await
    }

    async fn remove(
        &self,
        subject: &SubjectId,
        now: Timestamp,
        lease: Timestamp,
    ) -> Result<Option<Removed>, CatalogError> {
        let answer = self.inner.remove(subject, now, lease);
        self.operations.measure("remove", answer).await
    }

    async fn claim(
        &self,
        now: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claimed>, CatalogError> {
        let answer = self.inner.claim(now, lease, limit);
        self.operations.measure("claim", answer).await
    }

    async fn forget(&self, outstanding: &Outstanding) -> Result<(), CatalogError> {
        let answer = self.inner.forget(outstanding);
        self.operations.measure("forget", answer).await
    }

    async fn knows(&self, subject: &SubjectId, avatar: AvatarId) -> Result<bool, CatalogError> {
        let answer = self.inner.knows(subject, avatar);
        self.operations.measure("knows", answer).await
    }

    async fn outstanding(&self) -> Result<Vec<Outstanding>, CatalogError> {
        let answer = self.inner.outstanding();
        self.operations.measure("outstanding", answer).await
    }

    async fn page(&self, from: &Cursor) -> Result<Page, CatalogError> {
        self.operations.measure("page", self.inner.page(from)).await
    }

    async fn restore(
        &self,
        subject: &SubjectId,
        record: &Record,
        retire_at: Timestamp,
    ) -> Result<Restored, CatalogError> {
        let answer = self.inner.restore(subject, record, retire_at);
        self.operations.measure("restore", answer).await
    }

    async fn has_begun(&self) -> Result<bool, CatalogError> {
        let answer = self.inner.has_begun();
        self.operations.measure("has_begun", answer).await
    }

    async fn begin(&self, floor: Version) -> Result<(), CatalogError> {
        let answer = self.inner.begin(floor);
        self.operations.measure("begin", answer).await
    }

    async fn raise_floor(&self, floor: Version) -> Result<(), CatalogError> {
        let answer = self.inner.raise_floor(floor);
        self.operations.measure("raise_floor", answer).await
    }

    fn event_partitions(&self) -> u16 {
        self.inner.event_partitions()
    }

    async fn events(
        &self,
        partition: u16,
        after: &Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Event)>, CatalogError> {
        let answer = self.inner.events(partition, after, limit);
        self.operations.measure("events", answer).await
    }

    async fn stats(&self) -> Result<Stats, CatalogError> {
        self.operations.measure("stats", self.inner.stats()).await
    }

    async fn check(&self) -> Result<Health, CatalogError> {
        self.operations.measure("check", self.inner.check()).await
    }
}
