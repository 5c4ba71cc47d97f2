//! Makes objects that were stored the current avatar of a subject.
//!
//! The commit is one atomic step of the catalog, and the only moment at which anything changes: the
//! record becomes current, the avatar that it replaces is retired, and the event is appended.

use tracing::warn;

use super::{Error, Service};
use crate::avatar::{AvatarId, Record, SubjectId};
use crate::catalog::{Invalidated, Outstanding, Precondition, Replaced, Uploader};
use crate::telemetry::chain;

impl Service {
    /// Makes a record of [`make_objects`](Self::make_objects) the subject's current avatar, if the
    /// precondition holds, no lock stops the uploader, and no later upload or delete came first.
    ///
    /// # Errors
    /// After [`Error::PreconditionFailed`], [`Error::Superseded`], [`Error::Locked`] and
    /// [`Error::TimedOut`] the avatar is not current and never will be; its objects are removed. After [`Error::Catalog`] the
    /// outcome is unknown: the record may be current. Its objects stay, and the sweep decides.
    pub(super) async fn commit(
        &self,
        subject: &SubjectId,
        record: Record,
        precondition: &Precondition,
        uploader: Uploader,
    ) -> Result<Record, Error> {
        let retire_after = self.settings.retire_after;
        let replaced = self
            .catalog
            .replace(subject, &record, precondition, retire_after, uploader)
            .await?;
        let refusal = match replaced {
            Replaced::Committed => return Ok(record),
            Replaced::Superseded => Error::Superseded,
            Replaced::PreconditionFailed => Error::PreconditionFailed,
            // The upload is refused even if the lock cannot be read for the answer.
            Replaced::Locked => Error::Locked(self.catalog.lock(subject).await.ok().flatten()),
            // A sweep claimed the id. Objects that were written after the sweep are still there.
            Replaced::NotPending => Error::TimedOut,
        };
        self.abandon(subject, record.avatar_id).await;
        Err(refusal)
    }

    /// Checks a precondition before any work is done. The commit checks it again.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`], [`Error::Catalog`]
    pub(super) async fn expect(
        &self,
        subject: &SubjectId,
        precondition: &Precondition,
    ) -> Result<(), Error> {
        let holds = match precondition {
            Precondition::Anything => true,
            precondition => precondition.holds(self.current_id(subject).await?),
        };
        holds.then_some(()).ok_or(Error::PreconditionFailed)
    }

    /// Makes sure that a refused avatar never becomes current, and removes its objects, the manifest
    /// first. If this fails, the sweep removes them.
    async fn abandon(&self, subject: &SubjectId, avatar: AvatarId) {
        let removed = async {
            match self.invalidate(subject, avatar).await? {
                Invalidated::Removable => self.remove_objects(avatar).await.map(drop),
                Invalidated::Kept => Ok(()),
            }
        };
        if let Err(error) = removed.await {
            warn!(
                %avatar,
                error = %chain(&error),
                "the objects of a refused upload are left to the sweep"
            );
        }
    }

    /// Makes sure that an avatar that is not current never becomes current.
    pub(super) async fn invalidate(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
    ) -> Result<Invalidated, Error> {
        let outstanding = Outstanding {
            subject: subject.clone(),
            avatar,
        };
        let lease = self.removal_lease();
        Ok(self.catalog.invalidate(&outstanding, lease).await?)
    }
}
