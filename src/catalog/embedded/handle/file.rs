//! Creating and opening the database file.

use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError};

use super::transact;
use crate::catalog::embedded::tables::{self, Failure};
use crate::private_files;

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

/// Whether the file exists and is not empty.
pub(super) fn is_created(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(facts) => Ok(facts.len() > 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Creates the complete file under another name and then renames it. So a crash or a full disk
/// leaves nothing that looks like a damaged catalog.
pub(super) fn create(path: &Path) -> Result<(), EmbeddedOpenError> {
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
pub(super) fn open_existing(path: &Path) -> Result<Database, EmbeddedOpenError> {
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
        .map_err(|failure| open_error(path, failure))
}

/// Distinguishes a file in use, a damaged file, and an error of the operating system.
fn open_error(path: &Path, failure: Failure) -> EmbeddedOpenError {
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

pub(super) fn failed(path: &Path, source: io::Error) -> EmbeddedOpenError {
    let path = path.to_owned();
    EmbeddedOpenError::Io { path, source }
}

/// Syncs the file's folder and the folder above, so that their entries survive a power cut.
pub(super) fn sync_folders(path: &Path) -> io::Result<()> {
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
