//! What maintenance asks of a catalog: reading many records, and taking back what is in the store.

use std::collections::HashMap;

use super::{
    AGES, Bench, NOW, commit, outstanding, record, reserved, seconds, subject, swept, uploaded,
};
use crate::avatar::{AvatarId, Record, SubjectId, Version};
use crate::catalog::{
    Cursor, InitialState, Invalidated, Precondition, Replaced, Restored, Standing,
};

pub(super) async fn run(catalog: Bench<'_>) {
    many_records_are_read_in_the_order_asked_for(catalog).await;
    pages_give_every_record(catalog).await;
    what_is_outstanding_is_listed(catalog).await;
    an_upload_has_a_standing_until_it_is_forgotten(catalog).await;
    an_upload_found_in_the_store_is_taken_back_with_its_version(catalog).await;
    of_several_found_the_newest_is_current_in_whatever_order(catalog).await;
    what_the_catalog_knows_stays_as_it_is(catalog).await;
    nothing_deleted_comes_back(catalog).await;
    an_expired_upload_is_restored_and_an_invalidated_one_is_not(catalog).await;
    of_two_records_the_later_reservation_wins_whatever_the_versions(catalog).await;
    an_upload_after_a_loss_wins_even_if_the_clock_is_behind(catalog).await;
    an_upload_without_a_trace_of_its_commit_was_not_committed(catalog).await;
    a_refused_upload_is_never_restored(catalog).await;
    a_delete_tells_which_versions_it_covers(catalog).await;
    a_record_without_objects_is_dropped_if_it_is_still_current(catalog).await;
}

async fn many_records_are_read_in_the_order_asked_for(catalog: Bench<'_>) {
    let names: Vec<_> = (0..100)
        .map(|number| subject(&format!("many-{number}")))
        .collect();
    assert!(catalog.get_many(&[]).await.unwrap().is_empty());
    let mut expected = Vec::new();
    for (number, name) in names.iter().enumerate() {
        expected.push(match number % 3 {
            0 => None,
            _ => Some(uploaded(catalog, name).await),
        });
    }
    let found = catalog.get_many(&names).await.unwrap();
    let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
    assert_eq!(found, expected);
}

async fn pages_give_every_record(catalog: Bench<'_>) {
    let mut found: HashMap<SubjectId, Record> = HashMap::new();
    let mut next = Some(Cursor::START);
    while let Some(from) = next {
        let page = catalog.page(&from).await.unwrap();
        found.extend(page.records);
        assert_eq!(page.unreadable, []);
        next = page.next;
    }
    let avatars = catalog.stats().await.unwrap().avatars;
    assert_eq!(found.len() as u64, avatars);
    for (subject, record) in found {
        assert_eq!(catalog.get(&subject).await.unwrap(), Some(record));
    }
}

async fn what_is_outstanding_is_listed(catalog: Bench<'_>) {
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
    swept(catalog, AGES).await;
    assert_eq!(catalog.outstanding().await.unwrap(), []);
}

async fn an_upload_has_a_standing_until_it_is_forgotten(catalog: Bench<'_>) {
    let (who, other) = (subject("knows"), subject("knows-nothing"));
    let standing = async |who: &SubjectId, record: &Record| {
        let standing = catalog.standing(who, record.avatar_id).await;
        standing.unwrap()
    };
    let upload = reserved(catalog, &who).await;
    assert_eq!(standing(&who, &upload).await, Standing::Pending);
    assert_eq!(standing(&other, &upload).await, Standing::Unknown);
    commit(catalog, &who, &upload).await;
    assert_eq!(standing(&who, &upload).await, Standing::Current);
    assert_eq!(standing(&other, &upload).await, Standing::Unknown);
    uploaded(catalog, &who).await;
    assert_eq!(standing(&who, &upload).await, Standing::Retired);
    let [dead, failed] = [reserved(catalog, &who).await, reserved(catalog, &who).await];
    let one = outstanding(&who, &failed);
    catalog.invalidate(&one, seconds(60)).await.unwrap();
    assert_eq!(standing(&who, &failed).await, Standing::Retired);
    catalog.clock.advance(121).await;
    assert_eq!(standing(&who, &dead).await, Standing::Expired);
    catalog.claim(seconds(60), 10).await.unwrap();
    assert_eq!(standing(&who, &dead).await, Standing::Expired);
    swept(catalog, AGES).await;
    for record in [&upload, &dead, &failed] {
        assert_eq!(standing(&who, record).await, Standing::Unknown);
    }
}

/// An upload of this version as its manifest tells of it.
fn found(version: u64) -> Record {
    let mut record = record(1, version);
    record.avatar_id = AvatarId::random().unwrap();
    record
}

async fn restore(catalog: Bench<'_>, subject: &SubjectId, record: &Record) -> Restored {
    catalog.restore(subject, record, seconds(60)).await.unwrap()
}

async fn an_upload_found_in_the_store_is_taken_back_with_its_version(catalog: Bench<'_>) {
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
    swept(catalog, AGES).await;
}

async fn of_several_found_the_newest_is_current_in_whatever_order(catalog: Bench<'_>) {
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
        assert!(swept(catalog, 50).await.is_empty());
        assert_eq!(swept(catalog, 10).await, older);
        assert_eq!(uploaded(catalog, &who).await.version, Version(4));
        swept(catalog, AGES).await;
    }
}

async fn what_the_catalog_knows_stays_as_it_is(catalog: Bench<'_>) {
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
    swept(catalog, AGES).await;
}

async fn nothing_deleted_comes_back(catalog: Bench<'_>) {
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
    swept(catalog, AGES).await;
    for record in [&deleted, &under_way] {
        assert_eq!(restore(catalog, &who, record).await, Restored::Retired);
    }
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    assert_eq!(swept(catalog, 60).await.len(), 2);
}

async fn an_expired_upload_is_restored_and_an_invalidated_one_is_not(catalog: Bench<'_>) {
    let who = subject("expired-and-found");
    uploaded(catalog, &who).await;
    // One that no sweep has claimed yet, one that a sweep has claimed, one that it gave up.
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
        swept(catalog, 3000).await;
    }
    // An expired one that is older than the current record is swept.
    let early = reserved(catalog, &who).await;
    let late = uploaded(catalog, &who).await;
    catalog.clock.advance(121).await;
    assert_eq!(restore(catalog, &who, &early).await, Restored::Retired);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(late));
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Superseded);
    swept(catalog, AGES).await;
}

async fn of_two_records_the_later_reservation_wins_whatever_the_versions(catalog: Bench<'_>) {
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
        swept(catalog, AGES).await;
    }
}

async fn an_upload_after_a_loss_wins_even_if_the_clock_is_behind(catalog: Bench<'_>) {
    for order in [[0, 1], [1, 0]] {
        let who = subject(&format!("slow-clock-{}", order[0]));
        // The first one was acknowledged and lost; then the floor rose.
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
        swept(catalog, AGES).await;
    }
}

async fn an_upload_without_a_trace_of_its_commit_was_not_committed(catalog: Bench<'_>) {
    let who = subject("no-trace");
    let current = uploaded(catalog, &who).await;
    let mut older = found(0);
    older.reserved_at = current.reserved_at;
    // Nothing is reserved for it, and it never was current.
    assert_eq!(restore(catalog, &who, &older).await, Restored::Retired);
    assert_eq!(commit(catalog, &who, &older).await, Replaced::NotPending);
    // The sweep removes it at its time, as it does with what was current.
    let one = outstanding(&who, &older);
    let kept = catalog.invalidate(&one, seconds(60)).await.unwrap();
    assert_eq!(kept, Invalidated::Kept);
    // A record that was dropped and one that a restore replaced were current.
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
    swept(catalog, AGES).await;
}

async fn a_refused_upload_is_never_restored(catalog: Bench<'_>) {
    let who = subject("refused-and-found");
    let early = reserved(catalog, &who).await;
    let current = uploaded(catalog, &who).await;
    let refused = reserved(catalog, &who).await;
    let absent = Precondition::Absent;
    let replace = async |precondition| {
        let replaced = catalog.replace(&who, &refused, precondition, seconds(3600));
        replaced.await.unwrap()
    };
    // A repetition is answered alike, whatever has changed since.
    for precondition in [&absent, &absent, &Precondition::Anything] {
        let replaced = replace(precondition).await;
        assert_eq!(replaced, Replaced::PreconditionFailed);
    }
    for _ in 0..2 {
        assert_eq!(commit(catalog, &who, &early).await, Replaced::Superseded);
    }
    // Its caller died before it could invalidate it.
    for record in [&early, &refused] {
        let standing = catalog.standing(&who, record.avatar_id).await.unwrap();
        assert_eq!(standing, Standing::Retired);
        assert_eq!(restore(catalog, &who, record).await, Restored::Known);
    }
    assert!(swept(catalog, 100).await.is_empty());
    let due = [early.avatar_id, refused.avatar_id].into();
    assert_eq!(swept(catalog, 21).await, due);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(current));

    // Its caller invalidates it before a late repetition.
    let refused = reserved(catalog, &who).await;
    let replaced = catalog.replace(&who, &refused, &absent, seconds(3600));
    assert_eq!(replaced.await.unwrap(), Replaced::PreconditionFailed);
    let one = outstanding(&who, &refused);
    let invalidated = catalog.invalidate(&one, seconds(60)).await.unwrap();
    assert_eq!(invalidated, Invalidated::Removable);
    let replaced = catalog.replace(&who, &refused, &absent, seconds(3600));
    assert_eq!(replaced.await.unwrap(), Replaced::PreconditionFailed);
    assert_eq!(swept(catalog, 60).await, [refused.avatar_id].into());
}

async fn a_delete_tells_which_versions_it_covers(catalog: Bench<'_>) {
    let who = subject("covered");
    assert_eq!(catalog.deleted(&who).await.unwrap(), Version(0));
    uploaded(catalog, &who).await;
    let under_way = reserved(catalog, &who).await;
    assert_eq!(catalog.deleted(&who).await.unwrap(), Version(0));
    let removed = catalog.remove(&who, &Precondition::Anything, seconds(60));
    removed.await.unwrap().unwrap();
    assert_eq!(catalog.deleted(&who).await.unwrap(), under_way.version);
    swept(catalog, AGES).await;
}

async fn a_record_without_objects_is_dropped_if_it_is_still_current(catalog: Bench<'_>) {
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
    swept(catalog, AGES).await;
}

/// First of all: everything after it counts from 1.
pub(super) async fn begins_once(catalog: Bench<'_>) {
    assert!(!catalog.has_begun().await.unwrap());
    catalog.initialize(InitialState::New).await.unwrap();
    assert!(catalog.has_begun().await.unwrap());
    catalog.initialize(InitialState::Lost).await.unwrap();
    let first = uploaded(catalog, &subject("the-first")).await;
    assert_eq!(first.version, Version(1));
}

/// Last of all, because a floor never sinks.
pub(super) async fn run_with_a_floor(catalog: Bench<'_>) {
    every_new_version_is_above_the_floor(catalog).await;
}

async fn every_new_version_is_above_the_floor(catalog: Bench<'_>) {
    let (known, deleted) = (subject("had-versions"), subject("had-versions-once"));
    uploaded(catalog, &known).await;
    uploaded(catalog, &deleted).await;
    catalog
        .remove(&deleted, &Precondition::Anything, seconds(60))
        .await
        .unwrap()
        .unwrap();
    let seen = Version(60_000_000_000_000);
    for version in [seen, Version(59_000_000), Version(0)] {
        assert_eq!(catalog.raise_version_floor(version).await.unwrap(), seen);
    }
    // One in each partition, of whatever adapter.
    for number in 0..64 {
        let who = subject(&format!("never-had-a-version-{number}"));
        let record = reserved(catalog, &who).await;
        assert_eq!(record.version, Version(seen.0 + 1));
        let again = catalog.reserve(&who, record.avatar_id, seconds(120)).await;
        assert_eq!(again.unwrap().version, record.version);
        assert_eq!(commit(catalog, &who, &record).await, Replaced::Committed);
    }
    for who in [&known, &deleted] {
        assert_eq!(uploaded(catalog, who).await.version, Version(seen.0 + 1));
        assert_eq!(uploaded(catalog, who).await.version, Version(seen.0 + 2));
    }

    // A delete covers uploads that a lost catalog knew.
    let lost = found(1_000_000);
    let anything = Precondition::Anything;
    let removed = catalog.remove(&known, &anything, seconds(0)).await;
    assert!(removed.unwrap().unwrap().is_some());
    assert_eq!(restore(catalog, &known, &lost).await, Restored::Retired);
    assert_eq!(catalog.get(&known).await.unwrap(), None);
    // It covers them too if the catalog has lost the subject.
    let unknown = subject("lost-with-its-subject");
    let removed = catalog.remove(&unknown, &anything, seconds(0)).await;
    assert_eq!(removed.unwrap().unwrap(), None);
    assert_eq!(catalog.deleted(&unknown).await.unwrap(), seen);
    let lost = found(1_000_000);
    assert_eq!(restore(catalog, &unknown, &lost).await, Restored::Retired);
    assert_eq!(catalog.get(&unknown).await.unwrap(), None);
    assert_eq!(
        uploaded(catalog, &unknown).await.version,
        Version(seen.0 + 1)
    );

    let restored = subject("restored-below-a-floor");
    let record = found(7);
    restore(catalog, &restored, &record).await;
    let current = catalog.get(&restored).await.unwrap();
    assert_eq!(current, Some(record));
    let next = uploaded(catalog, &restored).await;
    assert_eq!(next.version, Version(seen.0 + 1));
    swept(catalog, AGES).await;
}
