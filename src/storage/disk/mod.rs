//! The store in a folder.
//!
//! An object is written to a temporary file, synced and renamed, and its folder is synced. So after a
//! crash the object exists completely or not at all. Opening the store removes the temporary files
//! that a crash left.
//!
//! Only the owner may read or change the folder: folders are created with mode 0700, files with 0600.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;

use super::{
    Checkup, Object, PublicRead, RangedObject, Store, StoreError, StoredUpload, Uploads, covered,
};
use crate::avatar::{
    AvatarId, ObjectKey, POLICY_ROOT, PRIVATE_ROOT, PUBLIC_ROOT, SubjectHash, Timestamp,
};
use crate::private_files;
use crate::telemetry::Health;

/// The size of the pieces in which a file is read.
const READ_CHUNK_BYTES: usize = 64 * 1024;

/// The content of a probe. It is longer than a block of the file system, so a full disk refuses it.
const PROBE: &[u8] = &[b'p'; 16 * 1024];

/// The store in a folder. The folder is locked while the store is open, so only one process uses it.
pub(crate) struct DiskStore {
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    temporary: PathBuf,
    next_temporary: AtomicU64,
    /// The folder itself. It is locked while this file is open.
    _lock: File,
}

impl DiskStore {
    /// Opens the folder `root`, and creates it if it does not exist.
    ///
    /// # Errors
    /// If the folder cannot be created or written, or another process uses it.
    pub(crate) fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let temporary = root.join("tmp");
        let opened = || -> io::Result<File> {
            for folder in [&root, &root.join(PUBLIC_ROOT), &root.join(PRIVATE_ROOT)] {
                private_files::create_folders(folder)?;
            }
            let lock = File::open(&root)?;
            lock.try_lock().map_err(|refused| match refused {
                TryLockError::WouldBlock => io::Error::other("another process uses it"),
                TryLockError::Error(error) => error,
            })?;
            // No write of these files was acknowledged.
            if temporary.exists() {
                fs::remove_dir_all(&temporary)?;
            }
            private_files::create_folder(&temporary)?;
            for parent in [PUBLIC_ROOT, PRIVATE_ROOT]
                .map(Path::new)
                .into_iter()
                .flat_map(Path::ancestors)
            {
                sync_directory(&root.join(parent))?;
            }
            if let Some(parent) = root
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
            {
                sync_directory(parent)?;
            }
            Ok(lock)
        };
        let lock = opened().map_err(|error| StoreError::new("open its folder", error))?;
        let shared = Shared {
            root,
            temporary,
            next_temporary: AtomicU64::new(0),
            _lock: lock,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Runs `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(done) => done.map_err(|error| StoreError::new(operation, error)),
            Err(died) => Err(StoreError::new(operation, died)),
        }
    }
}

#[async_trait]
impl Store for DiskStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError> {
        let path = key.to_string();
        self.blocking("write an object", move |shared| shared.write(&path, &body))
            .await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        let path = self.shared.root.join(key.to_string());
        let opened = self
            .blocking("open an object", move |_| {
                let Some(mut file) = none_if_missing(File::open(path))? else {
                    return Ok(None);
                };
                let len = file.metadata()?.len();
                // Nearly every rendition fits in one chunk, so the first chunk is read here, without
                // another change of threads.
                let first = read_chunk(&mut file, len)?;
                Ok(Some((len, first, file)))
            })
            .await?;
        Ok(opened.map(|(len, first, file)| Reading::object(len, first, file)))
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, StoreError> {
        let path = self.shared.root.join(key.to_string());
        self.blocking("open a part of an object", move |_| {
            let Some(mut file) = none_if_missing(File::open(path))? else {
                return Ok(None);
            };
            let total = file.metadata()?.len();
            let Some(range) = covered(&range, total) else {
                return Ok(Some(RangedObject::Unsatisfiable { total }));
            };
            let (first, len) = (*range.start(), range.end() - range.start() + 1);
            file.seek(SeekFrom::Start(first))?;
            let chunk = read_chunk(&mut file, len)?;
            let part = Reading::object(len, chunk, file);
            Ok(Some(RangedObject::Part { first, total, part }))
        })
        .await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let path = key.to_string();
        self.blocking("delete an object", move |shared| shared.remove(&path))
            .await
    }

    async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
        self.blocking("list the objects of an avatar", move |shared| {
            shared.list(avatar)
        })
        .await
    }

    async fn uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError> {
        // This returns all uploads at once, because a folder can only be read as a whole.
        self.blocking("list uploads", move |shared| shared.uploads(after))
            .await
    }

    async fn policies(&self, after: Option<SubjectHash>) -> Result<Vec<SubjectHash>, StoreError> {
        // This returns all subjects at once, because a folder can only be read as a whole.
        self.blocking("list policies", move |shared| {
            let names = names_in(&shared.root.join(POLICY_ROOT))?;
            let hashes = names.iter().filter_map(|name| SubjectHash::parse(name));
            let mut hashes: Vec<_> = hashes.filter(|hash| Some(*hash) > after).collect();
            hashes.sort_unstable();
            Ok(hashes)
        })
        .await
    }

    async fn check(&self) -> Result<Checkup, StoreError> {
        self.blocking("write, read and delete a probe", |shared| {
            let health = match shared.try_probe() {
                Ok(()) => Health::Healthy,
                Err(error) => Health::Degraded(shared.read_only_reason(error)?.to_owned()),
            };
            Ok(Checkup {
                public_read: PublicRead::Proxy,
                health,
            })
        })
        .await
    }
}

impl Shared {
    /// Writes a probe, reads it and removes it.
    fn try_probe(&self) -> io::Result<()> {
        let probe = self.write_temporary(PROBE)?;
        let read = fs::read(&probe);
        fs::remove_file(&probe)?;
        if read? == PROBE {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the probe read differs from the probe written",
            ))
        }
    }

    /// The reason why the folder can be read but not written, as a text for an operator.
    ///
    /// # Errors
    /// `error`, if it has another cause; or the error of reading the folder.
    fn read_only_reason(&self, error: io::Error) -> io::Result<&'static str> {
        let reason = match error.kind() {
            io::ErrorKind::StorageFull => "the disk of the store is full",
            io::ErrorKind::QuotaExceeded => "the disk quota of the store is used up",
            io::ErrorKind::ReadOnlyFilesystem => "the file system of the store is read-only",
            _ => return Err(error),
        };
        fs::read_dir(self.root.join(PUBLIC_ROOT))?;
        Ok(reason)
    }

    fn write(&self, path: &str, body: &[u8]) -> io::Result<()> {
        let place = self.root.join(path);
        let folder = place.parent().unwrap_or(&self.root);
        let temporary = self.write_temporary(body)?;
        let into_place = || {
            self.make_folder(folder)?;
            fs::rename(&temporary, &place)
        };
        let renamed = match into_place() {
            // A concurrent delete of the folder's last object has removed the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => into_place(),
            renamed => renamed,
        };
        if let Err(error) = renamed {
            // The first error is reported. If this fails too, opening the store removes the file.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        sync_directory(folder)
    }

    fn write_temporary(&self, body: &[u8]) -> io::Result<PathBuf> {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        let path = self.temporary.join(number.to_string());
        let create = private_files::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        let written = create.and_then(|mut file| {
            file.write_all(body)?;
            file.sync_all()
        });
        match written {
            Ok(()) => Ok(path),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Creates a folder below the root, and syncs every folder that got a new entry.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() || folder == self.root {
            return Ok(());
        }
        let parent = folder.parent().unwrap_or(&self.root);
        self.make_folder(parent)?;
        match private_files::create_folder(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => sync_directory(parent),
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let place = self.root.join(path);
        if none_if_missing(fs::remove_file(&place))?.is_none() {
            return Ok(());
        }
        let folder = place.parent().unwrap_or(&self.root);
        // A concurrent delete may have removed the avatar's folder with its last object. Then the
        // parent folder is synced, so that the removal is durable.
        if none_if_missing(sync_directory(folder))?.is_none() {
            return sync_directory(folder.parent().unwrap_or(&self.root));
        }
        // This fails if the folder is not empty, which is not an error.
        let _ = fs::remove_dir(folder);
        Ok(())
    }

    fn list(&self, avatar: AvatarId) -> io::Result<Vec<ObjectKey>> {
        let mut keys = Vec::new();
        for prefix in ObjectKey::prefixes_of(avatar) {
            let Some(entries) = none_if_missing(fs::read_dir(self.root.join(&prefix)))? else {
                continue;
            };
            let before = keys.len();
            for entry in entries {
                let name = entry?.file_name();
                keys.extend(
                    name.to_str()
                        .and_then(|name| ObjectKey::parse(&format!("{prefix}{name}"))),
                );
            }
            if keys.len() == before {
                // The upload died before its first object, and left an empty folder.
                let _ = fs::remove_dir(self.root.join(&prefix));
            }
        }
        keys.sort_by_key(|key| !matches!(key, ObjectKey::Manifest { .. }));
        Ok(keys)
    }
}

impl Shared {
    fn uploads(&self, after: Option<AvatarId>) -> io::Result<Vec<StoredUpload>> {
        let after = after.map(|avatar| avatar.to_string()).unwrap_or_default();
        let mut uploads = Uploads::default();
        for root in [PRIVATE_ROOT, PUBLIC_ROOT] {
            for id in names_in(&self.root.join(root))? {
                if id <= after {
                    continue;
                }
                for name in names_in(&self.root.join(root).join(&id))? {
                    let path = format!("{root}/{id}/{name}");
                    // The file may be removed at the same time.
                    if let Some(facts) = none_if_missing(fs::metadata(self.root.join(&path)))? {
                        let written = facts.modified()?.duration_since(UNIX_EPOCH);
                        let written = written.unwrap_or_default().as_millis();
                        let written = Timestamp::from_unix_ms(written as u64);
                        uploads.add(&path, written, facts.len());
                    }
                }
            }
        }
        Ok(uploads.in_order())
    }
}

/// The names in a folder; empty if the folder does not exist.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in none_if_missing(fs::read_dir(folder))?.into_iter().flatten() {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// A file that is read in chunks.
struct Reading {
    next: Option<Bytes>,
    file: File,
    left: u64,
}

impl Reading {
    /// An object of `len` bytes. The chunk `first` is already read; the rest is in `file`.
    fn object(len: u64, first: Bytes, file: File) -> Object {
        let state = Self {
            next: Some(first),
            file,
            left: len,
        };
        let body = Box::pin(stream::try_unfold(state, Self::step));
        Object { len, body }
    }

    async fn step(mut self) -> Result<Option<(Bytes, Self)>, StoreError> {
        const OPERATION: &str = "read an object";
        if self.left == 0 {
            return Ok(None);
        }
        let chunk = if let Some(chunk) = self.next.take() {
            chunk
        } else {
            let read = tokio::task::spawn_blocking(move || {
                let chunk = read_chunk(&mut self.file, self.left);
                (self, chunk)
            });
            let (state, chunk) = read
                .await
                .map_err(|died| StoreError::new(OPERATION, died))?;
            self = state;
            chunk.map_err(|error| StoreError::new(OPERATION, error))?
        };
        if chunk.is_empty() {
            return Err(StoreError::new(
                OPERATION,
                io::Error::from(io::ErrorKind::UnexpectedEof),
            ));
        }
        self.left = self.left.saturating_sub(chunk.len() as u64);
        Ok(Some((chunk, self)))
    }
}

/// Reads a chunk of up to `left` bytes.
fn read_chunk(file: &mut File, left: u64) -> io::Result<Bytes> {
    let limit = left.min(READ_CHUNK_BYTES as u64);
    let mut chunk = Vec::with_capacity(limit as usize);
    file.take(limit).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}

/// Turns the error "not found" into `None`.
fn none_if_missing<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Syncs a folder, so that its entries survive a power cut.
fn sync_directory(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
