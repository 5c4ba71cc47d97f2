//! The catalog: which avatar each subject has, and which uploads still have objects to remove.
//!
//! The port has four parts: [`Records`], [`Removals`], [`Policies`] and [`Events`]. [`Catalog`] is all
//! of them together. Every adapter passes the same `contract` suite.
//!
//! # Surviving a crash
//!
//! Objects are written before the record that names them, and removed after the record is gone. In
//! between, exactly one of two sets names them:
//!
//! - **pending**: uploads under way. `reserve` adds an id before the first object is written.
//! - **retired**: avatars whose objects are to be removed. `replace` and `remove` add the ids that
//!   they take out of use. `claim` moves a pending id here after its deadline.
//!
//! Only a pending id can be committed. So an id that a sweep has claimed never becomes current by a
//! commit. An id leaves both sets only after its objects are gone.
//!
//! A pending upload is *expired* after its deadline. Redis may have acknowledged its commit and then
//! lost its last writes. So the sweep keeps the objects of a complete upload (one whose manifest is
//! in the store) for a while, and `restore` can make it current. `invalidate` ends this.
//!
//! # Versions never decrease
//!
//! A new version is greater than the subject's last version and than the version floor. So no
//! version is given out twice, even if the catalog loses its last writes. The floor rises to the
//! number of milliseconds since 2025 whenever the catalog may have lost data: the catalog is new
//! while the store holds uploads, another Redis process answers than before, or a rebuild ran.
//!
//! If two records compete for a subject, the one with the greater
//! [`Record::rank`](crate::avatar::Record::rank) wins. This is the later reservation, unless the
//! versions show that the floor has risen in between. So a rebuild never undoes an upload that was
//! made after a loss. This holds even if the new server's clock is behind the lost server's clock.
//!
//! # Time
//!
//! The catalog's own clock decides: Redis's clock for a fleet, the process's clock for an embedded
//! catalog. Callers pass durations, so replicas whose clocks differ do no harm.
//!
//! # Layouts
//!
//! Records, policies and events carry a layout number. The previous layout is still read. A record of an
//! unknown layout is an error for its own subject alone. A reader skips fields that it does not
//! know, so from layout 2 on, replicas of neighbouring releases can share a catalog.

mod codec;
#[cfg(test)]
pub(crate) mod contract;
mod embedded;
mod events;
mod metered;
mod policies;
mod records;
mod redis;
mod removals;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::redis::RedisCatalog;
pub use embedded::{Clock, EmbeddedCatalog, EmbeddedOpenError};
pub use events::Events;
pub use metered::MeteredCatalog;
pub use policies::{Policies, PolicyChange, PolicyRestore, Uploader};
pub use records::{
    Found, InitialState, Page, Precondition, Records, Replaced, Reservation, Restored, Stats,
    StatsRow, SubjectLocked,
};
pub use removals::{
    Claimed, Due, Invalidated, Outstanding, PreconditionFailed, Removals, Removed, UploadState,
};

use crate::telemetry::Health;

/// A whole catalog: records, removals, policies and events, and the health of the server behind them.
///
/// Every adapter guarantees, for every operation of the four parts:
/// - An operation is one atomic step: it happens completely or not at all.
/// - An acknowledged step survives the death of the process.
/// - If the caller drops the future, the step is either done or not done, never half done.
/// - A step can be repeated, for example because its answer was lost: it takes effect once. An id
///   that was claimed by a lost answer is due again after its lease.
/// - A duration counts from the moment of the step, by the catalog's own clock.
#[async_trait]
pub trait Catalog: Records + Removals + Policies + Events {
    /// Does the catalog's periodic work and reports problems for the operator. The service calls it
    /// every few seconds. An adapter without periodic work reports nothing.
    async fn watch(&self) -> Result<Watched, CatalogError> {
        Ok(Watched::default())
    }

    /// Tests whether the catalog accepts a write. A catalog that can be read but not written is
    /// [degraded](Health::Degraded), which is not an error.
    async fn check(&self) -> Result<Health, CatalogError>;
}

/// The result of [`Catalog::watch`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watched {
    /// Problems that do not stop the catalog. The text of a problem stays the same as long as the
    /// problem lasts.
    pub warnings: Vec<String>,
    /// How far the catalog's clock is ahead of this machine's clock, in seconds. `None` if the
    /// catalog uses this machine's clock.
    pub clock_skew: Option<f64>,
}

/// A position among all current records, or among the events of a partition. Each adapter has its
/// own text for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// The position before the first record or event.
    pub const START: Self = Self(String::new());
}

/// A catalog operation failed. The source has the details. They are for the log only, not for
/// clients.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the catalog could not {operation}")]
pub struct CatalogError {
    operation: &'static str,
    is_corrupt: bool,
    is_refusal: bool,
    #[source]
    source: Arc<dyn std::error::Error + Send + Sync>,
}

impl CatalogError {
    /// An error of `operation` (such as "read a record"), caused by `source`.
    pub fn new(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            operation,
            is_corrupt: false,
            is_refusal: false,
            source: Arc::from(source.into()),
        }
    }

    /// Like [`new`](Self::new), for a catalog that answers, but holds data that cannot be decoded.
    pub fn corrupt(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            is_corrupt: true,
            ..Self::new(operation, source)
        }
    }

    /// Like [`new`](Self::new), for a catalog that refused the step before it changed anything: it
    /// has no room, or it lacks replicas.
    pub fn refused(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            is_refusal: true,
            ..Self::new(operation, source)
        }
    }

    /// Whether the catalog refused the step before it changed anything. After any other error the
    /// step may have happened.
    pub const fn is_refusal(&self) -> bool {
        self.is_refusal
    }

    /// Whether the stored data is corrupt. An operator has to repair it; a retry does not help.
    pub const fn is_corrupt(&self) -> bool {
        self.is_corrupt
    }
}
