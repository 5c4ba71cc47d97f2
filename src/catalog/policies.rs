//! The port's third part: the policies of subjects.

use async_trait::async_trait;

use super::CatalogError;
use crate::avatar::{Lock, Policy, SubjectId, Timestamp};

/// The policies of subjects: their locks and viewers.
///
/// A policy belongs to a subject, not to an avatar. So an upload, a delete and a restore of an avatar
/// do not change it. [`Records::replace`](super::Records::replace) checks the lock in its own step.
///
/// The store keeps a copy of each policy, which is written before the catalog. The policy with the
/// higher sequence is the later one.
#[async_trait]
pub trait Policies: Send + Sync + 'static {
    /// The subject's policy, and the time of the catalog's clock. The policy of a subject that never
    /// had one is empty and has the sequence 0. A lock that has ended is not returned.
    async fn policy(&self, subject: &SubjectId) -> Result<(Policy, Timestamp), CatalogError>;

    /// The lock that is in force. This is cheaper than [`policy`](Self::policy), because it does not
    /// read the viewers.
    async fn lock(&self, subject: &SubjectId) -> Result<Option<Lock>, CatalogError>;

    /// Stores a policy if the stored one has the sequence `after`. A repetition gives the same answer
    /// until the policy changes again.
    ///
    /// A catalog without space refuses a policy that is larger than the stored one. It accepts any
    /// other, and it accepts a lock.
    async fn set_policy(
        &self,
        subject: &SubjectId,
        policy: &Policy,
        after: u64,
    ) -> Result<PolicyChange, CatalogError>;

    /// Stores a policy that was found in the store, if it has a higher sequence than the stored one.
    async fn restore_policy(
        &self,
        subject: &SubjectId,
        policy: &Policy,
    ) -> Result<PolicyRestore, CatalogError>;
}

/// The result of [`Policies::set_policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyChange {
    /// The policy is stored.
    Stored,
    /// The stored policy has another sequence. Nothing changed.
    Conflict,
}

/// The result of [`Policies::restore_policy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyRestore {
    /// The policy is stored.
    Restored,
    /// The stored policy is at least as late. Nothing changed.
    Kept,
}

/// Who commits an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploader {
    /// Anyone but an admin. A lock refuses the upload.
    Ordinary,
    /// An admin, whom no lock stops.
    Admin,
}
