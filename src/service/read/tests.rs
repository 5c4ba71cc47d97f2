//! Tests of reads from memory. Each has a folder store and an embedded catalog.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::Notify;

use super::*;
use crate::catalog::contract::record;
use crate::catalog::{Precondition, Uploader};
use crate::service::testing::{Parts, StoreChanges};
use crate::storage::Store;

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn pixels_choose_the_smallest_variant_that_covers_them() {
    let record = record(1, 1);
    for (px, variant) in [
        (1, "thumbnail"),
        (64, "thumbnail"),
        (65, "small"),
        (513, "full"),
        (9999, "full"),
    ] {
        let picked = pick(&record, &Size::Pixels(px), Format::Webp).unwrap();
        assert_eq!(picked.variant.as_str(), variant, "{px}");
    }
    assert_eq!(pick(&record, &Size::Pixels(64), Format::Png), None);
}

fn subject() -> SubjectId {
    SubjectId::new("42").unwrap()
}

/// Makes a record current as another replica does it: the service does not know.
async fn replaced_elsewhere(parts: &Parts, number: u64) -> Record {
    let mut record = record(number as u8, 0);
    let avatar = record.avatar_id;
    let subject = subject();
    let uploader = Uploader::Ordinary;
    let reserved = parts
        .catalog
        .reserve(&subject, avatar, HOUR, uploader)
        .await;
    let reserved = reserved.unwrap().unwrap();
    record.version = reserved.version;
    record.reserved_at = reserved.reserved_at;
    let anything = Precondition::Anything;
    let replaced = parts
        .catalog
        .replace(&subject, &record, &anything, HOUR, uploader);
    replaced.await.unwrap();
    record
}

/// The key of an image of this record, which is in the store.
async fn stored_image(parts: &Parts, record: &Record, size_bytes: usize) -> ObjectKey {
    let key = ObjectKey::of_rendition(record, &record.renditions[0]);
    let body = Bytes::from(vec![7; size_bytes]);
    parts.store.put(&key, body).await.unwrap();
    key
}

/// Counts the reads of the store. Each waits for a permission if there is one to wait for.
#[derive(Default)]
struct CountReads {
    reads: AtomicUsize,
    permission: Option<Notify>,
}

#[async_trait]
impl StoreChanges for CountReads {
    async fn after_get(&self, _key: &ObjectKey) {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if let Some(permission) = &self.permission {
            permission.notified().await;
        }
    }
}

#[tokio::test]
async fn concurrent_readers_of_a_cold_image_cause_one_read_of_the_store() {
    let parts = Parts::new();
    let record = replaced_elsewhere(&parts, 1).await;
    let key = stored_image(&parts, &record, 9000).await;
    let (service, store) = parts.service_with(CountReads::default());
    for _ in 0..2 {
        let readers = (0..100).map(|_| service.image(&key, NamedBy::Record));
        for held in join_all(readers).await {
            let Held::InMemory(bytes) = held.unwrap() else {
                panic!("the image is not in memory");
            };
            assert_eq!(bytes.len(), 9000);
        }
    }
    assert_eq!(store.changes.reads.load(Ordering::SeqCst), 1);
    let (_, bytes) = service.cached_bytes();
    assert!((9000..10_000).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn an_image_without_room_in_memory_stays_in_the_store() {
    let parts = Parts::new();
    let record = replaced_elsewhere(&parts, 1).await;
    let key = stored_image(&parts, &record, 8 << 20).await;
    let service = parts.service();
    let held = service.image(&key, NamedBy::Record).await.unwrap();
    assert!(matches!(held, Held::InStore), "{held:?}");
    assert_eq!(service.cached_bytes().1, 0);
}

#[tokio::test]
async fn a_removed_image_is_not_in_memory_even_if_its_load_began_before() {
    let parts = Parts::new();
    let record = replaced_elsewhere(&parts, 1).await;
    let key = stored_image(&parts, &record, 100).await;
    let changes = CountReads {
        permission: Some(Notify::new()),
        ..CountReads::default()
    };
    let (service, store) = parts.service_with(changes);
    let early = service.image(&key, NamedBy::Path);
    let removal = async {
        while store.changes.reads.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let removed = service.remove(&subject(), &Precondition::Anything).await;
        removed.unwrap();
        store.changes.permission.as_ref().unwrap().notify_one();
    };
    let (early, ()) = tokio::join!(early, removal);
    assert!(matches!(early.unwrap(), Held::InMemory(_)));
    store.changes.permission.as_ref().unwrap().notify_one();
    let late = service.image(&key, NamedBy::Path).await.unwrap();
    assert!(matches!(late, Held::Missing), "{late:?}");
}

#[tokio::test]
async fn a_hot_record_is_shared_and_a_change_through_this_service_is_seen_at_once() {
    let parts = Parts::new();
    let first = replaced_elsewhere(&parts, 1).await;
    let service = parts.service();
    let one = service.current(&subject()).await.unwrap();
    let other = service.current(&subject()).await.unwrap();
    assert!(Arc::ptr_eq(&one, &other));
    assert_eq!(**one, first);

    let (mut second, who) = (record(2, 0), subject());
    let (catalog, id) = (&parts.catalog, second.avatar_id);
    let reserved = catalog.reserve(&who, id, HOUR, Uploader::Ordinary).await;
    let reserved = reserved.unwrap().unwrap();
    second.version = reserved.version;
    second.reserved_at = reserved.reserved_at;
    let committed = service.commit(
        &who,
        second.clone(),
        &Precondition::Anything,
        Uploader::Ordinary,
    );
    committed.await.unwrap();
    assert_eq!(**service.current(&subject()).await.unwrap(), second);

    let removed = service.remove(&subject(), &Precondition::Anything).await;
    removed.unwrap();
    for _ in 0..2 {
        let gone = service.current(&subject()).await;
        assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
    }
}

#[tokio::test]
async fn changes_through_another_replica_are_seen_if_events_are_followed() {
    let parts = Parts::new();
    let service = parts.service();
    let followed = async {
        let following = &service.records.following;
        let epoch = following.epoch();
        while following.epoch() == epoch {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let absent = service.current(&subject()).await;
        assert!(matches!(absent, Err(Error::NotFound)), "{absent:?}");
        for number in 1..=3 {
            let record = replaced_elsewhere(&parts, number).await;
            let begun = Instant::now();
            loop {
                match service.current(&subject()).await {
                    Ok(current) if **current == record => break,
                    Ok(_) | Err(Error::NotFound) => {}
                    Err(error) => panic!("{error}"),
                }
                assert!(
                    begun.elapsed() < Duration::from_secs(1),
                    "{number} is not seen"
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::select! {
        never = service.follow_changes() => match never {},
        () = followed => {}
    }
}

#[tokio::test]
async fn without_followed_events_a_record_is_read_again_after_the_limit() {
    let parts = Parts::new();
    let mut settings = parts.service().settings().clone();
    settings.cache_max_stale = Duration::from_millis(50);
    let service = parts.service_like(settings);
    replaced_elsewhere(&parts, 1).await;
    let old = service.current(&subject()).await.unwrap();
    let new = replaced_elsewhere(&parts, 2).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    let current = service.current(&subject()).await.unwrap();
    assert!(!Arc::ptr_eq(&old, &current));
    assert_eq!(**current, new);
}
