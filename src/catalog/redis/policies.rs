//! Policies in Redis.

use async_trait::async_trait;

use super::values::Failure;
use super::{RedisCatalog, Script};
use crate::avatar::{Lock, Policy, SubjectId, Timestamp};
use crate::catalog::codec::{self, EncodedPolicy};
use crate::catalog::{CatalogError, Policies, PolicyChange, PolicyRestore};

/// The time, the head and the viewers of a policy.
type Answer = (u64, Option<Vec<u8>>, Option<Vec<u8>>);

#[async_trait]
impl Policies for RedisCatalog {
    async fn policy(&self, subject: &SubjectId) -> Result<(Policy, Timestamp), CatalogError> {
        let read = async {
            let script = &self.scripts.policy;
            let (now, head, viewers): Answer = self.step_on_subject(script, subject, &[]).await?;
            let (head, viewers) = (head.unwrap_or_default(), viewers.unwrap_or_default());
            let now = Timestamp::from_unix_ms(now);
            Ok((codec::decode_policy(&head, &viewers)?.at(now), now))
        };
        read.await
            .map_err(|failure: Failure| failure.into_error("read a policy"))
    }

    async fn lock(&self, subject: &SubjectId) -> Result<Option<Lock>, CatalogError> {
        let read = async {
            let script = &self.scripts.lock;
            let (now, head): (u64, Option<Vec<u8>>) =
                self.step_on_subject(script, subject, &[]).await?;
            let Some(head) = head else {
                return Ok(None);
            };
            let lock = codec::decode_policy_head(&head)?.lock;
            Ok(lock.filter(|lock| lock.is_in_force(Timestamp::from_unix_ms(now))))
        };
        read.await
            .map_err(|failure: Failure| failure.into_error("read a lock"))
    }

    async fn set_policy(
        &self,
        subject: &SubjectId,
        policy: &Policy,
        after: u64,
    ) -> Result<PolicyChange, CatalogError> {
        let stored = async {
            // The script that Redis also runs at its maxmemory is for a policy that needs hardly
            // any memory. The number of viewers decides.
            let (before, _) = self.policy(subject).await?;
            let script = if policy.viewers.len() <= before.viewers.len() {
                &self.scripts.shrink_policy
            } else {
                &self.scripts.set_policy
            };
            let failed = |failure: Failure| failure.into_error("store a policy");
            let after = after.to_string();
            let is_stored = self.store_policy(script, subject, policy, &after);
            is_stored.await.map_err(failed)
        };
        Ok(if stored.await? {
            PolicyChange::Stored
        } else {
            PolicyChange::Conflict
        })
    }

    async fn restore_policy(
        &self,
        subject: &SubjectId,
        policy: &Policy,
    ) -> Result<PolicyRestore, CatalogError> {
        let is_stored = self.store_policy(&self.scripts.set_policy, subject, policy, "");
        let is_stored = is_stored.await;
        let is_stored = is_stored.map_err(|failure| failure.into_error("restore a policy"))?;
        Ok(if is_stored {
            PolicyRestore::Restored
        } else {
            PolicyRestore::Kept
        })
    }
}

impl RedisCatalog {
    /// Runs the script that stores a policy. Returns whether the policy is stored.
    async fn store_policy(
        &self,
        script: &Script,
        subject: &SubjectId,
        policy: &Policy,
        after: &str,
    ) -> Result<bool, Failure> {
        let EncodedPolicy { head, viewers } = codec::encode_policy(policy)?;
        let name = subject.as_str().as_bytes();
        let arguments = [name, &head, &viewers, after.as_bytes()];
        let keys = Self::keys(self.partitions.of(subject.as_str()));
        self.change(script, subject, &keys, &arguments).await
    }
}
