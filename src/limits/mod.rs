//! Rate limits: how often an account may upload and delete.
//!
//! [`Limiter`] is the port. [`RedisLimiter`] counts for all replicas together, [`LocalLimiter`] for
//! this process alone.

#[cfg(test)]
mod contract;
mod local;
mod redis;

use std::time::Duration;

use async_trait::async_trait;

pub(crate) use self::redis::RedisLimiter;
pub(crate) use local::LocalLimiter;

use crate::avatar::Account;
use crate::config::{Limits, Quota};

/// An action that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Uploading or replacing an avatar.
    Upload,
    /// Deleting an avatar.
    Delete,
}

impl Action {
    /// The name in metrics and in logs: `upload`, `delete`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Delete => "delete",
        }
    }
}

/// The quota for an action of an account, and its name in headers, Redis keys and settings.
const fn quota_for(limits: &Limits, action: Action, account: &Account) -> (&'static str, Quota) {
    match (action, account) {
        (Action::Upload, Account::User(_)) => ("upload", limits.upload),
        (Action::Delete, Account::User(_)) => ("delete", limits.delete),
        (Action::Upload, Account::Service(_)) => ("service_upload", limits.service_upload),
        (Action::Delete, Account::Service(_)) => ("service_delete", limits.service_delete),
    }
}

/// Counts the attempts of each account.
///
/// Every allowed attempt counts, whether or not the request succeeds in the end. The algorithm is
/// GCRA, a leaky bucket: the whole quota can be used at once, and it is restored one attempt at a
/// time, evenly over the quota's period. Any span as long as the period can therefore hold almost
/// twice the quota: the whole quota at once, and the attempts that are restored meanwhile.
#[async_trait]
pub trait Limiter: Send + Sync + 'static {
    /// Counts one attempt and allows it, or denies it. A denied attempt does not count.
    async fn check(&self, action: Action, account: &Account) -> Decision;

    /// Whether the last attempt could not be counted in the configured way.
    fn falls_back(&self) -> bool;

    /// Forgets the accounts whose whole quota is restored. The sweep calls this.
    fn forget_idle(&self);
}

/// The decision about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The name of the quota that applies; its setting has the same name: `upload`,
    /// `service_delete`.
    pub policy: &'static str,
    /// The quota that applies.
    pub quota: Quota,
    /// Whether the attempt is allowed, and how much of the quota is left.
    pub verdict: Verdict,
    /// The counter that decided.
    pub counted_by: CountedBy,
}

/// The counter that decided about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedBy {
    /// Redis, which counts for all replicas together.
    Redis,
    /// This process, which counts for itself.
    Process,
    /// No counter: Redis cannot count, and the configuration denies every attempt then.
    NoCounter,
}

impl CountedBy {
    /// The name in metrics: `redis`, `local`, `none`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Process => "local",
            Self::NoCounter => "none",
        }
    }
}

/// Whether an attempt is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The attempt is allowed.
    Allowed {
        /// How many more attempts are allowed at this moment.
        remaining: u32,
        /// Upper bound on the time until one more attempt is restored.
        next_in: Duration,
    },
    /// The attempt is denied.
    Denied {
        /// Time until the next attempt is allowed.
        retry_after: Duration,
    },
}
