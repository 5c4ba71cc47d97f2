//! The cases for [`Policies`](crate::catalog::Policies).

use std::collections::BTreeSet;

use super::restores::restore;
use super::{
    AGES, Bench, commit, outstanding, reserved, reserved_by, seconds, subject, sweep, uploaded,
};
use crate::avatar::{AvatarId, Lock, Policy, SubjectId, Timestamp, Version};
use crate::catalog::{
    PolicyChange, PolicyRestore, Precondition, Replaced, Restored, SubjectLocked, UploadState,
    Uploader,
};

/// A policy with a lock that ends at `until`, and with a viewer.
async fn locked(catalog: Bench<'_>, sequence: u64, until: Option<u64>) -> Policy {
    let (_, now) = catalog.policy(&subject("nobody")).await.unwrap();
    Policy {
        sequence,
        lock: Some(Lock {
            reason: "spam".to_owned(),
            until: until.map(|after| now.plus(seconds(after))),
            locked_at: now,
        }),
        viewers: [subject("a-friend")].into(),
    }
}

async fn set(catalog: Bench<'_>, who: &SubjectId, policy: &Policy, after: u64) -> PolicyChange {
    catalog.set_policy(who, policy, after).await.unwrap()
}

async fn current(catalog: Bench<'_>, who: &SubjectId) -> Policy {
    catalog.policy(who).await.unwrap().0
}

pub(crate) async fn a_policy_is_stored_after_the_one_that_its_writer_read(catalog: Bench<'_>) {
    let who = subject("policy");
    assert_eq!(current(catalog, &who).await, Policy::default());
    let first = locked(catalog, 1, None).await;
    assert_eq!(set(catalog, &who, &first, 4).await, PolicyChange::Conflict);
    assert_eq!(current(catalog, &who).await, Policy::default());
    // A caller that lost the answer can repeat the step.
    for _ in 0..2 {
        assert_eq!(set(catalog, &who, &first, 0).await, PolicyChange::Stored);
        assert_eq!(current(catalog, &who).await, first);
    }
    assert_eq!(catalog.lock(&who).await.unwrap(), first.lock);
    // Another writer read the same policy before.
    let rival = Policy {
        lock: None,
        ..first.clone()
    };
    assert_eq!(set(catalog, &who, &rival, 0).await, PolicyChange::Conflict);
    let second = Policy {
        sequence: 9,
        lock: None,
        viewers: BTreeSet::new(),
    };
    assert_eq!(set(catalog, &who, &second, 1).await, PolicyChange::Stored);
    assert_eq!(current(catalog, &who).await, second);
    assert_eq!(set(catalog, &who, &first, 0).await, PolicyChange::Conflict);
    assert_eq!(catalog.lock(&who).await.unwrap(), None);
    assert_eq!(
        current(catalog, &subject("another")).await,
        Policy::default()
    );
}

pub(crate) async fn many_viewers_are_kept(catalog: Bench<'_>) {
    let who = subject("popular");
    let id = |number: usize| SubjectId::new(format!("{number:0>128}")).unwrap();
    let mut policy = Policy {
        sequence: 1,
        lock: None,
        viewers: (0..Policy::MAX_VIEWERS).map(id).collect(),
    };
    assert_eq!(set(catalog, &who, &policy, 0).await, PolicyChange::Stored);
    assert_eq!(current(catalog, &who).await, policy);
    policy.sequence = 2;
    policy.viewers.clear();
    assert_eq!(set(catalog, &who, &policy, 1).await, PolicyChange::Stored);
    assert_eq!(current(catalog, &who).await, policy);
}

pub(crate) async fn the_later_of_two_restored_policies_wins(catalog: Bench<'_>) {
    let who = subject("restored-policy");
    let restore = async |policy: &Policy| catalog.restore_policy(&who, policy).await.unwrap();
    let second = locked(catalog, 2, None).await;
    assert_eq!(restore(&second).await, PolicyRestore::Restored);
    for older in [1, 2] {
        let older = Policy {
            sequence: older,
            ..Policy::default()
        };
        assert_eq!(restore(&older).await, PolicyRestore::Kept);
        assert_eq!(current(catalog, &who).await, second);
    }
    let third = Policy {
        sequence: 3,
        ..Policy::default()
    };
    assert_eq!(restore(&third).await, PolicyRestore::Restored);
    assert_eq!(current(catalog, &who).await, third);
}

pub(crate) async fn a_lock_ends_by_the_catalogs_clock(catalog: Bench<'_>) {
    let who = subject("locked-for-a-minute");
    let policy = locked(catalog, 1, Some(60)).await;
    let under_way = reserved(catalog, &who).await;
    set(catalog, &who, &policy, 0).await;
    catalog.clock.advance(50).await;
    assert_eq!(catalog.lock(&who).await.unwrap(), policy.lock);
    assert_eq!(current(catalog, &who).await, policy);
    assert_eq!(commit(catalog, &who, &under_way).await, Replaced::Locked);
    catalog.clock.advance(11).await;
    assert_eq!(catalog.lock(&who).await.unwrap(), None);
    let (ended, now) = catalog.policy(&who).await.unwrap();
    assert_eq!((ended.lock, ended.sequence), (None, 1));
    assert_eq!(ended.viewers, policy.viewers);
    assert!(now > Timestamp::from_unix_ms(1_700_000_000_000));
    uploaded(catalog, &who).await;
}

pub(crate) async fn a_lock_refuses_every_commit_but_an_admins(catalog: Bench<'_>) {
    let who = subject("locked");
    let before = uploaded(catalog, &who).await;
    let under_way = reserved(catalog, &who).await;
    let policy = locked(catalog, 1, None).await;
    set(catalog, &who, &policy, 0).await;
    // A repetition gets the same answer, even after the lock is gone.
    assert_eq!(commit(catalog, &who, &under_way).await, Replaced::Locked);
    assert_eq!(commit(catalog, &who, &under_way).await, Replaced::Locked);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(before.clone()));
    let by_admin = reserved_by(catalog, &who, Uploader::Admin).await.unwrap();
    let anything = Precondition::Anything;
    for _ in 0..2 {
        let admin = Uploader::Admin;
        let replaced = catalog.replace(&who, &by_admin, &anything, seconds(3600), admin);
        assert_eq!(replaced.await.unwrap(), Replaced::Committed);
    }
    // This repeats a commit that happened, so the lock does not matter.
    assert_eq!(commit(catalog, &who, &by_admin).await, Replaced::Committed);
    let unlocked = Policy {
        sequence: 2,
        lock: None,
        ..policy
    };
    set(catalog, &who, &unlocked, 1).await;
    assert_eq!(commit(catalog, &who, &under_way).await, Replaced::Locked);
    uploaded(catalog, &who).await;
    // Another user is not locked.
    uploaded(catalog, &subject("not-locked")).await;
}

pub(crate) async fn a_lock_refuses_every_reservation_but_an_admins(catalog: Bench<'_>) {
    let who = subject("locked-before");
    let under_way = reserved(catalog, &who).await;
    let policy = locked(catalog, 1, Some(60)).await;
    set(catalog, &who, &policy, 0).await;
    let refused = AvatarId::random().unwrap();
    for _ in 0..2 {
        let reserved = catalog.reserve(&who, refused, seconds(120), Uploader::Ordinary);
        assert_eq!(reserved.await.unwrap(), Err(SubjectLocked));
    }
    // A refusal leaves nothing for the sweep.
    let state = catalog.upload_state(&who, refused).await.unwrap();
    assert_eq!(state, UploadState::Unknown);
    let ids: Vec<_> = catalog.outstanding().await.unwrap();
    assert!(ids.iter().all(|one| one.avatar != refused), "{ids:?}");
    // A repetition of a reservation that was made before the lock gets the same answer.
    let again = catalog.reserve(&who, under_way.avatar_id, seconds(120), Uploader::Ordinary);
    assert_eq!(again.await.unwrap().unwrap().version, under_way.version);
    // A refusal takes no version.
    let by_admin = reserved_by(catalog, &who, Uploader::Admin).await.unwrap();
    assert_eq!(by_admin.version, Version(under_way.version.0 + 1));
    // Another user is not locked, and the lock ends.
    reserved(catalog, &subject("not-locked-before")).await;
    catalog.clock.advance(61).await;
    reserved(catalog, &who).await;
}

pub(crate) async fn an_upload_that_a_lock_refused_is_never_restored(catalog: Bench<'_>) {
    let who = subject("refused-by-a-lock");
    let refused = reserved(catalog, &who).await;
    let policy = locked(catalog, 1, None).await;
    set(catalog, &who, &policy, 0).await;
    assert_eq!(commit(catalog, &who, &refused).await, Replaced::Locked);
    let state = catalog.upload_state(&who, refused.avatar_id).await.unwrap();
    assert_eq!(state, UploadState::Retired);
    assert_eq!(restore(catalog, &who, &refused).await, Restored::Known);
    assert_eq!(sweep(catalog, AGES).await, [refused.avatar_id].into());
    assert_eq!(catalog.get(&who).await.unwrap(), None);
}

pub(crate) async fn a_policy_survives_uploads_deletes_sweeps_and_drops(catalog: Bench<'_>) {
    let who = subject("lasting-policy");
    let policy = Policy {
        lock: None,
        ..locked(catalog, 5, None).await
    };
    catalog.restore_policy(&who, &policy).await.unwrap();
    uploaded(catalog, &who).await;
    uploaded(catalog, &who).await;
    let removed = catalog.remove(&who, &Precondition::Anything, seconds(60));
    removed.await.unwrap().unwrap().unwrap();
    assert_eq!(current(catalog, &who).await, policy);
    let record = uploaded(catalog, &who).await;
    let one = outstanding(&who, &record);
    assert!(catalog.drop_record(&one, seconds(60)).await.unwrap());
    sweep(catalog, AGES).await;
    assert_eq!(current(catalog, &who).await, policy);
}
