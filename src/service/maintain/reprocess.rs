//! Reprocess: moves the images of avatars to where the configuration puts them now.

use futures_util::stream::{self, StreamExt};
use tracing::warn;

use super::{CONCURRENCY, MAX_NAMES, Named, keys_of};
use crate::avatar::{AvatarId, ObjectKey, Record, SubjectId};
use crate::catalog::{Cursor, Precondition, SubjectLocked, Uploader};
use crate::service::{Error, Service};
use crate::telemetry::chain;

/// The result of reprocessing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reprocessed {
    /// Records that were read.
    pub checked: u64,
    /// Avatars that were moved; with a dry run, that would be moved.
    pub moved: u64,
    /// Avatars that their user replaced or deleted meanwhile. They need no move any more.
    pub overtaken: u64,
    /// Avatars that lack objects. They stay where they are.
    pub incomplete: Named,
    /// Records that cannot be read.
    pub unreadable: u64,
}

/// The result of reprocessing for one avatar.
enum Moved {
    Done,
    Overtaken,
    Incomplete,
}

impl Service {
    /// Moves the images of every avatar that was uploaded under another `delivery.access` than the
    /// present one. Each one gets a new avatar id and a new version, so its URLs change, and an event
    /// announces it. The old objects are retired like those of a replaced avatar. With `dry_run` it
    /// only counts.
    ///
    /// It may run beside a working service, may be interrupted, and may be repeated: avatars that were
    /// moved are in the right place then. An upload or a delete of the user wins over the move if it is
    /// committed first. If the move is committed first, an upload that began before it is answered
    /// [`Error::Superseded`]. `progress` receives the result so far after each page of records.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Catalog`]. What was moved before the error stays moved. The
    /// sweep removes the copies of an avatar whose move failed.
    pub async fn reprocess(
        &self,
        dry_run: bool,
        mut progress: impl FnMut(&Reprocessed),
    ) -> Result<Reprocessed, Error> {
        let mut result = Reprocessed::default();
        let mut next = Some(Cursor::START);
        while let Some(from) = next {
            let page = self.catalog.page(&from).await?;
            result.unreadable += page.unreadable.len() as u64;
            result.checked += page.records.len() as u64;
            let misplaced = page
                .records
                .into_iter()
                .filter(|(_, record)| record.audience != self.settings.audience);
            if dry_run {
                result.moved += misplaced.count() as u64;
            } else {
                let mut moves = stream::iter(misplaced)
                    .map(async |(subject, record)| {
                        let moved = self.relocate(&subject, &record).await;
                        moved.map(|moved| (record.avatar_id, moved))
                    })
                    .buffer_unordered(CONCURRENCY);
                while let Some(moved) = moves.next().await {
                    match moved? {
                        (_, Moved::Done) => result.moved += 1,
                        (_, Moved::Overtaken) => result.overtaken += 1,
                        (avatar, Moved::Incomplete) => result.incomplete.add(avatar, MAX_NAMES),
                    }
                }
            }
            progress(&result);
            next = page.next;
        }
        Ok(result)
    }

    /// Copies the objects of an avatar to their new place, under a new id, and makes the copy current.
    async fn relocate(&self, subject: &SubjectId, old: &Record) -> Result<Moved, Error> {
        let avatar = AvatarId::random().map_err(|error| Error::Internal(Box::new(error)))?;
        let within = self.settings.upload_deadline;
        // A lock stops uploads of the user. It does not stop a move, which shows the same picture.
        let uploader = Uploader::Admin;
        let reserved = self.catalog.reserve(subject, avatar, within, uploader);
        let reservation = match reserved.await? {
            Ok(reservation) => reservation,
            Err(SubjectLocked) => return Err(self.locked(subject).await),
        };
        let mut record = old.clone();
        record.avatar_id = avatar;
        record.version = reservation.version;
        record.reserved_at = reservation.reserved_at;
        record.audience = self.settings.audience;
        match self.copy_objects(old, &record).await {
            Ok(true) => {}
            Ok(false) => {
                self.abandon(subject, avatar).await;
                // If the user replaced or deleted the avatar meanwhile, its objects are gone.
                let is_current = self.current_id(subject).await? == Some(old.avatar_id);
                return Ok(if is_current {
                    Moved::Incomplete
                } else {
                    Moved::Overtaken
                });
            }
            Err(error) => {
                self.abandon(subject, avatar).await;
                return Err(error);
            }
        }
        if let Err(error) = self.write_manifest(subject, &record).await {
            self.abandon(subject, avatar).await;
            return Err(error);
        }
        let unchanged = Precondition::OneOf(vec![old.avatar_id]);
        match self.commit(subject, record, &unchanged, uploader).await {
            Ok(_) => {
                self.audit("reprocess_avatar", subject, Some(avatar));
                Ok(Moved::Done)
            }
            Err(Error::PreconditionFailed | Error::Superseded) => Ok(Moved::Overtaken),
            Err(error) => {
                warn!(%avatar, error = %chain(&error), "an avatar could not be moved");
                Err(error)
            }
        }
    }

    /// Copies every object of an avatar except the manifest. Returns false if one is missing.
    async fn copy_objects(&self, old: &Record, new: &Record) -> Result<bool, Error> {
        for (from, to) in keys_of(old).zip(keys_of(new)) {
            if matches!(from, ObjectKey::Manifest { .. }) {
                continue;
            }
            let Some(object) = self.store.get(&from).await? else {
                return Ok(false);
            };
            self.store.put(&to, object.into_bytes().await?).await?;
        }
        Ok(true)
    }
}
