//! Garbage collection: removes uploads from the store that nothing refers to, and reports current
//! avatars that are not complete.

use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::compare::{Comparison, Listed, Window};
use super::{CONCURRENCY, DropLimit, Lost, MAX_NAMES, Named, Unreadable};
use crate::avatar::{Manifest, Timestamp};
use crate::catalog::UploadState;
use crate::service::{Error, Service};
use crate::storage::StoredUpload;

/// The options of a garbage collection.
#[derive(Clone, Copy, Debug)]
pub struct GcOptions {
    /// Whether it only reports.
    pub dry_run: bool,
    /// How many records without objects may be dropped.
    pub drop_limit: DropLimit,
    /// Younger uploads stay, because they may be under way.
    pub min_age: Duration,
    /// If there is more garbage than this, none of it is removed: more garbage means that something
    /// else is wrong.
    pub max_removals: usize,
    /// How many uploads are held in memory at once; each takes a hundred bytes. If the store holds
    /// more, the catalog is read once for each such number of uploads.
    pub window: usize,
}

/// The result of a garbage collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Uploads in the store.
    pub uploads: u64,
    /// Unreferenced uploads that are too young to judge.
    pub young: u64,
    /// Uploads that nothing refers to. As many ids are kept as may be removed.
    pub garbage: Named,
    /// The bytes of that garbage.
    pub garbage_bytes: u64,
    /// How much of the garbage was removed.
    pub removed: u64,
    /// Complete uploads of a user or version that the catalog does not know. The catalog has lost
    /// them, and a rebuild restores them. They stay.
    pub forgotten: u64,
    /// Current avatars with some, but not all, of the objects that their record names.
    pub incomplete: Named,
    /// Current records without objects.
    pub lost: Lost,
    /// Records that cannot be read: they are damaged or of an unknown layout. They are skipped.
    pub unreadable: u64,
}

/// The state of an upload that no current record names.
enum Verdict {
    /// The catalog knows it by now.
    Known,
    /// A rebuild would make it current, or its manifest cannot be read. An operator should look at
    /// it.
    Forgotten,
    Garbage,
}

impl Service {
    /// Finds uploads in the store that nothing refers to, and removes them. Finds current avatars
    /// that are not complete, and reports them. May run beside a working service. An upload is too
    /// young if it was written less than `options.min_age` before `now`.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`]. Everything that was removed before the error was
    /// garbage.
    pub async fn collect_garbage(
        &self,
        now: Timestamp,
        options: &GcOptions,
        mut progress: impl FnMut(&Collected),
    ) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        let mut comparison = Comparison::default();
        let mut after = None;
        loop {
            // The store is listed before the catalog is read. So an upload that something refers to
            // during the listing is current or outstanding afterwards, or its objects are gone.
            let mut window = self
                .window(
                    after,
                    options.window,
                    &mut collected.uploads,
                    &mut |uploads| {
                        progress(&Collected {
                            uploads,
                            ..Collected::default()
                        });
                    },
                )
                .await?;
            self.compare(&mut window, &mut comparison).await?;
            after = window.last;
            collected.unreadable = comparison.unreadable;
            self.find_garbage(window, now, options, &mut collected)
                .await?;
            if after.is_none() {
                break;
            }
        }
        let is_young = |written: Timestamp| now.since(written) < options.min_age;
        for (avatar, uploaded_at) in &comparison.incomplete {
            if !is_young(*uploaded_at) {
                collected.incomplete.add(*avatar, MAX_NAMES);
            }
        }
        if options.dry_run {
            comparison.report_lost(&mut collected.lost);
            return Ok(collected);
        }
        self.drop_records(&comparison, options.drop_limit, &mut collected.lost)
            .await?;
        if collected.garbage.count <= options.max_removals as u64 {
            let garbage = collected.garbage.names.clone();
            let mut removals = stream::iter(garbage)
                .map(|avatar| self.remove_objects(avatar))
                .buffer_unordered(CONCURRENCY);
            while removals.try_next().await?.is_some() {
                collected.removed += 1;
                progress(&collected);
            }
        }
        Ok(collected)
    }

    /// Finds the garbage among the uploads of a window.
    async fn find_garbage(
        &self,
        mut window: Window,
        now: Timestamp,
        options: &GcOptions,
        collected: &mut Collected,
    ) -> Result<(), Error> {
        let is_young = |written: Timestamp| now.since(written) < options.min_age;
        for one in self.catalog.outstanding().await? {
            window.uploads.remove(&one.avatar);
        }
        let unreferenced = window.uploads.values().filter(|listed| !listed.is_current);
        for Listed { upload, .. } in unreferenced {
            if is_young(upload.written) {
                collected.young += 1;
                continue;
            }
            // A record that cannot be read may name it.
            if !upload.has_manifest && collected.unreadable > 0 {
                continue;
            }
            match self.judge(upload).await? {
                Verdict::Known => {}
                Verdict::Forgotten => collected.forgotten += 1,
                Verdict::Garbage => {
                    collected.garbage.add(upload.avatar, options.max_removals);
                    collected.garbage_bytes += upload.bytes;
                }
            }
        }
        Ok(())
    }

    /// Judges an upload that no current record names. A rebuild may have restored it meanwhile. A
    /// rebuild never makes an upload current that is [`Verdict::Garbage`], now or later; at most it
    /// retires it.
    async fn judge(&self, upload: &StoredUpload) -> Result<Verdict, Error> {
        let Manifest { subject, record } = match self.manifest(upload).await? {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(Verdict::Garbage),
            Err(Unreadable) => return Ok(Verdict::Forgotten),
        };
        let current = match self.catalog.get(&subject).await {
            Ok(current) => current,
            // The record of its own subject cannot be read, and may name it.
            Err(error) if error.is_corrupt() => return Ok(Verdict::Known),
            Err(error) => return Err(error.into()),
        };
        let is_newest = current.is_none_or(|current| current.rank() < record.rank());
        // A delete came after the upload. Its objects can be left, for example because the catalog
        // had lost the upload by then.
        let is_deleted = record.version <= self.catalog.deleted_up_to(&subject).await?;
        if is_newest && !is_deleted && self.is_whole(&record).await? {
            return Ok(Verdict::Forgotten);
        }
        let standing = self.catalog.upload_state(&subject, upload.avatar).await?;
        Ok(if standing == UploadState::Unknown {
            Verdict::Garbage
        } else {
            Verdict::Known
        })
    }
}
