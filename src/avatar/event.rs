//! What is told of a change.

use super::{AvatarId, Record, SubjectId, Timestamp, Version};

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
    /// A name that no other event has: an upload becomes current once and is deleted once.
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
