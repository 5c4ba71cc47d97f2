//! Mending: the catalog from the store's manifests, the store by the catalog.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Error, Service};
use crate::avatar::{AvatarId, Manifest, ObjectKey, Record, SubjectId, Timestamp, Version};
use crate::catalog::{Cursor, InitialState, Outstanding, Restored, Standing};
use crate::storage::StoredUpload;

/// Manifests read, or uploads removed, at the same time.
const AT_ONCE: usize = 16;
/// How many current avatars that are not whole are told by name.
const TOLD: usize = 1000;

/// Records without objects that are kept in mind at once; a later run finds further ones.
const MAX_LOST: usize = 1_000_000;
/// So many records without objects are dropped in any case, ...
const MAX_DROPPED: u64 = 10;
/// ... and one in so many of all records; more of them only by [`DropLimit::None`].
const MAX_DROPPED_PART: u64 = 100;

/// What a rebuild found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Have a manifest, or a record in the catalog, that cannot be read.
    pub unreadable: u64,
    /// Current records without objects.
    pub lost: Lost,
}

/// How many records without objects may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropLimit {
    /// Ten, or one percent of all records if that is more. A bucket that was emptied by mistake
    /// must not empty the catalog.
    Few,
    /// Any number.
    None,
}

/// Current records none of whose objects exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Their avatars.
    pub avatars: Named,
    /// How many of the records were dropped.
    pub dropped: u64,
    /// Whether all of them were kept because they were too many.
    pub is_too_many: bool,
}

/// What a garbage collection may do.
#[derive(Clone, Copy, Debug)]
pub struct GcOptions {
    /// Whether to tell only.
    pub dry_run: bool,
    /// How many records without objects may be dropped.
    pub drop_limit: DropLimit,
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
    /// Current avatars with some, but not all of the objects that their record names.
    pub incomplete: Named,
    /// Current records without objects.
    pub lost: Lost,
    /// Records that cannot be read: they are damaged or of an unknown layout. They are skipped.
    pub unreadable: u64,
}

impl Service {
    /// Brings every complete upload back into the catalog, with its version: the latest of each user
    /// as the current one, the others to be swept. Then drops the records that have no objects any
    /// more. Events tell of both. This may be repeated, and may run beside a working service.
    ///
    /// A deleted avatar has left no manifest that tells of its version. So new versions are above
    /// the milliseconds since 2025 from then on, and above any version that is found.
    ///
    /// Begins after the upload `after`; `progress` is told the last upload done.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`]. What was done until then holds.
    pub async fn rebuild(
        &self,
        after: Option<AvatarId>,
        drop_limit: DropLimit,
        window: usize,
        mut progress: impl FnMut(AvatarId, &Rebuilt),
    ) -> Result<Rebuilt, Error> {
        // Before all else, because users may upload meanwhile, and this may be interrupted.
        let floor = self.catalog.raise_version_floor(Version(0)).await?;
        let mut rebuilt = Rebuilt::default();
        let mut after = after;
        loop {
            let uploads = self.store.uploads(after).await?;
            let Some(last) = uploads.last().map(|upload| upload.avatar) else {
                break;
            };
            for some in uploads.chunks(AT_ONCE * 8) {
                let mut done = stream::iter(some)
                    .map(|upload| self.rebuild_one(upload, floor))
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
        rebuilt.unreadable += self
            .drop_lost(drop_limit, window, &mut rebuilt.lost)
            .await?;
        Ok(rebuilt)
    }

    /// Drops the records that have no objects; tells how many records cannot be read.
    async fn drop_lost(
        &self,
        limit: DropLimit,
        window: usize,
        lost: &mut Lost,
    ) -> Result<u64, Error> {
        let mut seen = Records::default();
        let (mut uploads, mut begun_after) = (0, None);
        loop {
            let mut window = self
                .window(begun_after, window, &mut uploads, &mut |_| {})
                .await?;
            self.compare(&mut window, &mut seen).await?;
            begun_after = window.last;
            if begun_after.is_none() {
                break;
            }
        }
        self.drop_records(&seen, limit, lost).await?;
        Ok(seen.unreadable)
    }

    async fn rebuild_one(&self, upload: &StoredUpload, floor: Version) -> Result<Found, Error> {
        let Manifest { subject, record } = match self.manifest(upload).await? {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(Found::Nothing),
            Err(Unreadable) => return Ok(Found::Damaged),
        };
        if record.version > floor {
            self.catalog.raise_version_floor(record.version).await?;
        }
        // First the catalog, then the store. An upload that is invalidated meanwhile is retired until
        // its objects are gone. So an upload that is not, and complete after that, is nobody's to
        // remove; the restore itself looks again.
        match self.catalog.standing(&subject, upload.avatar).await {
            Ok(Standing::Expired | Standing::Unknown) => {}
            Ok(Standing::Current | Standing::Pending | Standing::Retired) => {
                return Ok(Found::Restored(Restored::Known));
            }
            Err(error) if error.is_corrupt() => return Ok(Found::Damaged),
            Err(error) => return Err(error.into()),
        }
        if !self.is_whole(&record).await? {
            return Ok(Found::Incomplete);
        }
        let retire_after = self.settings.retire_after;
        match self.catalog.restore(&subject, &record, retire_after).await {
            Ok(restored) => Ok(Found::Restored(restored)),
            Err(error) if error.is_corrupt() => Ok(Found::Damaged),
            Err(error) => Err(error.into()),
        }
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
        let manifest = Manifest::from_json(&bytes);
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
        collecting: &GcOptions,
        mut progress: impl FnMut(&Collected),
    ) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let mut records = Records::default();
        let mut begun_after = None;
        loop {
            // The store first, then what refers to it: whatever is referred to while it is listed
            // is current, or outstanding, or gone by then.
            let mut window = self
                .window(
                    begun_after,
                    collecting.window,
                    &mut collected.uploads,
                    &mut |uploads| {
                        progress(&Collected {
                            uploads,
                            ..Collected::default()
                        });
                    },
                )
                .await?;
            self.compare(&mut window, &mut records).await?;
            begun_after = window.last;
            collected.unreadable = records.unreadable;
            self.judge(window, now, collecting, &mut collected).await?;
            if begun_after.is_none() {
                break;
            }
        }
        let is_young = |written: Timestamp| now.since(written) < collecting.min_age;
        for (avatar, uploaded_at) in &records.incomplete {
            if !is_young(*uploaded_at) {
                collected.incomplete.add(*avatar, TOLD);
            }
        }
        if collecting.dry_run {
            records.tell(&mut collected.lost);
        } else {
            let limit = collecting.drop_limit;
            self.drop_records(&records, limit, &mut collected.lost)
                .await?;
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

    /// Lists the uploads after one, `size` or a listing's page more. Adds their number to `count`.
    async fn window(
        &self,
        begun_after: Option<AvatarId>,
        size: usize,
        count: &mut u64,
        progress: &mut impl FnMut(u64),
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
            *count += uploads.len() as u64;
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
            progress(*count);
        }
        Ok(window)
    }

    /// Compares every current record with a window: notes which uploads a record names, and which
    /// records of the window lack objects.
    async fn compare(&self, window: &mut Window, records: &mut Records) -> Result<(), Error> {
        let mut next = Some(Cursor::START);
        while let Some(from) = next {
            let page = self.catalog.page(&from).await?;
            if window.begun_after.is_none() {
                records.unreadable += page.unreadable.len() as u64;
            }
            let mut suspects = Vec::new();
            for (subject, record) in page.records {
                let objects = if let Some(seen) = window.uploads.get_mut(&record.avatar_id) {
                    seen.is_referred = true;
                    seen.upload.objects
                } else if window.covers(record.avatar_id) {
                    0
                } else {
                    continue;
                };
                records.count += 1;
                if objects < keys_of(&record).count() as u64 {
                    suspects.push((subject, record));
                }
            }
            // The listing may be older than the record, so the store is asked again.
            let mut looked_at = stream::iter(suspects)
                .map(|(subject, record)| async move {
                    let stored = self.store.list(record.avatar_id).await?;
                    Ok::<_, Error>((subject, record, stored))
                })
                .buffer_unordered(AT_ONCE);
            while let Some((subject, record, stored)) = looked_at.try_next().await? {
                let avatar = record.avatar_id;
                let is_manifest = |key: &ObjectKey| matches!(key, ObjectKey::Manifest { .. });
                if stored.iter().all(is_manifest) {
                    records.lose(Outstanding { subject, avatar });
                } else if !keys_of(&record).all(|key| stored.contains(&key))
                    && records.incomplete.len() < MAX_LOST
                {
                    records.incomplete.insert(avatar, record.uploaded_at);
                }
            }
            next = page.next;
        }
        Ok(())
    }

    /// Drops the records that have no objects, within the limit.
    async fn drop_records(
        &self,
        records: &Records,
        limit: DropLimit,
        lost: &mut Lost,
    ) -> Result<(), Error> {
        records.tell(lost);
        let most = MAX_DROPPED.max(records.count / MAX_DROPPED_PART);
        if limit == DropLimit::Few && lost.avatars.count > most {
            lost.is_too_many = true;
            return Ok(());
        }
        let lease = self.removal_lease();
        let mut drops = stream::iter(&records.lost)
            .map(|(avatar, subject)| async move {
                let subject = subject.clone();
                let avatar = *avatar;
                let outstanding = Outstanding { subject, avatar };
                self.catalog.drop_record(&outstanding, lease).await
            })
            .buffer_unordered(AT_ONCE);
        while let Some(is_dropped) = drops.try_next().await? {
            lost.dropped += u64::from(is_dropped);
        }
        Ok(())
    }

    /// Finds which uploads of a window are garbage.
    async fn judge(
        &self,
        mut window: Window,
        now: Timestamp,
        collecting: &GcOptions,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        let is_young = |written: Timestamp| now.since(written) < collecting.min_age;
        for one in self.catalog.outstanding().await? {
            window.uploads.remove(&one.avatar);
        }
        for Seen { upload, .. } in window.uploads.values().filter(|seen| !seen.is_referred) {
            if is_young(upload.written) {
                collected.young += 1;
                continue;
            }
            // A record that cannot be read may name it.
            if !upload.has_manifest && collected.unreadable > 0 {
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
        let current = match self.catalog.get(&subject).await {
            Ok(current) => current,
            // Its own subject's record cannot be read, and may name it.
            Err(error) if error.is_corrupt() => return Ok(Worth::Known),
            Err(error) => return Err(error.into()),
        };
        let is_newest = current.is_none_or(|current| current.rank() < record.rank());
        // A delete came after it; its objects are left, for instance because the catalog had lost
        // the upload by then.
        let is_deleted = record.version <= self.catalog.deleted(&subject).await?;
        if is_newest && !is_deleted && self.is_whole(&record).await? {
            return Ok(Worth::Forgotten);
        }
        let standing = self.catalog.standing(&subject, upload.avatar).await?;
        Ok(if standing == Standing::Unknown {
            Worth::Nothing
        } else {
            Worth::Known
        })
    }

    /// Looks at up to `count` current avatars, and finds which of them lack objects.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`]
    pub async fn sample(&self, count: usize) -> Result<Sample, Error> {
        let mut sample = Sample::default();
        let mut next = Some(Cursor::START);
        while let Some(from) = next {
            let page = self.catalog.page(&from).await?;
            sample.unreadable += page.unreadable.len() as u64;
            for (_, record) in page.records {
                if sample.looked_at == count {
                    return Ok(sample);
                }
                sample.looked_at += 1;
                if !self.is_whole(&record).await? {
                    sample.incomplete.add(record.avatar_id, TOLD);
                }
            }
            next = page.next;
        }
        Ok(sample)
    }

    /// Whether the store holds an upload at all.
    ///
    /// # Errors
    /// [`Error::Storage`]
    pub async fn holds_uploads(&self) -> Result<bool, Error> {
        Ok(!self.store.uploads(None).await?.is_empty())
    }

    /// Initialises a new catalog: versions begin at 1, or above the milliseconds since 2025 if the
    /// store holds uploads. In that case another catalog was lost, and its versions must not be given
    /// out again. Answers whether that is so.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub async fn begin(&self) -> Result<bool, Error> {
        if self.catalog.has_begun().await? {
            return Ok(false);
        }
        // A store that does not answer may hold some.
        let lost = self.holds_uploads().await.unwrap_or(true);
        let state = if lost {
            InitialState::Lost
        } else {
            InitialState::New
        };
        self.catalog.initialize(state).await?;
        Ok(lost)
    }
}

/// What a sample of the current avatars showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// How many avatars were looked at.
    pub looked_at: usize,
    /// Those that lack objects.
    pub incomplete: Named,
    /// Records that cannot be read.
    pub unreadable: u64,
}

/// What a comparison of the current records with the store has found so far.
#[derive(Default)]
struct Records {
    /// All of them.
    count: u64,
    /// Those without objects. The catalog may show a record twice, so they are sorted by avatar.
    lost: HashMap<AvatarId, SubjectId>,
    /// Those that lack some objects, and when they were uploaded.
    incomplete: HashMap<AvatarId, Timestamp>,
    /// Those that cannot be read.
    unreadable: u64,
}

impl Records {
    fn lose(&mut self, one: Outstanding) {
        if self.lost.len() < MAX_LOST {
            self.lost.insert(one.avatar, one.subject);
        }
    }

    fn tell(&self, lost: &mut Lost) {
        for avatar in self.lost.keys() {
            lost.avatars.add(*avatar, TOLD);
        }
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
        .map(move |rendition| ObjectKey::of_rendition(avatar, rendition));
    std::iter::once(ObjectKey::Manifest { avatar })
        .chain(master)
        .chain(renditions)
}

#[cfg(test)]
mod tests;
