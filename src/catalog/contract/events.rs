//! What a catalog tells of its changes.

use std::collections::HashSet;

use super::{EVENTS_KEPT, NOW, commit, later, record, reserved, subject, swept, uploaded};
use crate::avatar::{AvatarId, Change, Event, SubjectId, Version};
use crate::catalog::{Catalog, Cursor, Precondition, Replaced};

/// An adapter may keep so many more events in a partition than it is asked to.
const LEEWAY: usize = 100;

pub(super) async fn run(catalog: &dyn Catalog) {
    a_change_is_told_exactly_once(catalog).await;
    what_changes_nothing_is_not_told(catalog).await;
    what_is_swept_or_restored_is_not_told(catalog).await;
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

async fn a_change_is_told_exactly_once(catalog: &dyn Catalog) {
    let who = subject("told");
    let first = uploaded(catalog, &who).await;
    // Whoever lost the answer asks again.
    assert_eq!(commit(catalog, &who, &first).await, Replaced::Committed);
    let second = reserved(catalog, &who).await;
    let replaced = catalog.replace(&who, &second, &Precondition::Present, later(7), later(9));
    assert_eq!(replaced.await.unwrap(), Replaced::Committed);
    for _ in 0..2 {
        let removed = catalog.remove(&who, later(8), later(60)).await.unwrap();
        assert!(removed.is_some());
    }
    let third = uploaded(catalog, &who).await;

    let told = of(catalog, &who).await;
    let at: Vec<_> = told.iter().map(|event| event.at).collect();
    assert_eq!(at, [NOW, later(7), later(8), NOW]);
    let (avatar_id, version) = (second.avatar_id, second.version);
    let deleted = Change::Deleted { avatar_id, version };
    let changes: Vec<_> = told.iter().map(|event| event.change.clone()).collect();
    let updated = Change::Updated;
    assert_eq!(
        changes,
        [updated(first), updated(second), deleted, updated(third)]
    );
    let ids: HashSet<_> = told.iter().map(Event::id).collect();
    assert_eq!(ids.len(), 4);
    swept(catalog, later(1_000_000)).await;
}

async fn what_changes_nothing_is_not_told(catalog: &dyn Catalog) {
    let who = subject("not-told");
    assert_eq!(catalog.remove(&who, NOW, later(60)).await.unwrap(), None);
    let refused = reserved(catalog, &who).await;
    let refusal = catalog.replace(&who, &refused, &Precondition::Present, NOW, later(60));
    assert_eq!(refusal.await.unwrap(), Replaced::PreconditionFailed);
    // Given up: it is never committed.
    reserved(catalog, &who).await;
    swept(catalog, later(120)).await;
    assert_eq!(commit(catalog, &who, &refused).await, Replaced::NotPending);
    let early = reserved(catalog, &who).await;
    assert_eq!(of(catalog, &who).await, []);

    let late = uploaded(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Superseded);
    let told = of(catalog, &who).await;
    let ids: Vec<_> = told.iter().map(Event::avatar_id).collect();
    assert_eq!(ids, [late.avatar_id]);
    swept(catalog, later(1_000_000)).await;
}

async fn what_is_swept_or_restored_is_not_told(catalog: &dyn Catalog) {
    let who = subject("silent");
    for version in [3, 4] {
        let mut found = record(1, version);
        found.avatar_id = AvatarId::random().unwrap();
        catalog.restore(&who, &found, NOW).await.unwrap();
    }
    assert_eq!(swept(catalog, NOW).await.len(), 1);
    assert_eq!(of(catalog, &who).await, []);
}

async fn events_are_read_in_pieces_without_a_gap_or_a_repetition(catalog: &dyn Catalog) {
    let who = subject("in-pieces");
    for _ in 0..6 {
        uploaded(catalog, &who).await;
    }
    let told = of(catalog, &who).await;
    let versions: Vec<_> = told.iter().map(|event| event.version().0).collect();
    assert_eq!(versions, [1, 2, 3, 4, 5, 6]);
    for partition in 0..catalog.event_partitions() {
        let whole = all_of(catalog, partition, 1000).await;
        for at_a_time in [1, 7] {
            assert_eq!(all_of(catalog, partition, at_a_time).await, whole);
        }
    }
    swept(catalog, later(1_000_000)).await;
}

async fn the_latest_events_are_kept_and_no_more(catalog: &dyn Catalog) {
    let who = subject("talkative");
    let kept = (EVENTS_KEPT as usize).div_ceil(usize::from(catalog.event_partitions()));
    let mut last = Version(0);
    for _ in 0..=kept + LEEWAY {
        last = uploaded(catalog, &who).await.version;
    }
    let told = of(catalog, &who).await;
    assert!(
        (kept..=kept + LEEWAY).contains(&told.len()),
        "{}",
        told.len()
    );
    let versions: Vec<_> = told.iter().map(|event| event.version().0).collect();
    let expected: Vec<_> = (last.0 + 1 - versions.len() as u64..=last.0).collect();
    assert_eq!(versions, expected);
    swept(catalog, later(1_000_000)).await;
}
