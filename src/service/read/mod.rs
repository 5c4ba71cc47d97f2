//! Reads the current record, chooses a rendition, and opens objects.
//!
//! | file | task |
//! | --- | --- |
//! | `records`, `images` | the caches |
//! | `freshness` | decides whether an entry of a cache is up to date |
//! | `loads` | lets concurrent readers share a load |
//! | `changes` | follows the events of the catalog, so that changes through other replicas are seen |

mod changes;
mod freshness;
mod images;
mod loads;
mod records;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Error, Service, Settings};
use crate::access::Sight;
use crate::avatar::{
    Audience, AvatarId, Format, ObjectKey, Record, Rendition, SubjectId, VariantName,
};
use crate::storage::{Object, RangedObject};
pub(super) use images::Images;
pub(crate) use images::{Held, NamedBy};
pub(super) use loads::Loads;
pub(crate) use records::Current;
pub(super) use records::Records;
use records::WhenUnchecked;

/// The part of the memory of both caches that is for records: one of so many.
const RECORDS_PART: u64 = 4;

/// Makes the caches of records and images, which have at most `max_bytes` together.
pub(super) fn caches(settings: &Settings, max_bytes: u64) -> (Records, Images) {
    let when_unchecked = match settings.audience {
        Audience::Public => WhenUnchecked::Use,
        Audience::Private => WhenUnchecked::Refuse,
    };
    let max_stale = settings.cache_max_stale;
    let for_records = max_bytes / RECORDS_PART;
    (
        Records::new(for_records, max_stale, when_unchecked),
        Images::new(max_bytes - for_records, max_stale, when_unchecked),
    )
}

/// The size that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// The variant of this name.
    Variant(VariantName),
    /// The smallest variant with at least this edge in pixels, or the largest one if none is that large.
    Pixels(u32),
}

impl Service {
    /// The subject's current record, from memory if it is there.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Catalog`]
    pub(crate) async fn current(&self, subject: &SubjectId) -> Result<Arc<Current>, Error> {
        let current = self.records.read(&self.catalog, subject).await?;
        current.ok_or(Error::NotFound)
    }

    /// The subject's current record, if the caller may see it. Every caller who may see it only as a
    /// viewer causes the same calls of the catalog, and gets the same answer as for a missing avatar.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no avatar, or if the caller may not see it. [`Error::Catalog`]
    pub(crate) async fn current_for(
        &self,
        subject: &SubjectId,
        sight: &Sight,
    ) -> Result<Arc<Current>, Error> {
        let viewer = match sight {
            Sight::Granted => return self.current(subject).await,
            Sight::AsViewer(viewer) => viewer.as_ref(),
        };
        let (policy, record) =
            tokio::join!(self.catalog.policy(subject), self.catalog.get(subject));
        let (policy, _) = policy?;
        if viewer.is_some_and(|viewer| policy.viewers.contains(viewer)) {
            let record = record?.ok_or(Error::NotFound)?;
            return Ok(Arc::new(Current::new(record)));
        }
        match record {
            // A record that cannot be decoded shows that there is an avatar.
            Err(error) if !error.is_corrupt() => Err(error.into()),
            Ok(_) | Err(_) => Err(Error::NotFound),
        }
    }

    /// An image, from memory if it is there. Concurrent readers cause one read of the store.
    ///
    /// # Errors
    /// [`Error::Storage`]
    pub(crate) async fn image(&self, key: &ObjectKey, named_by: NamedBy) -> Result<Held, Error> {
        self.images.read(&self.store, key, named_by).await
    }

    /// The memory of the records and of the images in memory, in bytes.
    pub(crate) fn cached_bytes(&self) -> (u64, u64) {
        (self.records.size_bytes(), self.images.size_bytes())
    }

    /// The id of the subject's current avatar, for a precondition; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub async fn current_id(&self, subject: &SubjectId) -> Result<Option<AvatarId>, Error> {
        let current = self.catalog.get(subject).await?;
        Ok(current.map(|record| record.avatar_id))
    }

    /// Opens a range of an object; `None` if there is no object.
    ///
    /// # Errors
    /// [`Error::Storage`]
    pub async fn open_range(
        &self,
        key: &ObjectKey,
        range: RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, Error> {
        Ok(self.store.get_range(key, range).await?)
    }

    /// The size of an object in bytes; `None` if there is no object.
    ///
    /// # Errors
    /// [`Error::Storage`]
    pub async fn size_of(&self, key: &ObjectKey) -> Result<Option<u64>, Error> {
        // The byte is read, so that the connection to the store can be used again.
        match self.store.get_range(key, 0..=0).await? {
            None => Ok(None),
            Some(RangedObject::Unsatisfiable { total }) => Ok(Some(total)),
            Some(RangedObject::Part { total, part, .. }) => {
                part.into_bytes().await?;
                Ok(Some(total))
            }
        }
    }

    /// Opens an object; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Storage`]
    pub async fn open(&self, key: &ObjectKey) -> Result<Option<Object>, Error> {
        Ok(self.store.get(key).await?)
    }
}

/// The still rendition of a size and a format; `None` if the record has none.
pub(crate) fn pick<'a>(record: &'a Record, size: &Size, format: Format) -> Option<&'a Rendition> {
    let stills = || {
        record
            .renditions
            .iter()
            .filter(|one| one.format == format && !one.animated)
    };
    match size {
        Size::Variant(name) => record.still(name, format),
        Size::Pixels(px) => stills()
            .rev()
            .filter(|one| one.width >= *px)
            // Variants of equal width: the last one in the order above, which is the smaller variant.
            .min_by_key(|one| one.width)
            .or_else(|| stills().max_by_key(|one| one.width)),
    }
}
