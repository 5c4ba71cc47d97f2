//! Services for tests, each with a folder store and an embedded catalog, and a store whose operations a
//! test can change.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cameo_imaging::{Limits, Recipe, Target};

use super::{Service, Settings};
use crate::avatar::{
    Audience, AvatarId, Format, ObjectKey, SourceFormat, SubjectHash, VariantName,
};
use crate::catalog::{Catalog, contract};
use crate::jail::Workers;
use crate::storage::{Checkup, DiskStore, Object, RangedObject, Store, StoreError, StoredUpload};
use crate::telemetry::Metrics;

/// A store and a catalog. Several services can share them.
pub(crate) struct Parts {
    pub(super) folder: tempfile::TempDir,
    pub(super) store: Arc<DiskStore>,
    pub(super) catalog: Arc<dyn Catalog>,
    /// The catalog's clock.
    pub(super) clock: Arc<contract::ManualClock>,
}

impl Parts {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path().join("store")).unwrap();
        let (catalog, clock) = contract::embedded(folder.path());
        Self {
            folder,
            store: Arc::new(store),
            catalog: Arc::new(catalog),
            clock,
        }
    }

    pub(crate) fn service(&self) -> Service {
        self.service_on(self.store.clone())
    }

    /// A service on another store.
    pub(super) fn service_on(&self, store: Arc<dyn Store>) -> Service {
        Self::service_of(store, self.catalog.clone())
    }

    /// A service on this store, changed by a test. The store is returned too.
    pub(super) fn service_with<C: StoreChanges>(
        &self,
        changes: C,
    ) -> (Service, Arc<ChangedStore<C>>) {
        let store = Arc::new(ChangedStore {
            store: self.store.clone(),
            changes,
        });
        (self.service_on(store.clone()), store)
    }

    /// A service with these settings.
    pub(super) fn service_like(&self, settings: Settings) -> Service {
        let metrics = Metrics::new();
        let workers = Workers::threads(1, metrics.clone()).unwrap();
        let store: Arc<dyn Store> = self.store.clone();
        Service::new(store, self.catalog.clone(), workers, settings, metrics)
    }

    /// A service with long time limits that makes three small variants in two formats.
    pub(super) fn service_of(store: Arc<dyn Store>, catalog: Arc<dyn Catalog>) -> Service {
        let limits = Limits {
            formats: SourceFormat::ALL.to_vec(),
            min_edge_px: 1,
            max_edge_px: 4096,
            max_frames: 1,
        };
        let target = |(name, edge_px): (&str, u32)| Target {
            name: VariantName::new(name).unwrap(),
            edge_px,
        };
        let recipe = Recipe {
            limits,
            variants: [("medium", 32), ("small", 16), ("tiny", 8)]
                .map(target)
                .to_vec(),
            formats: vec![Format::Webp, Format::Jpeg],
            webp_quality: 80,
            jpeg_quality: 80,
            background: [0; 3],
            animated: false,
            keep_original: false,
        };
        let minute = Duration::from_mins(1);
        let settings = Settings {
            recipe: Arc::new(recipe),
            max_upload_bytes: 1 << 20,
            memory_budget: 256 << 20,
            queue_timeout: minute,
            picture_deadline: minute,
            audience: Audience::Public,
            original: None,
            retire_after: Duration::from_secs(1),
            upload_deadline: minute,
            orphan_grace: Duration::from_hours(24),
            cache_bytes: 8 << 20,
            cache_max_stale: Duration::from_secs(5),
        };
        let metrics = Metrics::new();
        let workers = Workers::threads(1, metrics.clone()).unwrap();
        Service::new(store, catalog, workers, settings, metrics)
    }
}

/// The steps of a test during the operations of a [`ChangedStore`]. The defaults change nothing.
#[async_trait]
pub(super) trait StoreChanges: Send + Sync + 'static {
    /// Runs after an object was written. An error becomes the result of the write.
    async fn after_put(&self, _key: &ObjectKey) -> Result<(), StoreError> {
        Ok(())
    }

    /// Runs after an object was opened for reading.
    async fn after_get(&self, _key: &ObjectKey) {}

    /// Runs before an object is deleted.
    async fn before_delete(&self, _key: &ObjectKey) {}

    /// Runs after an object was deleted.
    async fn after_delete(&self, _key: &ObjectKey) {}

    /// Changes the result of a listing of uploads.
    fn listed(&self, uploads: Vec<StoredUpload>) -> Result<Vec<StoredUpload>, StoreError> {
        Ok(uploads)
    }
}

/// A folder store whose operations a test changes.
pub(super) struct ChangedStore<C> {
    pub(super) store: Arc<DiskStore>,
    pub(super) changes: C,
}

#[async_trait]
impl<C: StoreChanges> Store for ChangedStore<C> {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError> {
        self.store.put(key, body).await?;
        self.changes.after_put(key).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        let object = self.store.get(key).await;
        self.changes.after_get(key).await;
        object
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, StoreError> {
        self.store.get_range(key, range).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.changes.before_delete(key).await;
        self.store.delete(key).await?;
        self.changes.after_delete(key).await;
        Ok(())
    }

    async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
        self.store.list(avatar).await
    }

    async fn uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError> {
        self.changes.listed(self.store.uploads(after).await?)
    }

    async fn policies(&self, after: Option<SubjectHash>) -> Result<Vec<SubjectHash>, StoreError> {
        self.store.policies(after).await
    }

    async fn check(&self) -> Result<Checkup, StoreError> {
        self.store.check().await
    }
}
