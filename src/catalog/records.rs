//! The port's first part: which avatar each subject has.

use std::time::Duration;

use async_trait::async_trait;

use super::{CatalogError, Cursor, Uploader};
use crate::avatar::{AvatarId, Format, Record, SubjectId, Timestamp, VariantName, Version};

/// The current records, the uploads that may become current, and the versions.
///
/// A subject has at most one current record. An upload becomes current by [`reserve`](Self::reserve)
/// and then [`replace`](Self::replace), or by [`restore`](Self::restore). Every step that changes a
/// record appends an event in the same step. See [`Catalog`](super::Catalog) for what holds for
/// every operation.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// The subject's current record.
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError>;

    /// The current records of many subjects, in the order of `subjects`. A record that cannot be
    /// decoded is an error in its own place.
    async fn get_many(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<Result<Option<Record>, CatalogError>>, CatalogError>;

    /// The current records of many subjects for one reader, in the order of `subjects`: each with whether
    /// `viewer` is a viewer of the subject. This takes one round trip for each partition. A record or a
    /// policy that cannot be decoded is an error in its own place.
    async fn look_up(
        &self,
        subjects: &[SubjectId],
        viewer: Option<&SubjectId>,
    ) -> Result<Vec<Result<Found, CatalogError>>, CatalogError>;

    /// The next page of all current records. [`Cursor::START`] gives the first page. A record that
    /// does not change during the iteration is returned at least once.
    async fn page(&self, from: &Cursor) -> Result<Page, CatalogError>;

    /// The totals of the current records, and the numbers of pending and retired uploads. The catalog
    /// keeps them up to date with each step, so this reads no record.
    async fn stats(&self) -> Result<Stats, CatalogError>;

    /// Gives an upload its version, and makes its id pending for the duration `within`. The version
    /// is greater than the subject's last version and than the version floor.
    ///
    /// A repetition for a pending id gives the same answer. An id that is no longer pending does not
    /// become pending again. A later reservation of a subject has a later time.
    ///
    /// While a lock of the subject is in force, an uploader who is no admin gets [`SubjectLocked`],
    /// and nothing changes. [`replace`](Self::replace) checks the lock again, because a lock may come
    /// after the reservation.
    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        within: Duration,
        uploader: Uploader,
    ) -> Result<Result<Reservation, SubjectLocked>, CatalogError>;

    /// Commits an upload: makes `record` the subject's current record.
    ///
    /// - [`Replaced::Committed`]: the id is no longer pending. The replaced record is retired and
    ///   due after `retire_after`. An event is appended.
    /// - [`Replaced::Superseded`], [`Replaced::PreconditionFailed`] and [`Replaced::Locked`]: the id is
    ///   retired in the same step, due at its deadline. The upload can no longer be committed or
    ///   restored.
    ///
    /// A repetition gives the same answer until the id is forgotten. The current record changes only
    /// if the upload is committed.
    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        retire_after: Duration,
        uploader: Uploader,
    ) -> Result<Replaced, CatalogError>;

    /// Makes a complete upload from the store current again. A rebuild consists of this.
    ///
    /// The upload becomes current unless the current record has a higher rank (see the
    /// [catalog's documentation](super)) or a later delete covers it. An event is appended if the
    /// record changes. The record that loses is retired and due after `retire_after`. Later versions
    /// are greater than the upload's version. An upload that is current, under way, retired or
    /// invalidated stays as it is ([`Restored::Known`]).
    async fn restore(
        &self,
        subject: &SubjectId,
        record: &Record,
        retire_after: Duration,
    ) -> Result<Restored, CatalogError>;

    /// Whether every part of the catalog is initialised, which means that it has a version floor.
    async fn is_initialized(&self) -> Result<bool, CatalogError>;

    /// Sets the version floor of a new catalog. An initialised catalog stays as it is.
    ///
    /// A shared catalog may be emptied while replicas use it. An uninitialised catalog starts at the
    /// time-based floor, so versions never decrease.
    async fn initialize(&self, state: InitialState) -> Result<(), CatalogError>;

    /// Raises the version floor to the largest of itself, the milliseconds since 2025 and `seen`,
    /// and returns it. A floor never decreases.
    ///
    /// A rebuild calls this first. The versions of deleted avatars are lost with a lost catalog, and
    /// must not be given out again.
    async fn raise_version_floor(&self, seen: Version) -> Result<Version, CatalogError>;
}

/// The result of [`Records::reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The upload's version.
    pub version: Version,
    /// The time of the reservation, by the catalog's clock.
    pub reserved_at: Timestamp,
}

/// A lock of the subject stops the upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectLocked;

/// The state in which a catalog is initialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialState {
    /// A new installation. Versions begin at 1.
    New,
    /// An earlier catalog was lost. Versions begin above the milliseconds since 2025.
    Lost,
}

/// A condition on the current record. A replacement or a removal happens only if it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// No condition.
    Anything,
    /// There is no current record (`If-None-Match: *`).
    Absent,
    /// There is a current record (`If-Match: *`).
    Present,
    /// The current record is one of these (`If-Match: "…", "…"`).
    OneOf(Vec<AvatarId>),
}

impl Precondition {
    /// Whether the condition holds if `current` is the current avatar.
    pub fn holds(&self, current: Option<AvatarId>) -> bool {
        match (self, current) {
            (Self::Anything, _) | (Self::Absent, None) | (Self::Present, Some(_)) => true,
            (Self::OneOf(ids), Some(current)) => ids.contains(&current),
            (Self::Absent, Some(_)) | (Self::Present | Self::OneOf(_), None) => false,
        }
    }
}

/// The result of [`Records::replace`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// This call committed the record, or an earlier call did and its answer was lost. In the second
    /// case a later upload or a delete may have replaced the record since.
    Committed,
    /// A later upload or a delete came first.
    Superseded,
    /// The id is not pending: it was claimed after its deadline, or never reserved.
    NotPending,
    /// The precondition does not hold.
    PreconditionFailed,
    /// The subject is locked, and the uploader is no admin.
    Locked,
}

/// The result of [`Records::restore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The upload is current now. It replaced this avatar, which is retired.
    Current(Option<AvatarId>),
    /// The upload is retired now.
    Retired,
    /// The catalog already knew the upload. Nothing changed.
    Known,
}

/// A current record, and whether a reader may see it as a viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The record; `None` if there is none.
    pub record: Option<Record>,
    /// Whether the reader is a viewer of the subject.
    pub is_viewer: bool,
}

/// One page of all current records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Subjects and their records.
    pub records: Vec<(SubjectId, Record)>,
    /// Subjects whose record cannot be decoded: it is damaged or of an unknown layout.
    pub unreadable: Vec<SubjectId>,
    /// The position of the next page. `None` after the last page.
    pub next: Option<Cursor>,
}

/// The totals of a catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The number of subjects that have an avatar.
    pub avatars: u64,
    /// The renditions of the current records by variant and format, in no order.
    pub renditions: Vec<StatsRow>,
    /// The number of uploads that are under way or not yet swept.
    pub pending: u64,
    /// The number of avatars and uploads whose objects are to be removed.
    pub retired: u64,
}

/// The renditions of one variant and format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsRow {
    /// The variant.
    pub variant: VariantName,
    /// The format.
    pub format: Format,
    /// The number of objects.
    pub objects: u64,
    /// Their total size in bytes.
    pub bytes: u64,
}
