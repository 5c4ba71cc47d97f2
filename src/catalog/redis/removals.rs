//! Removals in Redis.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tracing::warn;

use super::values::{self, Entry, Failure, avatar_id, outstanding};
use super::{PAGE, RedisCatalog, milliseconds, precondition_arguments};
use crate::avatar::{AvatarId, SubjectId, Version};
use crate::catalog::{
    CatalogError, Claimed, Due, Invalidated, Outstanding, Precondition, PreconditionFailed,
    Removals, Removed, UploadState,
};

/// The number of attempts of a removal. An attempt fails if an upload of the subject is reserved
/// between its two commands. That hardly happens this often in a row.
const MAX_ATTEMPTS: u32 = 8;
/// The answer of `claim.lua` for an upload whose reservation it cannot decode.
const UNDECODABLE: i64 = -2;

#[async_trait]
impl Removals for RedisCatalog {
    async fn remove(
        &self,
        subject: &SubjectId,
        precondition: &Precondition,
        lease: Duration,
    ) -> Result<Result<Option<Removed>, PreconditionFailed>, CatalogError> {
        let removed = async {
            let lease = milliseconds(lease);
            let highest = self.highest_version.load(Ordering::Relaxed).to_string();
            let partition = self.partitions.of(subject.as_str());
            // If the answer is lost, the step is repeated. The repetition finds the removed record
            // under this call's own key.
            let call = AvatarId::random()?;
            let mut keys = Self::keys(partition).to_vec();
            keys.push(partition.key(&format!("removal:{call}")));
            let mut attempts = 0;
            let answer = loop {
                let last = match self.read_entry(subject).await? {
                    Some(entry) => {
                        let entry = Entry::parse(&entry)?;
                        // A record that cannot be read is an error before anything changes.
                        entry.record()?;
                        entry.last
                    }
                    None => 0,
                };
                let last = last.to_string();
                let mut arguments = [subject.as_str(), &lease, &last, &highest]
                    .map(str::as_bytes)
                    .to_vec();
                arguments.extend(precondition_arguments(precondition));
                let removed = self.change(&self.scripts.remove, subject, &keys, &arguments);
                let answer: Option<Vec<Vec<u8>>> = removed.await?;
                attempts += 1;
                match answer {
                    Some(answer) => break answer,
                    None if attempts == MAX_ATTEMPTS => return Err(Failure::ConcurrentUploads),
                    None => {}
                }
            };
            if answer == [b"precondition failed"] {
                return Ok(Err(PreconditionFailed));
            }
            let (record, ids) = answer.split_first().ok_or(Failure::InvalidAnswer)?;
            let record = values::record(record)?;
            let outstanding = ids
                .iter()
                .map(|id| {
                    Ok(Outstanding {
                        subject: subject.clone(),
                        avatar: avatar_id(id)?,
                    })
                })
                .collect::<Result<Vec<_>, Failure>>()?;
            let nothing = record.is_none() && outstanding.is_empty();
            Ok(Ok((!nothing).then_some(Removed {
                record,
                outstanding,
            })))
        };
        removed
            .await
            .map_err(|failure: Failure| failure.into_error("remove a record"))
    }

    async fn drop_record(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<bool, CatalogError> {
        let lease = milliseconds(lease);
        let arguments = [&outstanding.avatar.as_bytes()[..], lease.as_bytes()];
        self.step_on_subject(&self.scripts.drop, &outstanding.subject, &arguments)
            .await
            .map_err(|failure| failure.into_error("drop a record"))
    }

    async fn claim(&self, lease: Duration, limit: usize) -> Result<Vec<Claimed>, CatalogError> {
        let claimed = async {
            self.check_partition_count()?;
            let lease = milliseconds(lease);
            let count = usize::from(self.partitions.count());
            let first = self.next_claim.fetch_add(1, Ordering::Relaxed) % count;
            let (mut claimed, mut failed) = (Vec::new(), None);
            for partition in self.partitions.all().cycle().skip(first).take(count) {
                let left = (limit - claimed.len()).to_string();
                // If the answer is lost, the claimed ids are due again after their lease.
                let due: Result<Vec<(Vec<u8>, i64)>, Failure> = self
                    .step(
                        &self.scripts.claim,
                        partition,
                        &[lease.as_bytes(), left.as_bytes()],
                    )
                    .await;
                // The ids of the other partitions are leased to this caller, so they are returned.
                let due = match due {
                    Ok(due) => due,
                    Err(failure) => {
                        failed.get_or_insert(failure);
                        continue;
                    }
                };
                for (name, overdue_ms) in due {
                    let outstanding = match outstanding(&name) {
                        Ok(outstanding) if overdue_ms != UNDECODABLE => outstanding,
                        _ => {
                            log_undecodable(&name);
                            continue;
                        }
                    };
                    claimed.push(Claimed {
                        outstanding,
                        due: match u64::try_from(overdue_ms) {
                            Ok(overdue_ms) => Due::Expired {
                                overdue: Duration::from_millis(overdue_ms),
                            },
                            Err(_) => Due::Retired,
                        },
                    });
                }
                if claimed.len() >= limit {
                    break;
                }
            }
            match failed {
                Some(failure) if claimed.is_empty() => Err(failure),
                _ => Ok(claimed),
            }
        };
        claimed
            .await
            .map_err(|failure: Failure| failure.into_error("claim due uploads"))
    }

    async fn defer(&self, outstanding: &Outstanding, by: Duration) -> Result<(), CatalogError> {
        let by = milliseconds(by);
        let arguments = [&outstanding.avatar.as_bytes()[..], by.as_bytes()];
        self.step_on_subject(&self.scripts.defer, &outstanding.subject, &arguments)
            .await
            .map_err(|failure| failure.into_error("defer an upload"))
    }

    async fn invalidate(
        &self,
        outstanding: &Outstanding,
        lease: Duration,
    ) -> Result<Invalidated, CatalogError> {
        let lease = milliseconds(lease);
        let arguments = [&outstanding.avatar.as_bytes()[..], lease.as_bytes()];
        let removable: bool = self
            .step_on_subject(&self.scripts.invalidate, &outstanding.subject, &arguments)
            .await
            .map_err(|failure| failure.into_error("invalidate an upload"))?;
        Ok(if removable {
            Invalidated::Removable
        } else {
            Invalidated::Kept
        })
    }

    async fn forget(&self, outstanding: &Outstanding) -> Result<(), CatalogError> {
        let arguments = [&outstanding.avatar.as_bytes()[..]];
        self.step_on_subject(&self.scripts.forget, &outstanding.subject, &arguments)
            .await
            .map_err(|failure| failure.into_error("forget an upload"))
    }

    async fn upload_state(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
    ) -> Result<UploadState, CatalogError> {
        let found = async {
            let arguments = [&avatar.as_bytes()[..]];
            let state: String = self
                .step_on_subject(&self.scripts.upload_state, subject, &arguments)
                .await?;
            match state.as_str() {
                "current" => Ok(UploadState::Current),
                "pending" => Ok(UploadState::Pending),
                "expired" => Ok(UploadState::Expired),
                "retired" => Ok(UploadState::Retired),
                "unknown" => Ok(UploadState::Unknown),
                _ => Err(Failure::InvalidAnswer),
            }
        };
        found
            .await
            .map_err(|failure: Failure| failure.into_error("read the state of an upload"))
    }

    async fn deleted_up_to(&self, subject: &SubjectId) -> Result<Version, CatalogError> {
        let read = async {
            let entry = self.read_entry(subject).await?;
            let deleted = entry.map_or(Ok(0), |entry| Ok(Entry::parse(&entry)?.deleted));
            deleted.map(Version)
        };
        read.await
            .map_err(|failure: Failure| failure.into_error("read the last delete"))
    }

    async fn outstanding(&self) -> Result<Vec<Outstanding>, CatalogError> {
        let listed = async {
            let mut listed = HashSet::new();
            for partition in self.partitions.all() {
                // Pending comes first: an id moves only from pending to retired, so none is missed.
                for set in ["pending", "retired"] {
                    // In pages, so that a long list does not block other commands.
                    let mut place = "0".to_owned();
                    loop {
                        let mut scan = redis::cmd("ZSCAN");
                        scan.arg(partition.key(set)).arg(&place);
                        scan.arg("COUNT").arg(PAGE);
                        let names: Vec<(Vec<u8>, String)>;
                        (place, names) = self.link.run(&scan).await?;
                        for (name, _) in &names {
                            match outstanding(name) {
                                Ok(outstanding) => {
                                    listed.insert(outstanding);
                                }
                                Err(_) => log_undecodable(name),
                            }
                        }
                        if place == "0" {
                            break;
                        }
                    }
                }
            }
            Ok(listed.into_iter().collect())
        };
        listed
            .await
            .map_err(|failure: Failure| failure.into_error("list outstanding uploads"))
    }
}

/// Logs an upload that is skipped because its name or its reservation is damaged or of a later
/// release.
fn log_undecodable(name: &[u8]) {
    let name = String::from_utf8_lossy(name);
    warn!(?name, "skipped an upload in redis that cannot be decoded");
}
