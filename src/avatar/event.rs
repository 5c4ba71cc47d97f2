//! What is told of a change.

use super::{AvatarId, ObjectKey, Record, SubjectId, Timestamp, Version};

/// A change of a subject's avatar, recorded by the same step of the catalog that made it.
///
/// It carries all that a `CloudEvents` 1.0 envelope needs
/// (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose avatar it was.
    pub subject: SubjectId,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub change: Change,
    /// The avatar that the change replaced or deleted, if there was one. Events that version 0.1.0
    /// wrote do not name it.
    pub previous: Option<Previous>,
}

/// An avatar that is no longer current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Which upload it was.
    pub avatar_id: AvatarId,
    /// Its version.
    pub version: Version,
    /// Its publicly readable objects.
    pub objects: Vec<ObjectKey>,
    /// When its objects are gone at the earliest.
    pub gone_at: Timestamp,
}

/// What happened to an avatar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It became the current one.
    Updated(Record),
    /// It was deleted.
    Deleted {
        /// Which upload that was.
        avatar_id: AvatarId,
        /// Its version: an update of the same or a lower version was before the delete.
        version: Version,
    },
}

impl Event {
    /// The event's name. An upload becomes current once and is deleted once, so no other event has
    /// the name; but a change that a lost catalog had told is told again, under the same name, if
    /// maintenance repeats it.
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

    /// Which upload became current or was deleted.
    pub const fn avatar_id(&self) -> AvatarId {
        match &self.change {
            Change::Updated(record) => record.avatar_id,
            Change::Deleted { avatar_id, .. } => *avatar_id,
        }
    }

    /// Its version. Of two events of a subject the higher one is the later; of two of one version
    /// the delete is.
    pub const fn version(&self) -> Version {
        match &self.change {
            Change::Updated(record) => record.version,
            Change::Deleted { version, .. } => *version,
        }
    }
}
