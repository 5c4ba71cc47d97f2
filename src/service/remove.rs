//! Taking an avatar away, with everything that was ever stored of it.

use super::{Error, Service};
use crate::avatar::{Record, SubjectId, Timestamp};

/// What was taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// What was the current avatar; `None` where this finished what an earlier removal had begun.
    pub record: Option<Record>,
    /// How many publicly readable objects were removed.
    pub objects: usize,
}

impl Service {
    /// Removes the subject's avatar and those that it had replaced. When this returns, no object
    /// of theirs is left.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is nothing to remove. With [`Error::Storage`] the avatar is
    /// no longer the current one, but objects may be left; calling again, or else the sweep,
    /// finishes the work. With [`Error::Catalog`] it is either.
    pub async fn remove(&self, subject: &SubjectId, now: Timestamp) -> Result<Removal, Error> {
        let removed = self
            .catalog
            .remove(subject, self.removal_lease(now))
            .await?;
        let removed = removed.ok_or(Error::NotFound)?;
        let mut objects = 0;
        for outstanding in &removed.outstanding {
            objects += self.remove_objects(outstanding.avatar).await?;
            self.catalog.forget(outstanding).await?;
        }
        Ok(Removal {
            record: removed.record,
            objects,
        })
    }
}
