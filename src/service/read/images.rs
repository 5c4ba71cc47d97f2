//! The cache of images.
//!
//! The object of an image never changes, so an entry is wrong only after the object is removed. An
//! image that a current record names is used at any age. An image that only a path names is loaded
//! again after `delivery.cache_max_stale`, because another replica may have removed it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::error;

use super::Error;
use super::freshness::Generations;
use super::loads::Loads;
use super::records::WhenUnchecked;
use crate::avatar::{AvatarId, ObjectKey};
use crate::storage::{Store, StoreError};

/// The size of a typical image in bytes.
const TYPICAL_BYTES: u64 = 8 << 10;
/// The memory of an entry beside the image, in bytes.
const ENTRY_BYTES: u64 = 320;
/// The memory of images that are not in the cache: those being loaded, and those that were evicted
/// while a client still receives them.
const BESIDE_CACHE_BYTES: u64 = 16 << 20;
/// The largest image that is held in memory, in bytes.
const MAX_IMAGE_BYTES: u64 = 2 << 20;
/// The number of independent parts of the cache. An image must fit into half of a part.
const SHARDS: usize = 8;

/// The origin of the key of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamedBy {
    /// A current record. The image exists, unless the store lost it.
    Record,
    /// A path in a request. Anybody may have written it.
    Path,
}

/// Where an image is.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    /// In memory.
    InMemory(Bytes),
    /// In the store, if it exists. The memory has no room for it.
    InStore,
    /// Nowhere.
    Missing,
}

struct Entry {
    /// The generation of the avatar when the load began.
    generation: u64,
    /// The time at which the load began.
    loaded: Instant,
    /// The image; `None` if the store has none.
    image: Option<Bytes>,
}

impl Entry {
    fn held(&self) -> Held {
        self.image.clone().map_or(Held::Missing, Held::InMemory)
    }
}

#[derive(Clone)]
struct ByMemory;

impl Weighter<ObjectKey, Arc<Entry>> for ByMemory {
    fn weight(&self, _: &ObjectKey, entry: &Arc<Entry>) -> u64 {
        ENTRY_BYTES + entry.image.as_ref().map_or(0, Bytes::len) as u64
    }
}

/// The cache of images.
pub(in crate::service) struct Images {
    entries: Cache<ObjectKey, Arc<Entry>, ByMemory>,
    loads: Loads<ObjectKey, Result<Held, StoreError>>,
    generations: Generations,
    /// One permit for each byte of the images in memory.
    room: Arc<Semaphore>,
    max_image_bytes: u64,
    max_stale: Duration,
    when_unchecked: WhenUnchecked,
}

/// The bytes of an image, and its share of the memory. The share is free again when the cache and all
/// clients have released the bytes.
struct Counted {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Images {
    /// A cache of at most `max_bytes`. An image that only a path names is loaded again after
    /// `max_stale`.
    pub(super) fn new(max_bytes: u64, max_stale: Duration, when_unchecked: WhenUnchecked) -> Self {
        let typical = usize::try_from(max_bytes / TYPICAL_BYTES).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(typical.max(16))
            .weight_capacity(max_bytes)
            .build();
        let entries = match options {
            Ok(options) => Cache::with_options(
                options,
                ByMemory,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            Err(_) => Cache::with_weighter(typical.max(16), max_bytes, ByMemory),
        };
        let room = usize::try_from(max_bytes + BESIDE_CACHE_BYTES).unwrap_or(usize::MAX);
        let max_image_bytes = (entries.shard_capacity() / 2).min(MAX_IMAGE_BYTES);
        Self {
            entries,
            loads: Loads::default(),
            generations: Generations::default(),
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
            max_image_bytes,
            max_stale,
            when_unchecked,
        }
    }

    /// The memory of all entries in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// Ends the entries of all images of an avatar whose objects were removed.
    pub(in crate::service) fn invalidate(&self, avatar: AvatarId) {
        // An entry of an earlier generation is not used. The cache evicts it in time.
        self.generations.advance(&avatar);
    }

    /// The image with this key. An image that is not in memory is loaded from the store. All readers
    /// of it share the load.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Internal`]
    pub(super) async fn read(
        self: &Arc<Self>,
        store: &Arc<dyn Store>,
        key: &ObjectKey,
        named_by: NamedBy,
    ) -> Result<Held, Error> {
        let Some(avatar) = key.avatar() else {
            return Ok(Held::InStore);
        };
        let generation = self.generations.of(&avatar);
        let entry = self.entries.get(key);
        let entry = entry.filter(|entry| entry.generation == generation);
        if let Some(entry) = &entry {
            let never_changes = named_by == NamedBy::Record && entry.image.is_some();
            if never_changes || entry.loaded.elapsed() <= self.max_stale {
                return Ok(entry.held());
            }
        }
        let load = self.loads.join(key, generation, || {
            let (images, store) = (Arc::clone(self), Arc::clone(store));
            let key = key.clone();
            async move {
                let held = images.load(&*store, &key, avatar, generation).await;
                if named_by == NamedBy::Record && matches!(held, Ok(Held::Missing)) {
                    error!(%key, "a record names an object that does not exist");
                }
                held
            }
        });
        match (load.result().await, entry) {
            (Ok(Ok(held)), _) => Ok(held),
            (Ok(Err(_)), Some(entry))
                if self.when_unchecked == WhenUnchecked::Use && entry.image.is_some() =>
            {
                Ok(entry.held())
            }
            (Ok(Err(error)), _) => Err(error.into()),
            (Err(ended), _) => Err(Error::Internal(Box::new(ended))),
        }
    }

    async fn load(
        &self,
        store: &dyn Store,
        key: &ObjectKey,
        avatar: AvatarId,
        generation: u64,
    ) -> Result<Held, StoreError> {
        let loaded = Instant::now();
        let image = match store.get(key).await? {
            None => None,
            Some(object) => {
                let share = self.share(object.len);
                let Some(share) = share else {
                    return Ok(Held::InStore);
                };
                let bytes = object.into_bytes().await?;
                Some(Bytes::from_owner(Counted {
                    bytes,
                    _share: share,
                }))
            }
        };
        let entry = Entry {
            generation,
            loaded,
            image,
        };
        let held = entry.held();
        if self.generations.of(&avatar) == generation {
            self.entries.insert(key.clone(), Arc::new(entry));
        }
        Ok(held)
    }

    /// The share of the memory for an image; `None` if there is no room.
    fn share(&self, len: u64) -> Option<OwnedSemaphorePermit> {
        if len > self.max_image_bytes {
            return None;
        }
        let len = u32::try_from(len).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(len).ok()
    }
}
