//! Services for tests, each with a folder store and an embedded catalog.

use std::sync::Arc;
use std::time::Duration;

use cameo_imaging::{Limits, Recipe, Target};

use super::{Service, Settings};
use crate::avatar::{Format, SourceFormat, VariantName};
use crate::catalog::{Catalog, contract};
use crate::jail::Workers;
use crate::storage::{DiskStore, Store};
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
            keep_master: false,
        };
        let minute = Duration::from_mins(1);
        let settings = Settings {
            recipe: Arc::new(recipe),
            max_upload_bytes: 1 << 20,
            memory_budget: 256 << 20,
            queue_timeout: minute,
            picture_deadline: minute,
            retire_after: Duration::from_secs(1),
            upload_deadline: minute,
            orphan_grace: Duration::from_hours(24),
        };
        let metrics = Metrics::new();
        let workers = Workers::threads(1, metrics.clone()).unwrap();
        Service::new(store, catalog, workers, settings, metrics)
    }
}
