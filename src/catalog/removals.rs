//! The port's second part: which avatars are taken out of use, and whose objects are to be removed.

use std::time::Duration;

use async_trait::async_trait;

use super::{CatalogError, Precondition};
use crate::avatar::{AvatarId, Record, SubjectId, Version};

/// Removals, and the pending and retired ids that name objects which may have to be removed.
///
/// An id that is due is given to one caller at a time, for the duration of a lease. If the caller
/// dies, the id is due again after the lease, and another caller takes over. An id stays in the
/// catalog until [`forget`](Self::forget), so no object is left without a name. See
/// [`Catalog`](super::Catalog) for what holds for every operation.
#[async_trait]
pub trait Removals: Send + Sync + 'static {
    /// Removes the subject's record and invalidates every upload of the subject. An upload that was
    /// reserved before this step can no longer become current, neither by a commit nor by a restore.
    ///
    /// Returns every id of the subject that has or may have objects, pending uploads included, the
    /// current one first. The caller removes their objects and then [forgets](Self::forget) them; no
    /// other caller gets them before `lease` has passed. Returns `None` if the subject has no such
    /// id. An event is appended if there was a record.
    ///
    /// If there is a record and the precondition does not hold for it, nothing changes. If there is
    /// no record, the precondition is ignored: there is nothing to protect.
    async fn remove(
        &self,
        subject: &SubjectId,
        precondition: &Precondition,
        lease: Duration,
    ) -> Result<Result<Option<Removed>, PreconditionFailed>, CatalogError>;

    /// Removes the record of an avatar that has no objects in the store any more, if it is still the
    /// subject's current record. Returns whether it was. The id is retired and due after `lease`, and
    /// an event is appended. Uploads under way are not affected.
    async fn drop_record(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<bool, CatalogError>;

    /// Claims up to `limit` ids that are due. The caller handles each as its [`Due`] says, within
    /// `lease`. No other caller gets them before; afterwards they are due again.
    ///
    /// If a part of the catalog fails, this is an error only if the other parts have nothing due. An
    /// id that cannot be decoded is logged and skipped, and is due again after `lease`.
    async fn claim(&self, lease: Duration, limit: usize) -> Result<Vec<Claimed>, CatalogError>;

    /// Makes a claimed id due again after `by`, instead of after its lease.
    async fn defer(&self, outstanding: &Outstanding, by: Duration) -> Result<(), CatalogError>;

    /// Makes sure that an upload never becomes current, neither by a commit nor by a restore. An
    /// upload that is or was current is left unchanged.
    ///
    /// The caller removes the objects of an [`Invalidated::Removable`] upload, the manifest first.
    /// The id is retired and due after `lease`.
    async fn invalidate(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<Invalidated, CatalogError>;

    /// Deletes an id from pending and retired. The caller has removed all its objects from the
    /// store. An unknown id is not an error.
    async fn forget(&self, outstanding: &Outstanding) -> Result<(), CatalogError>;

    /// The state of a subject's upload.
    async fn upload_state(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
    ) -> Result<UploadState, CatalogError>;

    /// The last version of the subject that a delete covers. No upload up to this version becomes
    /// current any more.
    async fn deleted_up_to(&self, subject: &SubjectId) -> Result<Version, CatalogError>;

    /// Every id in pending and retired. An id that cannot be decoded is skipped.
    async fn outstanding(&self) -> Result<Vec<Outstanding>, CatalogError>;
}

/// The result of [`Removals::remove`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The record that was current. `None` if an earlier removal took the record but died before its
    /// objects were gone.
    pub record: Option<Record>,
    /// Every id of the subject that has objects to remove.
    pub outstanding: Vec<Outstanding>,
}

/// The precondition of a removal does not hold for the current record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreconditionFailed;

/// An upload that has, or may have, objects to remove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outstanding {
    /// The upload's owner.
    pub subject: SubjectId,
    /// The upload.
    pub avatar: AvatarId,
}

/// An upload that is due, given to one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The upload.
    pub outstanding: Outstanding,
    /// The reason why it is due.
    pub due: Due,
}

/// The reason why an upload is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The upload was current or invalidated. The caller removes its objects and forgets it.
    Retired,
    /// The upload was not committed before its deadline, which was `overdue` ago. If it is complete
    /// and has not waited long enough, the caller [defers](Removals::defer) it. Otherwise the caller
    /// [invalidates](Removals::invalidate) it and removes its objects. Writes of a dead upload may
    /// still arrive in the store, so the caller does not forget it: the id comes due once more.
    Expired {
        /// The time since the deadline.
        overdue: Duration,
    },
}

/// The result of [`Removals::invalidate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidated {
    /// The upload never becomes current. The caller removes its objects.
    Removable,
    /// The upload is or was current. The sweep removes its objects when they are due.
    Kept,
}

/// The state of an upload in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadState {
    /// It is the subject's current avatar.
    Current,
    /// It is under way.
    Pending,
    /// It was not committed before its deadline. It can be restored.
    Expired,
    /// It was current or invalidated. Its objects are to be removed.
    Retired,
    /// The catalog does not know it: it was forgotten or lost, or never existed.
    Unknown,
}
