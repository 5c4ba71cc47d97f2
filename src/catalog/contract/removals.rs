//! The cases for [`Removals`](crate::catalog::Removals).

use std::collections::HashSet;

use super::restores::restore;
use super::{
    AGES, Bench, commit, outstanding, record, reserved, seconds, subject, sweep, uploaded,
};
use crate::avatar::{AvatarId, Record, SubjectId, Version};
use crate::catalog::{
    Due, Invalidated, Outstanding, Precondition, PreconditionFailed, Removed, Replaced, Restored,
    UploadState,
};

pub(crate) async fn a_replaced_avatar_is_due_after_its_delay_and_not_before(catalog: Bench<'_>) {
    let who = subject("retired");
    let first = uploaded(catalog, &who).await;
    let second = reserved(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &second).await, Replaced::Committed);
    assert!(sweep(catalog, 3590).await.is_empty());
    assert_eq!(sweep(catalog, 10).await, HashSet::from([first.avatar_id]));
    assert!(sweep(catalog, AGES).await.is_empty());
    assert_eq!(catalog.get(&who).await.unwrap(), Some(second));
}

pub(crate) async fn a_removal_checks_its_precondition(catalog: Bench<'_>) {
    let who = subject("conditional-removal");
    let minute = seconds(60);
    // Without a record the precondition is ignored.
    for ignored in [Precondition::Present, Precondition::OneOf(vec![])] {
        let removed = catalog.remove(&who, &ignored, minute).await.unwrap();
        assert_eq!(removed, Ok(None), "{ignored:?}");
    }
    let first = uploaded(catalog, &who).await;
    let second = uploaded(catalog, &who).await;
    let pending = reserved(catalog, &who).await;
    for failing in [
        Precondition::Absent,
        Precondition::OneOf(vec![]),
        Precondition::OneOf(vec![first.avatar_id, pending.avatar_id]),
    ] {
        let refused = catalog.remove(&who, &failing, minute).await.unwrap();
        assert_eq!(refused, Err(PreconditionFailed), "{failing:?}");
    }
    assert_eq!(catalog.get(&who).await.unwrap(), Some(second.clone()));
    // A refused removal invalidates no upload.
    assert_eq!(commit(catalog, &who, &pending).await, Replaced::Committed);
    let one_of = Precondition::OneOf(vec![first.avatar_id, pending.avatar_id]);
    let removed = catalog.remove(&who, &one_of, minute).await.unwrap();
    assert_eq!(removed.unwrap().unwrap().record, Some(pending));
    let third = uploaded(catalog, &who).await;
    let removed = catalog.remove(&who, &Precondition::Present, minute).await;
    let removed = removed.unwrap().unwrap().unwrap();
    assert_eq!(removed.record, Some(third));
}

pub(crate) async fn a_delete_returns_every_id_of_the_subject_and_invalidates_uploads_under_way(
    catalog: Bench<'_>,
) {
    let who = subject("deleted");
    let bystander = uploaded(catalog, &subject("bystander")).await;
    let old = uploaded(catalog, &who).await;
    let current = uploaded(catalog, &who).await;
    let under_way = reserved(catalog, &who).await;

    let Removed {
        record,
        outstanding,
    } = catalog
        .remove(&who, &Precondition::Anything, seconds(60))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(record.as_ref(), Some(&current));
    let ids: Vec<_> = outstanding
        .iter()
        .map(|outstanding| outstanding.avatar)
        .collect();
    assert_eq!(ids[0], current.avatar_id);
    let ids: HashSet<_> = ids.into_iter().collect();
    let all = [&current, &old, &under_way].map(|record| record.avatar_id);
    assert_eq!(ids, HashSet::from(all));
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    assert_eq!(
        commit(catalog, &who, &under_way).await,
        Replaced::Superseded
    );
    assert!(
        sweep(catalog, 50).await.is_empty(),
        "the caller of the delete has a lease"
    );
    for outstanding in &outstanding {
        catalog.forget(outstanding).await.unwrap();
    }
    assert_eq!(
        catalog
            .remove(&who, &Precondition::Anything, seconds(60))
            .await
            .unwrap()
            .unwrap(),
        None
    );
    assert!(sweep(catalog, AGES).await.is_empty());
    assert_eq!(
        commit(catalog, &who, &under_way).await,
        Replaced::NotPending
    );
    assert_eq!(
        catalog.get(&subject("bystander")).await.unwrap(),
        Some(bystander)
    );
}

pub(crate) async fn a_delete_without_a_record_invalidates_uploads_under_way(catalog: Bench<'_>) {
    let who = subject("nothing-yet");
    assert_eq!(
        catalog
            .remove(&who, &Precondition::Anything, seconds(60))
            .await
            .unwrap()
            .unwrap(),
        None
    );
    let under_way = reserved(catalog, &who).await;
    let removed = catalog
        .remove(&who, &Precondition::Anything, seconds(60))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(removed.record, None);
    assert_eq!(removed.outstanding, [outstanding(&who, &under_way)]);
    let late = commit(catalog, &who, &under_way).await;
    assert_eq!(late, Replaced::Superseded);
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    let next = uploaded(catalog, &who).await;
    assert!(next.version > under_way.version);
}

pub(crate) async fn the_next_delete_finishes_an_unfinished_delete(catalog: Bench<'_>) {
    let who = subject("unfinished-delete");
    let current = uploaded(catalog, &who).await;
    let first = catalog
        .remove(&who, &Precondition::Anything, seconds(60))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let second = catalog
        .remove(&who, &Precondition::Anything, seconds(90))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(second.record, None);
    assert_eq!(second.outstanding, first.outstanding);
    assert!(sweep(catalog, 80).await.is_empty());
    assert_eq!(sweep(catalog, 10).await, HashSet::from([current.avatar_id]));
    assert_eq!(
        catalog
            .remove(&who, &Precondition::Anything, seconds(60))
            .await
            .unwrap()
            .unwrap(),
        None
    );
}

pub(crate) async fn a_delete_covers_the_versions_up_to_the_last_reservation(catalog: Bench<'_>) {
    let who = subject("covered");
    assert_eq!(catalog.deleted_up_to(&who).await.unwrap(), Version(0));
    uploaded(catalog, &who).await;
    let under_way = reserved(catalog, &who).await;
    assert_eq!(catalog.deleted_up_to(&who).await.unwrap(), Version(0));
    let removed = catalog.remove(&who, &Precondition::Anything, seconds(60));
    removed.await.unwrap().unwrap();
    assert_eq!(
        catalog.deleted_up_to(&who).await.unwrap(),
        under_way.version
    );
}

pub(crate) async fn a_record_is_dropped_only_if_it_is_current(catalog: Bench<'_>) {
    let who = subject("dropped");
    let before = catalog.stats().await.unwrap();
    let first = uploaded(catalog, &who).await;
    let current = uploaded(catalog, &who).await;
    let under_way = reserved(catalog, &who).await;
    let drop = async |record: &Record| {
        let one = outstanding(&who, record);
        catalog.drop_record(&one, seconds(60)).await.unwrap()
    };
    assert!(!drop(&first).await);
    assert_eq!(catalog.get(&who).await.unwrap().as_ref(), Some(&current));
    assert!(drop(&current).await);
    assert!(!drop(&current).await);
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    let after = catalog.stats().await.unwrap();
    assert_eq!(after.avatars, before.avatars);
    assert_eq!(restore(catalog, &who, &current).await, Restored::Known);
    // An upload under way is not affected.
    let committed = commit(catalog, &who, &under_way).await;
    assert_eq!(committed, Replaced::Committed);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(under_way));
}

pub(crate) async fn a_claimed_id_is_due_again_after_its_lease(catalog: Bench<'_>) {
    let who = subject("leased");
    let slow = reserved(catalog, &who).await;
    let claim = async |after| {
        catalog.clock.advance(after).await;
        catalog.claim(seconds(60), 10).await.unwrap()
    };
    let first = claim(120).await;
    assert_eq!(first.len(), 1);
    assert_eq!(claim(50).await, []);
    // The first caller did not forget the id within its lease.
    let again = claim(10).await;
    assert_eq!(again.len(), 1);
    let Due::Expired { overdue } = again[0].due else {
        panic!("{:?}", again[0].due);
    };
    assert!(overdue >= seconds(60), "{overdue:?}");
    assert_eq!(sweep(catalog, 60).await, HashSet::from([slow.avatar_id]));
}

pub(crate) async fn an_expired_upload_can_be_deferred_and_then_invalidated(catalog: Bench<'_>) {
    let who = subject("put-off");
    let upload = reserved(catalog, &who).await;
    let one = outstanding(&who, &upload);
    catalog.clock.advance(120).await;
    assert_eq!(catalog.claim(seconds(60), 10).await.unwrap().len(), 1);
    catalog.defer(&one, seconds(1000)).await.unwrap();
    catalog.clock.advance(990).await;
    assert_eq!(catalog.claim(seconds(60), 10).await.unwrap(), []);
    catalog.clock.advance(10).await;
    let claimed = catalog.claim(seconds(60), 10).await.unwrap();
    assert!(matches!(claimed[0].due, Due::Expired { overdue } if overdue >= seconds(1000)));
    for _ in 0..2 {
        let invalidated = catalog.invalidate(&one, seconds(60)).await.unwrap();
        assert_eq!(invalidated, Invalidated::Removable);
    }
    assert_eq!(commit(catalog, &who, &upload).await, Replaced::NotPending);
    catalog.clock.advance(60).await;
    let claimed = catalog.claim(seconds(60), 10).await.unwrap();
    assert_eq!(claimed[0].due, Due::Retired);
    sweep(catalog, AGES).await;
    // An id that is not outstanding cannot be deferred.
    catalog.defer(&one, seconds(1000)).await.unwrap();
    assert_eq!(catalog.outstanding().await.unwrap(), []);
}

pub(crate) async fn an_upload_under_way_can_be_invalidated_and_a_current_one_cannot(
    catalog: Bench<'_>,
) {
    let who = subject("invalidated");
    let invalidate = async |record: &Record| {
        let one = outstanding(&who, record);
        catalog.invalidate(&one, seconds(60)).await.unwrap()
    };
    let first = uploaded(catalog, &who).await;
    let current = uploaded(catalog, &who).await;
    let failed = reserved(catalog, &who).await;
    assert_eq!(invalidate(&failed).await, Invalidated::Removable);
    assert_eq!(invalidate(&current).await, Invalidated::Kept);
    assert_eq!(invalidate(&first).await, Invalidated::Kept);
    assert_eq!(commit(catalog, &who, &failed).await, Replaced::NotPending);
    // The catalog keeps an unknown upload until its objects are gone.
    let lost = record(99, 1);
    assert_eq!(invalidate(&lost).await, Invalidated::Removable);
    let due = HashSet::from([failed.avatar_id, lost.avatar_id]);
    assert_eq!(sweep(catalog, 60).await, due);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(current));
    assert_eq!(sweep(catalog, 3600).await, [first.avatar_id].into());
}

pub(crate) async fn forgetting_an_unknown_id_is_not_an_error(catalog: Bench<'_>) {
    let avatar = AvatarId::from_bytes([77; 16]);
    catalog
        .forget(&Outstanding {
            subject: subject("nobody"),
            avatar,
        })
        .await
        .unwrap();
}

pub(crate) async fn outstanding_ids_are_listed(catalog: Bench<'_>) {
    assert_eq!(catalog.outstanding().await.unwrap(), []);
    let who = subject("outstanding");
    let retired = uploaded(catalog, &who).await;
    uploaded(catalog, &who).await;
    let pending = reserved(catalog, &who).await;
    let listed = catalog.outstanding().await.unwrap();
    assert_eq!(listed.len(), 2);
    for record in [&retired, &pending] {
        assert!(listed.contains(&outstanding(&who, record)));
    }
    sweep(catalog, AGES).await;
    assert_eq!(catalog.outstanding().await.unwrap(), []);
}

pub(crate) async fn the_state_of_an_upload_is_known_until_it_is_forgotten(catalog: Bench<'_>) {
    let (who, other) = (subject("knows"), subject("knows-nothing"));
    let state = async |who: &SubjectId, record: &Record| {
        let state = catalog.upload_state(who, record.avatar_id).await;
        state.unwrap()
    };
    let upload = reserved(catalog, &who).await;
    assert_eq!(state(&who, &upload).await, UploadState::Pending);
    assert_eq!(state(&other, &upload).await, UploadState::Unknown);
    commit(catalog, &who, &upload).await;
    assert_eq!(state(&who, &upload).await, UploadState::Current);
    assert_eq!(state(&other, &upload).await, UploadState::Unknown);
    uploaded(catalog, &who).await;
    assert_eq!(state(&who, &upload).await, UploadState::Retired);
    let [dead, failed] = [reserved(catalog, &who).await, reserved(catalog, &who).await];
    let one = outstanding(&who, &failed);
    catalog.invalidate(&one, seconds(60)).await.unwrap();
    assert_eq!(state(&who, &failed).await, UploadState::Retired);
    catalog.clock.advance(121).await;
    assert_eq!(state(&who, &dead).await, UploadState::Expired);
    catalog.claim(seconds(60), 10).await.unwrap();
    assert_eq!(state(&who, &dead).await, UploadState::Expired);
    sweep(catalog, AGES).await;
    for record in [&upload, &dead, &failed] {
        assert_eq!(state(&who, record).await, UploadState::Unknown);
    }
}
