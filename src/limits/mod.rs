//! How often anyone may do what.

#[cfg(test)]
mod contract;
mod local;
mod redis;

use std::time::Duration;

use async_trait::async_trait;

pub use self::redis::RedisLimiter;
pub use local::LocalLimiter;

use crate::avatar::SubjectId;
use crate::config::{Limits, Quota};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Uploading or replacing an avatar.
    Upload,
    /// Deleting an avatar.
    Delete,
}

impl Action {
    /// The name in metrics and in the log: `upload`, `delete`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Delete => "delete",
        }
    }
}

/// Whose quota an attempt counts against. Users on the one hand, services and admins on the other
/// are counted apart, even where they have the same name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// A user who changes the avatar that is its own.
    User(SubjectId),
    /// A service or an admin, by the subject of its token, whosever avatar it changes.
    Service(String),
}

impl Caller {
    /// The user's id, or the subject of the token.
    pub fn name(&self) -> &str {
        match self {
            Self::User(subject) => subject.as_str(),
            Self::Service(name) => name,
        }
    }

    /// What a caller is, for people: `user`, `service`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Service(_) => "service",
        }
    }
}

/// The quota that counts an action of a caller, with its name in headers, keys and settings.
const fn quota_for(limits: &Limits, action: Action, caller: &Caller) -> (&'static str, Quota) {
    match (action, caller) {
        (Action::Upload, Caller::User(_)) => ("upload", limits.upload),
        (Action::Delete, Caller::User(_)) => ("delete", limits.delete),
        (Action::Upload, Caller::Service(_)) => ("service_upload", limits.service_upload),
        (Action::Delete, Caller::Service(_)) => ("service_delete", limits.service_delete),
    }
}

/// Counts what each caller does.
///
/// Every attempt counts, however it ends. The algorithm is GCRA (a leaky bucket): the whole quota
/// may be used at once, and comes back one by one, evenly over its period. In a span as long as the
/// period, almost twice the quota is therefore possible: the whole of it at once, and what comes
/// back meanwhile.
#[async_trait]
pub trait Limiter: Send + Sync + 'static {
    /// Counts one attempt, or says how long it must wait; a refused attempt does not count.
    async fn check(&self, action: Action, caller: &Caller) -> Decision;

    /// Whether it did not count as it should when it was last asked.
    fn falls_back(&self) -> bool;

    /// Lets go of whatever counts nothing any more. To be called now and then.
    fn forget_idle(&self);
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The name of the quota that counted: that of its setting, `upload`, `service_delete`.
    pub policy: &'static str,
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
        /// When there is one more, at the latest.
        next_in: Duration,
    },
    /// It is not.
    Denied {
        /// When one is again.
        retry_after: Duration,
    },
}
