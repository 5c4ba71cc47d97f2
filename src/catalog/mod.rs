//! The catalog: which avatar each subject has, and which uploads still have objects to account
//! for.
//!
//! Every adapter passes the same `contract` suite.
//!
//! # What survives a crash
//!
//! Objects are written before the record that names them, and removed after it has gone. What
//! lies in the store in between is named by exactly one of two sets:
//!
//! - **pending**: uploads under way. `reserve` enters an id before its first object is written.
//! - **retired**: avatars whose objects are to go. `replace` and `remove` enter what they take
//!   away; `claim` moves a pending id here once its deadline has passed.
//!
//! Only a pending id can be committed, so an id that somebody has begun to remove can never come
//! back, and an id leaves both sets only after its objects are gone.
//!
//! # What is told
//!
//! `replace` and `remove` append an [`Event`] in the very step that changes a record: never without
//! the change, and never lost with it. Nothing else appends one: sweeping changes no record, and
//! what is restored was told when it was committed. Only so many of the latest are kept.

mod codec;
#[cfg(test)]
pub(crate) mod contract;
mod embedded;
mod metered;
mod redis;

use async_trait::async_trait;

pub use self::redis::RedisCatalog;
pub use embedded::{EmbeddedCatalog, EmbeddedOpenError};
pub use metered::MeteredCatalog;

use crate::avatar::{AvatarId, Event, Format, Record, SubjectId, Timestamp, VariantName, Version};
use crate::telemetry::Health;

/// Which avatar each subject has.
///
/// What holds for every adapter:
/// - Each operation is one atomic step: all of it happened, or nothing did.
/// - What was answered survives the death of the process.
/// - Dropping a future leaves the step done or not done, never half done.
/// - Every step may be repeated, as where its answer was lost: nothing happens twice. What a lost
///   answer claimed comes due again after its lease.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// The subject's current record.
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError>;

    /// The current records of many subjects, in their order.
    async fn get_many(&self, subjects: &[SubjectId]) -> Result<Vec<Option<Record>>, CatalogError>;

    /// Gives an upload its version, one higher than any before it for the subject, and puts the id
    /// into pending until `deadline`. Reserved again, a pending id keeps its version; one that has
    /// left pending does not come back into it.
    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        deadline: Timestamp,
    ) -> Result<Version, CatalogError>;

    /// Makes `record` the subject's current one: the commit of an upload.
    ///
    /// Where it is [`Replaced::Committed`], the id has left pending, the record before it is
    /// retired, its objects due at `retire_at`, and an event of `now` tells of it. Otherwise nothing
    /// changed; an id that was pending still is.
    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        now: Timestamp,
        retire_at: Timestamp,
    ) -> Result<Replaced, CatalogError>;

    /// Takes the subject's record away, and with it every upload reserved so far: none of them
    /// can be committed any more.
    ///
    /// Gives every retired id of the subject, the current one's first, for the caller to remove
    /// the objects of and then [`forget`](Self::forget); until `lease` nobody else is given them.
    /// `None` where there was neither a record nor a retired id. Where there was a record, an event
    /// of `now` tells of it.
    async fn remove(
        &self,
        subject: &SubjectId,
        now: Timestamp,
        lease: Timestamp,
    ) -> Result<Option<Removed>, CatalogError>;

    /// Up to `limit` ids whose time has come by `now`, for the caller to remove the objects of
    /// and then [`forget`](Self::forget), or to leave alone. Until `lease` nobody else is given
    /// them; after it they are due again, out of retired, so what a dead caller left is taken up
    /// by the next one.
    async fn claim(
        &self,
        now: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claimed>, CatalogError>;

    /// Drops an id from pending and retired, once nothing of it is left in the store. Forgetting
    /// an unknown id is success.
    async fn forget(&self, outstanding: &Outstanding) -> Result<(), CatalogError>;

    /// Whether the subject has this upload: as its current avatar, in pending or in retired.
    async fn knows(&self, subject: &SubjectId, avatar: AvatarId) -> Result<bool, CatalogError>;

    /// Every id in pending and retired.
    async fn outstanding(&self) -> Result<Vec<Outstanding>, CatalogError>;

    /// The next of all current records, some at a time; the first for [`Cursor::START`]. A record
    /// that stays what it is all the while is given at least once.
    async fn page(&self, from: &Cursor) -> Result<Page, CatalogError>;

    /// Takes back an upload that was found in the store: the catalog is rebuilt by this.
    ///
    /// It becomes current unless the catalog knows better: a record of the same or a higher
    /// version, or a later delete. What is not current by then is retired, its objects due at
    /// `retire_at`. Nothing is ever given a version that an upload found so has had; what was
    /// deleted cannot be found, and [`raise_floor`](Self::raise_floor) is for that.
    async fn restore(
        &self,
        subject: &SubjectId,
        record: &Record,
        retire_at: Timestamp,
    ) -> Result<Restored, CatalogError>;

    /// Whether [`begin`](Self::begin) was called on all of the catalog, and what it wrote is there.
    async fn has_begun(&self) -> Result<bool, CatalogError>;

    /// Says of a new catalog above which version subjects begin. What has begun stays as it is.
    ///
    /// A catalog that replicas share may be emptied while they use it. What has not begun gives
    /// versions above [`Version::floor_at`] an upload's deadline, so none goes back.
    async fn begin(&self, floor: Version) -> Result<(), CatalogError>;

    /// Has every subject that was never given a version begin above `floor`; the others go on from
    /// theirs. A floor never sinks.
    ///
    /// Whoever rebuilds a lost catalog does this first: versions that deleted avatars have had are
    /// lost with it, and must not be given again.
    async fn raise_floor(&self, floor: Version) -> Result<(), CatalogError>;

    /// Into how many partitions the events are sorted, numbered from 0. All of a subject's are in
    /// the same one.
    fn event_partitions(&self) -> u16;

    /// Up to `limit` events of a partition in the order in which they happened, each with its
    /// place: those after `after`, or the oldest that are kept for [`Cursor::START`]. Those of a
    /// subject are in the order of their versions.
    async fn events(
        &self,
        partition: u16,
        after: &Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Event)>, CatalogError>;

    /// What the current records add up to.
    async fn stats(&self) -> Result<Stats, CatalogError>;

    /// Tests whether the catalog takes a write. A catalog that can be read but not written is
    /// [degraded](Health::Degraded); that is no error.
    async fn check(&self) -> Result<Health, CatalogError>;
}

/// What must hold of the current record for a replacement to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    Anything,
    /// There is none (`If-None-Match: *`).
    Absent,
    /// There is one (`If-Match: *`).
    Present,
    /// It is one of these (`If-Match: "…", "…"`).
    OneOf(Vec<AvatarId>),
}

impl Precondition {
    /// Whether it holds where `current` is the current avatar.
    pub fn holds(&self, current: Option<AvatarId>) -> bool {
        match (self, current) {
            (Self::Anything, _) | (Self::Absent, None) | (Self::Present, Some(_)) => true,
            (Self::OneOf(ids), Some(current)) => ids.contains(&current),
            (Self::Absent, Some(_)) | (Self::Present | Self::OneOf(_), None) => false,
        }
    }
}

/// How a replacement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The record is the current one; by this call, or by an earlier one whose answer was lost.
    Committed,
    /// A later upload or a delete came first.
    Superseded,
    /// The id is not pending: it was claimed after its deadline, or never reserved.
    NotPending,
    /// The precondition does not hold.
    PreconditionFailed,
}

/// What became of an upload that was found in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It is the current one now, in the place of this avatar, which is retired.
    Current(Option<AvatarId>),
    /// It is retired now.
    Retired,
    /// The catalog knew it; nothing changed.
    Known,
}

/// A place among all current records, or among the events of a partition. What it says is the
/// adapter's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// Before the first.
    pub const START: Self = Self(String::new());
}

/// Some of all current records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Whose, and what.
    pub records: Vec<(SubjectId, Record)>,
    /// Where the next ones are; `None` where these were the last.
    pub next: Option<Cursor>,
}

/// What a removal took away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The record that was current; `None` where an earlier removal took it away but died before
    /// its objects were gone.
    pub record: Option<Record>,
    /// Every id of the subject that has objects to remove.
    pub outstanding: Vec<Outstanding>,
}

/// An upload that has, or may have, objects to remove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outstanding {
    /// Whose it is.
    pub subject: SubjectId,
    /// Which upload.
    pub avatar: AvatarId,
}

/// An upload whose objects are to go, given to one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Which.
    pub outstanding: Outstanding,
    /// Whether it was pending until now: nobody knows what became of it, and its last writes may
    /// still be on their way to the store.
    pub was_pending: bool,
}

/// What the current records add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Subjects that have an avatar.
    pub avatars: u64,
    /// Renditions by size and format, in no order.
    pub renditions: Vec<StatsRow>,
}

/// The renditions of one size and format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsRow {
    /// The size.
    pub variant: VariantName,
    /// The format.
    pub format: Format,
    /// How many objects.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// Why the catalog did not do as asked. What happened is in the source; it is for the log alone.
#[derive(Debug, thiserror::Error)]
#[error("the catalog could not {operation}")]
pub struct CatalogError {
    operation: &'static str,
    is_damage: bool,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl CatalogError {
    /// The catalog failed at `operation` ("read a record") because of `source`.
    pub fn new(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            operation,
            is_damage: false,
            source: source.into(),
        }
    }

    /// The same, where the catalog answers, but what it holds cannot be understood.
    pub fn damaged(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            is_damage: true,
            ..Self::new(operation, source)
        }
    }

    /// Whether somebody has to mend what the catalog holds: trying again does not help.
    pub const fn is_damage(&self) -> bool {
        self.is_damage
    }
}
