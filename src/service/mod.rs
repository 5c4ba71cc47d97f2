//! The functions of the program: upload, read, remove, sweep, maintain.
//!
//! | file | task |
//! | --- | --- |
//! | `admission`, `budget` | bound memory and concurrency before a body is read |
//! | `upload` | one upload: `make`, then `commit` |
//! | `make` | makes the objects of an avatar and stores them |
//! | `moderate` | asks for a verdict on the pictures of an avatar before they are published |
//! | `commit` | makes stored objects the current avatar of a user |
//! | `read` | reads records and images, from memory if it can |
//! | `drawings` | draws default images with pixels |
//! | `lookup` | reads the records of several users |
//! | `remove` | removes the avatar of a user |
//! | `policy` | changes the lock and the viewers of a user |
//! | `sweep` | removes abandoned uploads and replaced avatars |
//! | `watch`, `losses` | watch the catalog and the store |
//! | `maintain` | rebuilds the catalog, collects garbage |
//!
//! The service knows the ports of the store and the catalog, not their adapters, and nothing of HTTP.

mod admission;
mod budget;
mod commit;
mod drawings;
mod error;
mod lookup;
mod losses;
mod maintain;
mod make;
mod moderate;
mod policy;
mod read;
mod remove;
mod sweep;
#[cfg(test)]
pub(crate) mod testing;
mod upload;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use cameo_imaging::Recipe;
use futures_util::stream::{self, StreamExt};

pub(crate) use crate::catalog::{Precondition, Stats, Uploader};
pub(crate) use crate::storage::{Checkup, PublicRead, RangedObject, StoreError};
pub(crate) use admission::{Admission, Interruption};
pub(crate) use budget::{Load, Share};
pub(crate) use cameo_imaging::{Crop, Error as PictureError};
pub(crate) use error::Error;
pub(crate) use maintain::{DropLimit, GcOptions, Lost, Named, Rebuilt, Reprocessed};
pub(crate) use moderate::Moderation;
pub(crate) use read::{Current, Held, NamedBy, Size, pick};
pub(crate) use remove::Removal;
pub(crate) use upload::Upload;

use crate::audit::AuditLog;
use crate::avatar::{Audience, AvatarId, ObjectKey, OriginalAccess};
use crate::catalog::Catalog;
use crate::jail::Workers;
use crate::storage::Store;
use crate::telemetry::{Health, Metrics};
use budget::Budget;
use drawings::Drawings;
use losses::Losses;
use policy::PolicyTurns;
use read::{Images, Records};
use sweep::Undeletable;

/// Concurrent requests to the store for one removal.
const REMOVALS: usize = 8;

/// The settings of a [`Service`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// The limits for pictures and the renditions to make.
    pub recipe: Arc<Recipe>,
    /// Maximum size of an upload in bytes.
    pub max_upload_bytes: usize,
    /// Memory in bytes for all bodies in memory and all pictures being decoded.
    pub memory_budget: u64,
    /// How long an upload waits for memory and a worker.
    pub queue_timeout: Duration,
    /// Time limit for processing one picture.
    pub picture_deadline: Duration,
    /// Where new renditions are written: under `public/` or under `private/`.
    pub audience: Audience,
    /// Who may see the originals of new avatars. It applies if the recipe keeps originals.
    pub original: Option<OriginalAccess>,
    /// How long the objects of a replaced avatar stay.
    pub retire_after: Duration,
    /// Time until an unfinished upload expires. It is also the lease of a caller that removes objects.
    pub upload_deadline: Duration,
    /// How long the objects of a complete upload are kept after its deadline if the outcome of its
    /// commit is unknown.
    pub orphan_grace: Duration,
    /// Maximum memory of the caches of records and images in bytes.
    pub cache_bytes: u64,
    /// How old an entry of the caches may be while the events of the catalog cannot be followed.
    pub cache_max_stale: Duration,
}

/// The functions of the program, on one store and one catalog.
pub struct Service {
    store: Arc<dyn Store>,
    catalog: Arc<dyn Catalog>,
    workers: Workers,
    budget: Budget,
    settings: Settings,
    metrics: Metrics,
    warnings: watch::StartupWarnings,
    losses: Losses,
    undeletable: Undeletable,
    policy_turns: PolicyTurns,
    audit: AuditLog,
    moderation: Option<Moderation>,
    records: Arc<Records>,
    images: Arc<Images>,
    drawings: Drawings,
}

impl Service {
    /// Combines the parts. Measurements go to `metrics`.
    pub fn new(
        store: Arc<dyn Store>,
        catalog: Arc<dyn Catalog>,
        workers: Workers,
        settings: Settings,
        metrics: Metrics,
    ) -> Self {
        let Settings {
            memory_budget,
            queue_timeout,
            ..
        } = settings;
        let budget = Budget::new(memory_budget, workers.count(), queue_timeout);
        let for_drawings = settings.cache_bytes / drawings::PART_OF_CACHE;
        let (records, images) = read::caches(&settings, settings.cache_bytes - for_drawings);
        let drawings = Drawings::new(for_drawings, workers.count());
        Self {
            store,
            catalog,
            workers,
            budget,
            settings,
            metrics,
            warnings: watch::StartupWarnings::default(),
            losses: Losses::default(),
            undeletable: Undeletable::default(),
            policy_turns: PolicyTurns::default(),
            audit: AuditLog::default(),
            moderation: None,
            records: Arc::new(records),
            images: Arc::new(images),
            drawings,
        }
    }

    /// Records in `audit` what maintenance changes. By default it is only in the log.
    #[must_use]
    pub(crate) fn audited_by(mut self, audit: AuditLog) -> Self {
        self.audit = audit;
        self
    }

    /// Asks for a verdict on pictures before they are published.
    #[must_use]
    pub(crate) fn moderated_by(mut self, moderation: Option<Moderation>) -> Self {
        self.moderation = moderation;
        self
    }

    /// The settings.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The resources that uploads use and wait for at this moment.
    pub fn load(&self) -> Load {
        self.budget.load()
    }

    /// Totals of the current avatars.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub async fn stats(&self) -> Result<Stats, Error> {
        Ok(self.catalog.stats().await?)
    }

    /// Checks the store: its health, and whether anonymous readers have access.
    ///
    /// # Errors
    /// [`Error::Storage`]
    pub async fn check_store(&self) -> Result<Checkup, Error> {
        let mut checkup = self.store.check().await?;
        if checkup.health == Health::Healthy {
            checkup.health = self.losses_health();
        }
        Ok(checkup)
    }

    /// Checks whether the catalog can be read and written.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub async fn check_catalog(&self) -> Result<Health, Error> {
        Ok(self.catalog.check().await?)
    }

    /// The lease of a caller that removes objects. When it expires, another caller takes over.
    const fn removal_lease(&self) -> Duration {
        self.settings.upload_deadline
    }

    /// Removes every object of an avatar, the manifest first. Returns the number of renditions among
    /// them. It is no error if there is none.
    async fn remove_objects(&self, avatar: AvatarId) -> Result<usize, Error> {
        self.remove_objects_of(vec![avatar]).await
    }

    /// Removes every object of these avatars. Returns the number of renditions among them.
    ///
    /// All manifests are removed before any other object, so that a rebuild never restores one of
    /// these avatars if the removal ends halfway. After a failure the other manifests are still
    /// removed, but no further objects.
    async fn remove_objects_of(&self, avatars: Vec<AvatarId>) -> Result<usize, Error> {
        let removed = self.remove_from_store(&avatars).await;
        for avatar in avatars {
            self.images.invalidate(avatar);
        }
        removed
    }

    async fn remove_from_store(&self, avatars: &[AvatarId]) -> Result<usize, Error> {
        let mut failed = None;
        let listed = stream::iter(avatars.to_vec())
            .map(|avatar| async move { self.store.list(avatar).await })
            .buffer_unordered(REMOVALS);
        let mut keys = Vec::new();
        for listed in listed.collect::<Vec<_>>().await {
            match listed {
                Ok(listed) => keys.extend(listed),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        let (manifests, objects): (Vec<_>, Vec<_>) = keys
            .into_iter()
            .partition(|key| matches!(key, ObjectKey::Manifest { .. }));
        let public = objects
            .iter()
            .filter(|key| matches!(key, ObjectKey::Rendition { .. }))
            .count();
        for keys in [manifests, objects] {
            let deleted = stream::iter(keys)
                .map(|key| async move { self.store.delete(&key).await })
                .buffer_unordered(REMOVALS);
            for deleted in deleted.collect::<Vec<_>>().await {
                if let Err(error) = deleted {
                    failed.get_or_insert(error);
                }
            }
            // Objects are removed only after all manifests are gone.
            if failed.is_some() {
                break;
            }
        }
        match failed {
            None => Ok(public),
            Some(error) => Err(error.into()),
        }
    }
}
