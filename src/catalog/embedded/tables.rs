//! The tables, and what every step does to them.

use std::io;

use redb::{
    CommitError, Database, DatabaseError, MultimapTableDefinition, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition, TableError, TransactionError, WriteTransaction,
};

use crate::avatar::{AvatarId, Record, SubjectId, Timestamp};
use crate::catalog::{CatalogError, codec};

/// Subject → current record, as [`codec`] writes it.
pub(super) const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Subject → (the last version given out, the last version that a delete took away).
pub(super) const VERSIONS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("versions");
/// Above it begin subjects that were never given a version.
pub(super) const FLOOR: TableDefinition<'_, (), u64> = TableDefinition::new("floor");
/// Avatar id → (whether it is pending, when it is due in Unix milliseconds, subject).
pub(super) const OUTSTANDING: TableDefinition<'_, Id, (bool, u64, &str)> =
    TableDefinition::new("outstanding");
/// The same ids in the order in which they are due.
pub(super) const DUE: TableDefinition<'_, (u64, Id), ()> = TableDefinition::new("due");
/// Pending avatar id → the version that it was given.
pub(super) const RESERVED: TableDefinition<'_, Id, u64> = TableDefinition::new("reserved");
/// Subject → its retired ids.
pub(super) const RETIRED_OF: MultimapTableDefinition<'_, &str, Id> =
    MultimapTableDefinition::new("retired");
/// Variant and format → (objects, bytes) of current records; `""` → (avatars, 0).
pub(super) const STATS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("stats");
/// Number, from 1 → (subject, an event of its, as [`codec`] writes it).
pub(super) const EVENTS: TableDefinition<'_, u64, (&str, &[u8])> = TableDefinition::new("events");
/// Written by [`check`](crate::catalog::Catalog::check).
pub(super) const PROBE: TableDefinition<'_, (), u64> = TableDefinition::new("probe");

pub(super) type Id = [u8; 16];

/// Makes the tables that do not exist.
pub(super) fn make(transaction: &WriteTransaction) -> Result<(), Failure> {
    transaction.open_table(RECORDS)?;
    transaction.open_table(VERSIONS)?;
    transaction.open_table(OUTSTANDING)?;
    transaction.open_table(DUE)?;
    transaction.open_table(RESERVED)?;
    transaction.open_multimap_table(RETIRED_OF)?;
    transaction.open_table(STATS)?;
    transaction.open_table(FLOOR)?;
    transaction.open_table(EVENTS)?;
    transaction.open_table(PROBE)?;
    Ok(())
}

/// Whether every table exists, and is as this program makes it.
pub(super) fn are_made(database: &Database) -> Result<bool, Failure> {
    let transaction = database.begin_read()?;
    let open = || -> Result<(), TableError> {
        transaction.open_table(RECORDS)?;
        transaction.open_table(VERSIONS)?;
        transaction.open_table(OUTSTANDING)?;
        transaction.open_table(DUE)?;
        transaction.open_table(RESERVED)?;
        transaction.open_multimap_table(RETIRED_OF)?;
        transaction.open_table(STATS)?;
        transaction.open_table(FLOOR)?;
        transaction.open_table(EVENTS)?;
        transaction.open_table(PROBE)?;
        Ok(())
    };
    match open() {
        Ok(()) => Ok(true),
        Err(TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Retired,
}

/// Puts an id into pending or retired, from wherever it was, due at `due`.
pub(super) fn enter(
    transaction: &WriteTransaction,
    state: State,
    subject: &SubjectId,
    avatar: AvatarId,
    due: Timestamp,
) -> Result<(), Failure> {
    leave(transaction, avatar)?;
    let (id, due) = (*avatar.as_bytes(), due.unix_ms());
    let entry = (state == State::Pending, due, subject.as_str());
    transaction.open_table(OUTSTANDING)?.insert(id, entry)?;
    transaction.open_table(DUE)?.insert((due, id), ())?;
    if state == State::Retired {
        transaction
            .open_multimap_table(RETIRED_OF)?
            .insert(subject.as_str(), id)?;
    }
    Ok(())
}

/// Takes an id out of pending and retired.
pub(super) fn leave(transaction: &WriteTransaction, avatar: AvatarId) -> Result<(), Failure> {
    let id = *avatar.as_bytes();
    let mut outstanding = transaction.open_table(OUTSTANDING)?;
    if let Some(entry) = outstanding.remove(id)? {
        let (_, due, subject) = entry.value();
        transaction.open_table(DUE)?.remove((due, id))?;
        transaction
            .open_multimap_table(RETIRED_OF)?
            .remove(subject, id)?;
    }
    transaction.open_table(RESERVED)?.remove(id)?;
    Ok(())
}

pub(super) fn is_pending(
    transaction: &WriteTransaction,
    subject: &SubjectId,
    avatar: AvatarId,
) -> Result<bool, Failure> {
    let outstanding = transaction.open_table(OUTSTANDING)?;
    let entry = outstanding.get(*avatar.as_bytes())?;
    Ok(entry.is_some_and(|entry| {
        let (pending, _, of) = entry.value();
        pending && of == subject.as_str()
    }))
}

/// The first `limit` ids that are due by `now`.
pub(super) fn due(
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
    Appeared,
    Gone,
}

/// Brings the sums up to date with a record that became current or ceased to be.
pub(super) fn count(
    transaction: &WriteTransaction,
    record: &Record,
    change: Change,
) -> Result<(), Failure> {
    let mut stats = transaction.open_table(STATS)?;
    let mut add = |name: &str, objects: u64, bytes: u64| -> Result<(), Failure> {
        let (had, had_bytes) = stats.get(name)?.map_or((0, 0), |counts| counts.value());
        let counts = match change {
            Change::Appeared => (had + objects, had_bytes + bytes),
            Change::Gone => (had.saturating_sub(objects), had_bytes.saturating_sub(bytes)),
        };
        stats.insert(name, counts)?;
        Ok(())
    };
    add("", 1, 0)?;
    for rendition in &record.renditions {
        let name = format!("{}.{}", rendition.variant, rendition.format.extension());
        add(&name, 1, rendition.bytes)?;
    }
    Ok(())
}

/// Above what number begin subjects that were never given a version.
pub(super) fn floor(transaction: &WriteTransaction) -> Result<u64, Failure> {
    let floor = transaction.open_table(FLOOR)?;
    Ok(floor.get(())?.map_or(0, |floor| floor.value()))
}

/// Appends an event, and lets those go that are older than the latest `kept`.
pub(super) fn tell(
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

/// What can go wrong inside a step.
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
    #[error("the place among the events is no number")]
    Place(#[from] std::num::ParseIntError),
    #[error("a sum is of an unknown format")]
    UnknownFormat,
    #[error("the database panicked over its file")]
    Panicked,
    #[error("the file is closed after an I/O error")]
    Closed,
    #[error("{0}")]
    NoRoom(&'static str),
}

impl Failure {
    /// Whether the database has stopped over an I/O error, so that its file must be opened again.
    pub(super) fn is_io(&self) -> bool {
        matches!(
            self.of_storage(),
            Some(
                StorageError::Io(_)
                    | StorageError::PreviousIo
                    | StorageError::DatabaseClosed
                    | StorageError::LockPoisoned(_)
            )
        )
    }

    /// The kind of I/O error, where it is known.
    pub(super) fn io_kind(&self) -> Option<io::ErrorKind> {
        match self.of_storage()? {
            StorageError::Io(error) => Some(error.kind()),
            _ => None,
        }
    }

    fn of_storage(&self) -> Option<&StorageError> {
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

    pub(super) fn of(self, operation: &'static str) -> CatalogError {
        match self {
            Self::Database(_)
            | Self::Transaction(_)
            | Self::Table(_)
            | Self::Storage(_)
            | Self::Commit(_)
            | Self::Panicked
            | Self::Closed
            | Self::NoRoom(_) => CatalogError::new(operation, self),
            Self::Decode(_)
            | Self::Encode(_)
            | Self::Subject(_)
            | Self::Variant(_)
            | Self::Place(_)
            | Self::UnknownFormat => CatalogError::damaged(operation, self),
        }
    }
}

impl From<redb::TransactionError> for Failure {
    fn from(error: redb::TransactionError) -> Self {
        Self::Transaction(Box::new(error))
    }
}
