//! Reads the current record, chooses a rendition, and opens objects.

use std::ops::RangeInclusive;

use super::{Error, Service};
use crate::access::Sight;
use crate::avatar::{AvatarId, Format, ObjectKey, Record, Rendition, SubjectId, VariantName};
use crate::storage::{Object, RangedObject};

/// The size that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// The variant of this name.
    Variant(VariantName),
    /// The smallest variant with at least this edge in pixels, or the largest one if none is that large.
    Pixels(u32),
}

impl Service {
    /// The subject's current record.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Catalog`]
    pub async fn current(&self, subject: &SubjectId) -> Result<Record, Error> {
        self.catalog.get(subject).await?.ok_or(Error::NotFound)
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
    ) -> Result<Record, Error> {
        let viewer = match sight {
            Sight::Granted => return self.current(subject).await,
            Sight::AsViewer(viewer) => viewer.as_ref(),
        };
        let (policy, record) =
            tokio::join!(self.catalog.policy(subject), self.catalog.get(subject));
        let (policy, _) = policy?;
        if viewer.is_some_and(|viewer| policy.viewers.contains(viewer)) {
            return record?.ok_or(Error::NotFound);
        }
        match record {
            // A record that cannot be decoded shows that there is an avatar.
            Err(error) if !error.is_corrupt() => Err(error.into()),
            Ok(_) | Err(_) => Err(Error::NotFound),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::contract::record;

    #[test]
    fn pixels_choose_the_smallest_variant_that_covers_them() {
        let record = record(1, 1);
        for (px, variant) in [
            (1, "thumbnail"),
            (64, "thumbnail"),
            (65, "small"),
            (513, "full"),
            (9999, "full"),
        ] {
            let picked = pick(&record, &Size::Pixels(px), Format::Webp).unwrap();
            assert_eq!(picked.variant.as_str(), variant, "{px}");
        }
        assert_eq!(pick(&record, &Size::Pixels(64), Format::Png), None);
    }
}
