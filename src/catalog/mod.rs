//! The catalog: which avatar each subject has, and which uploads still have objects to account
//! for.
//!
//! Every adapter passes the same `contract` suite.
//!
//! # What survives a crash
//!
//! Objects are written before the record that names them, and removed after the record has gone. In
//! between, exactly one of two sets names them:
//!
//! - **pending**: uploads under way. `reserve` enters an id before the first object is written.
//! - **retired**: avatars whose objects are to be removed. `replace` and `remove` enter the ids that
//!   they take away; `claim` moves a pending id here once its deadline has passed.
//!
//! Only a pending id can be committed, so an id that a sweep has claimed never becomes current by a
//! commit. An id leaves both sets only after its objects are gone.
//!
//! A pending upload whose deadline has passed is *expired*. Its commit may have been acknowledged by
//! a Redis that then lost its last writes, so the sweep keeps the objects of a complete one (its
//! manifest is in the store) for a while, and `restore` can make it current. `invalidate` ends this.
//!
//! # Versions never decrease
//!
//! A new version is greater than the subject's last version and than the version floor, so no
//! version is given out twice even if the catalog loses its last writes. The floor rises to the
//! milliseconds since 2025 whenever the catalog may have lost data: it is new while the store holds
//! uploads, another Redis process answers than before, or a rebuild ran.
//!
//! If two records compete for a subject, the one with the greater [`Record::rank`] wins: the later
//! reservation, unless the versions show that the floor has risen in between. So a rebuild never
//! undoes an upload that was made after a loss, even if the clock of the server that answers since
//! is behind the clock of the server that was lost.
//!
//! # Time
//!
//! The catalog tells the time: Redis's clock for a fleet, the process's clock for an embedded
//! catalog. Callers pass durations, so replicas whose clocks differ change nothing.
//!
//! # Events
//!
//! Each step that changes a record appends an [`Event`]: never without the change, and never lost
//! with it. Steps that change no record append none. Only the latest events are kept.
//!
//! # Layouts
//!
//! Records and events carry a layout number, and the previous layout is still read. A record of an
//! unknown layout is an error for its own subject alone.

mod codec;
#[cfg(test)]
pub(crate) mod contract;
mod embedded;
mod metered;
mod redis;

use std::time::Duration;

use async_trait::async_trait;

pub use self::redis::RedisCatalog;
pub use embedded::{Clock, EmbeddedCatalog, EmbeddedOpenError};
pub use metered::MeteredCatalog;

use crate::avatar::{AvatarId, Event, Format, Record, SubjectId, Timestamp, VariantName, Version};
use crate::telemetry::Health;

/// Which avatar each subject has.
///
/// Every adapter promises:
/// - Each operation is one atomic step: all of it happened, or nothing did.
/// - An answered step survives the death of the process.
/// - Dropping a future leaves the step done or not done, never half done.
/// - Every step may be repeated, for instance because its answer was lost: nothing happens twice.
///   Ids that a lost answer claimed come due again after their lease.
/// - Durations count from the moment of the step, by the catalog's own clock.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    /// The subject's current record.
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError>;

    /// The current records of many subjects, in their order. A record that cannot be read is an
    /// error of its own.
    async fn get_many(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<Result<Option<Record>, CatalogError>>, CatalogError>;

    /// Gives an upload its version, greater than the subject's last version and the version floor,
    /// and makes the id pending for the time of `within`.
    ///
    /// A repetition for a pending id gives the same answer. An id that is no longer pending does not
    /// become pending again. Later reservations of a subject have later times.
    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        within: Duration,
    ) -> Result<Reservation, CatalogError>;

    /// Commits an upload: makes `record` the subject's current one.
    ///
    /// If it is [`Replaced::Committed`], the id is no longer pending, the replaced record is retired
    /// and due after `retire_after`, and an event tells of the change. If it is
    /// [`Replaced::Superseded`] or [`Replaced::PreconditionFailed`], the id is retired in the same
    /// step, due at its deadline, and the upload can neither be committed nor restored. A repetition
    /// gives the same answer until the id is forgotten. The current record stays as it is unless the
    /// upload is committed.
    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        retire_after: Duration,
    ) -> Result<Replaced, CatalogError>;

    /// Takes the subject's record away, and invalidates every upload of the subject: no upload that
    /// was reserved before can become current after this, by a commit or by a restore.
    ///
    /// Gives every id of the subject that has or may have objects, pending uploads included, the
    /// current one first. The caller removes their objects, and then [forgets](Self::forget) them;
    /// nobody else is given them for the time of `lease`. `None` if the subject had no such id. An
    /// event tells of the change if there was a record.
    ///
    /// Where there is a record and the precondition does not hold of it, nothing changes. Without a
    /// record there is nothing that the precondition could protect, and it is not looked at.
    async fn remove(
        &self,
        subject: &SubjectId,
        precondition: &Precondition,
        lease: Duration,
    ) -> Result<Result<Option<Removed>, PreconditionFailed>, CatalogError>;

    /// Up to `limit` ids that are due. The caller handles each by its [`Due`] within `lease`; until
    /// then nobody else is given them. Afterwards they are due again, so another caller takes over
    /// the work of a dead one. A part of the catalog that fails is an error only if the other parts
    /// give nothing. An id that cannot be read is logged and skipped, and is due again after `lease`.
    async fn claim(&self, lease: Duration, limit: usize) -> Result<Vec<Claimed>, CatalogError>;

    /// Makes a claimed id due again after `by`, instead of after the lease.
    async fn defer(&self, outstanding: &Outstanding, by: Duration) -> Result<(), CatalogError>;

    /// Makes sure that an upload never becomes current, by a commit or by a restore, unless it is or
    /// was current already. The caller of a [`Invalidated::Removable`] upload removes its objects,
    /// the manifest first; the id is retired and due after `lease`.
    async fn invalidate(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<Invalidated, CatalogError>;

    /// Drops an id from pending and retired, once no object of it is left in the store. Forgetting
    /// an unknown id is success.
    async fn forget(&self, outstanding: &Outstanding) -> Result<(), CatalogError>;

    /// What the catalog knows of a subject's upload.
    async fn standing(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
    ) -> Result<Standing, CatalogError>;

    /// The last version of the subject that a delete covers: no upload up to it becomes current any
    /// more.
    async fn deleted(&self, subject: &SubjectId) -> Result<Version, CatalogError>;

    /// Every id in pending and retired. An id that cannot be read is skipped.
    async fn outstanding(&self) -> Result<Vec<Outstanding>, CatalogError>;

    /// The next page of all current records; the first page for [`Cursor::START`]. A record that
    /// does not change meanwhile is given at least once.
    async fn page(&self, from: &Cursor) -> Result<Page, CatalogError>;

    /// Takes back an upload that was found complete in the store. A rebuild consists of this.
    ///
    /// The upload becomes current unless the current record is later (see the module's
    /// documentation) or a delete came after it; an event tells of the change. Of the two records
    /// the one that is not current is retired, and due after `retire_after`. Versions that are given
    /// out from now on are greater than the upload's. An upload is left as it is
    /// ([`Restored::Known`]) if it is current, under way, retired or invalidated.
    async fn restore(
        &self,
        subject: &SubjectId,
        record: &Record,
        retire_after: Duration,
    ) -> Result<Restored, CatalogError>;

    /// Drops the record of an avatar that has no objects in the store any more, if it is still the
    /// subject's current one; answers whether it was. An event tells of the delete. The id is retired
    /// and due after `lease`. Uploads under way are not affected.
    async fn drop_record(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<bool, CatalogError>;

    /// Whether [`begin`](Self::begin) was called on all of the catalog, and its floor is still
    /// there.
    async fn has_begun(&self) -> Result<bool, CatalogError>;

    /// Sets the version floor of a new catalog. A catalog that has begun stays as it is.
    ///
    /// A catalog that replicas share may be emptied while they use it. An uninitialised catalog
    /// starts at the time-based floor, so versions never decrease.
    async fn initialize(&self, state: InitialState) -> Result<(), CatalogError>;

    /// Raises the version floor to the largest of itself, the milliseconds since 2025 and `seen`,
    /// and answers it. A floor never sinks.
    ///
    /// A rebuild does this first: the versions of deleted avatars are lost with a lost catalog, and
    /// must not be given out again.
    async fn raise_version_floor(&self, seen: Version) -> Result<Version, CatalogError>;

    /// The number of event partitions, which are numbered from 0. All events of a subject are in
    /// the same partition.
    fn event_partitions(&self) -> u16;

    /// Up to `limit` events of a partition in the order in which they happened, each with its
    /// cursor: those after `after`, or the oldest that are kept for [`Cursor::START`]. The events of
    /// a subject are in the order of their versions. Events of an unknown layout are skipped.
    async fn events(
        &self,
        partition: u16,
        after: &Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Event)>, CatalogError>;

    /// What the current records add up to.
    async fn stats(&self) -> Result<Stats, CatalogError>;

    /// Does what the catalog needs to have done every few seconds, and gives what an operator should
    /// see to. A catalog that needs nothing gives nothing.
    async fn watch(&self) -> Result<Watched, CatalogError> {
        Ok(Watched::default())
    }

    /// Tests whether the catalog takes a write. A catalog that can be read but not written is
    /// [degraded](Health::Degraded); that is no error.
    async fn check(&self) -> Result<Health, CatalogError>;
}

/// What the catalog gave an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Its version.
    pub version: Version,
    /// When it was reserved, by the catalog's clock.
    pub reserved_at: Timestamp,
}

/// How a catalog begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialState {
    /// A new installation: versions begin at 1.
    New,
    /// An earlier catalog was lost: versions begin above the milliseconds since 2025.
    Lost,
}

/// What a catalog found about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watched {
    /// Problems that do not stop it, in words that stay the same while the problem does.
    pub warnings: Vec<String>,
    /// How far the catalog's clock is ahead of this machine's, in seconds, if it has one of its own.
    pub clock_skew: Option<f64>,
}

/// What must hold of the current record for a replacement or a removal to happen.
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

/// The precondition of a removal does not hold of the current record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreconditionFailed;

/// How a replacement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The record was committed, by this call or by an earlier one whose answer was lost. In the
    /// latter case a later upload or a delete may have taken it away since.
    Committed,
    /// A later upload or a delete came first.
    Superseded,
    /// The id is not pending: it was claimed after its deadline, or never reserved.
    NotPending,
    /// The precondition does not hold.
    PreconditionFailed,
}

/// Whether an upload was invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidated {
    /// It never becomes current. The caller removes its objects.
    Removable,
    /// It is or was current. Its objects belong to the sweep.
    Kept,
}

/// What the catalog knows of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is the subject's current avatar.
    Current,
    /// It is under way.
    Pending,
    /// Nobody committed it before its deadline. It can be restored.
    Expired,
    /// It was current or invalidated, and its objects are to be removed.
    Retired,
    /// Nothing: it was forgotten or lost, or never existed.
    Unknown,
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
    /// Subjects and their records.
    pub records: Vec<(SubjectId, Record)>,
    /// Subjects whose record cannot be read: it is damaged or of an unknown layout.
    pub unreadable: Vec<SubjectId>,
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

/// A due upload, given to one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Which upload.
    pub outstanding: Outstanding,
    /// Why it is due.
    pub due: Due,
}

/// Why an upload is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It was current or invalidated. The caller removes its objects and forgets it.
    Retired,
    /// Nobody committed it before its deadline, which passed `overdue` ago. The caller
    /// [defers](Catalog::defer) it, if it is complete and has not waited long enough, or else
    /// [invalidates](Catalog::invalidate) it and removes its objects. Writes of a dead upload may
    /// still be on their way, so the caller does not forget it: it comes due once more.
    Expired {
        /// Time since the deadline.
        overdue: Duration,
    },
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
    is_corrupt: bool,
    is_refusal: bool,
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
            is_corrupt: false,
            is_refusal: false,
            source: source.into(),
        }
    }

    /// The same, where the catalog answers, but what it holds cannot be understood.
    pub fn damaged(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            is_corrupt: true,
            ..Self::new(operation, source)
        }
    }

    /// The same, where the catalog refused the step before it changed anything: it has no room, or
    /// misses replicas.
    pub fn refused(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            is_refusal: true,
            ..Self::new(operation, source)
        }
    }

    /// Whether the catalog refused the step before it changed anything. After every other error the
    /// step may have happened.
    pub const fn is_refusal(&self) -> bool {
        self.is_refusal
    }

    /// Whether somebody has to mend what the catalog holds: trying again does not help.
    pub const fn is_corrupt(&self) -> bool {
        self.is_corrupt
    }
}
