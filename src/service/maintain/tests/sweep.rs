//! The sweep beside maintenance: late writes, and uploads whose commit is unknown.

use super::*;

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
