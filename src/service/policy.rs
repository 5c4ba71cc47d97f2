//! Changes the policy of a subject: its lock and its viewers.
//!
//! A change reads the policy from the catalog and from the store, writes the new one to the store, and
//! then to the catalog. The later of the two that it reads counts. So a change also repairs a catalog
//! that has lost its last writes, and a change that failed halfway is repaired by the next change or
//! by a rebuild.
//!
//! Two writers may change a policy at once. The catalog accepts a policy only from a writer that has
//! read the stored one. The other writer starts again. The writers of one process take turns, so they
//! do not disturb each other.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::warn;

use super::{Error, Removal, Service};
use crate::audit::AuditRecord;
use crate::avatar::{
    Lock, ObjectKey, Policy, PolicyDocument, PolicyDocumentError, SubjectHash, SubjectId, Timestamp,
};
use crate::catalog::{PolicyChange, PolicyRestore, Precondition};
use crate::telemetry::chain;

/// The number of attempts of a change. An attempt fails if another process comes first.
const MAX_ATTEMPTS: u32 = 16;

/// Lets the changes of a subject's policy in this process take turns.
pub(super) struct PolicyTurns(Vec<Semaphore>);

impl Default for PolicyTurns {
    fn default() -> Self {
        // Subjects share turns by the first byte of their hashes.
        Self((0..256).map(|_| Semaphore::new(1)).collect())
    }
}

impl PolicyTurns {
    /// Waits for the turn of a subject, at most for `limit`.
    async fn wait(
        &self,
        owner: SubjectHash,
        limit: Duration,
    ) -> Result<SemaphorePermit<'_>, Error> {
        let turn = self.0[usize::from(owner.as_bytes()[0])].acquire();
        match tokio::time::timeout(limit, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Error::Contention),
        }
    }
}

/// What a rebuild did with a policy in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundPolicy {
    /// The catalog has it now.
    Restored,
    /// The catalog already had it, or a later one.
    Known,
    /// It, or the catalog's policy, is damaged or of a later release.
    Unreadable,
}

impl Service {
    /// The lock of a subject.
    ///
    /// # Errors
    /// [`Error::NotLocked`], [`Error::Catalog`]
    pub async fn lock(&self, subject: &SubjectId) -> Result<Lock, Error> {
        self.catalog.lock(subject).await?.ok_or(Error::NotLocked)
    }

    /// Checks that no lock stops an upload. The commit checks it again.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Catalog`]
    pub async fn check_lock(&self, subject: &SubjectId) -> Result<(), Error> {
        match self.catalog.lock(subject).await? {
            None => Ok(()),
            Some(lock) => Err(Error::Locked(Some(lock))),
        }
    }

    /// Locks a subject, or replaces its lock. When this returns, no upload of anybody but an admin
    /// becomes current until `until` or until the lock is removed.
    ///
    /// # Errors
    /// - [`Error::LockEnded`]: `until` is in the past. Nothing has changed.
    /// - [`Error::Storage`], [`Error::Catalog`], [`Error::Contention`]: the outcome is unknown. A
    ///   repetition completes the change.
    pub async fn set_lock(
        &self,
        subject: &SubjectId,
        reason: &str,
        until: Option<Timestamp>,
    ) -> Result<Lock, Error> {
        let changed = self.change_policy(subject, |policy, now| {
            let lock = Lock {
                reason: reason.to_owned(),
                until,
                locked_at: now,
            };
            if !lock.is_in_force(now) {
                return Err(Error::LockEnded);
            }
            policy.lock = Some(lock);
            Ok(())
        });
        changed.await?.lock.ok_or(Error::NotLocked)
    }

    /// Locks a subject, and then removes its avatar. The lock comes first, so no upload slips in
    /// between. It is no error if there is no avatar.
    ///
    /// # Errors
    /// Those of [`set_lock`](Self::set_lock) and [`remove`](Self::remove). After an error of the
    /// removal the subject stays locked.
    pub async fn lock_and_remove(
        &self,
        subject: &SubjectId,
        reason: &str,
        until: Option<Timestamp>,
    ) -> Result<(Lock, Option<Removal>), Error> {
        let lock = self.set_lock(subject, reason, until).await?;
        match self.remove(subject, &Precondition::Anything).await {
            Ok(removal) => Ok((lock, Some(removal))),
            Err(Error::NotFound) => Ok((lock, None)),
            Err(error) => Err(error),
        }
    }

    /// Removes the lock of a subject. It is no error if there is none.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`], [`Error::Contention`]: the outcome is unknown. A
    /// repetition completes the change.
    pub async fn unlock(&self, subject: &SubjectId) -> Result<(), Error> {
        let changed = self.change_policy(subject, |policy, _| {
            policy.lock = None;
            Ok(())
        });
        changed.await.map(drop)
    }

    /// The users who may see the avatar of a subject where avatars are private.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub async fn viewers(&self, subject: &SubjectId) -> Result<BTreeSet<SubjectId>, Error> {
        Ok(self.catalog.policy(subject).await?.0.viewers)
    }

    /// Lets a user see the avatar of a subject. It is no error if the user may see it already.
    ///
    /// # Errors
    /// - [`Error::TooManyViewers`]: nothing has changed.
    /// - [`Error::Storage`], [`Error::Catalog`], [`Error::Contention`]: the outcome is unknown. A
    ///   repetition completes the change.
    pub async fn add_viewer(&self, subject: &SubjectId, viewer: &SubjectId) -> Result<(), Error> {
        let changed = self.change_policy(subject, |policy, _| {
            policy.viewers.insert(viewer.clone());
            if policy.viewers.len() > Policy::MAX_VIEWERS {
                return Err(Error::TooManyViewers);
            }
            Ok(())
        });
        changed.await.map(drop)
    }

    /// Removes a viewer. It is no error if the user was none.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`], [`Error::Contention`]: the outcome is unknown. A
    /// repetition completes the change.
    pub async fn remove_viewer(
        &self,
        subject: &SubjectId,
        viewer: &SubjectId,
    ) -> Result<(), Error> {
        let changed = self.change_policy(subject, |policy, _| {
            policy.viewers.remove(viewer);
            Ok(())
        });
        changed.await.map(drop)
    }

    /// Applies `change` to the policy of a subject, and returns the new policy. `change` gets the time
    /// of the catalog's clock. It may run several times.
    async fn change_policy(
        &self,
        subject: &SubjectId,
        change: impl Fn(&mut Policy, Timestamp) -> Result<(), Error>,
    ) -> Result<Policy, Error> {
        let owner = SubjectHash::of(subject);
        let _turn = self
            .policy_turns
            .wait(owner, self.settings.queue_timeout)
            .await?;
        for _ in 0..MAX_ATTEMPTS {
            let (known, now) = self.catalog.policy(subject).await?;
            let stored = match self.stored_policy(owner).await? {
                Ok(stored) => stored.unwrap_or_default().at(now),
                // A later release may keep more in it, so it must not be overwritten.
                Err(error @ PolicyDocumentError::UnknownLayout(_)) => {
                    return Err(Error::Internal(Box::new(error)));
                }
                Err(error @ PolicyDocumentError::Damaged(_)) => {
                    warn!(%owner, error = %chain(&error), "a damaged policy in the store is replaced");
                    Policy::default()
                }
            };
            let mut policy = if stored.sequence > known.sequence {
                stored.clone()
            } else {
                known.clone()
            };
            change(&mut policy, now)?;
            if policy.permits_the_same(&known) && known == stored {
                return Ok(policy);
            }
            policy.sequence = known.sequence.max(stored.sequence) + 1;
            self.store_policy(subject, &policy).await?;
            let stored = self.catalog.set_policy(subject, &policy, known.sequence);
            if stored.await? == PolicyChange::Stored {
                self.confirm_stored_policy(subject, &policy).await;
                return Ok(policy);
            }
        }
        Err(Error::Contention)
    }

    /// Makes sure that the store has this policy, which the catalog has accepted. Another writer may
    /// have overwritten the object before the catalog refused that writer's policy.
    async fn confirm_stored_policy(&self, subject: &SubjectId, policy: &Policy) {
        let confirmed = async {
            match self.stored_policy(SubjectHash::of(subject)).await? {
                Ok(Some(stored)) if stored == *policy || stored.sequence > policy.sequence => {
                    Ok(())
                }
                Ok(_) | Err(PolicyDocumentError::Damaged(_)) => {
                    self.store_policy(subject, policy).await
                }
                Err(PolicyDocumentError::UnknownLayout(_)) => Ok(()),
            }
        };
        let confirmed: Result<(), Error> = confirmed.await;
        if let Err(error) = confirmed {
            // The change is acknowledged all the same: the object was written before.
            warn!(error = %chain(&error), "the policy of a subject in the store was not confirmed");
        }
    }

    async fn store_policy(&self, subject: &SubjectId, policy: &Policy) -> Result<(), Error> {
        let document = PolicyDocument {
            subject: subject.clone(),
            policy: policy.clone(),
        };
        let body = document
            .to_json()
            .map_err(|error| Error::Internal(error.into()))?;
        let owner = SubjectHash::of(subject);
        let key = ObjectKey::Policy { owner };
        Ok(self.store.put(&key, body.into()).await?)
    }

    /// The policy in the store; `None` if there is none.
    async fn stored_policy(
        &self,
        owner: SubjectHash,
    ) -> Result<Result<Option<Policy>, PolicyDocumentError>, Error> {
        let document = self.policy_document(owner).await?;
        Ok(document.map(|document| document.map(|document| document.policy)))
    }

    /// The policy document of a subject in the store; `None` if there is none.
    async fn policy_document(
        &self,
        owner: SubjectHash,
    ) -> Result<Result<Option<PolicyDocument>, PolicyDocumentError>, Error> {
        let Some(object) = self.store.get(&ObjectKey::Policy { owner }).await? else {
            return Ok(Ok(None));
        };
        let bytes = object.into_bytes().await?;
        Ok(PolicyDocument::from_json(&bytes).and_then(|document| {
            if SubjectHash::of(&document.subject) == owner {
                return Ok(Some(document));
            }
            let other = serde::de::Error::custom("it is the policy of another subject");
            Err(PolicyDocumentError::Damaged(other))
        }))
    }

    /// Restores the policy of a subject in the catalog from the store, unless the catalog's policy is
    /// at least as late. In that case the object in the store is made equal to the catalog's policy.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`]
    pub(super) async fn restore_policy(&self, owner: SubjectHash) -> Result<FoundPolicy, Error> {
        let document = match self.policy_document(owner).await? {
            Ok(Some(document)) => document,
            Ok(None) => return Ok(FoundPolicy::Known),
            Err(error) => {
                warn!(%owner, error = %chain(&error), "a policy in the store cannot be read");
                return Ok(FoundPolicy::Unreadable);
            }
        };
        let PolicyDocument { subject, policy } = document;
        let restored = async {
            if self.catalog.restore_policy(&subject, &policy).await? == PolicyRestore::Restored {
                return Ok(None);
            }
            self.catalog.policy(&subject).await.map(Some)
        };
        match restored.await {
            Ok(None) => {
                self.audit.record(&AuditRecord {
                    subject: Some(&subject),
                    ..AuditRecord::of_system("restore_policy", "done")
                });
                Ok(FoundPolicy::Restored)
            }
            Ok(Some((known, now))) => {
                if known != policy.at(now) {
                    self.store_policy(&subject, &known).await?;
                }
                Ok(FoundPolicy::Known)
            }
            Err(error) if error.is_corrupt() => Ok(FoundPolicy::Unreadable),
            Err(error) => Err(error.into()),
        }
    }
}
