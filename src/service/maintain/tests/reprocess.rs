//! Tests of `reprocess`.

use super::*;
use crate::avatar::Audience;
use crate::catalog::UploadState;

/// A service whose avatars are private, and one avatar that was uploaded when they were public.
async fn with_public_avatar(parts: &Parts, calls: Calls) -> (Service, Record) {
    let (mut service, _) = parts.service_with(calls);
    service.settings.audience = Audience::Private;
    let record = contract::record(1, 1);
    parts.reserved(&record).await;
    parts.stored(&record).await;
    parts.committed(&record).await;
    (service, record)
}

async fn reprocessed(service: &Service) -> Reprocessed {
    service.reprocess(false, |_| {}).await.unwrap()
}

#[tokio::test]
async fn a_moved_avatar_has_the_same_images_under_a_new_id_at_the_new_place() {
    let parts = Parts::new();
    let (service, old) = with_public_avatar(&parts, Calls::default()).await;
    let lock = service.set_lock(&subject(), "spam", None).await;
    lock.unwrap();

    let mut pages = 0;
    let dry = service.reprocess(true, |_| pages += 1).await.unwrap();
    assert_eq!((dry.checked, dry.moved), (1, 1));
    assert!(pages > 0);
    let unchanged = parts.catalog.get(&subject()).await.unwrap();
    assert_eq!(unchanged, Some(old.clone()));

    let done = reprocessed(&service).await;
    assert_eq!((done.checked, done.moved), (1, 1));
    let new = parts.catalog.get(&subject()).await.unwrap().unwrap();
    assert_ne!(new.avatar_id, old.avatar_id);
    assert_eq!(new.version, Version(2));
    assert_eq!(new.audience, Audience::Private);
    assert_eq!(new.uploaded_at, old.uploaded_at);
    assert_eq!(new.renditions, old.renditions);
    assert!(service.is_whole(&new).await.unwrap());
    for (from, to) in keys_of(&old).zip(keys_of(&new)) {
        assert!(to.to_string().starts_with("private/"), "{to}");
        let read = async |key: &ObjectKey| {
            let object = parts.store.get(key).await.unwrap().unwrap();
            object.into_bytes().await.unwrap()
        };
        let (before, after) = (read(&from).await, read(&to).await);
        if matches!(to, ObjectKey::Manifest { .. }) {
            let manifest = Manifest::from_json(&after).unwrap();
            assert_eq!(
                (manifest.subject, manifest.record),
                (subject(), new.clone())
            );
        } else {
            assert_eq!(before, after, "{to}");
        }
    }
    let state = parts.catalog.upload_state(&subject(), old.avatar_id).await;
    assert_eq!(state.unwrap(), UploadState::Retired);

    let again = reprocessed(&service).await;
    assert_eq!((again.checked, again.moved), (1, 0));
    let current = parts.catalog.get(&subject()).await.unwrap();
    assert_eq!(current, Some(new));
}

#[tokio::test]
async fn an_avatar_without_all_of_its_objects_stays_and_no_copy_of_it_is_left() {
    let parts = Parts::new();
    let (service, old) = with_public_avatar(&parts, Calls::default()).await;
    let missing = ObjectKey::of_rendition(&old, &old.renditions[3]);
    parts.store.delete(&missing).await.unwrap();
    let done = reprocessed(&service).await;
    assert_eq!((done.moved, done.incomplete.count), (0, 1));
    assert_eq!(done.incomplete.names, [old.avatar_id].into());
    let current = parts.catalog.get(&subject()).await.unwrap();
    assert_eq!(current, Some(old.clone()));
    let left = parts.store.uploads(None).await.unwrap();
    let left: Vec<_> = left.iter().map(|upload| upload.avatar).collect();
    assert_eq!(left, [old.avatar_id]);
}

#[tokio::test]
async fn an_upload_that_is_committed_during_the_move_wins() {
    let parts = Parts::new();
    let (catalog, store) = (parts.catalog.clone(), parts.store.clone());
    let uploads = move |read| -> BoxFuture<'static, ()> {
        let (catalog, store) = (catalog.clone(), store.clone());
        Box::pin(async move {
            let mut newer = contract::record(9, 3);
            if read != contract::record(1, 1).avatar_id
                || catalog.get(&subject()).await.unwrap().unwrap().avatar_id == newer.avatar_id
            {
                return;
            }
            let within = Duration::from_mins(2);
            let who = subject();
            let reserved = catalog.reserve(&who, newer.avatar_id, within, Uploader::Ordinary);
            let reserved = reserved.await.unwrap().unwrap();
            newer.version = reserved.version;
            newer.reserved_at = reserved.reserved_at;
            for key in keys_of(&newer) {
                store.put(&key, Bytes::from_static(b"newer")).await.unwrap();
            }
            let replaced = catalog
                .replace(
                    &who,
                    &newer,
                    &Precondition::Anything,
                    Duration::ZERO,
                    Uploader::Ordinary,
                )
                .await;
            assert_eq!(replaced.unwrap(), Replaced::Committed);
        })
    };
    let calls = Calls {
        after_get: Box::new(uploads),
        ..Calls::default()
    };
    let (service, old) = with_public_avatar(&parts, calls).await;
    let done = reprocessed(&service).await;
    assert_eq!((done.moved, done.overtaken), (0, 1));
    let current = parts.catalog.get(&subject()).await.unwrap().unwrap();
    let newer = contract::record(9, 3).avatar_id;
    assert_eq!(current.avatar_id, newer);
    let left = parts.store.uploads(None).await.unwrap();
    let left: std::collections::BTreeSet<_> = left.iter().map(|upload| upload.avatar).collect();
    assert_eq!(left, [old.avatar_id, newer].into());
}
