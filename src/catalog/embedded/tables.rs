//! The tables, and the operations on them that several steps share.

use std::io;

use redb::{
    CommitError, Database, DatabaseError, MultimapTableDefinition, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, StorageError, TableDefinition, TableError, TransactionError,
    WriteTransaction,
};

use crate::avatar::{AvatarId, Record, SubjectId, Timestamp, VariantName, Version};
use crate::catalog::{CatalogError, codec};

/// Subject → current record, encoded by [`codec`].
pub(super) const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Subject → (the last version that was given out, the last version that a delete covers).
pub(super) const VERSIONS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("versions");
/// Subject → time of its last reservation in Unix milliseconds.
pub(super) const LAST_RESERVED: TableDefinition<'_, &str, u64> =
    TableDefinition::new("last-reserved");
/// The version floor: every new version is above it.
pub(super) const FLOOR: TableDefinition<'_, (), u64> = TableDefinition::new("floor");
/// Pending or retired avatar id → (whether it is pending, due time in Unix milliseconds, subject).
pub(super) const OUTSTANDING: TableDefinition<'_, Id, (bool, u64, &str)> =
    TableDefinition::new("outstanding");
/// The same ids, in the order of their due times.
pub(super) const DUE: TableDefinition<'_, (u64, Id), ()> = TableDefinition::new("due");
/// The number of pending ids.
pub(super) const PENDING: TableDefinition<'_, (), u64> = TableDefinition::new("pending");
/// Avatar id that is not current → (version, reservation time, deadline), times in Unix
/// milliseconds. If the upload can neither be committed nor restored, the version is 0 and the second
/// number is the reason: 1 if a later upload or a delete superseded it, 2 if the precondition of its
/// commit did not hold, 3 if it was current before, 4 if a lock refused it, else 0.
pub(super) const RESERVATIONS: TableDefinition<'_, Id, (u64, u64, u64)> =
    TableDefinition::new("reservations");
/// Pending avatar id → its version, as version 0.1.0 wrote it.
pub(super) const PREVIOUS_RESERVED: TableDefinition<'_, Id, u64> = TableDefinition::new("reserved");
/// Subject → its pending and retired ids.
pub(super) const RETIRED_OF: MultimapTableDefinition<'_, &str, Id> =
    MultimapTableDefinition::new("retired");
/// Variant and format → (objects, bytes) of current records; `""` → (avatars, 0).
pub(super) const STATS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("stats");
/// Subject → the head and the viewers of its policy, encoded by [`codec`].
pub(super) const POLICIES: TableDefinition<'_, &str, (&[u8], &[u8])> =
    TableDefinition::new("policies");
/// Event number, from 1 → (subject, event encoded by [`codec`]).
pub(super) const EVENTS: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("events");
/// A counter that [`check`](crate::catalog::Catalog::check) writes.
pub(super) const PROBE: TableDefinition<'_, (), u64> = TableDefinition::new("probe");

pub(super) type Id = [u8; 16];

/// Opens every table. A write transaction creates the tables that do not exist.
macro_rules! open_all {
    ($transaction:expr) => {
        $transaction.open_table(RECORDS)?;
        $transaction.open_table(VERSIONS)?;
        $transaction.open_table(OUTSTANDING)?;
        $transaction.open_table(DUE)?;
        $transaction.open_table(LAST_RESERVED)?;
        $transaction.open_table(RESERVATIONS)?;
        $transaction.open_multimap_table(RETIRED_OF)?;
        $transaction.open_table(STATS)?;
        $transaction.open_table(FLOOR)?;
        $transaction.open_table(POLICIES)?;
        $transaction.open_table(EVENTS)?;
        $transaction.open_table(PROBE)?;
        $transaction.open_table(PENDING)?;
    };
}

/// Creates the tables that do not exist, and migrates data of version 0.1.0.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), Failure> {
    open_all!(transaction);
    count_pending(transaction)?;
    migrate(transaction)
}

/// Whether every table exists and no data of version 0.1.0 is left to migrate.
pub(super) fn are_current(database: &Database) -> Result<bool, Failure> {
    let transaction = database.begin_read()?;
    let open = || -> Result<bool, TableError> {
        open_all!(transaction);
        Ok(transaction.open_table(PREVIOUS_RESERVED)?.is_empty()?)
    };
    match open() {
        Ok(is_migrated) => Ok(is_migrated),
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The current record of a subject.
pub(super) fn current(
    records: &impl ReadableTable<&'static str, &'static [u8]>,
    subject: &SubjectId,
) -> Result<Option<Record>, Failure> {
    let bytes = records.get(subject.as_str())?;
    Ok(bytes
        .map(|bytes| codec::decode_numbered(bytes.value()))
        .transpose()?)
}

/// The last version that was given out, and the last version that a delete covers.
pub(super) fn versions(
    versions: &impl ReadableTable<&'static str, (u64, u64)>,
    subject: &SubjectId,
) -> Result<(u64, u64), Failure> {
    let entry = versions.get(subject.as_str())?;
    Ok(entry.map_or((0, 0), |entry| entry.value()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Retired,
}

/// Moves an id to pending or retired, due at `due`. Its reservation does not change.
pub(super) fn set_state(
    transaction: &WriteTransaction,
    state: State,
    subject: &SubjectId,
    avatar: AvatarId,
    due: Timestamp,
) -> Result<(), Failure> {
    unlink(transaction, avatar)?;
    let (id, due) = (*avatar.as_bytes(), due.unix_ms());
    let entry = (state == State::Pending, due, subject.as_str());
    transaction.open_table(OUTSTANDING)?.insert(id, entry)?;
    if state == State::Pending {
        let mut count = transaction.open_table(PENDING)?;
        let before = pending(&count)?.unwrap_or_default();
        count.insert((), before + 1)?;
    }
    transaction.open_table(DUE)?.insert((due, id), ())?;
    transaction
        .open_multimap_table(RETIRED_OF)?
        .insert(subject.as_str(), id)?;
    Ok(())
}

/// The number of pending ids; `None` if they were never counted.
pub(super) fn pending(count: &impl ReadableTable<(), u64>) -> Result<Option<u64>, Failure> {
    Ok(count.get(())?.map(|count| count.value()))
}

/// Counts the pending ids of a catalog that has no such count yet.
fn count_pending(transaction: &WriteTransaction) -> Result<(), Failure> {
    let mut count = transaction.open_table(PENDING)?;
    if pending(&count)?.is_some() {
        return Ok(());
    }
    let mut found = 0;
    for entry in transaction.open_table(OUTSTANDING)?.iter()? {
        found += u64::from(entry?.1.value().0);
    }
    count.insert((), found)?;
    Ok(())
}

/// The reason why an upload can neither be committed nor restored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    /// It failed, was refused or expired.
    Abandoned,
    /// A later upload or a delete superseded it.
    Superseded,
    /// The precondition of its commit did not hold.
    Refused,
    /// The subject was locked at its commit.
    Locked,
}

/// The second number of a reservation whose upload was current.
const WAS_CURRENT: u64 = 3;
/// The second number of a reservation whose commit a lock refused.
const LOCKED: u64 = 4;

/// Retires an id, and marks it so that it can neither be committed nor restored.
pub(super) fn retire_invalid(
    transaction: &WriteTransaction,
    subject: &SubjectId,
    avatar: AvatarId,
    due: Timestamp,
    why: Invalid,
) -> Result<(), Failure> {
    set_state(transaction, State::Retired, subject, avatar, due)?;
    let mut reservations = transaction.open_table(RESERVATIONS)?;
    let why = match why {
        Invalid::Abandoned => 0,
        Invalid::Superseded => 1,
        Invalid::Refused => 2,
        Invalid::Locked => LOCKED,
    };
    reservations.insert(*avatar.as_bytes(), (0, why, 0))?;
    Ok(())
}

/// Retires an id that was current until now, and marks it. Only this mark proves that its commit
/// happened.
pub(super) fn retire_former(
    transaction: &WriteTransaction,
    subject: &SubjectId,
    avatar: AvatarId,
    due: Timestamp,
) -> Result<(), Failure> {
    set_state(transaction, State::Retired, subject, avatar, due)?;
    let mut reservations = transaction.open_table(RESERVATIONS)?;
    reservations.insert(*avatar.as_bytes(), (0, WAS_CURRENT, 0))?;
    Ok(())
}

/// Deletes an id from pending and retired, and its reservation.
pub(super) fn forget(transaction: &WriteTransaction, avatar: AvatarId) -> Result<(), Failure> {
    unlink(transaction, avatar)?;
    transaction
        .open_table(RESERVATIONS)?
        .remove(*avatar.as_bytes())?;
    Ok(())
}

fn unlink(transaction: &WriteTransaction, avatar: AvatarId) -> Result<(), Failure> {
    let id = *avatar.as_bytes();
    let mut outstanding = transaction.open_table(OUTSTANDING)?;
    if let Some(entry) = outstanding.remove(id)? {
        let (was_pending, due, subject) = entry.value();
        if was_pending {
            let mut count = transaction.open_table(PENDING)?;
            let before = pending(&count)?.unwrap_or_default();
            count.insert((), before.saturating_sub(1))?;
        }
        transaction.open_table(DUE)?.remove((due, id))?;
        transaction
            .open_multimap_table(RETIRED_OF)?
            .remove(subject, id)?;
    }
    Ok(())
}

/// The stored reservation of an upload that is not current.
#[derive(Clone, Copy)]
pub(super) enum Reserved {
    /// The upload is retired, and was current before.
    WasCurrent,
    /// The upload was invalidated.
    Invalid(Invalid),
    /// The upload can be committed while it is pending, and restored after its deadline.
    Valid {
        version: Version,
        at: Timestamp,
        deadline: Timestamp,
    },
}

impl Reserved {
    pub(super) fn read(
        table: &impl ReadableTable<Id, (u64, u64, u64)>,
        avatar: AvatarId,
    ) -> Result<Option<Self>, Failure> {
        let entry = table.get(*avatar.as_bytes())?.map(|entry| entry.value());
        Ok(entry.map(|(version, at, deadline)| match version {
            0 if at == 1 => Self::Invalid(Invalid::Superseded),
            0 if at == 2 => Self::Invalid(Invalid::Refused),
            0 if at == WAS_CURRENT => Self::WasCurrent,
            0 if at == LOCKED => Self::Invalid(Invalid::Locked),
            0 => Self::Invalid(Invalid::Abandoned),
            version => Self::Valid {
                version: Version(version),
                at: Timestamp::from_unix_ms(at),
                deadline: Timestamp::from_unix_ms(deadline),
            },
        }))
    }
}

/// The state of an id; `None` if it is not outstanding for this subject.
pub(super) fn state_of(
    table: &impl ReadableTable<Id, (bool, u64, &'static str)>,
    subject: &SubjectId,
    avatar: AvatarId,
) -> Result<Option<State>, Failure> {
    let entry = table.get(*avatar.as_bytes())?;
    Ok(entry.and_then(|entry| {
        let (pending, _, of) = entry.value();
        let state = if pending {
            State::Pending
        } else {
            State::Retired
        };
        (of == subject.as_str()).then_some(state)
    }))
}

/// Moves the reservations of version 0.1.0 to their new table. Their uploads ended with the process
/// that reserved them, so approximate times are enough.
pub(super) fn migrate(transaction: &WriteTransaction) -> Result<(), Failure> {
    let mut previous = transaction.open_table(PREVIOUS_RESERVED)?;
    let outstanding = transaction.open_table(OUTSTANDING)?;
    let mut reservations = transaction.open_table(RESERVATIONS)?;
    while let Some((id, version)) = previous.pop_first()? {
        let (id, version) = (id.value(), version.value());
        if let Some(entry) = outstanding.get(id)? {
            let (_, due, subject) = entry.value();
            reservations.insert(id, (version, due, due))?;
            transaction
                .open_multimap_table(RETIRED_OF)?
                .insert(subject, id)?;
        }
    }
    Ok(())
}

/// The first `limit` ids that are due by `now`.
pub(super) fn due_ids(
    table: &impl ReadableTable<(u64, Id), ()>,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Id>, Failure> {
    let range = table.range(..=(now.unix_ms(), [0xff; 16]))?;
    range
        .take(limit)
        .map(|entry| Ok(entry?.0.value().1))
        .collect()
}

#[derive(Clone, Copy)]
pub(super) enum Change {
    Added,
    Removed,
}

/// Updates the totals for a record that became current, or that is no longer current.
pub(super) fn update_stats(
    transaction: &WriteTransaction,
    record: &Record,
    change: Change,
) -> Result<(), Failure> {
    let mut stats = transaction.open_table(STATS)?;
    let mut add = |name: &str, objects: u64, bytes: u64| -> Result<(), Failure> {
        let (had, had_bytes) = stats.get(name)?.map_or((0, 0), |counts| counts.value());
        let counts = match change {
            Change::Added => (had + objects, had_bytes + bytes),
            Change::Removed => (had.saturating_sub(objects), had_bytes.saturating_sub(bytes)),
        };
        stats.insert(name, counts)?;
        Ok(())
    };
    add("", 1, 0)?;
    for rendition in &record.renditions {
        let name = format!("{}.{}", rendition.variant, rendition.format.extension());
        add(&name, 1, rendition.bytes)?;
    }
    if let Some(original) = &record.original {
        let extension = original.format.extension();
        let name = format!("{}.{extension}", VariantName::original());
        add(&name, 1, original.bytes)?;
    }
    Ok(())
}

/// The version floor. An uninitialised catalog starts at the time-based floor, so versions never
/// decrease.
pub(super) fn version_floor(
    transaction: &WriteTransaction,
    now: Timestamp,
) -> Result<u64, Failure> {
    let floor = transaction.open_table(FLOOR)?;
    let stored = floor.get(())?.map(|floor| floor.value());
    Ok(stored.unwrap_or(Version::time_floor(now).0))
}

/// Appends an event, and deletes events until the latest `kept` are left.
pub(super) fn append_event(
    transaction: &WriteTransaction,
    kept: u32,
    subject: &SubjectId,
    event: &[u8],
) -> Result<(), Failure> {
    let mut events = transaction.open_table(EVENTS)?;
    let number = events.last()?.map_or(0, |(last, _)| last.value()) + 1;
    events.insert(number, (subject.as_str(), event))?;
    let dropped = number.saturating_sub(u64::from(kept));
    while events
        .first()?
        .is_some_and(|(first, _)| first.value() <= dropped)
    {
        events.pop_first()?;
    }
    Ok(())
}

/// The error of a step.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Database(#[from] redb::DatabaseError),
    #[error(transparent)]
    Transaction(Box<redb::TransactionError>),
    #[error(transparent)]
    Table(#[from] redb::TableError),
    #[error(transparent)]
    Storage(#[from] redb::StorageError),
    #[error(transparent)]
    Commit(#[from] redb::CommitError),
    #[error(transparent)]
    Decode(#[from] codec::DecodeError),
    #[error("a record cannot be encoded")]
    Encode(#[from] postcard::Error),
    #[error("a key of the database is damaged")]
    Subject(#[from] crate::avatar::InvalidSubjectId),
    #[error("a key of the database is damaged")]
    Variant(#[from] crate::avatar::InvalidVariantName),
    #[error("the event cursor is not a number")]
    Cursor(#[from] std::num::ParseIntError),
    #[error("the database panicked while it read its file")]
    Panicked,
    #[error("the file is closed after an I/O error")]
    Closed,
    #[error("{0}")]
    NoSpace(&'static str),
}

impl Failure {
    /// Whether the failure concerns only one record.
    pub(super) const fn concerns_one_record(&self) -> bool {
        matches!(self, Self::Decode(_))
    }

    /// Whether an I/O error has stopped the database, so that its file must be reopened.
    pub(super) fn is_io(&self) -> bool {
        matches!(
            self.storage_error(),
            Some(
                StorageError::Io(_)
                    | StorageError::PreviousIo
                    | StorageError::DatabaseClosed
                    | StorageError::LockPoisoned(_)
            )
        )
    }

    /// The kind of I/O error, if it is known.
    pub(super) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self.storage_error()? {
            StorageError::Io(error) => Some(error.kind()),
            _ => None,
        }
    }

    fn storage_error(&self) -> Option<&StorageError> {
        match self {
            Self::Database(DatabaseError::Storage(error))
            | Self::Table(TableError::Storage(error))
            | Self::Storage(error)
            | Self::Commit(CommitError::Storage(error)) => Some(error),
            Self::Transaction(error) => match &**error {
                TransactionError::Storage(error) => Some(error),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn into_error(self, operation: &'static str) -> CatalogError {
        match self {
            Self::Database(_)
            | Self::Transaction(_)
            | Self::Table(_)
            | Self::Storage(_)
            | Self::Commit(_)
            | Self::Panicked
            | Self::Closed => CatalogError::new(operation, self),
            Self::NoSpace(_) => CatalogError::refused(operation, self),
            Self::Decode(_)
            | Self::Encode(_)
            | Self::Subject(_)
            | Self::Variant(_)
            | Self::Cursor(_) => CatalogError::corrupt(operation, self),
        }
    }
}

impl From<redb::TransactionError> for Failure {
    fn from(error: redb::TransactionError) -> Self {
        Self::Transaction(Box::new(error))
    }
}
