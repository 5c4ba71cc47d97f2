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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redb::{
    AccessGuard, Database, ReadableDatabase, ReadableMultimapTable, ReadableTable, WriteTransaction,
};

use super::codec;
use super::{
    Catalog, CatalogError, Claimed, Cursor, Due, InitialState, Invalidated, Outstanding, Page,
    Precondition, PreconditionFailed, Removed, Replaced, Reservation, Restored, Standing, Stats,
    StatsRow,
};
use crate::avatar::{AvatarId, Event, Format, Record, SubjectId, Timestamp, VariantName, Version};
use crate::telemetry::Health;
pub use handle::EmbeddedOpenError;
use handle::Handle;
use tables::{
    Change, DUE, EVENTS, FLOOR, Failure, Id, Invalid, LAST_RESERVED, OUTSTANDING, PROBE, RECORDS,
    RESERVATIONS, RETIRED_OF, Reserved, STATS, State, VERSIONS, count, due, enter, leave,
    retire_former, retire_invalid, state, tell, version_floor,
};

/// Records given at once.
const PAGE: usize = 500;

/// The clock of an embedded catalog.
pub trait Clock: Send + Sync + 'static {
    /// The time.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// An embedded database as the catalog. Opening its file locks it against other processes.
pub struct EmbeddedCatalog {
    handle: Arc<Handle>,
    events_kept: u32,
    clock: Arc<dyn Clock>,
}

impl EmbeddedCatalog {
    /// Opens the database file at `path`, making it where it is not there. The latest
    /// `events_kept` events are kept.
    ///
    /// # Errors
    /// Where the file cannot be made, is in use by another process, or is no catalog.
    pub fn open(path: &Path, events_kept: u32) -> Result<Self, EmbeddedOpenError> {
        Self::open_with_clock(path, events_kept, Arc::new(SystemClock))
    }

    /// Likewise, with another clock than the system's.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_clock(
        path: &Path,
        events_kept: u32,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EmbeddedOpenError> {
        Ok(Self {
            handle: Arc::new(Handle::open(path)?),
            events_kept,
            clock,
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
        work: impl Fn(&Database) -> Result<T, Failure> + Send + 'static,
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

/// The current record of a subject.
fn current(
    records: &impl ReadableTable<&'static str, &'static [u8]>,
    subject: &SubjectId,
) -> Result<Option<Record>, Failure> {
    let bytes = records.get(subject.as_str())?;
    Ok(bytes
        .map(|bytes| codec::decode_numbered(bytes.value()))
        .transpose()?)
}

/// The last version given out, and the last one that a delete took away.
fn versions(
    versions: &impl ReadableTable<&'static str, (u64, u64)>,
    subject: &SubjectId,
) -> Result<(u64, u64), Failure> {
    let entry = versions.get(subject.as_str())?;
    Ok(entry.map_or((0, 0), |entry| entry.value()))
}

/// Makes a record current: what a commit and a restore have in common.
fn make_current(
    transaction: &WriteTransaction,
    events_kept: u32,
    subject: &SubjectId,
    record: &Record,
    (now, retire_after): (Timestamp, Duration),
) -> Result<Option<AvatarId>, Failure> {
    let mut records = transaction.open_table(RECORDS)?;
    let replaced = current(&records, subject)?;
    let bytes = codec::encode_numbered(record)?;
    records.insert(subject.as_str(), bytes.as_slice())?;
    leave(transaction, record.avatar_id)?;
    let due = now.plus(retire_after);
    let previous = replaced.as_ref().map(|replaced| (replaced, due));
    let event = codec::encode_event(now, previous, Some(record))?;
    tell(transaction, events_kept, subject, &event)?;
    count(transaction, record, Change::Appeared)?;
    if let Some(replaced) = &replaced {
        retire_former(transaction, subject, replaced.avatar_id, due)?;
        count(transaction, replaced, Change::Gone)?;
    }
    Ok(replaced.map(|replaced| replaced.avatar_id))
}

/// Takes the current record away: what a delete and a drop have in common.
fn take_away(
    transaction: &WriteTransaction,
    events_kept: u32,
    subject: &SubjectId,
    record: &Record,
    (now, lease): (Timestamp, Duration),
) -> Result<(), Failure> {
    transaction.open_table(RECORDS)?.remove(subject.as_str())?;
    count(transaction, record, Change::Gone)?;
    let event = codec::encode_event(now, Some((record, now)), None)?;
    tell(transaction, events_kept, subject, &event)?;
    let due = now.plus(lease);
    retire_former(transaction, subject, record.avatar_id, due)
}

/// One removal. Its step may run twice, because a commit that failed in its last sync may have
/// happened.
struct Removal {
    subject: SubjectId,
    precondition: Precondition,
    lease: Duration,
    events_kept: u32,
    clock: Arc<dyn Clock>,
    /// The record that the first run took away. The second run answers it if it finds none.
    taken: Mutex<Option<Record>>,
}

impl Removal {
    fn run(
        &self,
        transaction: &WriteTransaction,
    ) -> Result<Result<Option<Removed>, PreconditionFailed>, Failure> {
        let subject = &self.subject;
        let now = self.clock.now();
        let due = now.plus(self.lease);
        let record = current(&transaction.open_table(RECORDS)?, subject)?;
        let avatar = record.as_ref().map(|record| record.avatar_id);
        if avatar.is_some() && !self.precondition.holds(avatar) {
            return Ok(Err(PreconditionFailed));
        }
        let mut subjects = transaction.open_table(VERSIONS)?;
        let (last, _) = versions(&subjects, subject)?;
        let last = last.max(record.as_ref().map_or(0, |record| record.version.0));
        // No upload that was reserved before this delete can become current after it; neither can an
        // upload that a lost catalog knew, whose version is below the floor. This holds too of a
        // subject that the catalog does not know (any more).
        let last = last.max(version_floor(transaction, now)?);
        if last > 0 {
            subjects.insert(subject.as_str(), (last, last))?;
        }
        let others: Vec<Id> = transaction
            .open_multimap_table(RETIRED_OF)?
            .get(subject.as_str())?
            .map(|id| Ok(id?.value()))
            .collect::<Result<_, Failure>>()?;
        if let Some(record) = &record {
            let times = (now, self.lease);
            take_away(transaction, self.events_kept, subject, record, times)?;
        }
        let others: Vec<_> = others.into_iter().map(AvatarId::from_bytes).collect();
        for avatar in &others {
            let reserved = Reserved::read(&transaction.open_table(RESERVATIONS)?, *avatar)?;
            match reserved {
                Some(Reserved::Valid { .. } | Reserved::Invalid(_)) => {
                    retire_invalid(transaction, subject, *avatar, due, Invalid::Superseded)?;
                }
                Some(Reserved::WasCurrent) | None => {
                    enter(transaction, State::Retired, subject, *avatar, due)?;
                }
            }
        }
        let record = {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            if record.is_some() {
                *taken = record;
            }
            taken.clone()
        };
        let current = record.as_ref().map(|record| record.avatar_id);
        let others = others.into_iter().filter(|one| current != Some(*one));
        let outstanding: Vec<_> = current
            .into_iter()
            .chain(others)
            .map(|avatar| Outstanding {
                subject: subject.clone(),
                avatar,
            })
            .collect();
        let nothing = record.is_none() && outstanding.is_empty();
        Ok(Ok((!nothing).then_some(Removed {
            record,
            outstanding,
        })))
    }
}

#[async_trait]
impl Catalog for EmbeddedCatalog {
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError> {
        let subject = subject.clone();
        self.blocking("read a record", move |database| {
            current(&database.begin_read()?.open_table(RECORDS)?, &subject)
        })
        .await
    }

    async fn get_many(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<Result<Option<Record>, CatalogError>>, CatalogError> {
        let subjects = subjects.to_vec();
        self.blocking("read records", move |database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let read = |subject: &SubjectId| match current(&records, subject) {
                Err(failure) if !failure.is_of_one_record() => Err(failure),
                read => Ok(read.map_err(|failure| failure.of("read a record"))),
            };
            subjects.iter().map(read).collect()
        })
        .await
    }

    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        within: Duration,
    ) -> Result<Reservation, CatalogError> {
        let (subject, clock) = (subject.clone(), Arc::clone(&self.clock));
        self.write("reserve an upload", move |transaction| {
            let mut reservations = transaction.open_table(RESERVATIONS)?;
            if let Some(Reserved::Valid { version, at, .. }) =
                Reserved::read(&reservations, avatar)?
            {
                let reserved_at = at;
                return Ok(Reservation {
                    version,
                    reserved_at,
                });
            }
            let current = current(&transaction.open_table(RECORDS)?, &subject)?;
            if let Some(current) = current.filter(|current| current.avatar_id == avatar) {
                return Ok(Reservation {
                    version: current.version,
                    reserved_at: current.reserved_at,
                });
            }
            let mut subjects = transaction.open_table(VERSIONS)?;
            let (last, deleted) = versions(&subjects, &subject)?;
            let mut last_reserved = transaction.open_table(LAST_RESERVED)?;
            let reserved = last_reserved
                .get(subject.as_str())?
                .map_or(0, |reserved| reserved.value());
            let outstanding = transaction.open_table(OUTSTANDING)?;
            if state(&outstanding, &subject, avatar)?.is_some() {
                return Ok(Reservation {
                    version: Version(last),
                    reserved_at: Timestamp::from_unix_ms(reserved),
                });
            }
            drop(outstanding);
            let now = clock.now();
            let version = last.max(version_floor(transaction, now)?) + 1;
            // Later reservations of a subject have later times, even if the clock is set back.
            let reserved_at = now.unix_ms().max(reserved + 1);
            let deadline = now.plus(within);
            subjects.insert(subject.as_str(), (version, deleted))?;
            last_reserved.insert(subject.as_str(), reserved_at)?;
            reservations.insert(
                *avatar.as_bytes(),
                (version, reserved_at, deadline.unix_ms()),
            )?;
            enter(transaction, State::Pending, &subject, avatar, deadline)?;
            Ok(Reservation {
                version: Version(version),
                reserved_at: Timestamp::from_unix_ms(reserved_at),
            })
        })
        .await
    }

    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        retire_after: Duration,
    ) -> Result<Replaced, CatalogError> {
        let (subject, record, precondition) =
            (subject.clone(), record.clone(), precondition.clone());
        let (kept, clock) = (self.events_kept, Arc::clone(&self.clock));
        self.write("commit an upload", move |transaction| {
            let current = current(&transaction.open_table(RECORDS)?, &subject)?;
            let current_id = current.as_ref().map(|current| current.avatar_id);
            if current_id == Some(record.avatar_id) {
                return Ok(Replaced::Committed);
            }
            let avatar = record.avatar_id;
            let found = state(&transaction.open_table(OUTSTANDING)?, &subject, avatar)?;
            let reserved = Reserved::read(&transaction.open_table(RESERVATIONS)?, avatar)?;
            let deadline = match (found, reserved) {
                (Some(State::Pending), Some(Reserved::Valid { deadline, .. })) => deadline,
                (Some(State::Pending), _) => clock.now(),
                (None, _) => return Ok(Replaced::NotPending),
                // A repetition: of a commit that happened, or of one that was refused.
                (Some(State::Retired), reserved) => {
                    return Ok(match reserved {
                        Some(Reserved::WasCurrent) => Replaced::Committed,
                        Some(Reserved::Invalid(Invalid::Superseded)) => Replaced::Superseded,
                        Some(Reserved::Invalid(Invalid::Refused)) => Replaced::PreconditionFailed,
                        _ => Replaced::NotPending,
                    });
                }
            };
            // A refused upload is retired in the same step, so that it is never restored, even if
            // its caller dies. It comes due when it would have come due anyway.
            let refuse = |why| retire_invalid(transaction, &subject, avatar, deadline, why);
            let (_, deleted) = versions(&transaction.open_table(VERSIONS)?, &subject)?;
            let newest = current.map_or(Version(0), |current| current.version);
            if record.version < newest || record.version.0 <= deleted {
                refuse(Invalid::Superseded)?;
                return Ok(Replaced::Superseded);
            }
            if !precondition.holds(current_id) {
                refuse(Invalid::Refused)?;
                return Ok(Replaced::PreconditionFailed);
            }
            let times = (clock.now(), retire_after);
            make_current(transaction, kept, &subject, &record, times)?;
            Ok(Replaced::Committed)
        })
        .await
    }

    async fn remove(
        &self,
        subject: &SubjectId,
        precondition: &Precondition,
        lease: Duration,
    ) -> Result<Result<Option<Removed>, PreconditionFailed>, CatalogError> {
        let removal = Removal {
            subject: subject.clone(),
            precondition: precondition.clone(),
            lease,
            events_kept: self.events_kept,
            clock: Arc::clone(&self.clock),
            taken: Mutex::default(),
        };
        self.release("remove a record", move |transaction| {
            removal.run(transaction)
        })
        .await
    }

    async fn claim(&self, lease: Duration, limit: usize) -> Result<Vec<Claimed>, CatalogError> {
        let now = self.clock.now();
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
                let subject = transaction
                    .open_table(OUTSTANDING)?
                    .get(id)?
                    .map(|entry| SubjectId::new(entry.value().2))
                    .transpose()?;
                let Some(subject) = subject else { continue };
                let avatar = AvatarId::from_bytes(id);
                let until = now.plus(lease);
                enter(transaction, State::Retired, &subject, avatar, until)?;
                let reservations = transaction.open_table(RESERVATIONS)?;
                let due = match Reserved::read(&reservations, avatar)? {
                    Some(Reserved::Valid { deadline, .. }) => Due::Expired {
                        overdue: now.since(deadline),
                    },
                    Some(Reserved::Invalid(_) | Reserved::WasCurrent) | None => Due::Retired,
                };
                claimed.push(Claimed {
                    outstanding: Outstanding { subject, avatar },
                    due,
                });
            }
            Ok(claimed)
        })
        .await
    }

    async fn defer(&self, outstanding: &Outstanding, by: Duration) -> Result<(), CatalogError> {
        let (outstanding, clock) = (outstanding.clone(), Arc::clone(&self.clock));
        self.release("put an upload off", move |transaction| {
            let Outstanding { subject, avatar } = outstanding.clone();
            let found = state(&transaction.open_table(OUTSTANDING)?, &subject, avatar)?;
            if found == Some(State::Retired) {
                let due = clock.now().plus(by);
                enter(transaction, State::Retired, &subject, avatar, due)?;
            }
            Ok(())
        })
        .await
    }

    async fn invalidate(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<Invalidated, CatalogError> {
        let (outstanding, clock) = (outstanding.clone(), Arc::clone(&self.clock));
        self.release("invalidate an upload", move |transaction| {
            let Outstanding { subject, avatar } = outstanding.clone();
            let current = current(&transaction.open_table(RECORDS)?, &subject)?;
            if current.is_some_and(|current| current.avatar_id == avatar) {
                return Ok(Invalidated::Kept);
            }
            let found = state(&transaction.open_table(OUTSTANDING)?, &subject, avatar)?;
            let reserved = Reserved::read(&transaction.open_table(RESERVATIONS)?, avatar)?;
            // It was current: the sweep removes it at its time. Version 0.1.0 kept no reservation of
            // such an upload.
            let is_former = matches!(reserved, Some(Reserved::WasCurrent) | None);
            if found == Some(State::Retired) && is_former {
                return Ok(Invalidated::Kept);
            }
            let due = clock.now().plus(lease);
            // A repeated commit is answered by why the upload became invalid first.
            let why = match reserved {
                Some(Reserved::Invalid(why)) => why,
                _ => Invalid::Abandoned,
            };
            retire_invalid(transaction, &subject, avatar, due, why)?;
            Ok(Invalidated::Removable)
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

    async fn standing(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
    ) -> Result<Standing, CatalogError> {
        let (subject, clock) = (subject.clone(), Arc::clone(&self.clock));
        self.blocking("look for an upload", move |database| {
            let transaction = database.begin_read()?;
            let current = current(&transaction.open_table(RECORDS)?, &subject)?;
            if current.is_some_and(|current| current.avatar_id == avatar) {
                return Ok(Standing::Current);
            }
            let found = state(&transaction.open_table(OUTSTANDING)?, &subject, avatar)?;
            let reserved = Reserved::read(&transaction.open_table(RESERVATIONS)?, avatar)?;
            Ok(match (found, reserved) {
                (None, _) => Standing::Unknown,
                (Some(State::Pending), Some(Reserved::Valid { deadline, .. }))
                    if deadline > clock.now() =>
                {
                    Standing::Pending
                }
                (_, Some(Reserved::Valid { .. })) => Standing::Expired,
                (_, Some(Reserved::Invalid(_) | Reserved::WasCurrent) | None) => Standing::Retired,
            })
        })
        .await
    }

    async fn deleted(&self, subject: &SubjectId) -> Result<Version, CatalogError> {
        let subject = subject.clone();
        self.blocking("look for a delete", move |database| {
            let subjects = database.begin_read()?.open_table(VERSIONS)?;
            Ok(Version(versions(&subjects, &subject)?.1))
        })
        .await
    }

    async fn page(&self, from: &Cursor) -> Result<Page, CatalogError> {
        let from = from.clone();
        self.blocking("list its records", move |database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let (mut records, mut unreadable) = (Vec::new(), Vec::new());
            let (mut seen, mut last) = (0, None);
            // No subject is empty, so the start is before them all.
            let after = (Bound::Excluded(from.0.as_str()), Bound::Unbounded);
            for entry in table.range::<&str>(after)?.take(PAGE) {
                let (subject, bytes) = entry?;
                let subject = SubjectId::new(subject.value())?;
                last = Some(Cursor(subject.as_str().to_owned()));
                seen += 1;
                match codec::decode_numbered(bytes.value()) {
                    Ok(record) => records.push((subject, record)),
                    Err(_) => unreadable.push(subject),
                }
            }
            Ok(Page {
                records,
                unreadable,
                next: last.filter(|_| seen == PAGE),
            })
        })
        .await
    }

    async fn restore(
        &self,
        subject: &SubjectId,
        record: &Record,
        retire_after: Duration,
    ) -> Result<Restored, CatalogError> {
        let (subject, record) = (subject.clone(), record.clone());
        let (kept, clock) = (self.events_kept, Arc::clone(&self.clock));
        self.write("restore a record", move |transaction| {
            let (avatar, now) = (record.avatar_id, clock.now());
            let current = current(&transaction.open_table(RECORDS)?, &subject)?;
            if current
                .as_ref()
                .is_some_and(|current| current.avatar_id == avatar)
            {
                return Ok(Restored::Known);
            }
            let found = state(&transaction.open_table(OUTSTANDING)?, &subject, avatar)?;
            let reserved = Reserved::read(&transaction.open_table(RESERVATIONS)?, avatar)?;
            // Only an upload that nobody committed in time, or that the catalog does not know, is
            // restored.
            match (found, reserved) {
                (Some(State::Pending), Some(Reserved::Valid { deadline, .. }))
                    if deadline > now =>
                {
                    return Ok(Restored::Known);
                }
                (None, _) | (Some(_), Some(Reserved::Valid { .. })) => {}
                (Some(_), Some(Reserved::Invalid(_) | Reserved::WasCurrent) | None) => {
                    return Ok(Restored::Known);
                }
            }
            let mut subjects = transaction.open_table(VERSIONS)?;
            let (last, deleted) = versions(&subjects, &subject)?;
            let version = record.version.0;
            subjects.insert(subject.as_str(), (last.max(version), deleted))?;
            let mut last_reserved = transaction.open_table(LAST_RESERVED)?;
            let reserved_at = last_reserved
                .get(subject.as_str())?
                .map_or(0, |reserved| reserved.value());
            let reserved_at = reserved_at.max(record.reserved_at.unix_ms());
            last_reserved.insert(subject.as_str(), reserved_at)?;
            if version <= deleted || current.is_some_and(|current| record.rank() <= current.rank())
            {
                let due = now.plus(retire_after);
                if found.is_some() {
                    retire_invalid(transaction, &subject, avatar, due, Invalid::Superseded)?;
                } else {
                    enter(transaction, State::Retired, &subject, avatar, due)?;
                }
                return Ok(Restored::Retired);
            }
            let times = (now, retire_after);
            let replaced = make_current(transaction, kept, &subject, &record, times)?;
            Ok(Restored::Current(replaced))
        })
        .await
    }

    async fn drop_record(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<bool, CatalogError> {
        let (outstanding, kept) = (outstanding.clone(), self.events_kept);
        let clock = Arc::clone(&self.clock);
        self.write("drop a record", move |transaction| {
            let Outstanding { subject, avatar } = outstanding;
            let current = current(&transaction.open_table(RECORDS)?, &subject)?;
            let Some(record) = current.filter(|current| current.avatar_id == avatar) else {
                return Ok(false);
            };
            let mut subjects = transaction.open_table(VERSIONS)?;
            let (last, deleted) = versions(&subjects, &subject)?;
            // Uploads that are under way may still become current.
            let deleted = deleted.max(record.version.0);
            subjects.insert(subject.as_str(), (last, deleted))?;
            take_away(transaction, kept, &subject, &record, (clock.now(), lease))?;
            Ok(true)
        })
        .await
    }

    async fn has_begun(&self) -> Result<bool, CatalogError> {
        self.blocking("read its version floor", move |database| {
            let floor = database.begin_read()?.open_table(FLOOR)?;
            Ok(floor.get(())?.is_some())
        })
        .await
    }

    async fn initialize(&self, state: InitialState) -> Result<(), CatalogError> {
        let clock = Arc::clone(&self.clock);
        self.write("set its version floor", move |transaction| {
            let mut floor = transaction.open_table(FLOOR)?;
            if floor.get(())?.is_none() {
                let first = match state {
                    InitialState::New => Version(0),
                    InitialState::Lost => Version::time_floor(clock.now()),
                };
                floor.insert((), first.0)?;
            }
            Ok(())
        })
        .await
    }

    async fn raise_version_floor(&self, seen: Version) -> Result<Version, CatalogError> {
        let clock = Arc::clone(&self.clock);
        self.write("raise its version floor", move |transaction| {
            let now = clock.now();
            let floor = seen.0.max(version_floor(transaction, now)?);
            let floor = floor.max(Version::time_floor(now).0);
            transaction.open_table(FLOOR)?.insert((), floor)?;
            Ok(Version(floor))
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
            let mut found = Vec::new();
            for entry in range {
                let (number, entry) = entry?;
                let (subject, bytes): (&str, &[u8]) = entry.value();
                if let Ok(event) = codec::decode_event(SubjectId::new(subject)?, bytes) {
                    found.push((Cursor(number.value().to_string()), event));
                }
                if found.len() == limit {
                    break;
                }
            }
            Ok(found)
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
                    Some((variant, extension)) => {
                        // A version of this program that knows more formats may have written it.
                        let Some(format) = Format::from_extension(extension) else {
                            continue;
                        };
                        stats.renditions.push(StatsRow {
                            variant: VariantName::new(variant)?,
                            format,
                            objects,
                            bytes,
                        });
                    }
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
