//! The cases for [`Records::restore`](crate::catalog::Records::restore).

use super::{
    AGES, Bench, NOW, commit, outstanding, record, reserved, seconds, subject, sweep, uploaded,
};
use crate::avatar::{AvatarId, Record, SubjectId, Version};
use crate::catalog::{Invalidated, Precondition, Replaced, Restored, UploadState, Uploader};

pub(crate) async fn a_restored_upload_keeps_its_version(catalog: Bench<'_>) {
    let who = subject("found");
    let before = catalog.stats().await.unwrap().avatars;
    let record = found(7);
    let restored = restore(catalog, &who, &record).await;
    assert_eq!(restored, Restored::Current(None));
    assert_eq!(catalog.get(&who).await.unwrap(), Some(record.clone()));
    assert_eq!(catalog.stats().await.unwrap().avatars, before + 1);
    assert_eq!(restore(catalog, &who, &record).await, Restored::Known);
    assert_eq!(catalog.stats().await.unwrap().avatars, before + 1);
    assert_eq!(uploaded(catalog, &who).await.version, Version(8));
}

pub(crate) async fn the_newest_of_several_restored_uploads_is_current_in_any_order(
    catalog: Bench<'_>,
) {
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        let who = subject(&format!("several-{}", order[0]));
        let mut newest = None;
        let mut older = std::collections::HashSet::new();
        for version in order {
            let record = found(version);
            let restored = restore(catalog, &who, &record).await;
            if version == 3 {
                assert!(matches!(restored, Restored::Current(_)));
                newest = Some(record);
            } else {
                older.insert(record.avatar_id);
            }
        }
        assert_eq!(catalog.get(&who).await.unwrap(), newest);
        assert!(sweep(catalog, 50).await.is_empty());
        assert_eq!(sweep(catalog, 10).await, older);
        assert_eq!(uploaded(catalog, &who).await.version, Version(4));
        sweep(catalog, AGES).await;
    }
}

pub(crate) async fn a_restore_of_a_known_upload_changes_nothing(catalog: Bench<'_>) {
    let who = subject("known");
    let retired = uploaded(catalog, &who).await;
    let current = uploaded(catalog, &who).await;
    let under_way = reserved(catalog, &who).await;
    for record in [&retired, &current, &under_way] {
        assert_eq!(restore(catalog, &who, record).await, Restored::Known);
    }
    assert_eq!(catalog.get(&who).await.unwrap().as_ref(), Some(&current));
    let committed = commit(catalog, &who, &under_way).await;
    assert_eq!(committed, Replaced::Committed);
}

pub(crate) async fn a_deleted_upload_is_not_restored(catalog: Bench<'_>) {
    let who = subject("deleted-and-found");
    let deleted = uploaded(catalog, &who).await;
    let under_way = reserved(catalog, &who).await;
    catalog
        .remove(&who, &Precondition::Anything, seconds(0))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    for record in [&deleted, &under_way] {
        assert_eq!(restore(catalog, &who, record).await, Restored::Known);
    }
    sweep(catalog, AGES).await;
    for record in [&deleted, &under_way] {
        assert_eq!(restore(catalog, &who, record).await, Restored::Retired);
    }
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    assert_eq!(sweep(catalog, 60).await.len(), 2);
}

pub(crate) async fn an_expired_upload_is_restored_and_an_invalidated_one_is_not(
    catalog: Bench<'_>,
) {
    let who = subject("expired-and-found");
    uploaded(catalog, &who).await;
    // An upload that no sweep has claimed, one that a sweep has claimed, and one that it invalidated.
    for claims in [0, 1, 2] {
        let upload = reserved(catalog, &who).await;
        assert_eq!(restore(catalog, &who, &upload).await, Restored::Known);
        catalog.clock.advance(121).await;
        if claims > 0 {
            assert_eq!(catalog.claim(seconds(60), 10).await.unwrap().len(), 1);
        }
        if claims > 1 {
            let one = outstanding(&who, &upload);
            let invalidated = catalog.invalidate(&one, seconds(60)).await.unwrap();
            assert_eq!(invalidated, Invalidated::Removable);
            assert_eq!(restore(catalog, &who, &upload).await, Restored::Known);
        } else {
            let restored = restore(catalog, &who, &upload).await;
            assert!(matches!(restored, Restored::Current(Some(_))));
            assert_eq!(catalog.get(&who).await.unwrap(), Some(upload.clone()));
            let one = outstanding(&who, &upload);
            let kept = catalog.invalidate(&one, seconds(60)).await.unwrap();
            assert_eq!(kept, Invalidated::Kept);
            assert_eq!(commit(catalog, &who, &upload).await, Replaced::Committed);
        }
        sweep(catalog, 3000).await;
    }
    // An expired upload that is older than the current record is retired.
    let early = reserved(catalog, &who).await;
    let late = uploaded(catalog, &who).await;
    catalog.clock.advance(121).await;
    assert_eq!(restore(catalog, &who, &early).await, Restored::Retired);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(late));
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Superseded);
}

pub(crate) async fn the_later_reservation_wins_even_with_a_lower_version(catalog: Bench<'_>) {
    for order in [[0, 1], [1, 0]] {
        let who = subject(&format!("reserved-later-{}", order[0]));
        let mut records = [found(9), found(5)];
        records[0].reserved_at = NOW;
        records[1].reserved_at = NOW.plus(seconds(1));
        for number in order {
            restore(catalog, &who, &records[number]).await;
        }
        let current = catalog.get(&who).await.unwrap();
        assert_eq!(current.as_ref(), Some(&records[1]), "{order:?}");
        assert_eq!(uploaded(catalog, &who).await.version, Version(10));
        sweep(catalog, AGES).await;
    }
}

pub(crate) async fn an_upload_after_a_loss_wins_even_if_the_clock_is_behind(catalog: Bench<'_>) {
    for order in [[0, 1], [1, 0]] {
        let who = subject(&format!("slow-clock-{}", order[0]));
        // The first upload was acknowledged and lost. Then the floor rose.
        let mut records = [found(5), found(60_000_000_001)];
        records[0].reserved_at = NOW.plus(seconds(150));
        records[1].reserved_at = NOW;
        for number in order {
            restore(catalog, &who, &records[number]).await;
        }
        let current = catalog.get(&who).await.unwrap();
        assert_eq!(current.as_ref(), Some(&records[1]), "{order:?}");
        let next = uploaded(catalog, &who).await;
        assert!(next.reserved_at > records[0].reserved_at);
        sweep(catalog, AGES).await;
    }
}

pub(crate) async fn an_upload_without_the_mark_of_its_commit_counts_as_not_committed(
    catalog: Bench<'_>,
) {
    let who = subject("no-trace");
    let current = uploaded(catalog, &who).await;
    let mut older = found(0);
    older.reserved_at = current.reserved_at;
    // The upload has no reservation and was never current.
    assert_eq!(restore(catalog, &who, &older).await, Restored::Retired);
    assert_eq!(commit(catalog, &who, &older).await, Replaced::NotPending);
    // The sweep removes its objects when they are due, like those of a former current avatar.
    let one = outstanding(&who, &older);
    let kept = catalog.invalidate(&one, seconds(60)).await.unwrap();
    assert_eq!(kept, Invalidated::Kept);
    // A dropped record and a record that a restore replaced were current.
    let mut newer = found(0);
    newer.version = Version(current.version.0 + 1);
    newer.reserved_at = current.reserved_at.plus(seconds(1));
    let restored = restore(catalog, &who, &newer).await;
    assert_eq!(restored, Restored::Current(Some(current.avatar_id)));
    let one = outstanding(&who, &newer);
    assert!(catalog.drop_record(&one, seconds(60)).await.unwrap());
    for former in [&current, &newer] {
        assert_eq!(commit(catalog, &who, former).await, Replaced::Committed);
    }
}

pub(crate) async fn a_refused_upload_is_never_restored(catalog: Bench<'_>) {
    let who = subject("refused-and-found");
    let early = reserved(catalog, &who).await;
    let current = uploaded(catalog, &who).await;
    let refused = reserved(catalog, &who).await;
    let absent = Precondition::Absent;
    let replace = async |precondition| {
        let replaced = catalog.replace(
            &who,
            &refused,
            precondition,
            seconds(3600),
            Uploader::Ordinary,
        );
        replaced.await.unwrap()
    };
    // A repetition gets the same answer, even after other changes.
    for precondition in [&absent, &absent, &Precondition::Anything] {
        let replaced = replace(precondition).await;
        assert_eq!(replaced, Replaced::PreconditionFailed);
    }
    for _ in 0..2 {
        assert_eq!(commit(catalog, &who, &early).await, Replaced::Superseded);
    }
    // The caller died before it invalidated the upload.
    for record in [&early, &refused] {
        let state = catalog.upload_state(&who, record.avatar_id).await.unwrap();
        assert_eq!(state, UploadState::Retired);
        assert_eq!(restore(catalog, &who, record).await, Restored::Known);
    }
    assert!(sweep(catalog, 100).await.is_empty());
    let due = [early.avatar_id, refused.avatar_id].into();
    assert_eq!(sweep(catalog, 21).await, due);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(current));

    // The caller invalidates the upload before a late repetition.
    let refused = reserved(catalog, &who).await;
    let replaced = catalog.replace(&who, &refused, &absent, seconds(3600), Uploader::Ordinary);
    assert_eq!(replaced.await.unwrap(), Replaced::PreconditionFailed);
    let one = outstanding(&who, &refused);
    let invalidated = catalog.invalidate(&one, seconds(60)).await.unwrap();
    assert_eq!(invalidated, Invalidated::Removable);
    let replaced = catalog.replace(&who, &refused, &absent, seconds(3600), Uploader::Ordinary);
    assert_eq!(replaced.await.unwrap(), Replaced::PreconditionFailed);
    assert_eq!(sweep(catalog, 60).await, [refused.avatar_id].into());
}

/// The record of an upload with this version, as read from a manifest in the store.
pub(super) fn found(version: u64) -> Record {
    let mut record = record(1, version);
    record.avatar_id = AvatarId::random().unwrap();
    record
}

pub(super) async fn restore(catalog: Bench<'_>, subject: &SubjectId, record: &Record) -> Restored {
    catalog.restore(subject, record, seconds(60)).await.unwrap()
}
