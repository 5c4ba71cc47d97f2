//! Records in the embedded database.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::EmbeddedCatalog;
use super::policies::{is_viewer, lock_in_force};
use super::tables::{
    Change, FLOOR, Failure, Invalid, LAST_RESERVED, OUTSTANDING, PENDING, POLICIES, RECORDS,
    RESERVATIONS, Reserved, STATS, State, VERSIONS, append_event, current, forget, pending,
    retire_former, retire_invalid, set_state, state_of, update_stats, version_floor, versions,
};
use crate::avatar::{AvatarId, Format, Record, SubjectId, Timestamp, VariantName, Version};
use crate::catalog::codec;
use crate::catalog::{
    CatalogError, Cursor, Found, InitialState, Page, Precondition, Records, Replaced, Reservation,
    Restored, Stats, StatsRow, SubjectLocked, Uploader,
};

/// The number of records in a page.
const PAGE: usize = 500;

#[async_trait]
impl Records for EmbeddedCatalog {
    async fn get(&self, subject: &SubjectId) -> Result<Option<Record>, CatalogError> {
        let subject = subject.clone();
        self.read("read a record", move |database| {
            current(&database.begin_read()?.open_table(RECORDS)?, &subject)
        })
        .await
    }

    async fn get_many(
        &self,
        subjects: &[SubjectId],
    ) -> Result<Vec<Result<Option<Record>, CatalogError>>, CatalogError> {
        let subjects = subjects.to_vec();
        self.read("read records", move |database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            let read = |subject: &SubjectId| match current(&records, subject) {
                Err(failure) if !failure.concerns_one_record() => Err(failure),
                read => Ok(read.map_err(|failure| failure.into_error("read a record"))),
            };
            subjects.iter().map(read).collect()
        })
        .await
    }

    async fn look_up(
        &self,
        subjects: &[SubjectId],
        viewer: Option<&SubjectId>,
    ) -> Result<Vec<Result<Found, CatalogError>>, CatalogError> {
        let (subjects, viewer) = (subjects.to_vec(), viewer.cloned());
        self.read("look up records", move |database| {
            let transaction = database.begin_read()?;
            let records = transaction.open_table(RECORDS)?;
            let policies = transaction.open_table(POLICIES)?;
            let find = |subject: &SubjectId| -> Result<Found, Failure> {
                let record = current(&records, subject)?;
                let is_viewer = is_viewer(&policies, subject, viewer.as_ref())?;
                Ok(Found { record, is_viewer })
            };
            let read = |subject: &SubjectId| match find(subject) {
                Err(failure) if !failure.concerns_one_record() => Err(failure),
                read => Ok(read.map_err(|failure| failure.into_error("read a record"))),
            };
            subjects.iter().map(read).collect()
        })
        .await
    }

    async fn page(&self, from: &Cursor) -> Result<Page, CatalogError> {
        let from = from.clone();
        self.read("list the records", move |database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let (mut records, mut unreadable) = (Vec::new(), Vec::new());
            let (mut seen, mut last) = (0, None);
            // No subject is an empty text, so `Cursor::START` is before all subjects.
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

    async fn stats(&self) -> Result<Stats, CatalogError> {
        self.read("read the statistics", |database| {
            let transaction = database.begin_read()?;
            let outstanding = transaction.open_table(OUTSTANDING)?.len()?;
            let pending = pending(&transaction.open_table(PENDING)?)?.unwrap_or_default();
            let mut stats = Stats {
                pending,
                retired: outstanding.saturating_sub(pending),
                ..Stats::default()
            };
            for row in transaction.open_table(STATS)?.iter()? {
                let (name, counts) = row?;
                let (objects, bytes) = counts.value();
                match name.value().split_once('.') {
                    None => stats.avatars = objects,
                    Some(_) if objects == 0 => {}
                    Some((variant, extension)) => {
                        // A later release with more formats may have written this row.
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

    async fn reserve(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        within: Duration,
        uploader: Uploader,
    ) -> Result<Result<Reservation, SubjectLocked>, CatalogError> {
        let (subject, clock) = (subject.clone(), Arc::clone(&self.clock));
        self.write("reserve an upload", move |transaction| {
            let mut reservations = transaction.open_table(RESERVATIONS)?;
            if let Some(Reserved::Valid { version, at, .. }) =
                Reserved::read(&reservations, avatar)?
            {
                let reserved_at = at;
                return Ok(Ok(Reservation {
                    version,
                    reserved_at,
                }));
            }
            let current = current(&transaction.open_table(RECORDS)?, &subject)?;
            if let Some(current) = current.filter(|current| current.avatar_id == avatar) {
                return Ok(Ok(Reservation {
                    version: current.version,
                    reserved_at: current.reserved_at,
                }));
            }
            let mut subjects = transaction.open_table(VERSIONS)?;
            let (last, deleted) = versions(&subjects, &subject)?;
            let mut last_reserved = transaction.open_table(LAST_RESERVED)?;
            let reserved = last_reserved
                .get(subject.as_str())?
                .map_or(0, |reserved| reserved.value());
            let outstanding = transaction.open_table(OUTSTANDING)?;
            if state_of(&outstanding, &subject, avatar)?.is_some() {
                return Ok(Ok(Reservation {
                    version: Version(last),
                    reserved_at: Timestamp::from_unix_ms(reserved),
                }));
            }
            drop(outstanding);
            let now = clock.now();
            let policies = transaction.open_table(POLICIES)?;
            if uploader != Uploader::Admin && lock_in_force(&policies, &subject, now)?.is_some() {
                return Ok(Err(SubjectLocked));
            }
            let version = last.max(version_floor(transaction, now)?) + 1;
            // A later reservation of a subject has a later time, even if the clock is set back.
            let reserved_at = now.unix_ms().max(reserved + 1);
            let deadline = now.plus(within);
            subjects.insert(subject.as_str(), (version, deleted))?;
            last_reserved.insert(subject.as_str(), reserved_at)?;
            reservations.insert(
                *avatar.as_bytes(),
                (version, reserved_at, deadline.unix_ms()),
            )?;
            set_state(transaction, State::Pending, &subject, avatar, deadline)?;
            Ok(Ok(Reservation {
                version: Version(version),
                reserved_at: Timestamp::from_unix_ms(reserved_at),
            }))
        })
        .await
    }

    async fn replace(
        &self,
        subject: &SubjectId,
        record: &Record,
        precondition: &Precondition,
        retire_after: Duration,
        uploader: Uploader,
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
            let found = state_of(&transaction.open_table(OUTSTANDING)?, &subject, avatar)?;
            let reserved = Reserved::read(&transaction.open_table(RESERVATIONS)?, avatar)?;
            let deadline = match (found, reserved) {
                (Some(State::Pending), Some(Reserved::Valid { deadline, .. })) => deadline,
                (Some(State::Pending), _) => clock.now(),
                (None, _) => return Ok(Replaced::NotPending),
                // This repeats a commit that happened, or one that was refused.
                (Some(State::Retired), reserved) => {
                    return Ok(match reserved {
                        Some(Reserved::WasCurrent) => Replaced::Committed,
                        Some(Reserved::Invalid(Invalid::Superseded)) => Replaced::Superseded,
                        Some(Reserved::Invalid(Invalid::Refused)) => Replaced::PreconditionFailed,
                        Some(Reserved::Invalid(Invalid::Locked)) => Replaced::Locked,
                        _ => Replaced::NotPending,
                    });
                }
            };
            // A refused upload is retired in the same step, so that it is never restored, even if
            // its caller dies. Its due time stays the deadline.
            let refuse = |why| retire_invalid(transaction, &subject, avatar, deadline, why);
            let now = clock.now();
            let policies = transaction.open_table(POLICIES)?;
            if uploader != Uploader::Admin && lock_in_force(&policies, &subject, now)?.is_some() {
                refuse(Invalid::Locked)?;
                return Ok(Replaced::Locked);
            }
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
            let times = (now, retire_after);
            make_current(transaction, kept, &subject, &record, times)?;
            Ok(Replaced::Committed)
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
            let found = state_of(&transaction.open_table(OUTSTANDING)?, &subject, avatar)?;
            let reserved = Reserved::read(&transaction.open_table(RESERVATIONS)?, avatar)?;
            // Only an upload that was not committed in time, or that the catalog does not know, is
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
                    set_state(transaction, State::Retired, &subject, avatar, due)?;
                }
                return Ok(Restored::Retired);
            }
            let times = (now, retire_after);
            let replaced = make_current(transaction, kept, &subject, &record, times)?;
            Ok(Restored::Current(replaced))
        })
        .await
    }

    async fn is_initialized(&self) -> Result<bool, CatalogError> {
        self.read("read the version floor", move |database| {
            let floor = database.begin_read()?.open_table(FLOOR)?;
            Ok(floor.get(())?.is_some())
        })
        .await
    }

    async fn initialize(&self, state: InitialState) -> Result<(), CatalogError> {
        let clock = Arc::clone(&self.clock);
        self.write("set the version floor", move |transaction| {
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
        self.write("raise the version floor", move |transaction| {
            let now = clock.now();
            let floor = seen.0.max(version_floor(transaction, now)?);
            let floor = floor.max(Version::time_floor(now).0);
            transaction.open_table(FLOOR)?.insert((), floor)?;
            Ok(Version(floor))
        })
        .await
    }
}

/// Makes a record current, for a commit or a restore. Returns the avatar that it replaced. The
/// replaced record is due `retire_after` after `now`.
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
    forget(transaction, record.avatar_id)?;
    let due = now.plus(retire_after);
    let previous = replaced.as_ref().map(|replaced| (replaced, due));
    let event = codec::encode_event(now, previous, Some(record))?;
    append_event(transaction, events_kept, subject, &event)?;
    update_stats(transaction, record, Change::Added)?;
    if let Some(replaced) = &replaced {
        retire_former(transaction, subject, replaced.avatar_id, due)?;
        update_stats(transaction, replaced, Change::Removed)?;
    }
    Ok(replaced.map(|replaced| replaced.avatar_id))
}
