//! A Redis that loses writes: no version repeats, and a rebuild undoes no later change.

use super::*;

const EVERY_SECOND: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

#[tokio::test]
async fn after_lost_writes_no_version_repeats_and_a_rebuild_keeps_the_newest() {
    let mut server = RedisServer::start_with(&EVERY_SECOND);
    let catalog = open(&server.url()).await;
    let who = subject("42");
    let kept = uploaded(&catalog, &who).await;
    let written = server.written();
    // Both uploads were acknowledged.
    let lost = uploaded(&catalog, &who).await;
    let other = subject("43");
    let lost_too = uploaded(&catalog, &other).await;
    server.lose_writes_after(written);
    assert_eq!(catalog.get(&who).await.unwrap().as_ref(), Some(&kept));
    assert_eq!(catalog.get(&other).await.unwrap(), None);

    // A replica that starts after the loss knows no version.
    let fresh = RedisCatalog::open(&settings(&server.url()))
        .await
        .unwrap()
        .0;
    let later = uploaded(&fresh, &who).await;
    assert!(later.version > lost.version, "{}", later.version);
    assert!(later.reserved_at > lost.reserved_at);

    // The steps of a rebuild.
    for (who, record) in [(&who, &lost), (&other, &lost_too)] {
        fresh.raise_version_floor(record.version).await.unwrap();
        let state = fresh.upload_state(who, record.avatar_id).await.unwrap();
        assert_eq!(state, UploadState::Unknown);
    }
    let restored = fresh.restore(&who, &lost, MINUTE).await.unwrap();
    assert_eq!(restored, Restored::Retired);
    assert_eq!(fresh.get(&who).await.unwrap(), Some(later));
    let restored = fresh.restore(&other, &lost_too, MINUTE).await.unwrap();
    assert_eq!(restored, Restored::Current(None));
    let next = uploaded(&fresh, &other).await;
    assert!(next.version > lost_too.version);
}

#[tokio::test]
async fn an_upload_with_a_lost_commit_is_restored_from_the_store() {
    let mut server = RedisServer::start_with(&EVERY_SECOND);
    let catalog = open(&server.url()).await;
    let who = subject("42");
    let mut record = contract::record(1, 0);
    let within = Duration::from_millis(300);
    let reserved = catalog
        .reserve(&who, record.avatar_id, within, Uploader::Ordinary)
        .await;
    Reservation {
        version: record.version,
        reserved_at: record.reserved_at,
    } = reserved.unwrap().unwrap();
    let written = server.written();
    let anything = Precondition::Anything;
    let committed = catalog
        .replace(&who, &record, &anything, MINUTE, Uploader::Ordinary)
        .await;
    assert_eq!(committed.unwrap(), Replaced::Committed);
    server.lose_writes_after(written);
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    // After the deadline the sweep claims the upload, which counts as not committed.
    tokio::time::sleep(within).await;
    let claimed = catalog.claim(Duration::ZERO, 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let claimed = &claimed[0];
    assert!(matches!(claimed.due, Due::Expired { .. }));
    let replaced = catalog
        .replace(&who, &record, &anything, MINUTE, Uploader::Ordinary)
        .await;
    assert_eq!(replaced.unwrap(), Replaced::NotPending);
    let restored = catalog.restore(&who, &record, MINUTE).await.unwrap();
    assert_eq!(restored, Restored::Current(None));
    assert_eq!(catalog.get(&who).await.unwrap(), Some(record));
}

/// An upload whose objects are all in the store.
type Stored = HashMap<AvatarId, (SubjectId, Record)>;

async fn rebuild(catalog: &RedisCatalog, stored: &Stored) {
    catalog.raise_version_floor(Version(0)).await.unwrap();
    for (who, record) in stored.values() {
        catalog.raise_version_floor(record.version).await.unwrap();
        catalog.restore(who, record, MINUTE).await.unwrap();
    }
}

/// Claims due uploads and removes their objects, as the sweep does without a grace period.
async fn sweep(catalog: &RedisCatalog, stored: &mut Stored) {
    for Claimed { outstanding, .. } in catalog.claim(MINUTE, 100).await.unwrap() {
        if catalog
            .upload_state(&outstanding.subject, outstanding.avatar)
            .await
            .unwrap()
            != UploadState::Current
        {
            stored.remove(&outstanding.avatar);
            catalog.forget(&outstanding).await.unwrap();
        }
    }
}

#[tokio::test]
async fn random_histories_with_losses_repeat_no_version_and_undo_no_later_change() {
    for seed in 1..=3 {
        random_history(seed).await;
    }
}

async fn random_history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = RedisServer::start_with(&EVERY_SECOND);
    let mut catalog = open(&server.url()).await;
    let subjects = ["a", "b", "c"].map(subject);
    // The acknowledged state: the highest version of each subject, and its current avatar, which is
    // unknown after a loss.
    let mut highest: HashMap<SubjectId, Version> = HashMap::new();
    let mut current: HashMap<SubjectId, Option<AvatarId>> = HashMap::new();
    let mut stored: Stored = HashMap::new();
    let mut lengths = vec![server.written()];
    for step in 0..120 {
        let who = random.choice(&subjects).unwrap();
        let context = format!("seed {seed}, step {step}");
        match random.u32(0..20) {
            0..10 => {
                let record = uploaded(&catalog, who).await;
                let before = highest.insert(who.clone(), record.version);
                assert!(
                    before.is_none_or(|before| before < record.version),
                    "{context}"
                );
                current.insert(who.clone(), Some(record.avatar_id));
                stored.insert(record.avatar_id, (who.clone(), record));
            }
            10..12 => {
                // An upload that is never completed.
                let id = AvatarId::random().unwrap();
                let reserved = catalog
                    .reserve(who, id, Duration::ZERO, Uploader::Ordinary)
                    .await
                    .unwrap()
                    .unwrap();
                let before = highest.insert(who.clone(), reserved.version);
                assert!(
                    before.is_none_or(|before| before < reserved.version),
                    "{context}"
                );
            }
            12..14 => {
                let removed = catalog
                    .remove(who, &Precondition::Anything, Duration::ZERO)
                    .await
                    .unwrap()
                    .unwrap();
                for one in removed.iter().flat_map(|removed| &removed.outstanding) {
                    stored.remove(&one.avatar);
                }
                // A delete without a record changes nothing.
                if removed.is_some_and(|removed| removed.record.is_some()) {
                    current.insert(who.clone(), None);
                }
            }
            14..16 => sweep(&catalog, &mut stored).await,
            16..18 => rebuild(&catalog, &stored).await,
            _ => {
                server.lose_writes_after(*random.choice(&lengths).unwrap());
                lengths = vec![server.written()];
                current.clear();
                if random.bool() {
                    catalog = RedisCatalog::open(&settings(&server.url()))
                        .await
                        .unwrap()
                        .0;
                } else {
                    // The first command uses the connection to the dead process.
                    let _ = catalog.check().await;
                }
            }
        }
        lengths.push(server.written());
        for (who, expected) in &current {
            let found = catalog.get(who).await.unwrap();
            assert_eq!(found.map(|record| record.avatar_id), *expected, "{context}");
        }
    }
}

#[tokio::test]
async fn versions_do_not_decrease_if_redis_is_emptied_in_use() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let who = subject("42");
    uploaded(&catalog, &who).await;
    let before = uploaded(&catalog, &who).await;
    server.ask::<String>("FLUSHALL");
    let after = uploaded(&catalog, &who).await;
    assert!(after.version > before.version, "{}", after.version);
    // A restored upload from before the loss is older than the new one.
    let found = catalog.restore(&who, &before, MINUTE).await;
    assert_eq!(found.unwrap(), Restored::Retired);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(after));
}

#[tokio::test]
async fn a_rebuild_does_not_undo_a_delete_after_a_flushall() {
    let server = RedisServer::start();
    let catalog = open(&server.url()).await;
    let who = subject("42");
    let before = uploaded(&catalog, &who).await;
    server.ask::<String>("FLUSHALL");
    // A replica that starts after the loss knows no version, and there was no upload since.
    let fresh = open_only(&server.url()).await;
    let anything = Precondition::Anything;
    let removed = fresh.remove(&who, &anything, MINUTE).await;
    assert_eq!(removed.unwrap().unwrap(), None);
    fresh.raise_version_floor(before.version).await.unwrap();
    let restored = fresh.restore(&who, &before, MINUTE).await.unwrap();
    assert_eq!(restored, Restored::Retired);
    assert_eq!(fresh.get(&who).await.unwrap(), None);
    assert!(uploaded(&fresh, &who).await.version > before.version);
}
