//! The catalog as an embedded database: one file, one process.
//!
//! It uses `redb`, which is pure Rust (no C to build) and keeps a single file in a stable format. A
//! `redb` write transaction is ACID and is on the disk when it returns, which is exactly the atomic
//! step that the catalog promises. `SQLite` would bring a C library, and a query language for six
//! look-ups by key. A log-structured store (`fjall`) is faster at bulk loads, which an avatar service
//! does not have, and needs a folder of files.
//!
//! The parts of the port are in `records`, `removals`, `policies` and `events`; `tables` has the tables
//! and `handle` the file.

mod events;
mod handle;
mod policies;
mod records;
mod removals;
mod tables;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};

use super::{Catalog, CatalogError};
use crate::avatar::Timestamp;
use crate::telemetry::Health;
pub use handle::EmbeddedOpenError;
use handle::Handle;
use tables::{Failure, PROBE};

/// The clock of an embedded catalog.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The catalog as an embedded database. The open file is locked against other processes.
pub struct EmbeddedCatalog {
    handle: Arc<Handle>,
    events_kept: u32,
    clock: Arc<dyn Clock>,
}

impl EmbeddedCatalog {
    /// Opens the database file at `path`, and creates it if it does not exist. The catalog keeps the
    /// latest `events_kept` events.
    ///
    /// # Errors
    /// If the file cannot be created, is in use by another process, or is not a catalog.
    pub fn open(path: &Path, events_kept: u32) -> Result<Self, EmbeddedOpenError> {
        Self::open_with_clock(path, events_kept, Arc::new(SystemClock))
    }

    /// Like [`open`](Self::open), with another clock than the system's.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_clock(
        path: &Path,
        events_kept: u32,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EmbeddedOpenError> {
        Ok(Self {
            handle: Arc::new(Handle::open(path)?),
            events_kept,
            clock,
        })
    }

    /// Runs `work` on a thread that may block. `operation` names it in errors.
    async fn with_handle<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Handle) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, CatalogError> {
        let handle = Arc::clone(&self.handle);
        match tokio::task::spawn_blocking(move || work(&handle)).await {
            Ok(done) => done.map_err(|failure| failure.into_error(operation)),
            Err(panicked) => Err(CatalogError::new(operation, panicked)),
        }
    }

    /// Runs a step that only reads.
    async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        step: impl Fn(&Database) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.with_handle(operation, |handle| handle.read(step))
            .await
    }

    /// Runs `step` as one transaction. It is on the disk when this returns; if the step fails, it
    /// leaves no trace. While the disk is full the step is refused.
    async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        step: impl FnOnce(&WriteTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.with_handle(operation, |handle| handle.write(step))
            .await
    }

    /// Like [`write`](Self::write), for a step that frees space: it also runs while the disk is
    /// full. The step may run twice, because a commit that failed in its last sync may have happened.
    async fn write_freeing<T: Send + 'static>(
        &self,
        operation: &'static str,
        step: impl Fn(&WriteTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, CatalogError> {
        self.with_handle(operation, |handle| handle.write_freeing(step))
            .await
    }
}

#[async_trait]
impl Catalog for EmbeddedCatalog {
    async fn check(&self) -> Result<Health, CatalogError> {
        let probe = |transaction: &WriteTransaction| {
            let mut probe = transaction.open_table(PROBE)?;
            let count = probe.get(())?.map_or(0, |count| count.value());
            probe.insert((), count.wrapping_add(1))?;
            Ok(())
        };
        self.with_handle("take a write", move |handle| {
            let Err(failure) = handle.write(probe) else {
                return Ok(Health::Healthy);
            };
            let Some(reason) = handle.refusal_reason() else {
                return Err(failure);
            };
            handle.read(|database| Ok(database.begin_read()?.open_table(PROBE).map(drop)?))?;
            Ok(Health::Degraded(reason.to_owned()))
        })
        .await
    }
}

#[cfg(test)]
mod tests;
