//! Why something was not done.

use std::time::Duration;

use cameo_imaging as imaging;

use crate::catalog::CatalogError;
use crate::storage::StoreError;

/// Why something was not done. What the caller may know is in the text; what only the operator
/// should know is in the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The subject has no avatar.
    #[error("there is no avatar")]
    NotFound,
    /// The picture was not taken.
    #[error(transparent)]
    Picture(#[from] imaging::Error),
    /// The picture needs more memory than there will ever be.
    #[error("decoding the picture takes {needed_mib} MiB of memory; at most {available_mib} MiB")]
    TooMuchMemory {
        /// What it needs.
        needed_mib: u64,
        /// What there is.
        available_mib: u64,
    },
    /// There was no room within the time that an upload may wait.
    #[error("too many uploads are under way")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// Whoever asked has given up, and nothing was changed.
    #[error("the caller has given up")]
    GivenUp,
    /// The current avatar is not what the caller expected.
    #[error("the current avatar is not the one that the request expects")]
    PreconditionFailed,
    /// A later upload or a delete came first.
    #[error("a later upload, or a delete, came first")]
    Superseded,
    /// The upload took so long that it was given up.
    #[error("the upload could not be stored in time")]
    TimedOut,
    /// The store failed.
    #[error("the store does not answer as it should")]
    Storage(#[from] StoreError),
    /// The catalog failed, and may be asked again.
    #[error("the catalog does not answer as it should")]
    Catalog(#[source] CatalogError),
    /// A fault of this program, or of what the catalog holds.
    #[error("an internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<CatalogError> for Error {
    fn from(error: CatalogError) -> Self {
        // Nobody is told to try again what will fail again.
        if error.is_corrupt() {
            Self::Internal(Box::new(error))
        } else {
            Self::Catalog(error)
        }
    }
}
