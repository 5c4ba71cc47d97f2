//! Policies in the embedded database.

use std::sync::Arc;

use async_trait::async_trait;
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use super::EmbeddedCatalog;
use super::tables::{Failure, POLICIES};
use crate::avatar::{Lock, Policy, SubjectId, Timestamp};
use crate::catalog::codec::{self, EncodedPolicy};
use crate::catalog::{CatalogError, Policies, PolicyChange, PolicyRestore};

#[async_trait]
impl Policies for EmbeddedCatalog {
    async fn policy(&self, subject: &SubjectId) -> Result<(Policy, Timestamp), CatalogError> {
        let (subject, clock) = (subject.clone(), Arc::clone(&self.clock));
        self.read("read a policy", move |database| {
            let policies = database.begin_read()?.open_table(POLICIES)?;
            let stored = policies.get(subject.as_str())?;
            let now = clock.now();
            let Some(stored) = stored else {
                return Ok((Policy::default(), now));
            };
            let (head, viewers) = stored.value();
            Ok((codec::decode_policy(head, viewers)?.at(now), now))
        })
        .await
    }

    async fn lock(&self, subject: &SubjectId) -> Result<Option<Lock>, CatalogError> {
        let (subject, clock) = (subject.clone(), Arc::clone(&self.clock));
        self.read("read a lock", move |database| {
            let policies = database.begin_read()?.open_table(POLICIES)?;
            lock_in_force(&policies, &subject, clock.now())
        })
        .await
    }

    async fn set_policy(
        &self,
        subject: &SubjectId,
        policy: &Policy,
        after: u64,
    ) -> Result<PolicyChange, CatalogError> {
        const OPERATION: &str = "store a policy";
        let encoded = encode(OPERATION, policy)?;
        let (before, _) = self.policy(subject).await?;
        let subject = subject.clone();
        let step = move |transaction: &WriteTransaction| {
            let mut policies = transaction.open_table(POLICIES)?;
            let sequence = match policies.get(subject.as_str())? {
                None => 0,
                Some(stored) => {
                    let (head, viewers) = stored.value();
                    // This repeats a step whose answer was lost.
                    if head == encoded.head && viewers == encoded.viewers {
                        return Ok(PolicyChange::Stored);
                    }
                    codec::decode_policy_head(head)?.sequence
                }
            };
            if sequence != after {
                return Ok(PolicyChange::Conflict);
            }
            let value = (encoded.head.as_slice(), encoded.viewers.as_slice());
            policies.insert(subject.as_str(), value)?;
            Ok(PolicyChange::Stored)
        };
        if policy.viewers.len() <= before.viewers.len() {
            self.write_freeing(OPERATION, step).await
        } else {
            self.write(OPERATION, step).await
        }
    }

    async fn restore_policy(
        &self,
        subject: &SubjectId,
        policy: &Policy,
    ) -> Result<PolicyRestore, CatalogError> {
        const OPERATION: &str = "restore a policy";
        let encoded = encode(OPERATION, policy)?;
        let (subject, sequence) = (subject.clone(), policy.sequence);
        self.write(OPERATION, move |transaction| {
            let mut policies = transaction.open_table(POLICIES)?;
            let stored = match policies.get(subject.as_str())? {
                None => 0,
                Some(stored) => codec::decode_policy_head(stored.value().0)?.sequence,
            };
            if stored >= sequence {
                return Ok(PolicyRestore::Kept);
            }
            let value = (encoded.head.as_slice(), encoded.viewers.as_slice());
            policies.insert(subject.as_str(), value)?;
            Ok(PolicyRestore::Restored)
        })
        .await
    }
}

fn encode(operation: &'static str, policy: &Policy) -> Result<EncodedPolicy, CatalogError> {
    codec::encode_policy(policy).map_err(|error| Failure::Encode(error).into_error(operation))
}

/// The lock of a subject that is in force at `now`.
pub(super) fn lock_in_force(
    policies: &impl ReadableTable<&'static str, (&'static [u8], &'static [u8])>,
    subject: &SubjectId,
    now: Timestamp,
) -> Result<Option<Lock>, Failure> {
    let Some(stored) = policies.get(subject.as_str())? else {
        return Ok(None);
    };
    let lock = codec::decode_policy_head(stored.value().0)?.lock;
    Ok(lock.filter(|lock| lock.is_in_force(now)))
}

/// Whether `viewer` is a viewer of a subject.
pub(super) fn is_viewer(
    policies: &impl ReadableTable<&'static str, (&'static [u8], &'static [u8])>,
    subject: &SubjectId,
    viewer: Option<&SubjectId>,
) -> Result<bool, Failure> {
    let stored = policies.get(subject.as_str())?;
    let (Some(stored), Some(viewer)) = (stored, viewer) else {
        return Ok(false);
    };
    Ok(codec::viewers_contain(stored.value().1, viewer)?)
}
