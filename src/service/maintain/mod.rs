//! Maintenance: compares the catalog with the store and repairs differences.
//!
//! | file | task |
//! | --- | --- |
//! | `rebuild` | restores records from the manifests in the store |
//! | `gc` | removes objects that nothing refers to |
//! | `compare` | finds current records whose objects are missing; both tasks above use it |
//! | `reprocess` | moves images to where the configuration puts them now |
//!
//! Every task may run beside a working service, and may be repeated.

mod compare;
mod gc;
mod rebuild;
mod reprocess;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::{Error, Service};
use crate::audit::AuditRecord;
use crate::avatar::{AvatarId, Manifest, ObjectKey, Record, SubjectId};
use crate::catalog::{Cursor, InitialState};
use crate::storage::StoredUpload;

pub(crate) use compare::{DropLimit, Lost};
pub(crate) use gc::GcOptions;
pub(crate) use rebuild::Rebuilt;
pub(crate) use reprocess::Reprocessed;

/// Manifests read, or uploads removed, at the same time.
const CONCURRENCY: usize = 16;
/// The number of avatars that a report names.
const MAX_NAMES: usize = 1000;

/// A number of avatars, and the ids of the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many there are.
    pub count: u64,
    /// The ids that are kept.
    pub names: BTreeSet<AvatarId>,
}

impl Named {
    /// Counts one more avatar. Keeps its id while fewer than `max` are kept.
    fn add(&mut self, avatar: AvatarId, max: usize) {
        let is_kept = self.names.len() < max;
        // The catalog may list an avatar twice if it was replaced during the listing.
        if !is_kept || self.names.insert(avatar) {
            self.count += 1;
        }
    }
}

/// The result of checking a sample of the current avatars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The number of avatars that were compared with the store.
    pub checked: usize,
    /// Avatars that lack objects.
    pub incomplete: Named,
    /// Avatars that lie where `delivery.access` would not put them now.
    pub misplaced: u64,
    /// Records that cannot be read.
    pub unreadable: u64,
}

/// A manifest that cannot be read.
struct Unreadable;

impl Service {
    /// Compares up to `count` current avatars with the store.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`]
    pub async fn sample(&self, count: usize) -> Result<Sample, Error> {
        let mut sample = Sample::default();
        let mut next = Some(Cursor::START);
        while let Some(from) = next {
            let page = self.catalog.page(&from).await?;
            sample.unreadable += page.unreadable.len() as u64;
            for (_, record) in page.records {
                if sample.checked == count {
                    return Ok(sample);
                }
                sample.checked += 1;
                sample.misplaced += u64::from(record.audience != self.settings.audience);
                if !self.is_whole(&record).await? {
                    sample.incomplete.add(record.avatar_id, MAX_NAMES);
                }
            }
            next = page.next;
        }
        Ok(sample)
    }

    /// Whether an avatar of the first page of the catalog lies where `delivery.access` would not put it
    /// now. Other avatars may do so too.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub async fn has_misplaced_avatars(&self) -> Result<bool, Error> {
        let page = self.catalog.page(&Cursor::START).await?;
        let audience = self.settings.audience;
        let mut records = page.records.iter();
        Ok(records.any(|(_, record)| record.audience != audience))
    }

    /// Whether the store holds any upload.
    ///
    /// # Errors
    /// [`Error::Storage`]
    pub async fn holds_uploads(&self) -> Result<bool, Error> {
        Ok(!self.store.uploads(None).await?.is_empty())
    }

    /// Initialises the catalog if it is new. Versions begin at 1, or above the milliseconds since
    /// 2025 if the store holds uploads: then an earlier catalog was lost, and its versions must not
    /// be used again. Returns whether an earlier catalog was lost.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub async fn initialize_catalog(&self) -> Result<bool, Error> {
        if self.catalog.is_initialized().await? {
            return Ok(false);
        }
        // A store that does not answer may hold uploads.
        let lost = self.holds_uploads().await.unwrap_or(true);
        let state = if lost {
            InitialState::Lost
        } else {
            InitialState::New
        };
        self.catalog.initialize(state).await?;
        Ok(lost)
    }

    /// Records in the audit that maintenance changed the record or the policy of a subject.
    fn audit(&self, action: &str, subject: &SubjectId, avatar: Option<AvatarId>) {
        self.audit.record(&AuditRecord {
            subject: Some(subject),
            avatar,
            ..AuditRecord::of_system(action, "done")
        });
    }

    /// Whether the store has every object that a record names.
    async fn is_whole(&self, record: &Record) -> Result<bool, Error> {
        let stored = self.store.list(record.avatar_id).await?;
        Ok(keys_of(record).all(|key| stored.contains(&key)))
    }

    /// Reads the manifest of an upload; `None` if it has none.
    async fn manifest(
        &self,
        upload: &StoredUpload,
    ) -> Result<Result<Option<Manifest>, Unreadable>, Error> {
        let avatar = upload.avatar;
        if !upload.has_manifest {
            return Ok(Ok(None));
        }
        let Some(object) = self.store.get(&ObjectKey::Manifest { avatar }).await? else {
            return Ok(Ok(None));
        };
        let bytes = object.into_bytes().await?;
        let manifest = Manifest::from_json(&bytes);
        Ok(match manifest {
            Ok(manifest) if manifest.record.avatar_id == avatar => Ok(Some(manifest)),
            _ => Err(Unreadable),
        })
    }
}

/// The keys of all objects of a complete avatar: the manifest, the kept original, the renditions.
fn keys_of(record: &Record) -> impl Iterator<Item = ObjectKey> {
    let avatar = record.avatar_id;
    let original = record.original.as_ref();
    let original =
        original.map(|original| ObjectKey::of_original(avatar, record.audience, original));
    let master = record
        .master
        .map(|format| ObjectKey::PrivateOriginal { avatar, format });
    let renditions = record
        .renditions
        .iter()
        .map(|rendition| ObjectKey::of_rendition(record, rendition));
    std::iter::once(ObjectKey::Manifest { avatar })
        .chain(original)
        .chain(master)
        .chain(renditions)
}
