//! Taking an avatar away, with everything that was ever stored of it.

use super::{Error, Service};
use crate::avatar::{Record, SubjectId};

/// What was taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// What was the current avatar.
    pub record: Record,
    /// How many publicly readable objects were removed.
    pub objects: usize,
}

impl Service {
    /// Removes the subject's avatar, those that it had replaced, and uploads under way. When this
    /// returns, no object of theirs is left; dropping it leaves the rest to the next call, or to the
    /// sweep.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no current avatar; what an earlier removal has left is
    /// removed all the same. With [`Error::Storage`] the avatar is
    /// no longer the current one, but objects may be left; calling again, or else the sweep,
    /// finishes the work. With [`Error::Catalog`] it is either.
    pub async fn remove(&self, subject: &SubjectId) -> Result<Removal, Error> {
        let removed = self.catalog.remove(subject, self.removal_lease()).await?;
        let removed = removed.ok_or(Error::NotFound)?;
        let mut objects = 0;
        // Nothing of them is forgotten yet: an attempt to write an object that was given up for the
        // next one may still be carried out, and put back what is removed here. The sweep looks
        // once more after the lease.
        for outstanding in &removed.outstanding {
            objects += self.remove_objects(outstanding.avatar).await?;
        }
        let record = removed.record.ok_or(Error::NotFound)?;
        Ok(Removal { record, objects })
    }
}
