//! The cache of current records, and of users who have none.

use std::mem::size_of;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Error;
use super::freshness::{Following, Generations, Moment};
use super::loads::Loads;
use crate::avatar::{Record, SubjectId};
use crate::catalog::{Catalog, CatalogError};

/// The memory of a typical entry in bytes.
const TYPICAL_BYTES: u64 = 4 << 10;
/// The memory of an entry beside its key and its record, in bytes: the entry and the bookkeeping of the
/// cache.
const ENTRY_BYTES: usize = 160 + size_of::<Entry>();
/// The memory that the prepared body takes for the record, and for each rendition, in bytes.
const BODY_BYTES: usize = 512;
const BODY_BYTES_PER_RENDITION: usize = 400;
/// While the catalog does not answer, an entry is checked this often.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A current record in memory. Readers share it.
#[derive(Debug)]
pub(crate) struct Current {
    record: Record,
    body: OnceLock<Bytes>,
}

impl Current {
    pub(super) const fn new(record: Record) -> Self {
        Self {
            record,
            body: OnceLock::new(),
        }
    }

    /// The body that [`keep_body`](Self::keep_body) keeps; `None` if there is none yet.
    pub(crate) fn body(&self) -> Option<Bytes> {
        self.body.get().cloned()
    }

    /// Keeps a body that was made from the record and the subject alone, so that it is made once for
    /// all readers.
    pub(crate) fn keep_body(&self, body: Bytes) -> Bytes {
        self.body.get_or_init(|| body).clone()
    }

    /// Upper bound on the memory of the record and of its prepared body in bytes.
    fn weight(&self) -> usize {
        let renditions = &self.record.renditions;
        let names: usize = renditions
            .iter()
            .map(|one| one.variant.as_str().len())
            .sum();
        size_of::<Self>()
            + self.record.placeholder.thumbhash.len()
            + names
            + size_of_val(&renditions[..])
            + BODY_BYTES
            + BODY_BYTES_PER_RENDITION * renditions.len()
    }
}

impl Deref for Current {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.record
    }
}

/// One answer of the catalog.
struct Entry {
    /// The generation of the subject when the load began.
    generation: u64,
    /// The epoch in which the load began.
    epoch: u64,
    /// The time at which the load began.
    loaded: Moment,
    /// The last time at which a check failed, in the form of [`Moment`]; 0 if none has.
    failed: AtomicU64,
    /// The record; `None` if the subject has no avatar.
    current: Option<Arc<Current>>,
}

#[derive(Clone)]
struct ByMemory;

impl Weighter<SubjectId, Arc<Entry>> for ByMemory {
    fn weight(&self, subject: &SubjectId, entry: &Arc<Entry>) -> u64 {
        let record = entry.current.as_ref().map_or(0, |current| current.weight());
        (ENTRY_BYTES + size_of::<SubjectId>() + 2 * subject.as_str().len() + record) as u64
    }
}

/// The cache of records.
pub(in crate::service) struct Records {
    entries: Cache<SubjectId, Arc<Entry>, ByMemory>,
    loads: Loads<SubjectId, Result<Arc<Entry>, CatalogError>>,
    generations: Generations,
    /// How far the events of the catalog have been followed.
    pub(super) following: Following,
    max_stale: Duration,
    when_unchecked: WhenUnchecked,
}

/// The use of an entry that the catalog should confirm while the catalog does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenUnchecked {
    /// It is used as it is.
    Use,
    /// It is not used.
    Refuse,
}

impl Records {
    /// A cache of at most `max_bytes`. An entry is confirmed after `max_stale` while the events of
    /// the catalog cannot be followed.
    pub(super) fn new(max_bytes: u64, max_stale: Duration, when_unchecked: WhenUnchecked) -> Self {
        let typical = usize::try_from(max_bytes / TYPICAL_BYTES).unwrap_or(usize::MAX);
        Self {
            entries: Cache::with_weighter(typical.max(16), max_bytes, ByMemory),
            loads: Loads::default(),
            generations: Generations::default(),
            following: Following::default(),
            max_stale,
            when_unchecked,
        }
    }

    /// The memory of all entries in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// Ends the entry of a subject whose record has changed or may have changed. A read that begins
    /// afterwards sees the change.
    pub(in crate::service) fn invalidate(&self, subject: &SubjectId) {
        self.generations.advance(subject);
        self.entries.remove(subject);
    }

    /// The subject's current record; `None` if there is no avatar. An entry that is not in memory, or
    /// not up to date, is loaded from the catalog.
    ///
    /// # Errors
    /// [`Error::Catalog`], [`Error::Internal`]
    pub(super) async fn read(
        self: &Arc<Self>,
        catalog: &Arc<dyn Catalog>,
        subject: &SubjectId,
    ) -> Result<Option<Arc<Current>>, Error> {
        let generation = self.generations.of(subject);
        let entry = self.entries.get(subject);
        let entry = entry.filter(|entry| entry.generation == generation);
        if let Some(entry) = &entry
            && self
                .following
                .is_current(entry.epoch, entry.loaded, self.max_stale)
        {
            return Ok(entry.current.clone());
        }
        let load = self.loads.join(subject, generation, || {
            let (records, catalog) = (Arc::clone(self), Arc::clone(catalog));
            let (subject, before) = (subject.clone(), entry.clone());
            async move { records.load(&*catalog, subject, generation, before).await }
        });
        let may_use = self.when_unchecked == WhenUnchecked::Use;
        if let Some(entry) = entry.as_ref().filter(|_| may_use)
            && entry.failed.load(Ordering::Relaxed) != 0
        {
            // The catalog did not answer before. Readers do not wait for it again: the load goes on
            // without them.
            return Ok(entry.current.clone());
        }
        match (load.result().await, entry) {
            (Ok(Ok(loaded)), _) => Ok(loaded.current.clone()),
            (Ok(Err(error)), Some(entry)) if may_use && !error.is_corrupt() => {
                Ok(entry.current.clone())
            }
            (Ok(Err(error)), _) => Err(error.into()),
            (Err(ended), _) => Err(Error::Internal(Box::new(ended))),
        }
    }

    /// Loads the record of a subject. `before` is the entry that is not up to date.
    async fn load(
        &self,
        catalog: &dyn Catalog,
        subject: SubjectId,
        generation: u64,
        before: Option<Arc<Entry>>,
    ) -> Result<Arc<Entry>, CatalogError> {
        let failed = before
            .as_ref()
            .map_or(0, |entry| entry.failed.load(Ordering::Relaxed));
        if failed != 0 {
            let pause = CHECK_INTERVAL.saturating_sub(self.following.since(Moment(failed)));
            tokio::time::sleep(pause).await;
        }
        // Both are read before the catalog is asked.
        let (epoch, loaded) = (self.following.epoch(), self.following.now());
        let found = match catalog.get(&subject).await {
            Ok(found) => found,
            Err(error) => {
                if let Some(before) = before
                    && self.when_unchecked == WhenUnchecked::Use
                {
                    before
                        .failed
                        .store(self.following.now().0, Ordering::Relaxed);
                }
                return Err(error);
            }
        };
        let known = before.and_then(|before| before.current.clone());
        let current = found.map(|record| match known {
            // The prepared body stays.
            Some(known) if known.record == record => known,
            _ => Arc::new(Current::new(record)),
        });
        let entry = Arc::new(Entry {
            generation,
            epoch,
            loaded,
            failed: AtomicU64::new(0),
            current,
        });
        // An entry of an earlier generation is not used. This check spares a later one.
        if self.generations.of(&subject) == generation {
            self.entries.insert(subject, Arc::clone(&entry));
        }
        Ok(entry)
    }
}
