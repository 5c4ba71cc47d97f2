//! A decorator that counts and times the operations of a catalog.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Catalog, CatalogError, Claimed, Cursor, Events, Found, InitialState, Invalidated, Outstanding,
    Page, Policies, PolicyChange, PolicyRestore, Precondition, PreconditionFailed, Records,
    Removals, Removed, Replaced, Reservation, Restored, Stats, SubjectLocked, UploadState,
    Uploader, Watched,
};
use crate::avatar::{AvatarId, Event, Lock, Policy, Record, SubjectId, Timestamp, Version};
use crate::telemetry::{Health, Metrics, Operations};

/// A catalog whose operations are counted and timed.
pub struct MeteredCatalog {
    inner: Arc<dyn Catalog>,
    operations: Operations,
}

impl MeteredCatalog {
    /// Wraps `inner`, and reports its operations to `metrics`.
    pub fn new(inner: Arc<dyn Catalog>, metrics: &Metrics) -> Self {
        Self {
            inner,
            operations: metrics.operations("catalog"),
        }
    }
}

#[async_trait]
impl Records for MeteredCatalog {
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError> {
        let answer = self.inner.get(subject);
        self.operations.measure("get", answer).await
    }

    async fn get_many(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<Result<Option<Record>, CatalogError>>, CatalogError> {
        let answer = self.inner.get_many(subjects);
        self.operations.measure("get_many", answer).await
    }

    async fn look_up(
        &self,
        subjects: &[SubjectId],
        viewer: Option<&SubjectId>,
    ) -> Result<Vec<Result<Found, CatalogError>>, CatalogError> {
        let answer = self.inner.look_up(subjects, viewer);
        self.operations.measure("look_up", answer).await
    }

    async fn page(&self, from: &Cursor) -> Result<Page, CatalogError> {
        let answer = self.inner.page(from);
        self.operations.measure("page", answer).await
    }

    async fn stats(&self) -> Result<Stats, CatalogError> {
        self.operations.measure("stats", self.inner.stats()).await
    }

    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        within: Duration,
        uploader: Uploader,
    ) -> Result<Result<Reservation, SubjectLocked>, CatalogError> {
        let answer = self.inner.reserve(subject, avatar, within, uploader);
        self.operations.measure("reserve", answer).await
    }

    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        retire_after: Duration,
        uploader: Uploader,
    ) -> Result<Replaced, CatalogError> {
        let inner = &self.inner;
        let answer = inner.replace(subject, record, precondition, retire_after, uploader);
        self.operations.measure("replace", answer).await
    }

    async fn restore(
        &self,
        subject: &SubjectId,
        record: &Record,
        retire_after: Duration,
    ) -> Result<Restored, CatalogError> {
        let answer = self.inner.restore(subject, record, retire_after);
        self.operations.measure("restore", answer).await
    }

    async fn is_initialized(&self) -> Result<bool, CatalogError> {
        let answer = self.inner.is_initialized();
        self.operations.measure("has_begun", answer).await
    }

    async fn initialize(&self, state: InitialState) -> Result<(), CatalogError> {
        let answer = self.inner.initialize(state);
        self.operations.measure("begin", answer).await
    }

    async fn raise_version_floor(&self, seen: Version) -> Result<Version, CatalogError> {
        let answer = self.inner.raise_version_floor(seen);
        self.operations.measure("raise_version_floor", answer).await
    }
}

#[async_trait]
impl Removals for MeteredCatalog {
    async fn remove(
        &self,
        subject: &SubjectId,
        precondition: &Precondition,
        lease: Duration,
    ) -> Result<Result<Option<Removed>, PreconditionFailed>, CatalogError> {
        let answer = self.inner.remove(subject, precondition, lease);
        self.operations.measure("remove", answer).await
    }

    async fn drop_record(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<bool, CatalogError> {
        let answer = self.inner.drop_record(outstanding, lease);
        self.operations.measure("drop_record", answer).await
    }

    async fn claim(&self, lease: Duration, limit: usize) -> Result<Vec<Claimed>, CatalogError> {
        let answer = self.inner.claim(lease, limit);
        self.operations.measure("claim", answer).await
    }

    async fn defer(&self, outstanding: &Outstanding, by: Duration) -> Result<(), CatalogError> {
        let answer = self.inner.defer(outstanding, by);
        self.operations.measure("defer", answer).await
    }

    async fn invalidate(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<Invalidated, CatalogError> {
        let answer = self.inner.invalidate(outstanding, lease);
        self.operations.measure("invalidate", answer).await
    }

    async fn forget(&self, outstanding: &Outstanding) -> Result<(), CatalogError> {
        let answer = self.inner.forget(outstanding);
        self.operations.measure("forget", answer).await
    }

    async fn upload_state(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
    ) -> Result<UploadState, CatalogError> {
        let answer = self.inner.upload_state(subject, avatar);
        self.operations.measure("standing", answer).await
    }

    async fn deleted_up_to(&self, subject: &SubjectId) -> Result<Version, CatalogError> {
        let answer = self.inner.deleted_up_to(subject);
        self.operations.measure("deleted", answer).await
    }

    async fn outstanding(&self) -> Result<Vec<Outstanding>, CatalogError> {
        let answer = self.inner.outstanding();
        self.operations.measure("outstanding", answer).await
    }
}

#[async_trait]
impl Policies for MeteredCatalog {
    async fn policy(&self, subject: &SubjectId) -> Result<(Policy, Timestamp), CatalogError> {
        let answer = self.inner.policy(subject);
        self.operations.measure("policy", answer).await
    }

    async fn lock(&self, subject: &SubjectId) -> Result<Option<Lock>, CatalogError> {
        let answer = self.inner.lock(subject);
        self.operations.measure("lock", answer).await
    }

    async fn set_policy(
        &self,
        subject: &SubjectId,
        policy: &Policy,
        after: u64,
    ) -> Result<PolicyChange, CatalogError> {
        let answer = self.inner.set_policy(subject, policy, after);
        self.operations.measure("set_policy", answer).await
    }

    async fn restore_policy(
        &self,
        subject: &SubjectId,
        policy: &Policy,
    ) -> Result<PolicyRestore, CatalogError> {
        let answer = self.inner.restore_policy(subject, policy);
        self.operations.measure("restore_policy", answer).await
    }
}

// A replica asks for events many times a second. These reads would hide the other operations, so they
// are not counted.
#[async_trait]
impl Events for MeteredCatalog {
    fn event_partitions(&self) -> u16 {
        self.inner.event_partitions()
    }

    async fn latest_event(&self, partition: u16) -> Result<Cursor, CatalogError> {
        self.inner.latest_event(partition).await
    }

    async fn events(
        &self,
        partition: u16,
        after: &Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Event)>, CatalogError> {
        self.inner.events(partition, after, limit).await
    }

    async fn events_of_all(
        &self,
        after: &[Cursor],
        limit: usize,
    ) -> Result<Vec<Vec<(Cursor, Event)>>, CatalogError> {
        self.inner.events_of_all(after, limit).await
    }
}

#[async_trait]
impl Catalog for MeteredCatalog {
    async fn watch(&self) -> Result<Watched, CatalogError> {
        self.inner.watch().await
    }

    async fn check(&self) -> Result<Health, CatalogError> {
        self.operations.measure("check", self.inner.check()).await
    }
}
