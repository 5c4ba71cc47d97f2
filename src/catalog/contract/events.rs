//! What a catalog tells of its changes.

use std::collections::HashSet;

use super::{
    AGES, Bench, EVENTS_KEPT, commit, record, reserved, seconds, subject, swept, uploaded,
};
use crate::avatar::{AvatarId, Change, Event, ObjectKey, SubjectId, Version};
use crate::catalog::{Catalog, Cursor, Precondition, Replaced};

/// An adapter may keep so many more events in a partition than it is asked to.
const LEEWAY: usize = 100;

pub(super) async fn run(catalog: Bench<'_>) {
    a_change_is_told_exactly_once(catalog).await;
    what_changes_nothing_is_not_told(catalog).await;
    a_restored_or_dropped_record_is_told_and_a_sweep_is_not(catalog).await;
    events_are_read_in_pieces_without_a_gap_or_a_repetition(catalog).await;
    the_latest_events_are_kept_and_no_more(catalog).await;
}

/// Every event that is kept, of all partitions.
pub(crate) async fn all(catalog: &dyn Catalog) -> Vec<Event> {
    let mut events = Vec::new();
    for partition in 0..catalog.event_partitions() {
        events.extend(all_of(catalog, partition, 1000).await);
    }
    events
}

/// Every event of a partition, read so many at a time.
async fn all_of(catalog: &dyn Catalog, partition: u16, at_a_time: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut after = Cursor::START;
    loop {
        let some = catalog.events(partition, &after, at_a_time).await.unwrap();
        assert!(some.len() <= at_a_time);
        let Some((last, _)) = some.last() else {
            return events;
        };
        after = last.clone();
        events.extend(some.into_iter().map(|(_, event)| event));
    }
}

async fn of(catalog: &dyn Catalog, who: &SubjectId) -> Vec<Event> {
    let mut events = all(catalog).await;
    events.retain(|event| event.subject == *who);
    events
}

async fn a_change_is_told_exactly_once(catalog: Bench<'_>) {
    let who = subject("told");
    let first = uploaded(catalog, &who).await;
    // A caller that lost the answer asks again.
    assert_eq!(commit(catalog, &who, &first).await, Replaced::Committed);
    catalog.clock.advance(7).await;
    let second = reserved(catalog, &who).await;
    let replaced = catalog.replace(&who, &second, &Precondition::Present, seconds(9));
    assert_eq!(replaced.await.unwrap(), Replaced::Committed);
    catalog.clock.advance(8).await;
    for _ in 0..2 {
        let removed = catalog
            .remove(&who, &Precondition::Anything, seconds(60))
            .await
            .unwrap()
            .unwrap();
        assert!(removed.is_some());
    }
    let third = uploaded(catalog, &who).await;

    let told = of(catalog.catalog, &who).await;
    let after: Vec<_> = told
        .windows(2)
        .map(|pair| pair[1].at.since(pair[0].at))
        .collect();
    for (after, least) in after.iter().zip([7, 8, 0]) {
        let range = seconds(least)..seconds(least + 5);
        assert!(range.contains(after), "{after:?}");
    }
    let (avatar_id, version) = (second.avatar_id, second.version);
    let deleted = Change::Deleted { avatar_id, version };
    let changes: Vec<_> = told.iter().map(|event| event.change.clone()).collect();
    let updated = Change::Updated;
    let expected = [
        updated(first.clone()),
        updated(second.clone()),
        deleted,
        updated(third),
    ];
    assert_eq!(changes, expected);
    let ids: HashSet<_> = told.iter().map(Event::id).collect();
    assert_eq!(ids.len(), 4);

    // Each names the avatar that it replaced, and when the objects of that one are gone.
    let previous: Vec<_> = told.iter().map(|event| event.previous.as_ref()).collect();
    let (Some(replaced), Some(deleted)) = (previous[1], previous[2]) else {
        panic!("{previous:?}");
    };
    assert!(previous[0].is_none() && previous[3].is_none());
    assert_eq!(replaced.avatar_id, first.avatar_id);
    assert_eq!(replaced.gone_at, told[1].at.plus(seconds(9)));
    assert_eq!(
        (deleted.avatar_id, deleted.gone_at),
        (second.avatar_id, told[2].at)
    );
    let keys = |record: &crate::avatar::Record| -> Vec<_> {
        let renditions = record.renditions.iter();
        renditions
            .map(|one| ObjectKey::of_rendition(record.avatar_id, one))
            .collect()
    };
    assert_eq!(replaced.objects, keys(&first));
    assert_eq!(deleted.objects, keys(&second));
    swept(catalog, AGES).await;
}

async fn what_changes_nothing_is_not_told(catalog: Bench<'_>) {
    let who = subject("not-told");
    assert_eq!(
        catalog
            .remove(&who, &Precondition::Anything, seconds(60))
            .await
            .unwrap()
            .unwrap(),
        None
    );
    let refused = reserved(catalog, &who).await;
    let refusal = catalog.replace(&who, &refused, &Precondition::Present, seconds(60));
    assert_eq!(refusal.await.unwrap(), Replaced::PreconditionFailed);
    // Given up: it is never committed.
    reserved(catalog, &who).await;
    swept(catalog, 120).await;
    assert_eq!(commit(catalog, &who, &refused).await, Replaced::NotPending);
    let early = reserved(catalog, &who).await;
    assert_eq!(of(catalog.catalog, &who).await, []);

    let late = uploaded(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Superseded);
    let told = of(catalog.catalog, &who).await;
    let ids: Vec<_> = told.iter().map(Event::avatar_id).collect();
    assert_eq!(ids, [late.avatar_id]);
    swept(catalog, AGES).await;
}

async fn a_restored_or_dropped_record_is_told_and_a_sweep_is_not(catalog: Bench<'_>) {
    let who = subject("restored-and-told");
    let [older, newer] = [3, 4].map(|version| {
        let mut found = record(1, version);
        found.avatar_id = AvatarId::random().unwrap();
        found
    });
    for found in [&older, &newer] {
        catalog.restore(&who, found, seconds(0)).await.unwrap();
    }
    // An older one changes nothing.
    let mut oldest = record(1, 2);
    oldest.avatar_id = AvatarId::random().unwrap();
    catalog.restore(&who, &oldest, seconds(0)).await.unwrap();
    assert_eq!(swept(catalog, 1).await.len(), 2);
    let one = super::outstanding(&who, &newer);
    assert!(catalog.drop_record(&one, seconds(60)).await.unwrap());
    let told = of(catalog.catalog, &who).await;
    let changes: Vec<_> = told.iter().map(|event| event.change.clone()).collect();
    let (avatar_id, version) = (newer.avatar_id, newer.version);
    let deleted = Change::Deleted { avatar_id, version };
    let replaced = told[1].previous.as_ref().map(|previous| previous.avatar_id);
    assert_eq!(replaced, Some(older.avatar_id));
    let updated = Change::Updated;
    assert_eq!(changes, [updated(older), updated(newer), deleted]);
    swept(catalog, AGES).await;
}

async fn events_are_read_in_pieces_without_a_gap_or_a_repetition(catalog: Bench<'_>) {
    let who = subject("in-pieces");
    for _ in 0..6 {
        uploaded(catalog, &who).await;
    }
    let told = of(catalog.catalog, &who).await;
    let versions: Vec<_> = told.iter().map(|event| event.version().0).collect();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6]);
    for partition in 0..catalog.event_partitions() {
        let whole = all_of(catalog.catalog, partition, 1000).await;
        for at_a_time in [1, 7] {
            assert_eq!(all_of(catalog.catalog, partition, at_a_time).await, whole);
        }
    }
    swept(catalog, AGES).await;
}

async fn the_latest_events_are_kept_and_no_more(catalog: Bench<'_>) {
    let who = subject("talkative");
    let kept = (EVENTS_KEPT as usize).div_ceil(usize::from(catalog.event_partitions()));
    let mut last = Version(0);
    for _ in 0..=kept + LEEWAY {
        last = uploaded(catalog, &who).await.version;
    }
    let told = of(catalog.catalog, &who).await;
    assert!(
        (kept..=kept + LEEWAY).contains(&told.len()),
        "{}",
        told.len()
    );
    let versions: Vec<_> = told.iter().map(|event| event.version().0).collect();
    let expected: Vec<_> = (last.0 + 1 - versions.len() as u64..=last.0).collect();
    assert_eq!(versions, expected);
    swept(catalog, AGES).await;
}
