//! What the program does: take an upload, tell and show what there is, remove it, and clean up.
//!
//! Everything here speaks of avatars, stores and catalogs; HTTP is above, adapters are below.

mod admission;
mod budget;
mod commit;
mod error;
mod losses;
mod maintain;
mod make;
mod read;
mod remove;
mod sweep;
#[cfg(test)]
mod testing;
mod upload;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use cameo_imaging::{Pool, Recipe};
use futures_util::stream::{self, StreamExt};

pub use crate::catalog::{Precondition, Stats};
pub use crate::storage::{Checkup, PublicRead, RangedObject};
pub use admission::{Admission, Interruption};
pub use budget::{Account, Load, Share};
pub use cameo_imaging::{Crop, Error as PictureError};
pub use error::Error;
pub use maintain::{Collected, DropLimit, GcOptions, Lost, Named, Rebuilt, Sample};
pub use read::{Size, pick};
pub use remove::Removal;
pub use sweep::Swept;
pub use upload::Upload;

use crate::avatar::{AvatarId, ObjectKey};
use crate::catalog::Catalog;
use crate::storage::Store;
use crate::telemetry::{Health, Metrics};
use budget::Budget;
use losses::Losses;
use sweep::Undeletable;

/// Requests to the store under way at once for one removal.
const REMOVALS: usize = 8;

/// How the program does it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is made of an upload.
    pub recipe: Arc<Recipe>,
    /// The most bytes of an upload.
    pub max_upload_bytes: usize,
    /// Bytes for uploads held and pictures decoded, all together.
    pub memory_budget: u64,
    /// How long an upload waits for its turn.
    pub queue_timeout: Duration,
    /// How long one picture may take.
    pub picture_deadline: Duration,
    /// How long a replaced avatar's objects stay.
    pub retire_after: Duration,
    /// Time until an unfinished upload expires, and lease of a caller that removes objects.
    pub upload_deadline: Duration,
    /// How long the objects of a complete upload are kept after its deadline, if the catalog does
    /// not know whether it was committed.
    pub orphan_grace: Duration,
    /// What an object's public URL begins with, without a closing slash.
    pub objects_url: String,
}

/// Everything that the program can do.
pub struct Service {
    store: Arc<dyn Store>,
    catalog: Arc<dyn Catalog>,
    pool: Pool,
    budget: Budget,
    settings: Settings,
    metrics: Metrics,
    warnings: watch::StartupWarnings,
    losses: Losses,
    undeletable: Undeletable,
}

impl Service {
    /// Puts the parts together; what they do is counted there.
    pub fn new(
        store: Arc<dyn Store>,
        catalog: Arc<dyn Catalog>,
        pool: Pool,
        settings: Settings,
        metrics: Metrics,
    ) -> Self {
        let Settings {
            memory_budget,
            queue_timeout,
            ..
        } = settings;
        let budget = Budget::new(memory_budget, pool.workers(), queue_timeout);
        Self {
            store,
            catalog,
            pool,
            budget,
            settings,
            metrics,
            warnings: watch::StartupWarnings::default(),
            losses: Losses::default(),
            undeletable: Undeletable::default(),
        }
    }

    /// How the program does what it does.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where anyone may read a public object.
    pub fn url_of(&self, key: &ObjectKey) -> String {
        format!("{}/{key}", self.settings.objects_url)
    }

    /// What uploads take and wait for at this moment.
    pub fn load(&self) -> Load {
        self.budget.load()
    }

    /// What the current avatars add up to.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub async fn stats(&self) -> Result<Stats, Error> {
        Ok(self.catalog.stats().await?)
    }

    /// Whether the store works, and what holds of it.
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

    /// Whether the catalog works, and whether it also takes writes.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub async fn check_catalog(&self) -> Result<Health, Error> {
        Ok(self.catalog.check().await?)
    }

    /// Time after which a caller that removes objects counts as dead, and another one takes over.
    const fn removal_lease(&self) -> Duration {
        self.settings.upload_deadline
    }

    /// Removes every object of an upload, its manifest first, and tells how many of them anyone
    /// could read. Removing them again finds none, and is no error.
    async fn remove_objects(&self, avatar: AvatarId) -> Result<usize, Error> {
        self.remove_objects_of(vec![avatar]).await
    }

    /// Removes every object of these uploads, and tells how many of them anyone could read.
    ///
    /// All manifests go before any other object: if this ends halfway, no rebuild finds an upload
    /// that was to be removed. A failure keeps no other manifest, and then no other object, from being
    /// removed; but no object goes before every manifest.
    async fn remove_objects_of(&self, avatars: Vec<AvatarId>) -> Result<usize, Error> {
        let mut failed = None;
        let listed = stream::iter(avatars)
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
            // Without its manifest an upload cannot be restored, so the manifests must be gone.
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
