//! The errors of the service.

use std::time::Duration;

use cameo_imaging as imaging;

use crate::avatar::{Lock, Policy};
use crate::catalog::CatalogError;
use crate::moderation::ModerationError;
use crate::storage::StoreError;

/// Why a request failed. The text is for the client. The source is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The subject has no avatar.
    #[error("there is no avatar")]
    NotFound,
    /// The picture was refused.
    #[error(transparent)]
    Picture(#[from] imaging::Error),
    /// The picture needs more memory than the whole budget has.
    #[error("decoding the picture takes {needed_mib} MiB of memory; at most {available_mib} MiB")]
    TooMuchMemory {
        /// The memory that it needs, in MiB.
        needed_mib: u64,
        /// The memory of the budget, in MiB.
        available_mib: u64,
    },
    /// No memory or worker became free within `processing.queue_timeout`.
    #[error("too many uploads are under way")]
    Overloaded {
        /// The time after which the client may try again.
        retry_after: Duration,
    },
    /// The caller has given up. Nothing was changed.
    #[error("the caller has given up")]
    GivenUp,
    /// The current avatar does not meet the precondition.
    #[error("the current avatar is not the one that the request expects")]
    PreconditionFailed,
    /// A later upload or a delete was committed first.
    #[error("a later upload, or a delete, came first")]
    Superseded,
    /// The upload took too long and was aborted.
    #[error("the upload could not be stored in time")]
    TimedOut,
    /// A lock stops uploads for the subject. The lock is unknown if it was removed meanwhile.
    #[error("{}", locked_text(.0.as_ref()))]
    Locked(Option<Lock>),
    /// Moderation rejected the picture, for this reason. The reason may be empty.
    #[error("{}", rejected_text(.0))]
    Rejected(String),
    /// Moderation gave no verdict, and the configuration does not allow pictures without one.
    #[error("pictures cannot be checked at the moment")]
    ModerationUnavailable(#[source] ModerationError),
    /// The subject has no lock.
    #[error("there is no lock")]
    NotLocked,
    /// The end of a new lock is in the past.
    #[error("until is in the past")]
    LockEnded,
    /// The subject would have too many viewers.
    #[error("{} viewers; at most {}", Policy::MAX_VIEWERS + 1, Policy::MAX_VIEWERS)]
    TooManyViewers,
    /// Too many callers change the policy of one subject.
    #[error("too many changes of this user are under way")]
    Contention,
    /// The store failed.
    #[error("the store does not answer as it should")]
    Storage(#[from] StoreError),
    /// The catalog failed. The request may be repeated.
    #[error("the catalog does not answer as it should")]
    Catalog(#[source] CatalogError),
    /// A fault of this program, or corrupt data in the catalog.
    #[error("an internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn rejected_text(reason: &str) -> String {
    match reason {
        "" => "the picture was rejected".to_owned(),
        reason => format!("the picture was rejected: {reason}"),
    }
}

fn locked_text(lock: Option<&Lock>) -> String {
    let Some(lock) = lock else {
        return "uploads for this user are locked".to_owned();
    };
    let reason = match lock.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    match lock.until {
        None => format!("uploads for this user are locked{reason}"),
        Some(until) => format!("uploads for this user are locked until {until}{reason}"),
    }
}

impl From<CatalogError> for Error {
    fn from(error: CatalogError) -> Self {
        // A corrupt record fails again, so the client is not asked to repeat the request.
        if error.is_corrupt() {
            Self::Internal(Box::new(error))
        } else {
            Self::Catalog(error)
        }
    }
}
