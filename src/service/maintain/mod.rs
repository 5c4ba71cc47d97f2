//! Mending: the catalog from the store's manifests, the store by the catalog.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Error, Service};
use crate::avatar::{AvatarId, Manifest, ObjectKey, Record, Timestamp, Version};
use crate::catalog::{Cursor, Restored};
use crate::storage::StoredUpload;

/// Manifests read, or uploads removed, at the same time.
const AT_ONCE: usize = 16;
/// How many current avatars that are not whole are told by name.
const TOLD: usize = 1000;

/// What a rebuild found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Uploads found in the store.
    pub uploads: u64,
    /// Became current.
    pub current: u64,
    /// Were older or deleted, and are retired: the sweep removes them.
    pub retired: u64,
    /// Were known to the catalog already.
    pub known: u64,
    /// Have no manifest: what is left of an upload that was never finished, or of a delete.
    pub unfinished: u64,
    /// Have a manifest, but not every object that it names: likewise.
    pub incomplete: u64,
    /// Have a manifest that cannot be read.
    pub unreadable: u64,
}

/// What a garbage collection may do.
#[derive(Clone, Copy, Debug)]
pub struct Collecting {
    /// Whether to tell only.
    pub dry_run: bool,
    /// Nothing younger is touched: it may be an upload under way.
    pub min_age: Duration,
    /// Where there is more garbage than this, none of it is removed: something else is wrong.
    pub most: usize,
    /// How many uploads are kept in mind at once, a hundred bytes each; where the store has more,
    /// the catalog is read once for every so many.
    pub window: usize,
}

/// How many there are of something, and which: the first of them, where they are many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// All of them.
    pub count: u64,
    /// Those that are told by name.
    pub some: BTreeSet<AvatarId>,
}

impl Named {
    /// Counts one more, and keeps its name while there are fewer than `most`.
    fn add(&mut self, avatar: AvatarId, most: usize) {
        let is_told = self.some.len() < most;
        // The catalog may show an avatar twice that was replaced meanwhile.
        if !is_told || self.some.insert(avatar) {
            self.count += 1;
        }
    }
}

/// What a garbage collection found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Uploads found in the store.
    pub uploads: u64,
    /// Of them, too young to be judged.
    pub young: u64,
    /// Uploads that nothing refers to; by name as many as may be removed.
    pub garbage: Named,
    /// Bytes of that garbage.
    pub garbage_bytes: u64,
    /// How much of it was removed.
    pub removed: u64,
    /// Are whole, and of a user or version that the catalog does not know: it has forgotten, and a
    /// rebuild would bring them back. They stay.
    pub forgotten: u64,
    /// Current avatars with fewer objects in the store than their record names.
    pub incomplete: Named,
}

impl Service {
    /// Brings every upload that is whole back into the catalog, with its version: the
    /// newest of each user as the current one, the others to be swept. A deleted avatar has left no
    /// manifest that tells of its versions: a user whom the catalog does not know from then on
    /// begins above [`Version::floor_at`] `now`, and above any version that is found. What the catalog knows
    /// stays as it is, so that this may be repeated, and run beside a working service. No event tells
    /// of it: nothing of it is new.
    ///
    /// Begins after the upload `after`; `progress` is told the last upload done.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`]. What was done until then holds.
    pub async fn rebuild(
        &self,
        now: Timestamp,
        after: Option<AvatarId>,
        mut progress: impl FnMut(AvatarId, &Rebuilt),
    ) -> Result<Rebuilt, Error> {
        let retire_at = now.plus(self.settings.retire_after);
        // Before all else, because users may upload meanwhile, and this may be interrupted.
        let floor = Version::floor_at(now);
        self.catalog.raise_floor(floor).await?;
        let mut rebuilt = Rebuilt::default();
        let mut after = after;
        loop {
            let uploads = self.store.uploads(after).await?;
            let Some(last) = uploads.last().map(|upload| upload.avatar) else {
                return Ok(rebuilt);
            };
            for some in uploads.chunks(AT_ONCE * 8) {
                let mut done = stream::iter(some)
                    .map(|upload| self.rebuild_one(upload, floor, retire_at))
                    .buffer_unordered(AT_ONCE);
                while let Some(done) = done.next().await {
                    rebuilt.uploads += 1;
                    match done? {
                        Found::Restored(Restored::Current(superseded)) => {
                            // What it takes the place of was counted as current before.
                            match superseded {
                                None => rebuilt.current += 1,
                                Some(_) => rebuilt.retired += 1,
                            }
                        }
                        Found::Restored(Restored::Retired) => rebuilt.retired += 1,
                        Found::Restored(Restored::Known) => rebuilt.known += 1,
                        Found::Nothing => rebuilt.unfinished += 1,
                        Found::Incomplete => rebuilt.incomplete += 1,
                        Found::Damaged => rebuilt.unreadable += 1,
                    }
                }
                progress(some.last().map_or(last, |upload| upload.avatar), &rebuilt);
            }
            after = Some(last);
        }
    }

    async fn rebuild_one(
        &self,
        upload: &StoredUpload,
        floor: Version,
        retire_at: Timestamp,
    ) -> Result<Found, Error> {
        let Manifest { subject, record } = match self.manifest(upload).await? {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(Found::Nothing),
            Err(Unreadable) => return Ok(Found::Damaged),
        };
        if record.version > floor {
            self.catalog.raise_floor(record.version).await?;
        }
        // First the catalog, then the store. An upload that is given up or removed meanwhile is
        // known until its objects are gone: what is not known, and whole after that, is nobody's
        // to remove.
        if self.catalog.knows(&subject, upload.avatar).await? {
            return Ok(Found::Restored(Restored::Known));
        }
        if !self.is_whole(&record).await? {
            return Ok(Found::Incomplete);
        }
        let restored = self.catalog.restore(&subject, &record, retire_at).await?;
        Ok(Found::Restored(restored))
    }

    /// Whether the store has every object that a record names.
    async fn is_whole(&self, record: &Record) -> Result<bool, Error> {
        let stored = self.store.list(record.avatar_id).await?;
        Ok(keys_of(record).all(|key| stored.contains(&key)))
    }

    /// The manifest of an upload; `None` where it has none.
    async fn manifest(
        &self,
        upload: &StoredUpload,
    ) -> Result<Result<Option<Manifest>, Unreadable>, Error> {
        let avatar = upload.avatar;
        if !upload.has_manifest {
            return Ok(Ok(None));
        }
        let Some(object) = self.store.get(&ObjectKey::Manifest { avatar }).await? else {
            return Ok(Ok(None));
        };
        let bytes = object.into_bytes().await?;
        let manifest = serde_json::from_slice::<Manifest>(&bytes);
        Ok(match manifest {
            Ok(manifest) if manifest.record.avatar_id == avatar => Ok(Some(manifest)),
            _ => Err(Unreadable),
        })
    }

    /// Finds uploads in the store that nothing refers to, and removes them; finds current avatars
    /// that are not whole, and tells of them. May run beside a working service.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`]. What was removed until then was garbage.
    pub async fn collect_garbage(
        &self,
        now: Timestamp,
        collecting: &Collecting,
        mut progress: impl FnMut(&Collected),
    ) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let mut begun_after = None;
        loop {
            // The store first, then what refers to it: whatever is referred to while it is listed
            // is current, or outstanding, or gone by then.
            let window = self
                .window(
                    begun_after,
                    collecting.window,
                    &mut collected,
                    &mut progress,
                )
                .await?;
            let last = window.last;
            self.judge(window, now, collecting, &mut collected).await?;
            if last.is_none() {
                break;
            }
            begun_after = last;
        }
        if !collecting.dry_run && collected.garbage.count <= collecting.most as u64 {
            let garbage = collected.garbage.some.clone();
            let mut removals = stream::iter(garbage)
                .map(|avatar| self.remove_objects(avatar))
                .buffer_unordered(AT_ONCE);
            while removals.try_next().await?.is_some() {
                collected.removed += 1;
                progress(&collected);
            }
        }
        Ok(collected)
    }

    /// Lists the uploads after one, `size` or a listing's page more.
    async fn window(
        &self,
        begun_after: Option<AvatarId>,
        size: usize,
        collected: &mut Collected,
        progress: &mut impl FnMut(&Collected),
    ) -> Result<Window, Error> {
        let mut window = Window {
            begun_after,
            last: begun_after,
            uploads: HashMap::new(),
        };
        while window.uploads.len() < size {
            let uploads = self.store.uploads(window.last).await?;
            let Some(last) = uploads.last() else {
                window.last = None;
                break;
            };
            window.last = Some(last.avatar);
            collected.uploads += uploads.len() as u64;
            let seen = uploads.into_iter().map(|upload| {
                let is_referred = false;
                (
                    upload.avatar,
                    Seen {
                        upload,
                        is_referred,
                    },
                )
            });
            window.uploads.extend(seen);
            progress(collected);
        }
        Ok(window)
    }

    /// Finds which uploads of a window are garbage, and which current avatars of it are not whole.
    async fn judge(
        &self,
        mut window: Window,
        now: Timestamp,
        collecting: &Collecting,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        let is_young = |written: Timestamp| now.since(written) < collecting.min_age;
        let mut next = Some(Cursor::START);
        while let Some(from) = next {
            let page = self.catalog.page(&from).await?;
            for (_, record) in page.records {
                let objects = if let Some(seen) = window.uploads.get_mut(&record.avatar_id) {
                    seen.is_referred = true;
                    seen.upload.objects
                } else if window.covers(record.avatar_id) {
                    0
                } else {
                    continue;
                };
                if objects < keys_of(&record).count() as u64 && !is_young(record.uploaded_at) {
                    collected.incomplete.add(record.avatar_id, TOLD);
                }
            }
            next = page.next;
        }
        for one in self.catalog.outstanding().await? {
            window.uploads.remove(&one.avatar);
        }
        for Seen { upload, .. } in window.uploads.values().filter(|seen| !seen.is_referred) {
            if is_young(upload.written) {
                collected.young += 1;
                continue;
            }
            match self.worth_of(upload).await? {
                Worth::Known => {}
                Worth::Forgotten => collected.forgotten += 1,
                Worth::Nothing => {
                    collected.garbage.add(upload.avatar, collecting.most);
                    collected.garbage_bytes += upload.bytes;
                }
            }
        }
        Ok(())
    }

    /// What an upload is that nothing was seen to refer to. A rebuild may have brought it back
    /// meanwhile; it never does so with one that is [`Worth::Nothing`], now or later, but to retire
    /// it.
    async fn worth_of(&self, upload: &StoredUpload) -> Result<Worth, Error> {
        let Manifest { subject, record } = match self.manifest(upload).await? {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(Worth::Nothing),
            Err(Unreadable) => return Ok(Worth::Forgotten),
        };
        let current = self.catalog.get(&subject).await?;
        let is_newest = current.is_none_or(|current| current.version < record.version);
        if is_newest && self.is_whole(&record).await? {
            return Ok(Worth::Forgotten);
        }
        Ok(if self.catalog.knows(&subject, upload.avatar).await? {
            Worth::Known
        } else {
            Worth::Nothing
        })
    }

    /// Looks at up to `count` current avatars; gives how many those were, and which of them lack
    /// objects.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`]
    pub async fn sample(&self, count: usize) -> Result<(usize, Named), Error> {
        let mut looked_at = 0;
        let mut incomplete = Named::default();
        let mut next = Some(Cursor::START);
        while let Some(from) = next {
            let page = self.catalog.page(&from).await?;
            for (_, record) in page.records {
                if looked_at == count {
                    return Ok((looked_at, incomplete));
                }
                looked_at += 1;
                if !self.is_whole(&record).await? {
                    incomplete.add(record.avatar_id, TOLD);
                }
            }
            next = page.next;
        }
        Ok((looked_at, incomplete))
    }

    /// Whether the store holds an upload at all.
    ///
    /// # Errors
    /// [`Error::Storage`]
    pub async fn holds_uploads(&self) -> Result<bool, Error> {
        Ok(!self.store.uploads(None).await?.is_empty())
    }

    /// Has a catalog that is new count versions from 1, or from above [`Version::floor_at`] `now`
    /// where the store holds uploads: then another catalog was lost, and the versions that it gave
    /// are not given again. Answers whether that is so.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub async fn begin(&self, now: Timestamp) -> Result<bool, Error> {
        if self.catalog.has_begun().await? {
            return Ok(false);
        }
        // A store that does not answer may hold some.
        let lost = self.holds_uploads().await.unwrap_or(true);
        let floor = if lost {
            Version::floor_at(now)
        } else {
            Version(0)
        };
        self.catalog.begin(floor).await?;
        Ok(lost)
    }
}

enum Found {
    Restored(Restored),
    Nothing,
    Incomplete,
    Damaged,
}

struct Unreadable;

/// What an upload is that nothing was seen to refer to.
enum Worth {
    /// The catalog knows it by now.
    Known,
    /// A rebuild would make it current; or its manifest cannot be read, and somebody should look.
    Forgotten,
    /// Garbage.
    Nothing,
}

/// Uploads that are next to each other in the store's listing, as many as are kept in mind at once.
struct Window {
    /// The one before them; `None` at the beginning.
    begun_after: Option<AvatarId>,
    /// The last of them; `None` where the listing has ended.
    last: Option<AvatarId>,
    uploads: HashMap<AvatarId, Seen>,
}

struct Seen {
    upload: StoredUpload,
    /// Whether a current record names it.
    is_referred: bool,
}

impl Window {
    /// Whether an upload would be here if the store had any object of it.
    fn covers(&self, avatar: AvatarId) -> bool {
        // The store's order is that of the text, in which digits come before letters.
        let text = |avatar: AvatarId| avatar.to_string();
        self.begun_after
            .is_none_or(|before| text(before) < text(avatar))
            && self.last.is_none_or(|last| text(avatar) <= text(last))
    }
}

/// The objects that an avatar has when it is whole: the manifest, the master, the renditions.
fn keys_of(record: &Record) -> impl Iterator<Item = ObjectKey> {
    let avatar = record.avatar_id;
    let master = record
        .master
        .map(|format| ObjectKey::Master { avatar, format });
    let renditions = record
        .renditions
        .iter()
        .map(move |rendition| rendition.key(avatar));
    std::iter::once(ObjectKey::Manifest { avatar })
        .chain(master)
        .chain(renditions)
}

#[cfg(test)]
mod tests;
