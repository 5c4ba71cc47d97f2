//! Removals in the embedded database.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use redb::{AccessGuard, ReadableDatabase, ReadableMultimapTable, ReadableTable, WriteTransaction};

use super::tables::{
    self, Change, DUE, Failure, Id, Invalid, OUTSTANDING, RECORDS, RESERVATIONS, RETIRED_OF,
    Reserved, State, VERSIONS, append_event, current, forget, retire_former, retire_invalid,
    set_state, state_of, update_stats, version_floor, versions,
};
use super::{Clock, EmbeddedCatalog};
use crate::avatar::{AvatarId, Record, SubjectId, Timestamp, Version};
use crate::catalog::codec;
use crate::catalog::{
    CatalogError, Claimed, Due, Invalidated, Outstanding, Precondition, PreconditionFailed,
    Removals, Removed, UploadState,
};

#[async_trait]
impl Removals for EmbeddedCatalog {
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
        self.write_freeing("remove a record", move |transaction| {
            removal.run(transaction)
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
            // Uploads under way can still become current.
            let deleted = deleted.max(record.version.0);
            subjects.insert(subject.as_str(), (last, deleted))?;
            delete_current(transaction, kept, &subject, &record, (clock.now(), lease))?;
            Ok(true)
        })
        .await
    }

    async fn claim(&self, lease: Duration, limit: usize) -> Result<Vec<Claimed>, CatalogError> {
        let now = self.clock.now();
        let due = self.read("claim due uploads", move |database| {
            // Most sweeps find nothing. They then do without a write transaction.
            let due = tables::due_ids(&database.begin_read()?.open_table(DUE)?, now, limit)?;
            Ok(!due.is_empty())
        });
        if !due.await? {
            return Ok(Vec::new());
        }
        self.write_freeing("claim due uploads", move |transaction| {
            let mut claimed = Vec::new();
            // Another claim may have run since the read, so this looks again.
            let due = tables::due_ids(&transaction.open_table(DUE)?, now, limit)?;
            for id in due {
                let subject = transaction
                    .open_table(OUTSTANDING)?
                    .get(id)?
                    .map(|entry| SubjectId::new(entry.value().2))
                    .transpose()?;
                let Some(subject) = subject else { continue };
                let avatar = AvatarId::from_bytes(id);
                let until = now.plus(lease);
                set_state(transaction, State::Retired, &subject, avatar, until)?;
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
        self.write_freeing("defer an upload", move |transaction| {
            let Outstanding { subject, avatar } = outstanding.clone();
            let found = state_of(&transaction.open_table(OUTSTANDING)?, &subject, avatar)?;
            if found == Some(State::Retired) {
                let due = clock.now().plus(by);
                set_state(transaction, State::Retired, &subject, avatar, due)?;
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
        self.write_freeing("invalidate an upload", move |transaction| {
            let Outstanding { subject, avatar } = outstanding.clone();
            let current = current(&transaction.open_table(RECORDS)?, &subject)?;
            if current.is_some_and(|current| current.avatar_id == avatar) {
                return Ok(Invalidated::Kept);
            }
            let found = state_of(&transaction.open_table(OUTSTANDING)?, &subject, avatar)?;
            let reserved = Reserved::read(&transaction.open_table(RESERVATIONS)?, avatar)?;
            // The upload was current, so the sweep removes its objects when they are due. Version
            // 0.1.0 kept no reservation of such an upload.
            let is_former = matches!(reserved, Some(Reserved::WasCurrent) | None);
            if found == Some(State::Retired) && is_former {
                return Ok(Invalidated::Kept);
            }
            let due = clock.now().plus(lease);
            // The first reason stays, because a repeated commit is answered by it.
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
        self.write_freeing("forget an upload", move |transaction| {
            forget(transaction, avatar)
        })
        .await
    }

    async fn upload_state(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
    ) -> Result<UploadState, CatalogError> {
        let (subject, clock) = (subject.clone(), Arc::clone(&self.clock));
        self.read("read the state of an upload", move |database| {
            let transaction = database.begin_read()?;
            let current = current(&transaction.open_table(RECORDS)?, &subject)?;
            if current.is_some_and(|current| current.avatar_id == avatar) {
                return Ok(UploadState::Current);
            }
            let found = state_of(&transaction.open_table(OUTSTANDING)?, &subject, avatar)?;
            let reserved = Reserved::read(&transaction.open_table(RESERVATIONS)?, avatar)?;
            Ok(match (found, reserved) {
                (None, _) => UploadState::Unknown,
                (Some(State::Pending), Some(Reserved::Valid { deadline, .. }))
                    if deadline > clock.now() =>
                {
                    UploadState::Pending
                }
                (_, Some(Reserved::Valid { .. })) => UploadState::Expired,
                (_, Some(Reserved::Invalid(_) | Reserved::WasCurrent) | None) => {
                    UploadState::Retired
                }
            })
        })
        .await
    }

    async fn deleted_up_to(&self, subject: &SubjectId) -> Result<Version, CatalogError> {
        let subject = subject.clone();
        self.read("read the last delete", move |database| {
            let subjects = database.begin_read()?.open_table(VERSIONS)?;
            Ok(Version(versions(&subjects, &subject)?.1))
        })
        .await
    }

    async fn outstanding(&self) -> Result<Vec<Outstanding>, CatalogError> {
        self.read("list outstanding uploads", |database| {
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
}

/// A removal. Its step may run twice, because a commit that failed in its last sync may have
/// happened.
pub(super) struct Removal {
    pub(super) subject: SubjectId,
    pub(super) precondition: Precondition,
    pub(super) lease: Duration,
    pub(super) events_kept: u32,
    pub(super) clock: Arc<dyn Clock>,
    /// The record that the first run removed. The second run finds no record, and returns this one.
    pub(super) taken: Mutex<Option<Record>>,
}

impl Removal {
    pub(super) fn run(
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
        // An upload that was reserved before this delete must not become current after it. The same
        // holds for an upload of a lost catalog; its version is below the floor. It also holds if
        // the catalog does not know the subject, because it may have lost it.
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
            delete_current(transaction, self.events_kept, subject, record, times)?;
        }
        let others: Vec<_> = others.into_iter().map(AvatarId::from_bytes).collect();
        for avatar in &others {
            let reserved = Reserved::read(&transaction.open_table(RESERVATIONS)?, *avatar)?;
            match reserved {
                Some(Reserved::Valid { .. } | Reserved::Invalid(_)) => {
                    retire_invalid(transaction, subject, *avatar, due, Invalid::Superseded)?;
                }
                Some(Reserved::WasCurrent) | None => {
                    set_state(transaction, State::Retired, subject, *avatar, due)?;
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
        let is_empty = record.is_none() && outstanding.is_empty();
        Ok(Ok((!is_empty).then_some(Removed {
            record,
            outstanding,
        })))
    }
}

/// Removes the current record, for a delete or a drop. Its id is due `lease` after `now`.
fn delete_current(
    transaction: &WriteTransaction,
    events_kept: u32,
    subject: &SubjectId,
    record: &Record,
    (now, lease): (Timestamp, Duration),
) -> Result<(), Failure> {
    transaction.open_table(RECORDS)?.remove(subject.as_str())?;
    update_stats(transaction, record, Change::Removed)?;
    let event = codec::encode_event(now, Some((record, now)), None)?;
    append_event(transaction, events_kept, subject, &event)?;
    let due = now.plus(lease);
    retire_former(transaction, subject, record.avatar_id, due)
}
