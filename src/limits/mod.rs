//! How often anyone may do what.

mod local;
mod redis;

use std::time::Duration;

use async_trait::async_trait;

pub use self::redis::RedisLimiter;
pub use local::LocalLimiter;

use crate::avatar::SubjectId;
use crate::config::Quota;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Uploading or replacing an avatar.
    Upload,
    /// Deleting an avatar.
    Delete,
}

impl Action {
    /// The name that the limit goes by in headers and keys: `upload`, `delete`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Delete => "delete",
        }
    }
}

/// Counts what is done to each subject's avatar.
///
/// Every attempt counts, whoever makes it and however it ends. The count is a leaky bucket (GCRA):
/// the whole quota may be used at once, and comes back evenly over its period.
#[async_trait]
pub trait Limiter: Send + Sync + 'static {
    /// Counts one attempt, or says why it must wait; a refused attempt does not count.
    async fn check(&self, action: Action, subject: &SubjectId) -> Decision;

    /// Whether it did not count as it should when it was last asked.
    fn falls_back(&self) -> bool;

    /// Lets go of whatever counts nothing any more. To be called now and then.
    fn forget_idle(&self);
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is allowed.
    pub quota: Quota,
    /// Whether this attempt is, and how the count stands.
    pub verdict: Verdict,
    /// Who counted it.
    pub counted_by: CountedBy,
}

/// Who counted an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedBy {
    /// Redis, for all replicas together.
    Redis,
    /// This process, for itself.
    Process,
    /// Nobody: Redis does not, and nothing is allowed without it.
    Nobody,
}

impl CountedBy {
    /// The name in metrics: `redis`, `local`, `none`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Process => "local",
            Self::Nobody => "none",
        }
    }
}

/// Whether an attempt is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Allowed {
        /// How many more are, right now.
        remaining: u32,
        /// When the whole quota is there again, if nothing else happens.
        restored_in: Duration,
    },
    /// It is not.
    Denied {
        /// When one is again.
        retry_after: Duration,
    },
}
