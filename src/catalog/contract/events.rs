//! The cases for [`Events`](crate::catalog::Events).

use std::collections::HashSet;

use super::{
    Bench, EVENTS_KEPT, commit, outstanding, record, reserved, seconds, subject, sweep, uploaded,
};
use crate::avatar::{AvatarId, Change, Event, ObjectKey, Record, SubjectId, Version};
use crate::catalog::{Catalog, Cursor, Precondition, Replaced, Uploader};

/// An adapter may keep this many more events in a partition than configured.
const LEEWAY: usize = 100;

pub(crate) async fn a_change_appends_one_event(catalog: Bench<'_>) {
    let who = subject("events");
    let first = uploaded(catalog, &who).await;
    // A caller that lost the answer repeats the commit.
    assert_eq!(commit(catalog, &who, &first).await, Replaced::Committed);
    catalog.clock.advance(7).await;
    let second = reserved(catalog, &who).await;
    let replaced = catalog.replace(
        &who,
        &second,
        &Precondition::Present,
        seconds(9),
        Uploader::Ordinary,
    );
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

    let events = of(catalog.catalog, &who).await;
    let after: Vec<_> = events
        .windows(2)
        .map(|pair| pair[1].at.since(pair[0].at))
        .collect();
    for (after, least) in after.iter().zip([7, 8, 0]) {
        let range = seconds(least)..seconds(least + 5);
        assert!(range.contains(after), "{after:?}");
    }
    let (avatar_id, version) = (second.avatar_id, second.version);
    let deleted = Change::Deleted { avatar_id, version };
    let changes: Vec<_> = events.iter().map(|event| event.change.clone()).collect();
    let updated = Change::Updated;
    let expected = [
        updated(first.clone()),
        updated(second.clone()),
        deleted,
        updated(third),
    ];
    assert_eq!(changes, expected);
    let ids: HashSet<_> = events.iter().map(Event::id).collect();
    assert_eq!(ids.len(), 4);

    // Each event names the replaced avatar, and the time when its objects are gone.
    let previous: Vec<_> = events.iter().map(|event| event.previous.as_ref()).collect();
    let (Some(replaced), Some(deleted)) = (previous[1], previous[2]) else {
        panic!("{previous:?}");
    };
    assert!(previous[0].is_none() && previous[3].is_none());
    assert_eq!(replaced.avatar_id, first.avatar_id);
    assert_eq!(replaced.gone_at, events[1].at.plus(seconds(9)));
    assert_eq!(
        (deleted.avatar_id, deleted.gone_at),
        (second.avatar_id, events[2].at)
    );
    let keys = |record: &Record| -> Vec<_> {
        let renditions = record.renditions.iter();
        renditions
            .map(|one| ObjectKey::of_rendition(record, one))
            .collect()
    };
    assert_eq!(replaced.objects, keys(&first));
    assert_eq!(deleted.objects, keys(&second));
}

pub(crate) async fn a_step_without_a_change_appends_no_event(catalog: Bench<'_>) {
    let who = subject("not-events");
    assert_eq!(
        catalog
            .remove(&who, &Precondition::Anything, seconds(60))
            .await
            .unwrap()
            .unwrap(),
        None
    );
    let refused = reserved(catalog, &who).await;
    let refusal = catalog.replace(
        &who,
        &refused,
        &Precondition::Present,
        seconds(60),
        Uploader::Ordinary,
    );
    assert_eq!(refusal.await.unwrap(), Replaced::PreconditionFailed);
    // This upload is never committed.
    reserved(catalog, &who).await;
    sweep(catalog, 120).await;
    assert_eq!(commit(catalog, &who, &refused).await, Replaced::NotPending);
    let early = reserved(catalog, &who).await;
    assert_eq!(of(catalog.catalog, &who).await, []);

    let late = uploaded(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Superseded);
    let events = of(catalog.catalog, &who).await;
    let ids: Vec<_> = events.iter().map(Event::avatar_id).collect();
    assert_eq!(ids, [late.avatar_id]);
}

pub(crate) async fn a_restore_and_a_drop_append_events_and_a_sweep_does_not(catalog: Bench<'_>) {
    let who = subject("restored-and-events");
    let [older, newer] = [3, 4].map(|version| {
        let mut found = record(1, version);
        found.avatar_id = AvatarId::random().unwrap();
        found
    });
    for found in [&older, &newer] {
        catalog.restore(&who, found, seconds(0)).await.unwrap();
    }
    // A restore of an older upload changes no record.
    let mut oldest = record(1, 2);
    oldest.avatar_id = AvatarId::random().unwrap();
    catalog.restore(&who, &oldest, seconds(0)).await.unwrap();
    assert_eq!(sweep(catalog, 1).await.len(), 2);
    let one = outstanding(&who, &newer);
    assert!(catalog.drop_record(&one, seconds(60)).await.unwrap());
    let events = of(catalog.catalog, &who).await;
    let changes: Vec<_> = events.iter().map(|event| event.change.clone()).collect();
    let (avatar_id, version) = (newer.avatar_id, newer.version);
    let deleted = Change::Deleted { avatar_id, version };
    let replaced = events[1]
        .previous
        .as_ref()
        .map(|previous| previous.avatar_id);
    assert_eq!(replaced, Some(older.avatar_id));
    let updated = Change::Updated;
    assert_eq!(changes, [updated(older), updated(newer), deleted]);
}

pub(crate) async fn pages_of_events_have_no_gap_and_no_repetition(catalog: Bench<'_>) {
    let who = subject("in-pieces");
    for _ in 0..6 {
        uploaded(catalog, &who).await;
    }
    let events = of(catalog.catalog, &who).await;
    let versions: Vec<_> = events.iter().map(|event| event.version().0).collect();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6]);
    let starts = vec![Cursor::START; usize::from(catalog.event_partitions())];
    let of_all = catalog.events_of_all(&starts, 1000).await.unwrap();
    assert_eq!(of_all.len(), starts.len());
    for (partition, found) in (0..).zip(of_all) {
        let expected = catalog.events(partition, &Cursor::START, 1000).await;
        assert_eq!(found, expected.unwrap());
    }
    for partition in 0..catalog.event_partitions() {
        let latest = catalog.catalog.latest_event(partition).await.unwrap();
        let after = catalog.events(partition, &latest, 10).await.unwrap();
        assert_eq!(after, []);
        let mut end = Cursor::START;
        while let Some((last, _)) = catalog.events(partition, &end, 10).await.unwrap().pop() {
            end = last;
        }
        assert_eq!(latest, end);
        let whole = all_of(catalog.catalog, partition, 1000).await;
        for at_a_time in [1, 7] {
            assert_eq!(all_of(catalog.catalog, partition, at_a_time).await, whole);
        }
    }
}

pub(crate) async fn only_the_latest_events_are_kept(catalog: Bench<'_>) {
    let who = subject("talkative");
    let kept = (EVENTS_KEPT as usize).div_ceil(usize::from(catalog.event_partitions()));
    let mut last = Version(0);
    for _ in 0..=kept + LEEWAY {
        last = uploaded(catalog, &who).await.version;
    }
    let events = of(catalog.catalog, &who).await;
    assert!(
        (kept..=kept + LEEWAY).contains(&events.len()),
        "{}",
        events.len()
    );
    let versions: Vec<_> = events.iter().map(|event| event.version().0).collect();
    let expected: Vec<_> = (last.0 + 1 - versions.len() as u64..=last.0).collect();
    assert_eq!(versions, expected);
}

/// All events that the catalog keeps, from all partitions.
pub(crate) async fn all(catalog: &dyn Catalog) -> Vec<Event> {
    let mut events = Vec::new();
    for partition in 0..catalog.event_partitions() {
        events.extend(all_of(catalog, partition, 1000).await);
    }
    events
}

/// All events of a partition, read in pages of `at_a_time`.
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
