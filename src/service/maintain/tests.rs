use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::*;
use crate::avatar::SubjectId;
use crate::catalog::{Catalog, Outstanding, Precondition, Replaced, contract};
use crate::service::testing::Parts;
use crate::storage::{Checkup, DiskStore, Object, Store, StoreError};

impl Parts {
    /// Reserves an upload's id, which gives it the version that it has.
    async fn reserved(&self, record: &Record) {
        let deadline = Timestamp::now().plus(Duration::from_mins(2));
        let version = self
            .catalog
            .reserve(&subject(), record.avatar_id, deadline)
            .await;
        assert_eq!(version.unwrap(), record.version);
    }

    async fn committed(&self, record: &Record) {
        let (anything, now) = (Precondition::Anything, Timestamp::now());
        let replaced = self
            .catalog
            .replace(&subject(), record, &anything, now, now)
            .await;
        assert_eq!(replaced.unwrap(), Replaced::Committed);
    }

    /// Stores an upload's objects, with a manifest that tells of it.
    async fn stored(&self, record: &Record) {
        let manifest = Manifest {
            subject: subject(),
            record: record.clone(),
        };
        let manifest = Bytes::from(serde_json::to_vec(&manifest).unwrap());
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

/// A store in which something happens meanwhile.
struct Meddled {
    store: Arc<DiskStore>,
    /// As soon as an object of this upload has been read.
    after_get: Box<dyn Fn(AvatarId) -> BoxFuture<'static, ()> + Send + Sync>,
    /// What becomes of a listing.
    listed: fn(Listing) -> Result<Listing, StoreError>,
}

impl Meddled {
    fn with(store: &Arc<DiskStore>) -> Self {
        Self {
            store: store.clone(),
            after_get: Box::new(|_| Box::pin(async {})),
            listed: Ok,
        }
    }
}

#[async_trait]
impl Store for Meddled {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError> {
        self.store.put(key, body).await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        let object = self.store.get(key).await;
        (self.after_get)(key.avatar()).await;
        object
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.store.delete(key).await
    }

    async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
        self.store.list(avatar).await
    }

    async fn uploads(&self, after: Option<AvatarId>) -> Result<Listing, StoreError> {
        (self.listed)(self.store.uploads(after).await?)
    }

    async fn check(&self) -> Result<Checkup, StoreError> {
        self.store.check().await
    }
}

fn subject() -> SubjectId {
    SubjectId::new("42").unwrap()
}

async fn rebuilt(service: &Service) -> Rebuilt {
    let rebuilt = service.rebuild(Timestamp::now(), None, |_, _| {}).await;
    rebuilt.unwrap()
}

async fn collected(service: &Service) -> Collected {
    let collecting = Collecting {
        dry_run: false,
        min_age: Duration::ZERO,
        most: 10,
        window: 10,
    };
    let found = service.collect_garbage(Timestamp::now(), &collecting, |_| {});
    found.await.unwrap()
}

#[tokio::test]
async fn an_upload_that_is_not_whole_is_not_restored_but_garbage() {
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
    assert_eq!(found.garbage.some, [torn.avatar_id].into());
    assert_eq!((found.removed, found.forgotten), (1, 0));
    assert_eq!(parts.store.list(torn.avatar_id).await.unwrap(), []);
    assert!(service.is_whole(&whole).await.unwrap());
}

#[tokio::test]
async fn a_store_of_more_uploads_than_are_kept_in_mind_is_collected_window_by_window() {
    let parts = Parts::new();
    // One upload a page, so that every window is as small as it can be.
    let service = parts.service_on(Arc::new(Meddled {
        listed: |uploads| Ok(uploads.into_iter().take(1).collect()),
        ..Meddled::with(&parts.store)
    }));
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
        // Every second one is current; of the last, nothing is left in the store.
        if id != ids[1] && id != ids[3] {
            let who = SubjectId::new(name).unwrap();
            let when = Timestamp::now();
            parts.catalog.restore(&who, &record, when).await.unwrap();
        } else {
            parts.remove_renditions(id).await;
        }
    }
    service.remove_objects(ids[4]).await.unwrap();
    for window in [1, 2, 3, 10] {
        let collecting = Collecting {
            dry_run: true,
            min_age: Duration::ZERO,
            most: 1,
            window,
        };
        let found = service.collect_garbage(Timestamp::now(), &collecting, |_| {});
        let found = found.await.unwrap();
        assert_eq!((found.uploads, found.garbage.count), (4, 2), "{window}");
        assert_eq!(found.garbage.some.len(), 1, "as many as may be removed");
        assert_eq!(found.incomplete.some, [ids[4]].into(), "{window}");
        assert_eq!(found.incomplete.count, 1);
        assert_eq!((found.forgotten, found.young), (0, 0));
    }
}

#[tokio::test]
async fn an_upload_that_is_given_up_during_a_rebuild_does_not_come_back() {
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
    let service = parts.service_on(Arc::new(Meddled {
        after_get: Box::new(given_up),
        ..Meddled::with(&parts.store)
    }));
    let done = rebuilt(&service).await;
    assert_eq!((done.uploads, done.current, done.incomplete), (1, 0, 1));
    assert_eq!(parts.catalog.get(&subject()).await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_that_a_rebuild_brings_back_meanwhile_is_no_garbage() {
    let parts = Parts::new();
    let (current, older) = (contract::record(2, 2), contract::record(1, 1));
    parts.stored(&current).await;
    parts.stored(&older).await;
    let (catalog, found) = (parts.catalog.clone(), [current.clone(), older]);
    let restored = move |_| -> BoxFuture<'static, ()> {
        let (catalog, found) = (catalog.clone(), found.clone());
        Box::pin(async move {
            for record in found {
                let (subject, at) = (subject(), Timestamp::now());
                catalog.restore(&subject, &record, at).await.unwrap();
            }
        })
    };
    let service = parts.service_on(Arc::new(Meddled {
        after_get: Box::new(restored),
        ..Meddled::with(&parts.store)
    }));
    let found = collected(&service).await;
    assert_eq!((found.uploads, found.garbage.count), (2, 0));
    assert!(service.is_whole(&current).await.unwrap());
    let restored = parts.catalog.get(&subject()).await.unwrap();
    assert_eq!(restored, Some(current));
}

#[tokio::test]
async fn an_upload_under_way_is_left_alone() {
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
async fn nobody_begins_again_at_a_version_that_a_deleted_avatar_may_have_had() {
    let parts = Parts::new();
    let service = parts.service();
    let began = async |name: &str, id: u8| {
        let who = SubjectId::new(name).unwrap();
        let (id, deadline) = (AvatarId::from_bytes([id; 16]), Timestamp::now());
        parts.catalog.reserve(&who, id, deadline).await.unwrap().0
    };
    let seconds = |date_ms: u64| (date_ms - 1_735_689_600_000) / 1000;
    let now = Timestamp::from_unix_ms(1_800_000_000_000);
    service.rebuild(now, None, |_, _| {}).await.unwrap();
    assert_eq!(began("a", 101).await, seconds(1_800_000_000_000) + 1);

    // Somebody's clock was wrong: what is found counts more.
    let mut found = contract::record(1, 3_000_000_000);
    found.avatar_id = AvatarId::from_bytes([1; 16]);
    parts.stored(&found).await;
    service.rebuild(now, None, |_, _| {}).await.unwrap();
    assert_eq!(parts.catalog.get(&subject()).await.unwrap(), Some(found));
    assert_eq!(began("b", 102).await, 3_000_000_001);
}

#[tokio::test]
async fn a_rebuild_that_is_interrupted_at_once_has_raised_the_floor() {
    let parts = Parts::new();
    let service = parts.service_on(Arc::new(Meddled {
        listed: |_| Err(StoreError::new("list its uploads", "on purpose")),
        ..Meddled::with(&parts.store)
    }));
    let rebuilt = service.rebuild(Timestamp::now(), None, |_, _| {}).await;
    rebuilt.unwrap_err();
    let id = AvatarId::from_bytes([1; 16]);
    let version = parts
        .catalog
        .reserve(&subject(), id, Timestamp::now())
        .await;
    assert!(version.unwrap() > Version(50_000_000));
}

#[tokio::test]
async fn what_a_dead_upload_wrote_late_is_found_by_the_next_sweep() {
    let parts = Parts::new();
    let (service, record) = (parts.service(), contract::record(1, 1));
    parts.reserved(&record).await;
    let due = Timestamp::now().plus(Duration::from_mins(2));
    assert_eq!(service.sweep(due).await.unwrap().avatars, 1);
    // The network, or a store that stood still, had held the writes up.
    parts.stored(&record).await;
    assert_eq!(service.sweep(due).await.unwrap().avatars, 0, "leased");
    let due = due.plus(service.settings().upload_deadline);
    assert_eq!(service.sweep(due).await.unwrap().avatars, 1);
    assert_eq!(parts.store.list(record.avatar_id).await.unwrap(), []);
    assert_eq!(parts.catalog.outstanding().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_written_late_behind_a_delete_is_found_by_the_sweep() {
    let parts = Parts::new();
    let (service, record) = (parts.service(), contract::record(1, 1));
    parts.reserved(&record).await;
    parts.stored(&record).await;
    parts.committed(&record).await;
    let now = Timestamp::now();
    service.remove(&subject(), now).await.unwrap();
    assert_eq!(parts.store.list(record.avatar_id).await.unwrap(), []);
    // An attempt that had been given up for the next one is carried out after all.
    parts.stored(&record).await;
    let due = now.plus(service.settings().upload_deadline);
    assert_eq!(service.sweep(due).await.unwrap().avatars, 1);
    assert_eq!(parts.store.list(record.avatar_id).await.unwrap(), []);
    assert_eq!(parts.catalog.outstanding().await.unwrap(), []);
}
