use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::gc::Collected;
use super::*;
use crate::avatar::{
    Change, Event, Lock, Policy, PolicyDocument, SubjectHash, SubjectId, Timestamp, Version,
};
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
            .reserve(&subject(), record.avatar_id, within)
            .await;
        assert_eq!(reserved.unwrap().version, record.version);
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
        let reserved = parts.catalog.reserve(&who, id, within).await;
        reserved.unwrap().version
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
    let reserved = parts.catalog.reserve(&subject(), id, Duration::ZERO).await;
    assert!(reserved.unwrap().version > Version(50_000_000_000));
}

#[tokio::test]
async fn objects_that_an_abandoned_upload_writes_late_are_removed_by_the_next_sweep() {
    let parts = Parts::new();
    let (service, record) = (parts.service(), contract::record(1, 1));
    parts.reserved(&record).await;
    parts.clock.advance(Duration::from_mins(2));
    assert_eq!(service.sweep().await.unwrap().avatars, 1);
    // The network or the store delayed the writes.
    parts.stored(&record).await;
    assert_eq!(service.sweep().await.unwrap().avatars, 0, "leased");
    parts.clock.advance(service.settings().upload_deadline);
    assert_eq!(service.sweep().await.unwrap().avatars, 1);
    assert_eq!(parts.store.list(record.avatar_id).await.unwrap(), []);
    assert_eq!(parts.catalog.outstanding().await.unwrap(), []);
}

#[tokio::test]
async fn objects_that_are_written_after_a_delete_are_removed_by_the_sweep() {
    let parts = Parts::new();
    let (service, record) = (parts.service(), contract::record(1, 1));
    parts.reserved(&record).await;
    parts.stored(&record).await;
    parts.committed(&record).await;
    service
        .remove(&subject(), &Precondition::Anything)
        .await
        .unwrap();
    assert_eq!(parts.store.list(record.avatar_id).await.unwrap(), []);
    // A write that was given up and retried is carried out after all.
    parts.stored(&record).await;
    parts.clock.advance(service.settings().upload_deadline);
    assert_eq!(service.sweep().await.unwrap().avatars, 1);
    assert_eq!(parts.store.list(record.avatar_id).await.unwrap(), []);
    assert_eq!(parts.catalog.outstanding().await.unwrap(), []);
}

#[tokio::test]
async fn a_complete_upload_whose_commit_is_unknown_is_kept_for_the_grace_and_restored() {
    let parts = Parts::new();
    let (service, record) = (parts.service(), contract::record(1, 1));
    parts.reserved(&record).await;
    parts.stored(&record).await;
    parts.clock.advance(Duration::from_mins(2));
    assert_eq!(service.sweep().await.unwrap().avatars, 0);
    parts.clock.advance(Duration::from_hours(23));
    assert_eq!(service.sweep().await.unwrap().avatars, 0);
    assert!(service.is_whole(&record).await.unwrap());
    assert_eq!(rebuilt(&service).await.current, 1);
    parts.clock.advance(Duration::from_hours(2));
    assert_eq!(service.sweep().await.unwrap().avatars, 0);
    let current = parts.catalog.get(&subject()).await.unwrap();
    assert_eq!(current.as_ref(), Some(&record));
    assert!(service.is_whole(&record).await.unwrap());
}

#[tokio::test]
async fn a_complete_upload_whose_commit_is_unknown_is_removed_after_the_grace() {
    let parts = Parts::new();
    let (service, record) = (parts.service(), contract::record(1, 1));
    parts.reserved(&record).await;
    parts.stored(&record).await;
    parts.clock.advance(Duration::from_mins(2));
    assert_eq!(service.sweep().await.unwrap().avatars, 0);
    parts.clock.advance(Duration::from_hours(24));
    assert_eq!(service.sweep().await.unwrap().avatars, 1);
    assert_eq!(parts.store.list(record.avatar_id).await.unwrap(), []);
    assert_eq!(rebuilt(&service).await.uploads, 0);
    parts.clock.advance(service.settings().upload_deadline);
    assert_eq!(service.sweep().await.unwrap().avatars, 1);
    assert_eq!(parts.catalog.outstanding().await.unwrap(), []);
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
            let told = contract::events(&*parts.catalog).await;
            let deleted = |event: &&Event| matches!(event.change, Change::Deleted { .. });
            assert_eq!(told.iter().filter(deleted).count() as u64, dropped);
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

fn policy(sequence: u64, reason: &str) -> Policy {
    Policy {
        sequence,
        lock: Some(Lock {
            reason: reason.to_owned(),
            until: None,
            locked_at: contract::NOW,
        }),
        viewers: [SubjectId::new("43").unwrap()].into(),
    }
}

fn policy_key(subject: &SubjectId) -> ObjectKey {
    let owner = SubjectHash::of(subject);
    ObjectKey::Policy { owner }
}

async fn store_policy(parts: &Parts, subject: &SubjectId, policy: &Policy) {
    let document = PolicyDocument {
        subject: subject.clone(),
        policy: policy.clone(),
    };
    let body = Bytes::from(document.to_json().unwrap());
    parts.store.put(&policy_key(subject), body).await.unwrap();
}

async fn stored_policy(parts: &Parts, subject: &SubjectId) -> Policy {
    let object = parts.store.get(&policy_key(subject)).await.unwrap();
    let bytes = object.unwrap().into_bytes().await.unwrap();
    PolicyDocument::from_json(&bytes).unwrap().policy
}

#[tokio::test]
async fn a_rebuild_restores_policies_and_a_collection_keeps_them() {
    let parts = Parts::new();
    let service = parts.service();
    parts.catalog.initialize(InitialState::Lost).await.unwrap();
    let subjects = ["lost", "same", "late", "rival"].map(|id| SubjectId::new(id).unwrap());
    let [lost, same, late, rival] = &subjects;
    store_policy(&parts, lost, &policy(4, "spam")).await;
    for (who, in_store, in_catalog) in [
        (same, policy(2, "a"), policy(2, "a")),
        (late, policy(2, "a"), policy(3, "b")),
        (rival, policy(2, "a"), policy(2, "b")),
    ] {
        store_policy(&parts, who, &in_store).await;
        parts
            .catalog
            .restore_policy(who, &in_catalog)
            .await
            .unwrap();
    }
    let damaged = policy_key(&SubjectId::new("damaged").unwrap());
    parts
        .store
        .put(&damaged, Bytes::from_static(b"{"))
        .await
        .unwrap();
    let moved = policy_key(&SubjectId::new("moved").unwrap());
    let body = parts.store.get(&policy_key(same)).await.unwrap().unwrap();
    let body = body.into_bytes().await.unwrap();
    parts.store.put(&moved, body).await.unwrap();

    let done = rebuilt(&service).await;
    assert_eq!((done.policies, done.unreadable), (1, 2));
    for (who, expected) in [
        (lost, policy(4, "spam")),
        (same, policy(2, "a")),
        (late, policy(3, "b")),
        (rival, policy(2, "b")),
    ] {
        assert_eq!(
            parts.catalog.policy(who).await.unwrap().0,
            expected,
            "{who}"
        );
        // The object of an earlier or an unacknowledged policy is repaired.
        assert_eq!(stored_policy(&parts, who).await, expected, "{who}");
    }
    assert_eq!(rebuilt(&service).await.policies, 0);
    let before = parts.store.policies(None).await.unwrap();
    assert_eq!(before.len(), 6);
    let found = collected(&service).await;
    assert_eq!((found.uploads, found.garbage.count), (0, 0));
    assert_eq!(parts.store.policies(None).await.unwrap(), before);
}

#[tokio::test]
async fn a_change_continues_the_later_policy_of_catalog_and_store() {
    let parts = Parts::new();
    let service = parts.service();
    let (lost, late) = (subject(), SubjectId::new("late").unwrap());
    // The catalog has lost its last writes.
    store_policy(&parts, &lost, &policy(9, "spam")).await;
    // The object was overwritten by a writer that the catalog refused.
    store_policy(&parts, &late, &policy(3, "rival")).await;
    parts
        .catalog
        .restore_policy(&late, &policy(3, "spam"))
        .await
        .unwrap();
    let viewer = SubjectId::new("44").unwrap();
    for (who, sequence) in [(&lost, 10), (&late, 4)] {
        service.add_viewer(who, &viewer).await.unwrap();
        let mut expected = policy(sequence, "spam");
        expected.viewers.insert(viewer.clone());
        assert_eq!(parts.catalog.policy(who).await.unwrap().0, expected);
        assert_eq!(stored_policy(&parts, who).await, expected);
        // A repetition writes nothing.
        service.add_viewer(who, &viewer).await.unwrap();
        assert_eq!(stored_policy(&parts, who).await.sequence, sequence);
    }
    service.unlock(&lost).await.unwrap();
    let unlocked = parts.catalog.policy(&lost).await.unwrap().0;
    assert_eq!((unlocked.lock, unlocked.viewers.len()), (None, 2));
    // A document of a later release is not overwritten.
    let later = Bytes::from_static(br#"{"layout":2}"#);
    parts.store.put(&policy_key(&lost), later).await.unwrap();
    let refused = service.unlock(&lost).await.unwrap_err();
    assert!(matches!(refused, Error::Internal(_)), "{refused:?}");
}

#[tokio::test]
async fn concurrent_changes_of_one_policy_are_all_kept() {
    let parts = Parts::new();
    let services = [parts.service(), parts.service()];
    let viewer = |number: usize| SubjectId::new(format!("viewer-{number}")).unwrap();
    let who = subject();
    let changes = (0..40).map(|number| {
        let (service, viewer) = (&services[number % 2], viewer(number));
        let who = &who;
        async move { service.add_viewer(who, &viewer).await }
    });
    for changed in futures_util::future::join_all(changes).await {
        changed.unwrap();
    }
    let policy = parts.catalog.policy(&who).await.unwrap().0;
    assert_eq!(policy.viewers, (0..40).map(viewer).collect());
    assert!(policy.sequence >= 40, "{}", policy.sequence);
    assert_eq!(stored_policy(&parts, &who).await, policy);
}

#[tokio::test]
async fn a_subject_has_a_limited_number_of_viewers() {
    let parts = Parts::new();
    let service = parts.service();
    let viewer = |number: usize| SubjectId::new(format!("viewer-{number}")).unwrap();
    let full = Policy {
        sequence: 1,
        lock: None,
        viewers: (0..Policy::MAX_VIEWERS).map(viewer).collect(),
    };
    parts
        .catalog
        .restore_policy(&subject(), &full)
        .await
        .unwrap();
    store_policy(&parts, &subject(), &full).await;
    service.add_viewer(&subject(), &viewer(7)).await.unwrap();
    let refused = service
        .add_viewer(&subject(), &viewer(Policy::MAX_VIEWERS))
        .await;
    assert!(matches!(refused, Err(Error::TooManyViewers)), "{refused:?}");
    assert_eq!(service.viewers(&subject()).await.unwrap(), full.viewers);
    service.remove_viewer(&subject(), &viewer(7)).await.unwrap();
    let last = viewer(Policy::MAX_VIEWERS);
    service.add_viewer(&subject(), &last).await.unwrap();
}
