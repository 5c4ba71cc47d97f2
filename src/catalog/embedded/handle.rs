//! The database file: creating it, opening it, and reopening it after an I/O error.
//!
//! After an I/O error `redb` refuses every further operation, reads included, until the file is
//! reopened. So this handle reopens it. Until the disk has space again, steps that need space
//! (uploads) are refused. Reads and steps that free space (deletes, sweeps) continue.
//!
//! On a full disk deletes would fail too, because every transaction writes new pages. A reserve file
//! holds space for them. The handle deletes the reserve on the first such failure, and refuses
//! uploads until the reserve is written again.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, WriteTransaction};
use tracing::{info, warn};

use super::tables::{self, Failure};
use crate::private_files;

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

/// The catalog's file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedOpenError {
    /// Another process has the file open.
    #[error(
        "the catalog {} is in use by another process; stop that process, or give this one another data_dir",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file exists, but is not a valid catalog.
    #[error(
        "the catalog {path} is damaged, or is not a catalog; move it away (mv {path} {path}.damaged), then run `cameo rebuild`, which restores the avatars from the store",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The database's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system failed to read or write the file.
    #[error("the catalog {} cannot be opened", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

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
                    error = cause as &dyn std::error::Error,
                    "reopened the catalog's file after an I/O error"
                );
                *database = Some(opened);
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                cause = std::error::Error::source(&error),
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
            warn!(error = cause, "the catalog refuses uploads: {reason}");
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
        let error = &error as &dyn std::error::Error;
        warn!(error, path = %path.display(), "cannot remove a file that holds space for the catalog");
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

/// Whether the file exists and is not empty.
fn is_created(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(facts) => Ok(facts.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Creates the complete file under another name and then renames it. So a crash or a full disk
/// leaves nothing that looks like a damaged catalog.
fn create(path: &Path) -> Result<(), EmbeddedOpenError> {
    let io_failed = |source| failed(path, source);
    // The lock lets only one of two processes create it.
    let folder = File::open(folder_of(path)).map_err(io_failed)?;
    folder.try_lock().map_err(|refused| match refused {
        TryLockError::WouldBlock => EmbeddedOpenError::InUse { path: path.into() },
        TryLockError::Error(source) => failed(path, source),
    })?;
    if is_created(path).map_err(io_failed)? {
        return Ok(());
    }
    let new = path.with_extension("redb.new");
    let created = create_at(&new).and_then(|()| fs::rename(&new, path).map_err(io_failed));
    if created.is_err() {
        // The first error is reported. If this fails too, the next start overwrites the file.
        let _ = fs::remove_file(&new);
    }
    created
}

fn create_at(path: &Path) -> Result<(), EmbeddedOpenError> {
    let mut options = private_files::options();
    let options = options.read(true).write(true).create(true).truncate(true);
    let file = options.open(path).map_err(|source| failed(path, source))?;
    let database = open_file(path, file)?;
    drop(database);
    let file = File::open(path).map_err(|source| failed(path, source))?;
    file.sync_all().map_err(|source| failed(path, source))
}

/// Opens a file that exists.
fn open_existing(path: &Path) -> Result<Database, EmbeddedOpenError> {
    let file = File::options().read(true).write(true).open(path);
    open_file(path, file.map_err(|source| failed(path, source))?)
}

fn open_file(path: &Path, file: File) -> Result<Database, EmbeddedOpenError> {
    let open = || -> Result<Database, Failure> {
        let database = Builder::new().create_file(file)?;
        // On a full disk an existing catalog can be opened only if nothing is written.
        if !tables::are_current(&database)? {
            transact(&database, tables::create)?;
        }
        Ok(database)
    };
    // The database panics on some damaged files.
    let opened = catch_unwind(AssertUnwindSafe(open));
    opened
        .unwrap_or(Err(Failure::Panicked))
        .map_err(|failure| sort(path, failure))
}

/// Distinguishes a file in use, a damaged file, and an error of the operating system.
fn sort(path: &Path, failure: Failure) -> EmbeddedOpenError {
    let path = path.to_owned();
    if matches!(
        failure,
        Failure::Database(DatabaseError::DatabaseAlreadyOpen)
    ) {
        return EmbeddedOpenError::InUse { path };
    }
    match failure.io_kind() {
        Some(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) | None => {
            let source = Box::new(failure);
            EmbeddedOpenError::Damaged { path, source }
        }
        Some(kind) => {
            let source = io::Error::new(kind, failure);
            EmbeddedOpenError::Io { path, source }
        }
    }
}

fn failed(path: &Path, source: io::Error) -> EmbeddedOpenError {
    let path = path.to_owned();
    EmbeddedOpenError::Io { path, source }
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

/// Syncs the file's folder and the folder above, so that their entries survive a power cut.
fn sync_folders(path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    File::open(folder)?.sync_all()?;
    match File::open(folder_of(folder)).and_then(|above| above.sync_all()) {
        // The folder above may be unreadable. Then this process did not create the folder in it.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// The parent folder of a file or a folder.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_waits_until_the_file_is_reopened() {
        let folder = tempfile::tempdir().unwrap();
        let handle = Handle::open(&folder.path().join("catalog.redb")).unwrap();
        // Two failures in a row keep the file closed until the next attempt to reopen it.
        for _ in 0..2 {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            let failed = handle.write_freeing(|_| -> Result<(), _> {
                let full = io::Error::from(full.kind());
                Err(Failure::Storage(redb::StorageError::Io(full)))
            });
            assert!(failed.is_err());
        }
        *handle.database.write().unwrap() = None;
        let read = handle.read(|database| Ok(is_usable(database)));
        assert!(read.unwrap());
    }

    #[test]
    fn after_a_failed_write_uploads_are_refused_until_there_is_space_beside_the_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let handle = Handle::open(&folder.path().join("catalog.redb")).unwrap();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let failed = handle
            .write(|_| -> Result<(), _> { Err(Failure::Storage(redb::StorageError::Io(full()))) });
        assert!(failed.unwrap_err().is_io());
        // The reserve stays for deletes. A folder in the test file's place makes the test fail.
        assert!(handle.reserve_path().exists());
        fs::create_dir(handle.test_path()).unwrap();
        for _ in 0..2 {
            std::thread::sleep(SPACE_TEST_INTERVAL);
            let refused = handle.write(|_| Ok(())).unwrap_err();
            assert!(matches!(refused, Failure::NoSpace(_)), "{refused:?}");
        }
        fs::remove_dir(handle.test_path()).unwrap();
        std::thread::sleep(SPACE_TEST_INTERVAL);
        handle.write(|_| Ok(())).unwrap();
        assert!(handle.refusal_reason().is_none() && !handle.test_path().exists());
    }
}
