//! Rebuild: restores the records of the catalog from the manifests in the store.

use futures_util::stream::{self, StreamExt};

use super::compare::Comparison;
use super::{CONCURRENCY, DropLimit, Lost, Unreadable};
use crate::avatar::{AvatarId, Manifest, Version};
use crate::catalog::{Restored, UploadState};
use crate::service::policy::FoundPolicy;
use crate::service::{Error, Service};
use crate::storage::StoredUpload;

/// The result of a rebuild.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Uploads in the store.
    pub uploads: u64,
    /// Uploads that became current.
    pub current: u64,
    /// Uploads that are older than the current one, or were deleted. They are retired, and the sweep
    /// removes them.
    pub retired: u64,
    /// Uploads that the catalog knew already.
    pub known: u64,
    /// Uploads without a manifest: they were not finished, or were deleted.
    pub unfinished: u64,
    /// Uploads with a manifest but without all objects that it names: likewise.
    pub incomplete: u64,
    /// Policies of users that were restored.
    pub policies: u64,
    /// Manifests, policies, and records of the catalog, that cannot be read.
    pub unreadable: u64,
    /// Current records without objects.
    pub lost: Lost,
}

/// The result of a rebuild for one upload.
enum Found {
    Restored(Restored),
    Unfinished,
    Incomplete,
    Unreadable,
}

impl Service {
    /// Restores every complete upload in the catalog, with its version: the latest one of each user
    /// becomes current, the others are left to the sweep. Then drops the records whose objects are
    /// all missing. Events announce both. A rebuild may be repeated, and may run beside a working
    /// service.
    ///
    /// Before the uploads, this restores the locks and the viewers of all users, so that a lock is in
    /// force as early as possible.
    ///
    /// A deleted avatar leaves no manifest, so its version is unknown. New versions are therefore
    /// above the milliseconds since 2025 from then on, and above every version that is found.
    ///
    /// The rebuild begins after the upload `after`. `progress` receives the last upload that is
    /// done. `window` is the number of uploads held in memory at once.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`]. What was done before the error stays done.
    pub async fn rebuild(
        &self,
        after: Option<AvatarId>,
        drop_limit: DropLimit,
        window: usize,
        mut progress: impl FnMut(AvatarId, &Rebuilt),
    ) -> Result<Rebuilt, Error> {
        // The floor is raised first, because users may upload during the rebuild, and because the
        // rebuild may be interrupted.
        let floor = self.catalog.raise_version_floor(Version(0)).await?;
        let mut rebuilt = Rebuilt::default();
        self.restore_policies(&mut rebuilt).await?;
        let mut after = after;
        loop {
            let uploads = self.store.uploads(after).await?;
            let Some(last) = uploads.last().map(|upload| upload.avatar) else {
                break;
            };
            for some in uploads.chunks(CONCURRENCY * 8) {
                let mut done = stream::iter(some)
                    .map(|upload| self.rebuild_one(upload, floor))
                    .buffer_unordered(CONCURRENCY);
                while let Some(done) = done.next().await {
                    rebuilt.uploads += 1;
                    match done? {
                        Found::Restored(Restored::Current(superseded)) => {
                            // The upload that it supersedes was counted as current before.
                            match superseded {
                                None => rebuilt.current += 1,
                                Some(_) => rebuilt.retired += 1,
                            }
                        }
                        Found::Restored(Restored::Retired) => rebuilt.retired += 1,
                        Found::Restored(Restored::Known) => rebuilt.known += 1,
                        Found::Unfinished => rebuilt.unfinished += 1,
                        Found::Incomplete => rebuilt.incomplete += 1,
                        Found::Unreadable => rebuilt.unreadable += 1,
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

    /// Restores the policies of all subjects from the store.
    async fn restore_policies(&self, rebuilt: &mut Rebuilt) -> Result<(), Error> {
        let mut after = None;
        loop {
            let owners = self.store.policies(after).await?;
            after = owners.last().copied();
            if after.is_none() {
                return Ok(());
            }
            let mut found = stream::iter(owners)
                .map(|owner| self.restore_policy(owner))
                .buffer_unordered(CONCURRENCY);
            while let Some(found) = found.next().await {
                match found? {
                    FoundPolicy::Restored => rebuilt.policies += 1,
                    FoundPolicy::Known => {}
                    FoundPolicy::Unreadable => rebuilt.unreadable += 1,
                }
            }
        }
    }

    /// Drops the records whose objects are all missing. Returns how many records cannot be read.
    async fn drop_lost(
        &self,
        limit: DropLimit,
        window: usize,
        lost: &mut Lost,
    ) -> Result<u64, Error> {
        let mut comparison = Comparison::default();
        let (mut uploads, mut after) = (0, None);
        loop {
            let mut window = self
                .window(after, window, &mut uploads, &mut |_| {})
                .await?;
            self.compare(&mut window, &mut comparison).await?;
            after = window.last;
            if after.is_none() {
                break;
            }
        }
        self.drop_records(&comparison, limit, lost).await?;
        Ok(comparison.unreadable)
    }

    async fn rebuild_one(&self, upload: &StoredUpload, floor: Version) -> Result<Found, Error> {
        let Manifest { subject, record } = match self.manifest(upload).await? {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(Found::Unfinished),
            Err(Unreadable) => return Ok(Found::Unreadable),
        };
        if record.version > floor {
            self.catalog.raise_version_floor(record.version).await?;
        }
        // The catalog is asked before the store. An upload that is invalidated in between is retired
        // until its objects are gone. So no replica removes an upload that is neither retired nor
        // incomplete afterwards. `restore` checks the catalog once more.
        match self.catalog.upload_state(&subject, upload.avatar).await {
            Ok(UploadState::Expired | UploadState::Unknown) => {}
            Ok(UploadState::Current | UploadState::Pending | UploadState::Retired) => {
                return Ok(Found::Restored(Restored::Known));
            }
            Err(error) if error.is_corrupt() => return Ok(Found::Unreadable),
            Err(error) => return Err(error.into()),
        }
        if !self.is_whole(&record).await? {
            return Ok(Found::Incomplete);
        }
        let retire_after = self.settings.retire_after;
        let restored = self.catalog.restore(&subject, &record, retire_after).await;
        self.records.invalidate(&subject);
        match restored {
            Ok(restored) => {
                if matches!(restored, Restored::Current(_)) {
                    self.audit("restore_record", &subject, Some(record.avatar_id));
                }
                Ok(Found::Restored(restored))
            }
            Err(error) if error.is_corrupt() => Ok(Found::Unreadable),
            Err(error) => Err(error.into()),
        }
    }
}
