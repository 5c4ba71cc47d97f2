//! A folder as the store.
//!
//! An object is written to a temporary file beside its place, synced, renamed, and its folder
//! synced: a crash leaves it whole or absent. What a crash left in the temporary folder is removed
//! when the store is opened.
//!
//! Only the folder's owner may read or change it: folders are made with mode 0700, files with 0600.

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
use crate::avatar::{AvatarId, ObjectKey, PRIVATE_ROOT, PUBLIC_ROOT, Timestamp};
use crate::private_files;
use crate::telemetry::Health;

/// How much of a file is held in memory at once while it is served.
const READ_CHUNK_BYTES: usize = 64 * 1024;

/// What a probe holds. Longer than a file system's block, so that a full disk refuses it.
const PROBE: &[u8] = &[b'p'; 16 * 1024];

/// A folder as the store. One process at a time may use a folder: opening it locks it.
pub struct DiskStore {
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    temporary: PathBuf,
    next_temporary: AtomicU64,
    /// The folder itself, locked for as long as it is open.
    _lock: File,
}

impl DiskStore {
    /// Opens the folder `root`, making it where it is not there.
    ///
    /// # Errors
    /// Where the folder cannot be made or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
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
            // Nothing in here was ever acknowledged.
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

    /// Runs file work where blocking is allowed.
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
                let Some(mut file) = found(File::open(path))? else {
                    return Ok(None);
                };
                let len = file.metadata()?.len();
                // Nearly every rendition fits one chunk: it is read here, in the same hop.
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
            let Some(mut file) = found(File::open(path))? else {
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
        // All of them at once: a folder is read whole or not at all.
        self.blocking("list its uploads", move |shared| shared.uploads(after))
            .await
    }

    async fn check(&self) -> Result<Checkup, StoreError> {
        self.blocking("write, read and delete a probe", |shared| {
            let health = match shared.try_probe() {
                Ok(()) => Health::Healthy,
                Err(error) => Health::Degraded(shared.why_only_readable(error)?.to_owned()),
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

    /// Why the folder can be read but not written, in words for an operator. Gives the error back
    /// where it says nothing of the kind, or where the folder cannot be read either.
    fn why_only_readable(&self, error: io::Error) -> io::Result<&'static str> {
        let why = match error.kind() {
            io::ErrorKind::StorageFull => "the disk of the store is full",
            io::ErrorKind::QuotaExceeded => "the disk quota of the store is used up",
            io::ErrorKind::ReadOnlyFilesystem => "the file system of the store is read-only",
            _ => return Err(error),
        };
        fs::read_dir(self.root.join(PUBLIC_ROOT))?;
        Ok(why)
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
            // Somebody who removed the folder's last object took the folder along.
            Err(error) if error.kind() == io::ErrorKind::NotFound => into_place(),
            renamed => renamed,
        };
        if let Err(error) = renamed {
            // The first error is the one to tell; the opening of the store removes the leftover.
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

    /// Makes a folder below the root and syncs every folder that got an entry by it.
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
        if found(fs::remove_file(&place))?.is_none() {
            return Ok(());
        }
        let folder = place.parent().unwrap_or(&self.root);
        // An avatar's folder goes with its last object, and another delete may have been faster.
        // Where the folder is gone, its own folder's entries say that the object is.
        if found(sync_directory(folder))?.is_none() {
            return sync_directory(folder.parent().unwrap_or(&self.root));
        }
        // That it is not empty is no failure.
        let _ = fs::remove_dir(folder);
        Ok(())
    }

    fn list(&self, avatar: AvatarId) -> io::Result<Vec<ObjectKey>> {
        let mut keys = Vec::new();
        for prefix in ObjectKey::prefixes_of(avatar) {
            let Some(entries) = found(fs::read_dir(self.root.join(&prefix)))? else {
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
                // Its upload died before the first object. Whoever asks removes what is left.
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
                    // Another process may be removing it.
                    if let Some(facts) = found(fs::metadata(self.root.join(&path)))? {
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

/// The names in a folder; none where it is not there.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in found(fs::read_dir(folder))?.into_iter().flatten() {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// A file that is being served: what has been read of it and what is left.
struct Reading {
    next: Option<Bytes>,
    file: File,
    left: u64,
}

impl Reading {
    /// An object of which `first` has been read already; the rest follows in the file.
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

/// Reads up to `left` bytes, as many as fit in a chunk.
fn read_chunk(file: &mut File, left: u64) -> io::Result<Bytes> {
    let most = left.min(READ_CHUNK_BYTES as u64);
    let mut chunk = Vec::with_capacity(most as usize);
    file.take(most).read_to_end(&mut chunk)?;
    Ok(chunk.into())
}

/// Makes "not found" a value.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a folder's entries survive a power cut.
fn sync_directory(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::contract;

    #[tokio::test]
    async fn a_folder_keeps_the_contract_of_a_store() {
        let folder = tempfile::tempdir().unwrap();
        contract::run(&DiskStore::open(folder.path().join("store")).unwrap()).await;
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn only_the_owner_may_use_the_folder_and_all_that_is_in_it() {
        use std::os::unix::fs::PermissionsExt;

        fn collect(path: &Path, modes: &mut Vec<(PathBuf, u32)>) {
            let facts = fs::metadata(path).unwrap();
            modes.push((path.to_owned(), facts.permissions().mode() & 0o777));
            for entry in fs::read_dir(path).into_iter().flatten() {
                collect(&entry.unwrap().path(), modes);
            }
        }

        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data/store");
        let store = DiskStore::open(&root).unwrap();
        let avatar = contract::rendition(1).avatar();
        for key in [contract::rendition(1), ObjectKey::Manifest { avatar }] {
            store.put(&key, Bytes::from_static(b"x")).await.unwrap();
        }
        let mut found = Vec::new();
        collect(&folder.path().join("data"), &mut found);
        assert!(found.len() > 8, "{found:?}");
        for (path, mode) in found {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "{}", path.display());
        }
    }

    #[tokio::test]
    async fn objects_survive_reopening_and_leftovers_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let key = contract::rendition(1);
        let store = DiskStore::open(folder.path()).unwrap();
        store.put(&key, Bytes::from_static(b"kept")).await.unwrap();
        fs::write(folder.path().join("tmp/99"), b"half an object").unwrap();
        drop(store);

        let store = DiskStore::open(folder.path()).unwrap();
        let object = store.get(&key).await.unwrap().unwrap();
        assert_eq!(object.into_bytes().await.unwrap(), "kept");
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_avatars_folders_go_with_its_last_object() {
        let folder = tempfile::tempdir().unwrap();
        let key = contract::rendition(1);
        let store = DiskStore::open(folder.path()).unwrap();
        store.put(&key, Bytes::from_static(b"x")).await.unwrap();
        store.delete(&key).await.unwrap();
        assert_eq!(
            fs::read_dir(folder.path().join("public/avatars"))
                .unwrap()
                .count(),
            0
        );
    }

    #[tokio::test]
    async fn an_empty_folder_goes_when_somebody_asks_what_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let avatar = contract::rendition(1).avatar();
        let store = DiskStore::open(folder.path()).unwrap();
        let empty = folder.path().join(format!("public/avatars/{avatar}"));
        fs::create_dir(&empty).unwrap();
        assert_eq!(store.list(avatar).await.unwrap(), []);
        assert!(!empty.exists());
    }

    #[tokio::test]
    async fn a_folder_in_use_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DiskStore::open(folder.path()).unwrap();
        fs::write(folder.path().join("tmp/0"), b"being written").unwrap();
        assert!(DiskStore::open(folder.path()).is_err());
        assert!(folder.path().join("tmp/0").exists());
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_a_folder_is_an_error_that_names_the_operation() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path()).unwrap();
        fs::remove_dir_all(folder.path().join("public")).unwrap();
        fs::write(folder.path().join("public"), b"in the way").unwrap();
        let error = store
            .put(&contract::rendition(1), Bytes::from_static(b"x"))
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "the store could not write an object");
        assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
    }
}
