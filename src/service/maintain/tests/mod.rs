//! Tests of `gc`, `rebuild` and `reprocess` on records and objects.

mod policies;
mod reprocess;
mod sweep;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::gc::Collected;
use super::*;
use crate::avatar::{Change, Event, SubjectId, Timestamp, Version};
use crate::catalog::{Clock, Outstanding, Precondition, Replaced, Uploader, contract};
use crate::service::testing::{Parts, StoreChanges};
use crate::storage::{Store, StoreError};

impl Parts {
    /// Reserves the id of an upload. The catalog gives it the version of the record.
    async fn reserved(&self, record: &Record) {
        self.catalog.initialize(InitialState::New).await.unwrap();
        let within = Duration::from_mins(2);
        let reserved = self
            .catalog
            .reserve(&subject(), record.avatar_id, within, Uploader::Ordinary)
            .await;
        assert_eq!(reserved.unwrap().unwrap().version, record.version);
    }

    async fn committed(&self, record: &Record) {
        let anything = Precondition::Anything;
        let replaced = self
            .catalog
            .replace(
                &subject(),
                record,
                &anything,
                Duration::ZERO,
                Uploader::Ordinary,
            )
            .await;
        assert_eq!(replaced.unwrap(), Replaced::Committed);
    }

    /// Stores the objects of an upload, the manifest included.
    async fn stored(&self, record: &Record) {
        let manifest = Manifest {
            subject: subject(),
            record: record.clone(),
        };
        let manifest = Bytes::from(manifest.to_json().unwrap());
        for key in keys_of(record) {
            self.store.put(&key, manifest.clone()).await.unwrap();
        }
    }

    async fn remove_renditions(&self, avatar: AvatarId) {
        for key in self.store.list(avatar).await.unwrap() {
            if matches!(key, ObjectKey::Rendition { .. }) {
                self.store.delete(&key).await.unwrap();
            }
        }
    }
}

type Listing = Vec<StoredUpload>;

/// Calls functions of the test.
struct Calls {
    /// Called after an object of this upload was read.
    after_get: Box<dyn Fn(AvatarId) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Changes the result of a listing.
    listed: fn(Listing) -> Result<Listing, StoreError>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            after_get: Box::new(|_| Box::pin(async {})),
            listed: Ok,
        }
    }
}

#[async_trait]
impl StoreChanges for Calls {
    async fn after_get(&self, key: &ObjectKey) {
        if let Some(avatar) = key.avatar() {
            (self.after_get)(avatar).await;
        }
    }

    fn listed(&self, uploads: Listing) -> Result<Listing, StoreError> {
        (self.listed)(uploads)
    }
}

fn subject() -> SubjectId {
    SubjectId::new("42").unwrap()
}

async fn rebuilt(service: &Service) -> Rebuilt {
    let rebuilt = service.rebuild(None, DropLimit::Few, 10, |_, _| {}).await;
    rebuilt.unwrap()
}

async fn collected(service: &Service) -> Collected {
    let collecting = GcOptions {
        dry_run: false,
        drop_limit: DropLimit::Few,
        min_age: Duration::ZERO,
        max_removals: 10,
        window: 10,
    };
    let found = service.collect_garbage(Timestamp::now(), &collecting, |_| {});
    found.await.unwrap()
}

#[tokio::test]
async fn an_incomplete_upload_is_garbage_and_is_not_restored() {
    let parts = Parts::new();
    let service = parts.service();
    let (whole, torn) = (contract::record(1, 1), contract::record(2, 2));
    parts.stored(&whole).await;
    parts.stored(&torn).await;
    parts.remove_renditions(torn.avatar_id).await;

    let done = rebuilt(&service).await;
    assert_eq!((done.uploads, done.current, done.incomplete), (2, 1, 1));
    let current = parts.catalog.get(&subject()).await.unwrap();
    assert_eq!(current, Some(whole.clone()));

    let found = collected(&service).await;
    assert_eq!(found.garbage.names, [torn.avatar_id].into());
    assert_eq!((found.removed, found.forgotten), (1, 0));
    assert_eq!(parts.store.list(torn.avatar_id).await.unwrap(), []);
    assert!(service.is_whole(&whole).await.unwrap());
}

#[tokio::test]
async fn a_store_with_more_uploads_than_fit_into_memory_is_collected_window_by_window() {
    let parts = Parts::new();
    // One upload per page makes every window as small as possible.
    let (service, _) = parts.service_with(Calls {
        listed: |uploads| Ok(uploads.into_iter().take(1).collect()),
        ..Calls::default()
    });
    let subjects = ["a", "b", "c", "d", "e"];
    let ids = [0x00, 0x40, 0x80, 0xc0, 0xf8].map(|first| {
        let mut bits = [1; 16];
        bits[0] = first;
        AvatarId::from_bytes(bits)
    });
    for (name, id) in subjects.into_iter().zip(ids) {
        let mut record = contract::record(1, 1);
        record.avatar_id = id;
        parts.stored(&record).await;
        // Every second upload is current. The store has nothing of the last one.
        if id != ids[1] && id != ids[3] {
            let who = SubjectId::new(name).unwrap();
            let restored = parts.catalog.restore(&who, &record, Duration::ZERO);
            restored.await.unwrap();
        } else {
            parts.remove_renditions(id).await;
        }
    }
    service.remove_objects(ids[4]).await.unwrap();
    for window in [1, 2, 3, 10] {
        let collecting = GcOptions {
            dry_run: true,
            drop_limit: DropLimit::Few,
            min_age: Duration::ZERO,
            max_removals: 1,
            window,
        };
        let found = service.collect_garbage(Timestamp::now(), &collecting, |_| {});
        let found = found.await.unwrap();
        assert_eq!((found.uploads, found.garbage.count), (4, 2), "{window}");
        assert_eq!(found.garbage.names.len(), 1, "as many as may be removed");
        assert_eq!(found.lost.avatars.names, [ids[4]].into(), "{window}");
        assert_eq!((found.lost.avatars.count, found.lost.dropped), (1, 0));
        assert_eq!(found.incomplete.count, 0);
        assert_eq!((found.forgotten, found.young), (0, 0));
    }
}

#[tokio::test]
async fn an_upload_that_is_invalidated_during_a_rebuild_is_not_restored() {
    let parts = Parts::new();
    let lost = contract::record(1, 1);
    parts.reserved(&lost).await;
    parts.stored(&lost).await;
    let meanwhile = Arc::new(parts.service());
    let given_up = move |avatar| -> BoxFuture<'static, ()> {
        let service = meanwhile.clone();
        Box::pin(async move {
            service.remove_objects(avatar).await.unwrap();
            let subject = subject();
            let outstanding = Outstanding { subject, avatar };
            service.catalog.forget(&outstanding).await.unwrap();
        })
    };
    let (service, _) = parts.service_with(Calls {
        after_get: Box::new(given_up),
        ..Calls::default()
    });
    let done = rebuilt(&service).await;
    assert_eq!((done.uploads, done.current, done.incomplete), (1, 0, 1));
    assert_eq!(parts.catalog.get(&subject()).await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_that_a_rebuild_restores_during_the_collection_is_not_garbage() {
    let parts = Parts::new();
    let (current, older) = (contract::record(2, 2), contract::record(1, 1));
    parts.stored(&current).await;
    parts.stored(&older).await;
    let (catalog, found) = (parts.catalog.clone(), [current.clone(), older]);
    let restored = move |_| -> BoxFuture<'static, ()> {
        let (catalog, found) = (catalog.clone(), found.clone());
        Box::pin(async move {
            for record in found {
                let who = subject();
                let restored = catalog.restore(&who, &record, Duration::ZERO);
                restored.await.unwrap();
            }
        })
    };
    let (service, _) = parts.service_with(Calls {
        after_get: Box::new(restored),
        ..Calls::default()
    });
    let found = collected(&service).await;
    assert_eq!((found.uploads, found.garbage.count), (2, 0));
    assert!(service.is_whole(&current).await.unwrap());
    let restored = parts.catalog.get(&subject()).await.unwrap();
    assert_eq!(restored, Some(current));
}

#[tokio::test]
async fn an_upload_under_way_is_not_restored_and_not_garbage() {
    let parts = Parts::new();
    let service = parts.service();
    let upload = contract::record(1, 1);
    parts.reserved(&upload).await;
    parts.stored(&upload).await;
    assert_eq!(rebuilt(&service).await.known, 1);
    parts.committed(&upload).await;
    assert_eq!(rebuilt(&service).await.known, 1);
}

#[tokio::test]
async fn after_a_rebuild_no_version_is_used_again_that_a_deleted_avatar_may_have_had() {
    let parts = Parts::new();
    let service = parts.service();
    let began = async |name: &str, id: u8| {
        let (who, id) = (
            SubjectId::new(name).unwrap(),
            AvatarId::from_bytes([id; 16]),
        );
        let within = Duration::from_mins(2);
        let reserved = parts
            .catalog
            .reserve(&who, id, within, Uploader::Ordinary)
            .await;
        reserved.unwrap().unwrap().version
    };
    parts.catalog.initialize(InitialState::New).await.unwrap();
    let floor = Version::time_floor(parts.clock.now());
    rebuilt(&service).await;
    assert_eq!(began("a", 101).await, Version(floor.0 + 1));

    // A clock was wrong. A version that is found raises the floor above the time.
    let mut found = contract::record(1, 3_000_000_000_000);
    found.avatar_id = AvatarId::from_bytes([1; 16]);
    parts.stored(&found).await;
    rebuilt(&service).await;
    assert_eq!(parts.catalog.get(&subject()).await.unwrap(), Some(found));
    assert_eq!(began("b", 102).await, Version(3_000_000_000_001));
}

#[tokio::test]
async fn a_rebuild_raises_the_floor_before_anything_else() {
    let parts = Parts::new();
    let (service, _) = parts.service_with(Calls {
        listed: |_| Err(StoreError::new("list its uploads", "on purpose")),
        ..Calls::default()
    });
    parts.catalog.initialize(InitialState::New).await.unwrap();
    let rebuilt = service.rebuild(None, DropLimit::Few, 10, |_, _| {}).await;
    rebuilt.unwrap_err();
    let id = AvatarId::from_bytes([1; 16]);
    let reserved = parts
        .catalog
        .reserve(&subject(), id, Duration::ZERO, Uploader::Ordinary)
        .await;
    assert!(reserved.unwrap().unwrap().version > Version(50_000_000_000));
}

/// Restores so many records without objects, and one complete record.
async fn with_lost_records(parts: &Parts, count: u16) -> (SubjectId, Record) {
    for number in 0..count {
        let mut record = contract::record(1, 1);
        record.avatar_id = AvatarId::random().unwrap();
        let who = SubjectId::new(format!("lost-{number}")).unwrap();
        let restored = parts.catalog.restore(&who, &record, Duration::ZERO);
        restored.await.unwrap();
    }
    let whole = contract::record(7, 1);
    parts.stored(&whole).await;
    let who = subject();
    let restored = parts.catalog.restore(&who, &whole, Duration::ZERO);
    restored.await.unwrap();
    (who, whole)
}

#[tokio::test]
async fn records_without_objects_are_dropped_and_many_of_them_only_with_force() {
    for is_rebuild in [false, true] {
        for (count, limit, dropped) in [
            (10, DropLimit::Few, 10),
            (11, DropLimit::Few, 0),
            (11, DropLimit::None, 11),
        ] {
            let parts = Parts::new();
            let service = parts.service();
            let (who, whole) = with_lost_records(&parts, count).await;
            let lost = if is_rebuild {
                let done = service.rebuild(None, limit, 3, |_, _| {});
                done.await.unwrap().lost
            } else {
                let collecting = GcOptions {
                    dry_run: false,
                    drop_limit: limit,
                    min_age: Duration::ZERO,
                    max_removals: 10,
                    window: 3,
                };
                let found = service.collect_garbage(Timestamp::now(), &collecting, |_| {});
                found.await.unwrap().lost
            };
            assert_eq!(lost.avatars.count, u64::from(count));
            assert_eq!((lost.dropped, lost.is_over_limit), (dropped, dropped == 0));
            let left = u64::from(count) - dropped + 1;
            assert_eq!(parts.catalog.stats().await.unwrap().avatars, left);
            assert_eq!(parts.catalog.get(&who).await.unwrap(), Some(whole));
            let events = contract::events(&*parts.catalog).await;
            let deleted = |event: &&Event| matches!(event.change, Change::Deleted { .. });
            assert_eq!(events.iter().filter(deleted).count() as u64, dropped);
        }
    }
}

#[tokio::test]
async fn a_rebuild_does_not_undo_an_upload_that_was_made_after_a_loss() {
    let parts = Parts::new();
    let service = parts.service();
    // The catalog lost this acknowledged upload, and gave its version to another one.
    let mut lost = contract::record(1, 9);
    lost.reserved_at = parts.clock.now();
    parts.stored(&lost).await;
    parts.clock.advance(Duration::from_secs(1));
    let mut later = contract::record(2, 1);
    parts.reserved(&later).await;
    later.reserved_at = parts.clock.now();
    parts.stored(&later).await;
    parts.committed(&later).await;
    let done = rebuilt(&service).await;
    assert_eq!((done.retired, done.known), (1, 1));
    let current = parts.catalog.get(&subject()).await.unwrap();
    assert_eq!(current, Some(later));
}

#[tokio::test]
async fn maintenance_skips_records_and_manifests_that_it_cannot_read() {
    let parts = Parts::new();
    let service = parts.service();
    let record = contract::record(1, 1);
    let later = Bytes::from_static(br#"{"layout":99,"subject":"42"}"#);
    for key in keys_of(&record) {
        parts.store.put(&key, later.clone()).await.unwrap();
    }
    assert_eq!(rebuilt(&service).await.unreadable, 1);
    let found = collected(&service).await;
    assert_eq!((found.forgotten, found.garbage.count), (1, 0));
}

#[tokio::test]
async fn a_complete_upload_older_than_a_delete_is_garbage() {
    let parts = Parts::new();
    let service = parts.service();
    let mut record = contract::record(1, 1);
    parts.reserved(&record).await;
    record.reserved_at = parts.clock.now();
    parts.stored(&record).await;
    // A rebuild would restore it, so it stays.
    let one = Outstanding {
        subject: subject(),
        avatar: record.avatar_id,
    };
    parts.catalog.forget(&one).await.unwrap();
    let found = collected(&service).await;
    assert_eq!((found.forgotten, found.garbage.count), (1, 0));
    let anything = Precondition::Anything;
    let who = subject();
    let removed = parts.catalog.remove(&who, &anything, Duration::ZERO);
    removed.await.unwrap().unwrap();
    let found = collected(&service).await;
    assert_eq!((found.forgotten, found.removed), (0, 1));
    let left = parts.store.list(record.avatar_id).await.unwrap();
    assert_eq!(left, []);
}
