//! The database file: creating it, opening it, and reopening it after an I/O error.
//!
//! After an I/O error `redb` refuses every further operation, reads included, until the file is
//! reopened. So this handle reopens it. Until the disk has space again, steps that need space
//! (uploads) are refused. Reads and steps that free space (deletes, sweeps) continue.
//!
//! On a full disk deletes would fail too, because every transaction writes new pages. A reserve file
//! holds space for them. The handle deletes the reserve on the first such failure, and refuses
//! uploads until the reserve is written again.

mod file;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase, WriteTransaction};
use tracing::{info, warn};

use super::tables::Failure;
use crate::private_files;
use crate::telemetry::chain;
pub use file::EmbeddedOpenError;
use file::{create, failed, is_created, open_existing, sync_folders};

/// Space for the transactions of deletes and sweeps on a full disk. A transaction that claims a whole
/// batch of a large catalog writes about half of this.
const RESERVE_BYTES: usize = 2 << 20;
/// Free space that must exist beside the reserve before uploads are accepted again. An upload writes
/// less than this.
const MIN_FREE_BYTES: usize = 1 << 20;
/// The minimum time between two tests for free space while uploads are refused.
const SPACE_TEST_INTERVAL: Duration = Duration::from_secs(1);
/// The minimum time between two attempts to reopen the file.
const REOPEN_INTERVAL: Duration = Duration::from_millis(250);
/// How long a read waits until the file is reopened.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between two attempts of a read.
const READ_PAUSE: Duration = Duration::from_millis(25);

/// The open database file.
pub(super) struct Handle {
    path: PathBuf,
    /// `None` after an I/O error, until the file is open again. An operation holds the read lock, so
    /// no operation is under way while a thread holds the write lock.
    database: RwLock<Option<Database>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Set while steps that need space are refused.
    refusal: Option<Refusal>,
    /// The time of the last attempt to reopen the file.
    last_reopen: Option<Instant>,
}

struct Refusal {
    reason: &'static str,
    /// The time of the last test for free space.
    last_test: Instant,
}

impl Handle {
    /// Opens the database file, and creates it if it does not exist. Syncs its folder.
    pub(super) fn open(path: &Path) -> Result<Self, EmbeddedOpenError> {
        if !is_created(path).map_err(|source| failed(path, source))? {
            create(path)?;
        }
        sync_folders(path).map_err(|source| failed(path, source))?;
        let database = open_existing(path)?;
        let handle = Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            state: Mutex::default(),
        };
        // A process that died may have left this file.
        remove(&handle.test_path());
        if let Err(error) = handle.write_reserve() {
            handle.refuse(reason(&error), &error);
        }
        Ok(handle)
    }

    /// Runs a step that writes nothing. If another step's I/O error has closed the file, this waits
    /// up to [`READ_TIMEOUT`] until the file is open again. So a failed write does not fail reads.
    pub(super) fn read<T>(
        &self,
        step: impl Fn(&Database) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + READ_TIMEOUT;
        loop {
            match self.with_database(&step) {
                Err(failure)
                    if (failure.is_io() || matches!(failure, Failure::Closed))
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(READ_PAUSE);
                }
                done => return done,
            }
        }
    }

    /// Runs a step that needs space, as one transaction. The step is refused while there is none.
    pub(super) fn write<T>(
        &self,
        step: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.test_space_if_refusing()?;
        let written = self.with_database(|database| transact(database, step));
        if let Err(failure) = &written
            && failure.is_io()
        {
            self.refuse(reason_of(failure.io_kind()), failure);
        }
        written
    }

    /// Runs a step that frees space, as one transaction. The step may use the reserve.
    pub(super) fn write_freeing<T>(
        &self,
        step: impl Fn(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.refusal_reason().is_some() {
            self.delete_reserve();
        }
        let written = self.with_database(|database| transact(database, &step));
        match written {
            Err(failure) if failure.is_io() && self.refusal_reason().is_none() => {
                self.refuse(reason_of(failure.io_kind()), &failure);
                self.delete_reserve();
                self.with_database(|database| transact(database, &step))
            }
            written => written,
        }
    }

    /// The reason why steps that need space are refused; `None` if they are accepted.
    pub(super) fn refusal_reason(&self) -> Option<&'static str> {
        self.state().refusal.as_ref().map(|refusal| refusal.reason)
    }

    fn with_database<T>(
        &self,
        step: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.reopen_if_closed();
        let done = match &*self.database() {
            Some(database) => step(database),
            None => return Err(Failure::Closed),
        };
        if let Err(failure) = &done
            && failure.is_io()
        {
            // A commit that failed in its last sync may have happened, and callers may repeat every
            // step.
            self.reopen(failure);
        }
        done
    }

    fn reopen_if_closed(&self) {
        let is_closed = self.database().is_none();
        if is_closed && self.may_reopen() {
            self.reopen(&Failure::Closed);
        }
    }

    /// Whether the last attempt to reopen the file was long enough ago.
    fn may_reopen(&self) -> bool {
        let last_reopen = self.state().last_reopen;
        last_reopen.is_none_or(|last| last.elapsed() >= REOPEN_INTERVAL)
    }

    /// Closes the database, which is unusable after an I/O error, and reopens its file.
    fn reopen(&self, cause: &Failure) {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Another operation that got the same error has already reopened the file.
        if database.as_ref().is_some_and(is_usable) {
            return;
        }
        // An open database locks its file, so it is closed first.
        *database = None;
        if !self.may_reopen() {
            return;
        }
        self.state().last_reopen = Some(Instant::now());
        match open_existing(&self.path) {
            Ok(opened) => {
                warn!(
                    error = %chain(cause),
                    "reopened the catalog's file after an I/O error"
                );
                *database = Some(opened);
            }
            Err(error) => warn!(
                error = %chain(&error),
                "cannot reopen the catalog's file yet"
            ),
        }
    }

    /// Refuses a step while there is no free space. Tests for free space at most once per
    /// [`SPACE_TEST_INTERVAL`].
    fn test_space_if_refusing(&self) -> Result<(), Failure> {
        {
            let mut state = self.state();
            let Some(refusal) = &mut state.refusal else {
                return Ok(());
            };
            if refusal.last_test.elapsed() < SPACE_TEST_INTERVAL {
                return Err(Failure::NoSpace(refusal.reason));
            }
            refusal.last_test = Instant::now();
        }
        if let Err(error) = self.write_reserve().and_then(|()| self.test_space()) {
            let reason = reason(&error);
            if let Some(refusal) = &mut self.state().refusal {
                refusal.reason = reason;
            }
            return Err(Failure::NoSpace(reason));
        }
        if self.state().refusal.take().is_some() {
            info!("the catalog accepts uploads again");
        }
        Ok(())
    }

    /// From now on, steps that need space are refused.
    fn refuse(&self, reason: &'static str, cause: &(dyn std::error::Error + 'static)) {
        let last_test = Instant::now();
        let refusal = Refusal { reason, last_test };
        if self.state().refusal.replace(refusal).is_none() {
            warn!(error = %chain(cause), "the catalog refuses uploads: {reason}");
        }
    }

    fn reserve_path(&self) -> PathBuf {
        self.path.with_extension("redb.reserve")
    }

    /// Writes the reserve file, unless it exists in full size.
    fn write_reserve(&self) -> io::Result<()> {
        let path = self.reserve_path();
        if fs::metadata(&path).is_ok_and(|facts| facts.len() == RESERVE_BYTES as u64) {
            return Ok(());
        }
        let written = fill(&path, RESERVE_BYTES);
        if written.is_err() {
            self.delete_reserve();
        }
        written
    }

    fn delete_reserve(&self) {
        remove(&self.reserve_path());
    }

    fn test_path(&self) -> PathBuf {
        self.path.with_extension("redb.room")
    }

    /// Tests for free space beside the reserve: writes a file and removes it. The reserve itself
    /// proves nothing, because a failed write may have left it in place.
    fn test_space(&self) -> io::Result<()> {
        let path = self.test_path();
        let written = fill(&path, MIN_FREE_BYTES);
        remove(&path);
        written
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a file that occupies `bytes` on the disk.
fn fill(path: &Path, bytes: usize) -> io::Result<()> {
    let mut options = private_files::options();
    let options = options.write(true).create(true).truncate(true);
    let mut file = options.open(path)?;
    // Random bytes, because zeros occupy no space on a file system that compresses.
    let mut content = vec![0; bytes];
    getrandom::fill(&mut content)?;
    file.write_all(&content)?;
    file.sync_all()
}

/// Removes a file that only occupies space, if it exists.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(
            error = %chain(&error),
            path = %path.display(),
            "cannot remove a file that holds space for the catalog"
        );
    }
}

/// Runs a step as one transaction. It is on the disk when this returns; if the step fails, it leaves
/// no trace.
fn transact<T>(
    database: &Database,
    step: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let transaction = database.begin_write()?;
    let done = step(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// Whether the database works: no I/O error has stopped it.
fn is_usable(database: &Database) -> bool {
    let usable = || -> Result<(), Failure> {
        database.begin_read()?;
        // After an I/O error a read may still succeed from memory; a write transaction reports the
        // error.
        database.begin_write()?.abort()?;
        Ok(())
    };
    usable().is_ok()
}

/// Describes an I/O error of the catalog's disk for an operator.
fn reason(error: &io::Error) -> &'static str {
    reason_of(Some(error.kind()))
}

/// Like [`reason`], from the kind of the error; `None` if the kind is not known.
fn reason_of(kind: Option<io::ErrorKind>) -> &'static str {
    match kind {
        Some(io::ErrorKind::StorageFull) => "the disk of the catalog is full",
        Some(io::ErrorKind::QuotaExceeded) => "the disk quota of the catalog is used up",
        Some(io::ErrorKind::FileTooLarge) => {
            "the catalog's file has reached the size limit of the system"
        }
        Some(io::ErrorKind::ReadOnlyFilesystem) => "the file system of the catalog is read-only",
        _ => "the disk of the catalog fails",
    }
}

#[cfg(test)]
mod tests;
