//! Compares the current records with the store: finds records whose objects are missing, and the
//! uploads that no record names.
//!
//! A store may hold more uploads than memory does. So the comparison goes through the store in
//! [`Window`]s, and reads all records of the catalog once for each window.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{CONCURRENCY, MAX_NAMES, Named, keys_of};
use crate::avatar::{AvatarId, ObjectKey, SubjectId, Timestamp};
use crate::catalog::{Cursor, Outstanding};
use crate::service::{Error, Service};
use crate::storage::StoredUpload;

/// Records without objects that are held in memory. A later run finds further ones.
const MAX_LOST: usize = 1_000_000;
/// The number of records without objects that are always dropped.
const MAX_DROPPED: u64 = 10;
/// The part of all records that is dropped as well: one in a hundred. Only [`DropLimit::None`]
/// drops more than both limits.
const MAX_DROPPED_PART: u64 = 100;

/// The number of records without objects that may be dropped.
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
    /// The number of dropped records.
    pub dropped: u64,
    /// Whether all of them were kept because they exceed the limit.
    pub is_over_limit: bool,
}

/// The result so far of comparing the current records with the store.
#[derive(Default)]
pub(super) struct Comparison {
    /// The number of records.
    count: u64,
    /// Records without objects. The catalog may list a record twice, so the avatar is the key.
    lost: HashMap<AvatarId, SubjectId>,
    /// Records that lack some of their objects, and when they were uploaded.
    pub(super) incomplete: HashMap<AvatarId, Timestamp>,
    /// The number of records that cannot be read.
    pub(super) unreadable: u64,
}

impl Comparison {
    fn add_lost(&mut self, record: Outstanding) {
        if self.lost.len() < MAX_LOST {
            self.lost.insert(record.avatar, record.subject);
        }
    }

    /// Names the avatars of the records without objects in a report.
    pub(super) fn report_lost(&self, lost: &mut Lost) {
        for avatar in self.lost.keys() {
            lost.avatars.add(*avatar, MAX_NAMES);
        }
    }
}

/// Neighbouring uploads of the store's listing, as many as are held in memory at once.
pub(super) struct Window {
    /// The upload before the first one; `None` at the start of the listing.
    after: Option<AvatarId>,
    /// The last upload; `None` at the end of the listing.
    pub(super) last: Option<AvatarId>,
    pub(super) uploads: HashMap<AvatarId, Listed>,
}

/// An upload of a [`Window`].
pub(super) struct Listed {
    pub(super) upload: StoredUpload,
    /// Whether a current record names it.
    pub(super) is_current: bool,
}

impl Window {
    /// Whether the window would list this upload if the store had any object of it.
    fn covers(&self, avatar: AvatarId) -> bool {
        // The store sorts ids as text, where digits come before letters.
        let text = |avatar: AvatarId| avatar.to_string();
        self.after.is_none_or(|after| text(after) < text(avatar))
            && self.last.is_none_or(|last| text(avatar) <= text(last))
    }
}

impl Service {
    /// Lists at least `size` uploads after `after`, in whole pages. Adds their number to `count`.
    pub(super) async fn window(
        &self,
        after: Option<AvatarId>,
        size: usize,
        count: &mut u64,
        progress: &mut impl FnMut(u64),
    ) -> Result<Window, Error> {
        let mut window = Window {
            after,
            last: after,
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
            let listed = uploads.into_iter().map(|upload| {
                let is_current = false;
                (upload.avatar, Listed { upload, is_current })
            });
            window.uploads.extend(listed);
            progress(*count);
        }
        Ok(window)
    }

    /// Compares every current record with a window: marks the uploads that a record names, and finds
    /// records that lack objects.
    pub(super) async fn compare(
        &self,
        window: &mut Window,
        comparison: &mut Comparison,
    ) -> Result<(), Error> {
        let mut next = Some(Cursor::START);
        while let Some(from) = next {
            let page = self.catalog.page(&from).await?;
            if window.after.is_none() {
                comparison.unreadable += page.unreadable.len() as u64;
            }
            let mut suspects = Vec::new();
            for (subject, record) in page.records {
                let objects = if let Some(listed) = window.uploads.get_mut(&record.avatar_id) {
                    listed.is_current = true;
                    listed.upload.objects
                } else if window.covers(record.avatar_id) {
                    0
                } else {
                    continue;
                };
                comparison.count += 1;
                if objects < keys_of(&record).count() as u64 {
                    suspects.push((subject, record));
                }
            }
            // The listing may be older than the record, so the store is asked again.
            let mut listed = stream::iter(suspects)
                .map(|(subject, record)| async move {
                    let stored = self.store.list(record.avatar_id).await?;
                    Ok::<_, Error>((subject, record, stored))
                })
                .buffer_unordered(CONCURRENCY);
            while let Some((subject, record, stored)) = listed.try_next().await? {
                let avatar = record.avatar_id;
                let is_manifest = |key: &ObjectKey| matches!(key, ObjectKey::Manifest { .. });
                if stored.iter().all(is_manifest) {
                    comparison.add_lost(Outstanding { subject, avatar });
                } else if !keys_of(&record).all(|key| stored.contains(&key))
                    && comparison.incomplete.len() < MAX_LOST
                {
                    comparison.incomplete.insert(avatar, record.uploaded_at);
                }
            }
            next = page.next;
        }
        Ok(())
    }

    /// Drops the records without objects, unless they exceed the limit.
    pub(super) async fn drop_records(
        &self,
        comparison: &Comparison,
        limit: DropLimit,
        lost: &mut Lost,
    ) -> Result<(), Error> {
        comparison.report_lost(lost);
        let max_dropped = MAX_DROPPED.max(comparison.count / MAX_DROPPED_PART);
        if limit == DropLimit::Few && lost.avatars.count > max_dropped {
            lost.is_over_limit = true;
            return Ok(());
        }
        let lease = self.removal_lease();
        let mut drops = stream::iter(&comparison.lost)
            .map(|(avatar, subject)| async move {
                let subject = subject.clone();
                let avatar = *avatar;
                let outstanding = Outstanding { subject, avatar };
                let is_dropped = self.catalog.drop_record(&outstanding, lease).await;
                self.records.invalidate(&outstanding.subject);
                let is_dropped = is_dropped?;
                if is_dropped {
                    self.audit("drop_record", &outstanding.subject, Some(avatar));
                }
                Ok::<_, Error>(is_dropped)
            })
            .buffer_unordered(CONCURRENCY);
        while let Some(is_dropped) = drops.try_next().await? {
            lost.dropped += u64::from(is_dropped);
        }
        Ok(())
    }
}
