//! An embedded database as the catalog: one file, one process.
//!
//! On `redb`, because it is pure Rust (no C to build), a single file in a stable format, and every
//! transaction is ACID and on the disk when it returns: one of its write transactions is exactly
//! the atomic step that the catalog promises. `SQLite` would bring a C library and a query language
//! for six look-ups by key; a log-structured store (`fjall`) is faster at bulk loads, which an
//! avatar service has none of, and spreads over a folder of files.

mod handle;
mod tables;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{
    AccessGuard, Database, ReadableDatabase, ReadableMultimapTable, ReadableTable, WriteTransaction,
};

use super::codec;
use super::{
    Catalog, CatalogError, Claimed, Cursor, Outstanding, Page, Precondition, Removed, Replaced,
    Restored, Stats, StatsRow,
};
use crate::avatar::{AvatarId, Event, Format, Record, SubjectId, Timestamp, VariantName, Version};
use crate::telemetry::Health;
pub use handle::EmbeddedOpenError;
use handle::Handle;
use tables::{
    Change, DUE, EVENTS, FLOOR, Failure, Id, OUTSTANDING, PROBE, RECORDS, RESERVED, RETIRED_OF,
    STATS, State, VERSIONS, count, due, enter, floor, is_pending, leave, tell,
};

/// Records given at once.
const PAGE: usize = 500;

/// An embedded database as the catalog. Opening its file locks it against other processes.
pub struct EmbeddedCatalog {
    handle: Arc<Handle>,
    events_kept: u32,
}

impl EmbeddedCatalog {
    /// Opens the database file at `path`, making it where it is not there. The latest
    /// `events_kept` events are kept.
    ///
    /// # Errors
    /// Where the file cannot be made, is in use by another process, or is no catalog.
    pub fn open(path: &Path, events_kept: u32) -> Result<Self, EmbeddedOpenError> {
        Ok(Self {
            handle: Arc::new(Handle::open(path)?),
            events_kept,
        })
    }

    async fn with_handle<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Handle) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let handle = Arc::clone(&self.handle);
        match tokio::task::spawn_blocking(move || work(&handle)).await {
            Ok(done) => done.map_err(|failure| failure.of(operation)),
            Err(died) => Err(CatalogError::new(operation, died)),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Database) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.with_handle(operation, |handle| handle.read(work))
            .await
    }

    /// Runs `step` as one transaction: on the disk when this returns, or without a trace where the
    /// step fails. It is refused while the disk is full.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        step: impl FnOnce(&WriteTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.with_handle(operation, |handle| handle.write(step))
            .await
    }

    /// Runs `step` likewise, as one that gives room back: it goes on while the disk is full.
    async fn release<T: Send + 'static>(
        &self,
        operation: &'static str,
        step: impl Fn(&WriteTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.with_handle(operation, |handle| handle.release(step))
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

    async fn get_many(&self, subjects: &[SubjectId]) -> Result<Vec<Option<Record>>, CatalogError> {
        let subjects = subjects.to_vec();
        self.blocking("read records", move |database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let read = |subject: &SubjectId| match records.get(subject.as_str())? {
                Some(bytes) => Ok(Some(codec::decode(bytes.value())?)),
                None => Ok(None),
            };
            subjects.iter().map(read).collect()
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
            let id = *avatar.as_bytes();
            if let Some(version) = transaction.open_table(RESERVED)?.get(id)? {
                return Ok(Version(version.value()));
            }
            if let Some(bytes) = transaction.open_table(RECORDS)?.get(subject.as_str())? {
                let current = codec::decode(bytes.value())?;
                if current.avatar_id == avatar {
                    return Ok(current.version);
                }
            }
            let mut versions = transaction.open_table(VERSIONS)?;
            let known = versions
                .get(subject.as_str())?
                .map(|versions| versions.value());
            let (last, deleted) = match known {
                Some(versions) => versions,
                None => (floor(transaction)?, 0),
            };
            if transaction.open_table(OUTSTANDING)?.get(id)?.is_some() {
                return Ok(Version(last));
            }
            versions.insert(subject.as_str(), (last + 1, deleted))?;
            enter(transaction, State::Pending, &subject, avatar, deadline)?;
            transaction.open_table(RESERVED)?.insert(id, last + 1)?;
            Ok(Version(last + 1))
        })
        .await
    }

    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        now: Timestamp,
        retire_at: Timestamp,
    ) -> Result<Replaced, CatalogError> {
        let (subject, record, precondition) =
            (subject.clone(), record.clone(), precondition.clone());
        let kept = self.events_kept;
        self.write("commit an upload", move |transaction| {
            let mut records = transaction.open_table(RECORDS)?;
            let current = match records.get(subject.as_str())? {
                Some(bytes) => Some(codec::decode(bytes.value())?),
                None => None,
            };
            let current_id = current.as_ref().map(|current| current.avatar_id);
            if current_id == Some(record.avatar_id) {
                return Ok(Replaced::Committed);
            }
            if !is_pending(transaction, &subject, record.avatar_id)? {
                return Ok(Replaced::NotPending);
            }
            let deleted = transaction
                .open_table(VERSIONS)?
                .get(subject.as_str())?
                .map_or(0, |versions| versions.value().1);
            let newest = current
                .as_ref()
                .map_or(Version(0), |current| current.version);
            if record.version < newest || record.version.0 <= deleted {
                return Ok(Replaced::Superseded);
            }
            if !precondition.holds(current_id) {
                return Ok(Replaced::PreconditionFailed);
            }
            let bytes = codec::encode(&record)?;
            records.insert(subject.as_str(), bytes.as_slice())?;
            leave(transaction, record.avatar_id)?;
            tell(transaction, kept, &subject, &codec::updated(now, &bytes)?)?;
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
            Ok(Replaced::Committed)
        })
        .await
    }

    async fn remove(
        &self,
        subject: &SubjectId,
        now: Timestamp,
        lease: Timestamp,
    ) -> Result<Option<Removed>, CatalogError> {
        let (subject, kept) = (subject.clone(), self.events_kept);
        self.release("remove a record", move |transaction| {
            let mut records = transaction.open_table(RECORDS)?;
            let record = match records.remove(subject.as_str())? {
                Some(bytes) => Some(codec::decode(bytes.value())?),
                None => None,
            };
            let mut versions = transaction.open_table(VERSIONS)?;
            let last = versions
                .get(subject.as_str())?
                .map(|versions| versions.value().0)
                .or(record.as_ref().map(|record| record.version.0));
            // Also where there is none: no upload reserved so far becomes one after this.
            if let Some(last) = last {
                versions.insert(subject.as_str(), (last, last))?;
            }
            if let Some(record) = &record {
                count(transaction, record, Change::Gone)?;
                tell(transaction, kept, &subject, &codec::deleted(now, record)?)?;
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
    ) -> Result<Vec<Claimed>, CatalogError> {
        let due = self.blocking("claim what is due", move |database| {
            // Most sweeps find nothing, and then need not write.
            let due = due(&database.begin_read()?.open_table(DUE)?, now, limit)?;
            Ok(!due.is_empty())
        });
        if !due.await? {
            return Ok(Vec::new());
        }
        self.release("claim what is due", move |transaction| {
            let mut claimed = Vec::new();
            // Looked up again: another claim may have come in between.
            let due = tables::due(&transaction.open_table(DUE)?, now, limit)?;
            for id in due {
                let entry = transaction
                    .open_table(OUTSTANDING)?
                    .get(id)?
                    .map(|entry| {
                        let (was_pending, _, subject) = entry.value();
                        SubjectId::new(subject).map(|subject| (subject, was_pending))
                    })
                    .transpose()?;
                let avatar = AvatarId::from_bytes(id);
                if let Some((subject, was_pending)) = entry {
                    enter(transaction, State::Retired, &subject, avatar, lease)?;
                    claimed.push(Claimed {
                        outstanding: Outstanding { subject, avatar },
                        was_pending,
                    });
                }
            }
            Ok(claimed)
        })
        .await
    }

    async fn forget(&self, outstanding: &Outstanding) -> Result<(), CatalogError> {
        let avatar = outstanding.avatar;
        self.release("forget an upload", move |transaction| {
            leave(transaction, avatar)
        })
        .await
    }

    async fn outstanding(&self) -> Result<Vec<Outstanding>, CatalogError> {
        self.blocking("list what is outstanding", |database| {
            let table = database.begin_read()?.open_table(OUTSTANDING)?;
            let entry = |entry: Result<(AccessGuard<'_, Id>, AccessGuard<'_, _>), _>| {
                let (id, entry) = entry?;
                let (_, _, subject): (bool, u64, &str) = entry.value();
                Ok(Outstanding {
                    subject: SubjectId::new(subject)?,
                    avatar: AvatarId::from_bytes(id.value()),
                })
            };
            table.iter()?.map(entry).collect()
        })
        .await
    }

    async fn knows(&self, subject: &SubjectId, avatar: AvatarId) -> Result<bool, CatalogError> {
        let subject = subject.clone();
        self.blocking("look for an upload", move |database| {
            let transaction = database.begin_read()?;
            if let Some(entry) = transaction
                .open_table(OUTSTANDING)?
                .get(*avatar.as_bytes())?
            {
                return Ok(entry.value().2 == subject.as_str());
            }
            let record = transaction.open_table(RECORDS)?.get(subject.as_str())?;
            let Some(bytes) = record else {
                return Ok(false);
            };
            Ok(codec::decode(bytes.value())?.avatar_id == avatar)
        })
        .await
    }

    async fn page(&self, from: &Cursor) -> Result<Page, CatalogError> {
        let from = from.clone();
        self.blocking("list its records", move |database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let mut records = Vec::new();
            // No subject is empty, so the start is before them all.
            let after = (Bound::Excluded(from.0.as_str()), Bound::Unbounded);
            for entry in table.range::<&str>(after)?.take(PAGE) {
                let (subject, bytes) = entry?;
                let record = codec::decode(bytes.value())?;
                records.push((SubjectId::new(subject.value())?, record));
            }
            let last = records.last().filter(|_| records.len() == PAGE);
            let next = last.map(|(subject, _)| Cursor(subject.as_str().to_owned()));
            Ok(Page { records, next })
        })
        .await
    }

    async fn restore(
        &self,
        subject: &SubjectId,
        record: &Record,
        retire_at: Timestamp,
    ) -> Result<Restored, CatalogError> {
        let (subject, record) = (subject.clone(), record.clone());
        self.write("restore a record", move |transaction| {
            let id = *record.avatar_id.as_bytes();
            if transaction.open_table(OUTSTANDING)?.get(id)?.is_some() {
                return Ok(Restored::Known);
            }
            let mut records = transaction.open_table(RECORDS)?;
            let current = match records.get(subject.as_str())? {
                Some(bytes) => Some(codec::decode(bytes.value())?),
                None => None,
            };
            if current
                .as_ref()
                .is_some_and(|current| current.avatar_id == record.avatar_id)
            {
                return Ok(Restored::Known);
            }
            let mut versions = transaction.open_table(VERSIONS)?;
            let (last, deleted) = versions
                .get(subject.as_str())?
                .map_or((0, 0), |versions| versions.value());
            let version = record.version.0;
            versions.insert(subject.as_str(), (last.max(version), deleted))?;
            let newest = current
                .as_ref()
                .map_or(deleted, |current| current.version.0);
            if version <= newest.max(deleted) {
                let avatar = record.avatar_id;
                enter(transaction, State::Retired, &subject, avatar, retire_at)?;
                return Ok(Restored::Retired);
            }
            records.insert(subject.as_str(), codec::encode(&record)?.as_slice())?;
            count(transaction, &record, Change::Appeared)?;
            let superseded = current.as_ref().map(|current| current.avatar_id);
            if let Some(current) = current {
                let avatar = current.avatar_id;
                enter(transaction, State::Retired, &subject, avatar, retire_at)?;
                count(transaction, &current, Change::Gone)?;
            }
            Ok(Restored::Current(superseded))
        })
        .await
    }

    async fn has_begun(&self) -> Result<bool, CatalogError> {
        self.blocking("read where its versions begin", move |database| {
            let floor = database.begin_read()?.open_table(FLOOR)?;
            Ok(floor.get(())?.is_some())
        })
        .await
    }

    async fn begin(&self, Version(first): Version) -> Result<(), CatalogError> {
        self.write("say where its versions begin", move |transaction| {
            let mut floor = transaction.open_table(FLOOR)?;
            if floor.get(())?.is_none() {
                floor.insert((), first)?;
            }
            Ok(())
        })
        .await
    }

    async fn raise_floor(&self, Version(to): Version) -> Result<(), CatalogError> {
        self.write("raise the floor of its versions", move |transaction| {
            if floor(transaction)? < to {
                transaction.open_table(FLOOR)?.insert((), to)?;
            }
            Ok(())
        })
        .await
    }

    fn event_partitions(&self) -> u16 {
        1
    }

    async fn events(
        &self,
        partition: u16,
        after: &Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Event)>, CatalogError> {
        if partition >= self.event_partitions() {
            return Ok(Vec::new());
        }
        let after = after.clone();
        self.blocking("read its events", move |database| {
            // The first event's number is 1.
            let after: u64 = if after == Cursor::START {
                0
            } else {
                after.0.parse()?
            };
            let events = database.begin_read()?.open_table(EVENTS)?;
            let range = events.range((Bound::Excluded(after), Bound::Unbounded))?;
            let event = |entry: Result<(AccessGuard<'_, u64>, AccessGuard<'_, _>), _>| {
                let (number, entry) = entry?;
                let (subject, bytes): (&str, &[u8]) = entry.value();
                let event = codec::decode_event(SubjectId::new(subject)?, bytes)?;
                Ok((Cursor(number.value().to_string()), event))
            };
            range.take(limit).map(event).collect()
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

    async fn check(&self) -> Result<Health, CatalogError> {
        let probe = |transaction: &WriteTransaction| {
            let mut probe = transaction.open_table(PROBE)?;
            let count = probe.get(())?.map_or(0, |count| count.value());
            probe.insert((), count.wrapping_add(1))?;
            Ok(())
        };
        self.with_handle("take a write", move |handle| {
            let Err(failure) = handle.write(probe) else {
                return Ok(Health::Healthy);
            };
            let Some(reason) = handle.refused() else {
                return Err(failure);
            };
            handle.read(|database| Ok(database.begin_read()?.open_table(PROBE).map(drop)?))?;
            Ok(Health::Degraded(reason.to_owned()))
        })
        .await
    }
}

#[cfg(test)]
mod tests;
