//! An embedded database as the catalog: one file, one process.
//!
//! On `redb`, because it is pure Rust (no C to build), a single file in a stable format, and every
//! transaction is ACID and on the disk when it returns: one of its write transactions is exactly
//! the atomic step that the catalog promises. `SQLite` would bring a C library and a query language
//! for six look-ups by key; a log-structured store (`fjall`) is faster at bulk loads, which an
//! avatar service has none of, and spreads over a folder of files.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{
    Database, MultimapTableDefinition, ReadableDatabase, ReadableMultimapTable, ReadableTable,
    TableDefinition, WriteTransaction,
};

use super::codec;
use super::{Catalog, CatalogError, Outstanding, Precondition, Removed, Replaced, Stats, StatsRow};
use crate::avatar::{AvatarId, Format, Record, SubjectId, Timestamp, VariantName, Version};

/// Subject → current record, as [`codec`] writes it.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
/// Subject → (the last version given out, the last version that a delete took away).
const VERSIONS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("versions");
/// Avatar id → (whether it is pending, when it is due in Unix milliseconds, subject).
const OUTSTANDING: TableDefinition<'_, Id, (bool, u64, &str)> = TableDefinition::new("outstanding");
/// The same ids in the order in which they are due.
const DUE: TableDefinition<'_, (u64, Id), ()> = TableDefinition::new("due");
/// Subject → its retired ids.
const RETIRED_OF: MultimapTableDefinition<'_, &str, Id> = MultimapTableDefinition::new("retired");
/// Variant and format → (objects, bytes) of current records; `""` → (avatars, 0).
const STATS: TableDefinition<'_, &str, (u64, u64)> = TableDefinition::new("stats");
/// Written by [`Catalog::check`].
const PROBE: TableDefinition<'_, (), u64> = TableDefinition::new("probe");

type Id = [u8; 16];

/// An embedded database as the catalog. Opening its file locks it against other processes.
pub struct EmbeddedCatalog {
    database: Arc<Database>,
}

impl EmbeddedCatalog {
    /// Opens the database file at `path`, making it where it is not there.
    ///
    /// # Errors
    /// Where the file cannot be made, is in use by another process, or is no catalog.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        let opened = || -> Result<Database, Failure> {
            let database = Database::create(path)?;
            let transaction = database.begin_write()?;
            transaction.open_table(RECORDS)?;
            transaction.open_table(VERSIONS)?;
            transaction.open_table(OUTSTANDING)?;
            transaction.open_table(DUE)?;
            transaction.open_multimap_table(RETIRED_OF)?;
            transaction.open_table(STATS)?;
            transaction.open_table(PROBE)?;
            transaction.commit()?;
            Ok(database)
        };
        let database = opened().map_err(|failure| CatalogError::new("be opened", failure))?;
        Ok(Self {
            database: Arc::new(database),
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Database) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let database = Arc::clone(&self.database);
        match tokio::task::spawn_blocking(move || work(&database)).await {
            Ok(done) => done.map_err(|failure| CatalogError::new(operation, failure)),
            Err(died) => Err(CatalogError::new(operation, died)),
        }
    }

    /// Runs `step` as one transaction: on the disk when this returns, or without a trace where the
    /// step fails.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        step: impl FnOnce(&WriteTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.blocking(operation, move |database| {
            let transaction = database.begin_write()?;
            let done = step(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
        .await
    }
}

#[async_trait]
impl Catalog for EmbeddedCatalog {
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError> {
        let subject = subject.clone();
        self.blocking("read a record", move |database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let bytes = records.get(subject.as_str())?;
            Ok(bytes
                .map(|bytes| codec::decode(bytes.value()))
                .transpose()?)
        })
        .await
    }

    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        deadline: Timestamp,
    ) -> Result<Version, CatalogError> {
        let subject = subject.clone();
        self.write("reserve an upload", move |transaction| {
            let mut versions = transaction.open_table(VERSIONS)?;
            let (last, deleted) = versions
                .get(subject.as_str())?
                .map_or((0, 0), |versions| versions.value());
            versions.insert(subject.as_str(), (last + 1, deleted))?;
            enter(transaction, State::Pending, &subject, avatar, deadline)?;
            Ok(Version(last + 1))
        })
        .await
    }

    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        retire_at: Timestamp,
    ) -> Result<Replaced, CatalogError> {
        let (subject, record, precondition) =
            (subject.clone(), record.clone(), precondition.clone());
        self.write("commit an upload", move |transaction| {
            if !is_pending(transaction, &subject, record.avatar_id)? {
                return Ok(Replaced::NotPending);
            }
            let deleted = transaction
                .open_table(VERSIONS)?
                .get(subject.as_str())?
                .map_or(0, |versions| versions.value().1);
            let mut records = transaction.open_table(RECORDS)?;
            let current = match records.get(subject.as_str())? {
                Some(bytes) => Some(codec::decode(bytes.value())?),
                None => None,
            };
            let newest = current
                .as_ref()
                .map_or(Version(0), |current| current.version);
            if record.version < newest || record.version.0 <= deleted {
                return Ok(Replaced::Superseded);
            }
            let superseded = current.as_ref().map(|current| current.avatar_id);
            if !precondition.holds(superseded) {
                return Ok(Replaced::PreconditionFailed);
            }
            records.insert(subject.as_str(), codec::encode(&record)?.as_slice())?;
            leave(transaction, record.avatar_id)?;
            count(transaction, &record, Change::Appeared)?;
            if let Some(current) = current {
                enter(
                    transaction,
                    State::Retired,
                    &subject,
                    current.avatar_id,
                    retire_at,
                )?;
                count(transaction, &current, Change::Gone)?;
            }
            Ok(Replaced::Committed(superseded))
        })
        .await
    }

    async fn remove(
        &self,
        subject: &SubjectId,
        lease: Timestamp,
    ) -> Result<Option<Removed>, CatalogError> {
        let subject = subject.clone();
        self.write("remove a record", move |transaction| {
            let mut records = transaction.open_table(RECORDS)?;
            let record = match records.remove(subject.as_str())? {
                Some(bytes) => Some(codec::decode(bytes.value())?),
                None => None,
            };
            if let Some(record) = &record {
                let mut versions = transaction.open_table(VERSIONS)?;
                let last = versions
                    .get(subject.as_str())?
                    .map_or(record.version.0, |versions| versions.value().0);
                versions.insert(subject.as_str(), (last, last))?;
                count(transaction, record, Change::Gone)?;
            }
            let retired: Vec<Id> = transaction
                .open_multimap_table(RETIRED_OF)?
                .get(subject.as_str())?
                .map(|id| Ok(id?.value()))
                .collect::<Result<_, Failure>>()?;
            let current = record.as_ref().map(|record| record.avatar_id);
            let outstanding: Vec<_> = current
                .into_iter()
                .chain(retired.into_iter().map(AvatarId::from_bytes))
                .map(|avatar| Outstanding {
                    subject: subject.clone(),
                    avatar,
                })
                .collect();
            for &Outstanding { avatar, .. } in &outstanding {
                enter(transaction, State::Retired, &subject, avatar, lease)?;
            }
            let nothing = record.is_none() && outstanding.is_empty();
            Ok((!nothing).then_some(Removed {
                record,
                outstanding,
            }))
        })
        .await
    }

    async fn claim(
        &self,
        now: Timestamp,
        lease: Timestamp,
        limit: usize,
    ) -> Result<Vec<Outstanding>, CatalogError> {
        self.blocking("claim what is due", move |database| {
            // Most sweeps find nothing, and then need not write.
            let due = due(&database.begin_read()?.open_table(DUE)?, now, limit)?;
            if due.is_empty() {
                return Ok(Vec::new());
            }
            let transaction = database.begin_write()?;
            let mut claimed = Vec::new();
            // Looked up again: another claim may have come in between.
            let due = self::due(&transaction.open_table(DUE)?, now, limit)?;
            for id in due {
                let entry = transaction
                    .open_table(OUTSTANDING)?
                    .get(id)?
                    .map(|entry| SubjectId::new(entry.value().2))
                    .transpose()?;
                let avatar = AvatarId::from_bytes(id);
                if let Some(subject) = entry {
                    enter(&transaction, State::Retired, &subject, avatar, lease)?;
                    claimed.push(Outstanding { subject, avatar });
                }
            }
            transaction.commit()?;
            Ok(claimed)
        })
        .await
    }

    async fn forget(&self, outstanding: &Outstanding) -> Result<(), CatalogError> {
        let avatar = outstanding.avatar;
        self.write("forget an upload", move |transaction| {
            leave(transaction, avatar)
        })
        .await
    }

    async fn stats(&self) -> Result<Stats, CatalogError> {
        self.blocking("add up its records", |database| {
            let mut stats = Stats::default();
            for row in database.begin_read()?.open_table(STATS)?.iter()? {
                let (name, counts) = row?;
                let (objects, bytes) = counts.value();
                match name.value().split_once('.') {
                    None => stats.avatars = objects,
                    Some(_) if objects == 0 => {}
                    Some((variant, extension)) => stats.renditions.push(StatsRow {
                        variant: VariantName::new(variant)?,
                        format: Format::from_extension(extension).ok_or(Failure::UnknownFormat)?,
                        objects,
                        bytes,
                    }),
                }
            }
            Ok(stats)
        })
        .await
    }

    async fn check(&self) -> Result<(), CatalogError> {
        self.write("take a write", |transaction| {
            let mut probe = transaction.open_table(PROBE)?;
            let count = probe.get(())?.map_or(0, |count| count.value());
            probe.insert((), count.wrapping_add(1))?;
            Ok(())
        })
        .await
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Pending,
    Retired,
}

/// Puts an id into pending or retired, from wherever it was, due at `due`.
fn enter(
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
fn leave(transaction: &WriteTransaction, avatar: AvatarId) -> Result<(), Failure> {
    let id = *avatar.as_bytes();
    let mut outstanding = transaction.open_table(OUTSTANDING)?;
    if let Some(entry) = outstanding.remove(id)? {
        let (_, due, subject) = entry.value();
        transaction.open_table(DUE)?.remove((due, id))?;
        transaction
            .open_multimap_table(RETIRED_OF)?
            .remove(subject, id)?;
    }
    Ok(())
}

fn is_pending(
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
fn due(
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
enum Change {
    Appeared,
    Gone,
}

/// Brings the sums up to date with a record that became current or ceased to be.
fn count(transaction: &WriteTransaction, record: &Record, change: Change) -> Result<(), Failure> {
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

/// What can go wrong inside a step.
#[derive(Debug, thiserror::Error)]
enum Failure {
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
    #[error("a sum is of an unknown format")]
    UnknownFormat,
}

impl From<redb::TransactionError> for Failure {
    fn from(error: redb::TransactionError) -> Self {
        Self::Transaction(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::contract;

    #[tokio::test]
    async fn the_embedded_database_keeps_the_contract_of_a_catalog() {
        let folder = tempfile::tempdir().unwrap();
        contract::run(&EmbeddedCatalog::open(&folder.path().join("catalog.redb")).unwrap()).await;
    }

    #[tokio::test]
    async fn a_second_process_is_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.redb");
        let _first = EmbeddedCatalog::open(&path).unwrap();
        assert!(EmbeddedCatalog::open(&path).is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_no_catalog_is_an_error_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.redb");
        std::fs::write(&path, "somebody's notes").unwrap();
        assert!(EmbeddedCatalog::open(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's notes");
    }

    #[tokio::test]
    async fn records_and_versions_survive_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.redb");
        let subject = SubjectId::new("42").unwrap();
        let record = contract::record(1, 1);
        {
            let catalog = EmbeddedCatalog::open(&path).unwrap();
            catalog
                .reserve(&subject, record.avatar_id, Timestamp::now())
                .await
                .unwrap();
            let anything = Precondition::Anything;
            catalog
                .replace(&subject, &record, &anything, Timestamp::now())
                .await
                .unwrap();
        }
        let catalog = EmbeddedCatalog::open(&path).unwrap();
        assert_eq!(catalog.get(&subject).await.unwrap(), Some(record));
        let next = AvatarId::from_bytes([9; 16]);
        let version = catalog
            .reserve(&subject, next, Timestamp::now())
            .await
            .unwrap();
        assert_eq!(version, Version(2));
    }
}
