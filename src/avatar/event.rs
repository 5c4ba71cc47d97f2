//! Events: the changes of avatars.

use super::{AvatarId, ObjectKey, Record, SubjectId, Timestamp, Version};

/// A change of a subject's avatar. The step of the catalog that makes the change also records the
/// event.
///
/// It has everything that a `CloudEvents` 1.0 envelope needs
/// (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The avatar's owner.
    pub subject: SubjectId,
    /// The time of the change.
    pub at: Timestamp,
    /// The change.
    pub change: Change,
    /// The avatar that the change replaced or deleted, if there was one. Events of version 0.1.0 do
    /// not name it.
    pub previous: Option<Previous>,
}

/// An avatar that is no longer current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The upload.
    pub avatar_id: AvatarId,
    /// Its version.
    pub version: Version,
    /// The keys of its public objects.
    pub objects: Vec<ObjectKey>,
    /// The earliest time at which its objects are gone.
    pub gone_at: Timestamp,
}

/// The kinds of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The record became current.
    Updated(Record),
    /// The avatar was deleted.
    Deleted {
        /// The upload that was current.
        avatar_id: AvatarId,
        /// Its version. An update with the same or a lower version came before the delete.
        version: Version,
    },
}

impl Event {
    /// The event's id. An upload becomes current once and is deleted once, so the id is unique. If a
    /// catalog is lost and maintenance repeats a change, the new event has the same id.
    pub fn id(&self) -> String {
        let what = match self.change {
            Change::Updated(_) => "updated",
            Change::Deleted { .. } => "deleted",
        };
        format!("{}-{what}", self.avatar_id())
    }

    /// The event's type: `avatar.updated`, `avatar.deleted`.
    pub const fn kind(&self) -> &'static str {
        match self.change {
            Change::Updated(_) => "avatar.updated",
            Change::Deleted { .. } => "avatar.deleted",
        }
    }

    /// The upload that became current or was deleted.
    pub const fn avatar_id(&self) -> AvatarId {
        match &self.change {
            Change::Updated(record) => record.avatar_id,
            Change::Deleted { avatar_id, .. } => *avatar_id,
        }
    }

    /// The upload's version. Of two events of a subject, the one with the higher version is later. Of
    /// two events with the same version, the delete is later.
    pub const fn version(&self) -> Version {
        match &self.change {
            Change::Updated(record) => record.version,
            Change::Deleted { version, .. } => *version,
        }
    }
}
