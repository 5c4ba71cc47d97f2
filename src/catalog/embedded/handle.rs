//! The database file: making it, opening it, and opening it again after an I/O error.
//!
//! After an I/O error `redb` refuses every further operation, reads included, until the file is
//! opened again. So this handle opens it again by itself. Steps that need room (uploads) are then
//! refused until there is room again; reads and steps that give room back (deletes, sweeps) go on.
//!
//! A full disk would refuse deletes too, because every transaction writes new pages. The reserve
//! file holds room for them. It is given up on the first such failure, and uploads are refused
//! until it could be written again.

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

/// Room for the transactions of deletes and sweeps on a full disk. One that claims a whole batch of
/// a large catalog writes about half of it.
const RESERVE_BYTES: usize = 2 << 20;
/// Room beside the reserve that must be there before uploads are taken again. An upload writes less
/// than this.
const ROOM_BYTES: usize = 1 << 20;
/// How often room is looked for while uploads are refused.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);
/// The pause after opening the file again, or failing to, before it is opened once more.
const REOPEN_INTERVAL: Duration = Duration::from_millis(250);
/// How long a read waits for the file to be opened again, and the pause between two attempts.
const READ_PATIENCE: Duration = Duration::from_secs(1);
const READ_PAUSE: Duration = Duration::from_millis(25);

/// Why the catalog's file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedOpenError {
    /// Another process has it open.
    #[error(
        "the catalog {} is in use by another process; stop that one, or give this one another data_dir",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is there, but it is no sound catalog.
    #[error(
        "the catalog {path} is damaged, or is no catalog; move it away (mv {path} {path}.damaged), then run `cameo rebuild`, which restores the avatars from the store",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system does not let it be read or written.
    #[error("the catalog {} cannot be opened", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// The open database file.
pub(super) struct Handle {
    path: PathBuf,
    /// `None` after an I/O error, until it is open again. Operations hold the read lock, so whoever
    /// has the write lock knows that none is under way.
    database: RwLock<Option<Database>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Why steps that need room are refused.
    refused: Option<Refusal>,
    /// When the file was last opened again, or could not be.
    reopened: Option<Instant>,
}

struct Refusal {
    reason: &'static str,
    /// When room was last looked for.
    tried: Instant,
}

impl Handle {
    /// Opens the database file, and makes it where it does not exist. Its folder is synced.
    pub(super) fn open(path: &Path) -> Result<Self, EmbeddedOpenError> {
        if !is_made(path).map_err(|source| failed(path, source))? {
            make(path)?;
        }
        sync_folders(path).map_err(|source| failed(path, source))?;
        let database = open_existing(path)?;
        let handle = Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            state: Mutex::default(),
        };
        // A process that died may have left it.
        remove(&handle.room());
        if let Err(error) = handle.write_reserve() {
            handle.refuse(reason(&error), &error);
        }
        Ok(handle)
    }

    /// Runs a step that writes nothing. If another step's I/O error has closed the file, it waits
    /// for [`READ_PATIENCE`] at most until the file is open again: a write that fails costs no read.
    pub(super) fn read<T>(
        &self,
        step: impl Fn(&Database) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + READ_PATIENCE;
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

    /// Runs a step that needs room, as one transaction. While there is none it is refused.
    pub(super) fn write<T>(
        &self,
        step: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.look_for_room()?;
        let written = self.with_database(|database| transact(database, step));
        if let Err(failure) = &written
            && failure.is_io()
        {
            self.refuse(reason_of(failure.io_kind()), failure);
        }
        written
    }

    /// Runs a step that gives room back, as one transaction. It may use the reserve.
    pub(super) fn release<T>(
        &self,
        step: impl Fn(&WriteTransaction) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if self.refused().is_some() {
            self.give_up_reserve();
        }
        let written = self.with_database(|database| transact(database, &step));
        match written {
            Err(failure) if failure.is_io() && self.refused().is_none() => {
                self.refuse(reason_of(failure.io_kind()), &failure);
                self.give_up_reserve();
                self.with_database(|database| transact(database, &step))
            }
            written => written,
        }
    }

    /// Why steps that need room are refused; `None` where they are not.
    pub(super) fn refused(&self) -> Option<&'static str> {
        self.state().refused.as_ref().map(|refusal| refusal.reason)
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
            // A commit that failed in its last sync may have happened. Every step may be repeated.
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

    /// Whether the file was not opened again just now.
    fn may_reopen(&self) -> bool {
        let reopened = self.state().reopened;
        reopened.is_none_or(|last| last.elapsed() >= REOPEN_INTERVAL)
    }

    /// Closes the database, which is of no use after an I/O error, and opens its file again.
    fn reopen(&self, because: &Failure) {
        let mut database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Another operation that met the same error has done it.
        if database.as_ref().is_some_and(is_usable) {
            return;
        }
        // Closed first: a file is locked by whoever has it open.
        *database = None;
        if !self.may_reopen() {
            return;
        }
        self.state().reopened = Some(Instant::now());
        match open_existing(&self.path) {
            Ok(opened) => {
                warn!(
                    error = because as &dyn std::error::Error,
                    "the catalog's file was opened again after an I/O error"
                );
                *database = Some(opened);
            }
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                cause = std::error::Error::source(&error),
                "the catalog's file cannot be opened again yet"
            ),
        }
    }

    /// Refuses a step while there is no room. At most once per [`ROOM_INTERVAL`] it tests whether
    /// there is some again.
    fn look_for_room(&self) -> Result<(), Failure> {
        {
            let mut state = self.state();
            let Some(refusal) = &mut state.refused else {
                return Ok(());
            };
            if refusal.tried.elapsed() < ROOM_INTERVAL {
                return Err(Failure::NoRoom(refusal.reason));
            }
            refusal.tried = Instant::now();
        }
        if let Err(error) = self.write_reserve().and_then(|()| self.probe_room()) {
            let reason = reason(&error);
            if let Some(refusal) = &mut self.state().refused {
                refusal.reason = reason;
            }
            return Err(Failure::NoRoom(reason));
        }
        if self.state().refused.take().is_some() {
            info!("the catalog takes uploads again");
        }
        Ok(())
    }

    /// Refuses steps that need room from now on.
    fn refuse(&self, reason: &'static str, because: &(dyn std::error::Error + 'static)) {
        let tried = Instant::now();
        let refusal = Refusal { reason, tried };
        if self.state().refused.replace(refusal).is_none() {
            warn!(error = because, "the catalog takes no uploads: {reason}");
        }
    }

    fn reserve(&self) -> PathBuf {
        self.path.with_extension("redb.reserve")
    }

    /// Makes sure that the reserve is there, and whole.
    fn write_reserve(&self) -> io::Result<()> {
        let path = self.reserve();
        if fs::metadata(&path).is_ok_and(|facts| facts.len() == RESERVE_BYTES as u64) {
            return Ok(());
        }
        let written = fill(&path, RESERVE_BYTES);
        if written.is_err() {
            self.give_up_reserve();
        }
        written
    }

    fn give_up_reserve(&self) {
        remove(&self.reserve());
    }

    fn room(&self) -> PathBuf {
        self.path.with_extension("redb.room")
    }

    /// Tests whether there is room beside the reserve, by a file that is removed again. A reserve
    /// that is whole proves nothing: the failure may have left it as it was.
    fn probe_room(&self) -> io::Result<()> {
        let path = self.room();
        let written = fill(&path, ROOM_BYTES);
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

/// Writes a file that takes so much room on the disk.
fn fill(path: &Path, bytes: usize) -> io::Result<()> {
    let mut options = private_files::options();
    let options = options.write(true).create(true).truncate(true);
    let mut file = options.open(path)?;
    // Zeros would take no room where the file system compresses.
    let mut content = vec![0; bytes];
    getrandom::fill(&mut content)?;
    file.write_all(&content)?;
    file.sync_all()
}

/// Removes a file that only takes room, if it is there.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        let error = &error as &dyn std::error::Error;
        warn!(error, path = %path.display(), "a file that keeps room for the catalog cannot be removed");
    }
}

/// Runs a step as one transaction: on the disk when this returns, or without a trace where the step
/// fails.
fn transact<T>(
    database: &Database,
    step: impl FnOnce(&WriteTransaction) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let transaction = database.begin_write()?;
    let done = step(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// Whether no I/O error has stopped the database.
fn is_usable(database: &Database) -> bool {
    let usable = || -> Result<(), Failure> {
        database.begin_read()?;
        // Reads may be answered from memory after an I/O error; this asks for the error itself.
        database.begin_write()?.abort()?;
        Ok(())
    };
    usable().is_ok()
}

/// Whether the file is there, and not empty.
fn is_made(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(facts) => Ok(facts.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the file whole under another name, then gives it its own: a crash or a full disk on the
/// way leaves nothing that looks like a damaged catalog.
fn make(path: &Path) -> Result<(), EmbeddedOpenError> {
    let io_failed = |source| failed(path, source);
    // Locked, so that of two processes one makes it.
    let folder = File::open(folder_of(path)).map_err(io_failed)?;
    folder.try_lock().map_err(|refused| match refused {
        TryLockError::WouldBlock => EmbeddedOpenError::InUse { path: path.into() },
        TryLockError::Error(source) => failed(path, source),
    })?;
    if is_made(path).map_err(io_failed)? {
        return Ok(());
    }
    let new = path.with_extension("redb.new");
    let made = make_at(&new).and_then(|()| fs::rename(&new, path).map_err(io_failed));
    if made.is_err() {
        // The first error is the one to report; the next start writes over the leftover.
        let _ = fs::remove_file(&new);
    }
    made
}

fn make_at(path: &Path) -> Result<(), EmbeddedOpenError> {
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
        if !tables::are_made(&database)? {
            transact(&database, tables::make)?;
        }
        Ok(database)
    };
    // A file that is damaged in the right place makes the database panic.
    let opened = catch_unwind(AssertUnwindSafe(open));
    opened
        .unwrap_or(Err(Failure::Panicked))
        .map_err(|failure| sort(path, failure))
}

/// Tells apart a file in use, a damaged one, and one that the system does not give.
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

/// What an I/O error of the catalog's disk means to an operator.
fn reason(error: &io::Error) -> &'static str {
    reason_of(Some(error.kind()))
}

/// The same of its kind; `None` where it is not known.
fn reason_of(kind: Option<io::ErrorKind>) -> &'static str {
    match kind {
        Some(io::ErrorKind::StorageFull) => "the disk of the catalog is full",
        Some(io::ErrorKind::QuotaExceeded) => "the disk quota of the catalog is used up",
        Some(io::ErrorKind::FileTooLarge) => "the catalog's file may not grow any more",
        Some(io::ErrorKind::ReadOnlyFilesystem) => "the file system of the catalog is read-only",
        _ => "the disk of the catalog fails",
    }
}

/// Makes the file's name, and its folder's, survive a power cut.
fn sync_folders(path: &Path) -> io::Result<()> {
    let folder = folder_of(path);
    File::open(folder)?.sync_all()?;
    match File::open(folder_of(folder)).and_then(|above| above.sync_all()) {
        // Not every folder above may be read, and then somebody else has made this one.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(()),
    }
}

/// The folder that holds a file or a folder.
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
    fn a_read_waits_until_the_file_is_open_again() {
        let folder = tempfile::tempdir().unwrap();
        let handle = Handle::open(&folder.path().join("catalog.redb")).unwrap();
        // Twice in a row, so that the file stays closed until it may be opened again.
        for _ in 0..2 {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            let failed = handle.release(|_| -> Result<(), _> {
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
    fn after_a_write_that_failed_uploads_are_refused_until_there_is_room_beside_the_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let handle = Handle::open(&folder.path().join("catalog.redb")).unwrap();
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let failed = handle
            .write(|_| -> Result<(), _> { Err(Failure::Storage(redb::StorageError::Io(full()))) });
        assert!(failed.unwrap_err().is_io());
        // The reserve stays for deletes; nothing can be written beside it.
        assert!(handle.reserve().exists());
        fs::create_dir(handle.room()).unwrap();
        for _ in 0..2 {
            std::thread::sleep(ROOM_INTERVAL);
            let refused = handle.write(|_| Ok(())).unwrap_err();
            assert!(matches!(refused, Failure::NoRoom(_)), "{refused:?}");
        }
        fs::remove_dir(handle.room()).unwrap();
        std::thread::sleep(ROOM_INTERVAL);
        handle.write(|_| Ok(())).unwrap();
        assert!(handle.refused().is_none() && !handle.room().exists());
    }
}
