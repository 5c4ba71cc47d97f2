//! What every catalog must do, run against each adapter.

mod events;
mod maintenance;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Catalog, Claimed, Clock, Due, EmbeddedCatalog, Invalidated, Outstanding, Precondition,
    PreconditionFailed, Removed, Replaced, Reservation,
};
use crate::avatar::{
    AvatarId, Format, Placeholder, Record, Rendition, Source, SourceFormat, SubjectId, Timestamp,
    VariantName, Version,
};
use crate::telemetry::Health;

pub(crate) use events::all as events;

pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

/// How many events the catalog under test keeps: six in each of sixteen partitions.
pub(crate) const EVENTS_KEPT: u32 = 96;

/// A clock that stands still until a test sets it forward.
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(NOW.unix_ms()))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn set_back(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_sub(by, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.0.load(Ordering::Relaxed))
    }
}

/// An embedded catalog in this folder, and its clock.
pub(crate) fn embedded(folder: &Path) -> (EmbeddedCatalog, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    let path = folder.join("catalog.redb");
    let catalog = EmbeddedCatalog::open_with_clock(&path, EVENTS_KEPT, clock.clone());
    (catalog.unwrap(), clock)
}

/// Sets the clock of a catalog under test forward.
#[async_trait]
pub(crate) trait Travel: Sync {
    async fn advance(&self, seconds: u64);
}

#[async_trait]
impl Travel for ManualClock {
    async fn advance(&self, seconds: u64) {
        ManualClock::advance(self, Duration::from_secs(seconds));
    }
}

/// The catalog under test, and its clock.
#[derive(Clone, Copy)]
struct Bench<'a> {
    catalog: &'a (dyn Catalog + 'static),
    clock: &'a dyn Travel,
}

impl std::ops::Deref for Bench<'_> {
    type Target = dyn Catalog;

    fn deref(&self) -> &Self::Target {
        self.catalog
    }
}

/// Runs the whole suite against an empty catalog that keeps [`EVENTS_KEPT`] events.
pub(crate) async fn run(catalog: &(dyn Catalog + 'static), clock: &dyn Travel) {
    let catalog = Bench { catalog, clock };
    maintenance::begins_once(catalog).await;
    an_upload_becomes_the_record_only_when_it_is_committed(catalog).await;
    versions_count_up_and_survive_a_delete(catalog).await;
    a_removal_may_depend_on_what_is_current(catalog).await;
    a_replaced_avatar_is_due_at_its_time_and_not_before(catalog).await;
    a_reservation_may_be_repeated(catalog).await;
    the_later_reserved_of_two_uploads_wins(catalog).await;
    the_earlier_reserved_may_commit_first(catalog).await;
    a_claimed_upload_cannot_be_committed(catalog).await;
    an_id_that_was_never_reserved_cannot_be_committed(catalog).await;
    an_id_reserved_for_somebody_else_cannot_be_committed(catalog).await;
    preconditions_are_checked_by_the_commit(catalog).await;
    a_delete_takes_every_id_of_the_subject_and_stops_uploads_under_way(catalog).await;
    a_delete_of_nothing_stops_uploads_under_way(catalog).await;
    an_unfinished_delete_can_be_finished_by_the_next(catalog).await;
    a_claim_is_leased_and_comes_due_again(catalog).await;
    an_expired_upload_can_be_put_off_and_then_invalidated(catalog).await;
    an_upload_under_way_can_be_invalidated_and_a_current_one_cannot(catalog).await;
    a_repeated_commit_is_answered_by_what_happened(catalog).await;
    later_reservations_have_later_times(catalog).await;
    forgetting_what_is_unknown_is_no_error(catalog).await;
    of_many_commits_at_once_the_last_reserved_stays(catalog).await;
    stats_add_up(catalog).await;
    maintenance::run(catalog).await;
    events::run(catalog).await;
    maintenance::run_with_a_floor(catalog).await;
    assert_eq!(catalog.check().await.unwrap(), Health::Healthy);
}

/// A plausible record: ten renditions whose sizes depend on `seed`.
pub(crate) fn record(seed: u8, version: u64) -> Record {
    let sizes = [
        ("full", 1024),
        ("large", 512),
        ("medium", 256),
        ("small", 128),
        ("thumbnail", 64),
    ];
    let of = |format| {
        sizes.map(|(name, edge)| Rendition {
            variant: VariantName::new(name).unwrap(),
            format,
            width: edge,
            height: edge,
            bytes: u64::from(edge) * 80 + u64::from(seed),
            animated: false,
        })
    };
    Record {
        avatar_id: AvatarId::from_bytes([seed; 16]),
        version: Version(version),
        reserved_at: NOW.plus(Duration::from_secs(version)),
        uploaded_at: NOW,
        source: Source {
            format: SourceFormat::Jpeg,
            bytes: 3_273_581,
            width: 3022,
            height: 4032,
            animated: false,
        },
        renditions: [of(Format::Webp), of(Format::Jpeg)].concat(),
        master: None,
        placeholder: Placeholder {
            thumbhash: vec![seed; 25],
            color: [1, 2, seed],
        },
    }
}

fn subject(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Longer than anything waits.
const AGES: u64 = 1_000_000;

/// A record as layout 1 wrote it, in hexadecimal.
pub(crate) const PREVIOUS_RECORD: &str = "0101010101010101010101010101010101bc0580a0f1c2b13400ede6c701ce17c01f00050466756c6c056c61726765066d656469756d05736d616c6c097468756d626e61696c0a0000800880088180050001008004800481c0020002008002800281a00100030080018001815001040040408128000001800880088180050001018004800481c0020002018002800281a001000301800180018150000401404081280001021901010101010101010101010101010101010101010101010101010201";

/// The record in [`PREVIOUS_RECORD`].
pub(crate) fn previous_record() -> Record {
    let mut record = record(1, 700);
    record.renditions[3].animated = true;
    record.master = Some(Format::Png);
    // It had no reservation time: the upload time takes the place.
    record.reserved_at = record.uploaded_at;
    record
}

/// Reserves an id for the subject and gives the record that its upload would commit.
async fn reserved(catalog: Bench<'_>, subject: &SubjectId) -> Record {
    let mut record = record(1, 0);
    record.avatar_id = AvatarId::random().unwrap();
    let reserved = catalog.reserve(subject, record.avatar_id, seconds(120));
    Reservation {
        version: record.version,
        reserved_at: record.reserved_at,
    } = reserved.await.unwrap();
    record
}

async fn commit(catalog: Bench<'_>, subject: &SubjectId, record: &Record) -> Replaced {
    let anything = Precondition::Anything;
    let replaced = catalog.replace(subject, record, &anything, seconds(3600));
    replaced.await.unwrap()
}

async fn uploaded(catalog: Bench<'_>, subject: &SubjectId) -> Record {
    let record = reserved(catalog, subject).await;
    assert!(matches!(
        commit(catalog, subject, &record).await,
        Replaced::Committed
    ));
    record
}

/// Claims everything that is due after so many seconds more, and forgets it.
async fn swept(catalog: Bench<'_>, after: u64) -> HashSet<AvatarId> {
    catalog.clock.advance(after).await;
    let mut ids = HashSet::new();
    loop {
        let claimed = catalog.claim(seconds(60), 3).await.unwrap();
        assert!(claimed.len() <= 3);
        if claimed.is_empty() {
            return ids;
        }
        for Claimed { outstanding, .. } in claimed {
            catalog.forget(&outstanding).await.unwrap();
            assert!(ids.insert(outstanding.avatar), "claimed twice");
        }
    }
}

fn outstanding(subject: &SubjectId, record: &Record) -> Outstanding {
    Outstanding {
        subject: subject.clone(),
        avatar: record.avatar_id,
    }
}

async fn an_upload_becomes_the_record_only_when_it_is_committed(catalog: Bench<'_>) {
    let who = subject("only-when-committed");
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    let record = reserved(catalog, &who).await;
    assert_eq!(record.version, Version(1));
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    assert_eq!(commit(catalog, &who, &record).await, Replaced::Committed);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(record.clone()));
    assert_eq!(
        commit(catalog, &who, &record).await,
        Replaced::Committed,
        "a caller that lost the answer may ask again"
    );
    assert_eq!(catalog.get(&who).await.unwrap(), Some(record));
    assert!(
        swept(catalog, AGES).await.is_empty(),
        "a current avatar is never due"
    );
}

async fn versions_count_up_and_survive_a_delete(catalog: Bench<'_>) {
    let who = subject("versions");
    assert_eq!(uploaded(catalog, &who).await.version, Version(1));
    assert_eq!(uploaded(catalog, &who).await.version, Version(2));
    catalog
        .remove(&who, &Precondition::Anything, seconds(60))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(uploaded(catalog, &who).await.version, Version(3));
    swept(catalog, AGES).await;
    assert_eq!(uploaded(catalog, &who).await.version, Version(4));
    assert_eq!(
        uploaded(catalog, &subject("versions-of-another"))
            .await
            .version,
        Version(1)
    );
    swept(catalog, AGES).await;
}

async fn a_removal_may_depend_on_what_is_current(catalog: Bench<'_>) {
    let who = subject("conditional-removal");
    let minute = seconds(60);
    // Without a record there is nothing to protect.
    for moot in [Precondition::Present, Precondition::OneOf(vec![])] {
        let nothing = catalog.remove(&who, &moot, minute).await.unwrap();
        assert_eq!(nothing, Ok(None), "{moot:?}");
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
    swept(catalog, AGES).await;
}

async fn a_replaced_avatar_is_due_at_its_time_and_not_before(catalog: Bench<'_>) {
    let who = subject("retired");
    let first = uploaded(catalog, &who).await;
    let second = reserved(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &second).await, Replaced::Committed);
    assert!(swept(catalog, 3590).await.is_empty());
    assert_eq!(swept(catalog, 10).await, HashSet::from([first.avatar_id]));
    assert!(swept(catalog, AGES).await.is_empty());
    assert_eq!(catalog.get(&who).await.unwrap(), Some(second));
}

async fn a_reservation_may_be_repeated(catalog: Bench<'_>) {
    let who = subject("reserved-again");
    let again = async |record: &Record| {
        let again = catalog.reserve(&who, record.avatar_id, seconds(120)).await;
        again.unwrap().version
    };
    let first = reserved(catalog, &who).await;
    let second = reserved(catalog, &who).await;
    assert_eq!(again(&first).await, first.version);
    assert_eq!(again(&second).await, second.version);
    let third = reserved(catalog, &who).await;
    assert_eq!(third.version, Version(3), "no version is skipped");

    // What has left pending, as where a repetition comes late, does not come back into it.
    assert_eq!(commit(catalog, &who, &second).await, Replaced::Committed);
    assert_eq!(again(&second).await, second.version);
    assert_eq!(commit(catalog, &who, &third).await, Replaced::Committed);
    again(&second).await;
    again(&third).await;
    catalog.clock.advance(120).await;
    let claimed = catalog.claim(seconds(80), 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].outstanding.avatar, first.avatar_id);
    again(&first).await;
    assert_eq!(commit(catalog, &who, &first).await, Replaced::NotPending);
    for _ in 0..2 {
        catalog.forget(&claimed[0].outstanding).await.unwrap();
    }
    assert!(swept(catalog, 3470).await.is_empty());
    let due = HashSet::from([second.avatar_id]);
    assert_eq!(swept(catalog, 10).await, due);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(third));
}

async fn the_later_reserved_of_two_uploads_wins(catalog: Bench<'_>) {
    let who = subject("later-wins");
    let early = reserved(catalog, &who).await;
    let late = reserved(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &late).await, Replaced::Committed);
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Superseded);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(late));
    // The loser is still accounted for until its objects are gone.
    assert_eq!(swept(catalog, 120).await, HashSet::from([early.avatar_id]));
}

async fn the_earlier_reserved_may_commit_first(catalog: Bench<'_>) {
    let who = subject("earlier-first");
    let early = reserved(catalog, &who).await;
    let late = reserved(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Committed);
    assert_eq!(commit(catalog, &who, &late).await, Replaced::Committed);
    assert_eq!(swept(catalog, 3600).await, HashSet::from([early.avatar_id]));
}

async fn a_claimed_upload_cannot_be_committed(catalog: Bench<'_>) {
    let who = subject("claimed");
    let current = uploaded(catalog, &who).await;
    let slow = reserved(catalog, &who).await;
    catalog.clock.advance(110).await;
    assert_eq!(catalog.claim(seconds(80), 10).await.unwrap(), []);
    catalog.clock.advance(15).await;
    let claimed = catalog.claim(seconds(80), 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].outstanding, outstanding(&who, &slow));
    let Due::Expired { overdue } = claimed[0].due else {
        panic!("{:?}", claimed[0].due);
    };
    assert!((seconds(5)..seconds(15)).contains(&overdue), "{overdue:?}");
    assert_eq!(commit(catalog, &who, &slow).await, Replaced::NotPending);
    catalog.forget(&claimed[0].outstanding).await.unwrap();
    assert_eq!(commit(catalog, &who, &slow).await, Replaced::NotPending);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(current));
}

async fn an_id_that_was_never_reserved_cannot_be_committed(catalog: Bench<'_>) {
    let who = subject("never-reserved");
    assert_eq!(
        commit(catalog, &who, &record(200, 1)).await,
        Replaced::NotPending
    );
    assert_eq!(catalog.get(&who).await.unwrap(), None);
}

async fn an_id_reserved_for_somebody_else_cannot_be_committed(catalog: Bench<'_>) {
    let (who, other) = (subject("somebody"), subject("somebody-else"));
    let theirs = reserved(catalog, &other).await;
    assert_eq!(commit(catalog, &who, &theirs).await, Replaced::NotPending);
    assert!(matches!(
        commit(catalog, &other, &theirs).await,
        Replaced::Committed
    ));
}

async fn preconditions_are_checked_by_the_commit(catalog: Bench<'_>) {
    let who = subject("preconditions");
    let replace = async |precondition: Precondition| {
        let record = reserved(catalog, &who).await;
        let replaced = catalog
            .replace(&who, &record, &precondition, seconds(3600))
            .await
            .unwrap();
        (record.avatar_id, replaced)
    };
    let stranger = AvatarId::from_bytes([9; 16]);
    let failed = Replaced::PreconditionFailed;
    assert_eq!(replace(Precondition::Present).await.1, failed);
    assert_eq!(replace(Precondition::OneOf(vec![stranger])).await.1, failed);
    let (first, replaced) = replace(Precondition::Absent).await;
    assert_eq!(replaced, Replaced::Committed);
    assert_eq!(replace(Precondition::Absent).await.1, failed);
    assert_eq!(replace(Precondition::OneOf(vec![stranger])).await.1, failed);
    assert_eq!(replace(Precondition::OneOf(vec![])).await.1, failed);
    let (_, replaced) = replace(Precondition::OneOf(vec![stranger, first])).await;
    assert_eq!(replaced, Replaced::Committed);
    assert_eq!(replace(Precondition::Present).await.1, Replaced::Committed);
    assert_eq!(swept(catalog, AGES).await.len(), 2 + 3 + 2);
}

async fn a_delete_takes_every_id_of_the_subject_and_stops_uploads_under_way(catalog: Bench<'_>) {
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
        swept(catalog, 50).await.is_empty(),
        "leased to the caller that deletes"
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
    assert!(swept(catalog, AGES).await.is_empty());
    assert_eq!(
        commit(catalog, &who, &under_way).await,
        Replaced::NotPending
    );
    assert_eq!(
        catalog.get(&subject("bystander")).await.unwrap(),
        Some(bystander)
    );
}

async fn a_delete_of_nothing_stops_uploads_under_way(catalog: Bench<'_>) {
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
    swept(catalog, AGES).await;
}

async fn an_unfinished_delete_can_be_finished_by_the_next(catalog: Bench<'_>) {
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
    assert!(swept(catalog, 80).await.is_empty());
    assert_eq!(swept(catalog, 10).await, HashSet::from([current.avatar_id]));
    assert_eq!(
        catalog
            .remove(&who, &Precondition::Anything, seconds(60))
            .await
            .unwrap()
            .unwrap(),
        None
    );
}

async fn a_claim_is_leased_and_comes_due_again(catalog: Bench<'_>) {
    let who = subject("leased");
    let slow = reserved(catalog, &who).await;
    let claim = async |after| {
        catalog.clock.advance(after).await;
        catalog.claim(seconds(60), 10).await.unwrap()
    };
    let first = claim(120).await;
    assert_eq!(first.len(), 1);
    assert_eq!(claim(50).await, []);
    // The caller that claimed it first is dead.
    let again = claim(10).await;
    assert_eq!(again.len(), 1);
    let Due::Expired { overdue } = again[0].due else {
        panic!("{:?}", again[0].due);
    };
    assert!(overdue >= seconds(60), "{overdue:?}");
    assert_eq!(swept(catalog, 60).await, HashSet::from([slow.avatar_id]));
}

async fn an_expired_upload_can_be_put_off_and_then_invalidated(catalog: Bench<'_>) {
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
    swept(catalog, AGES).await;
    // What is not outstanding is not put off.
    catalog.defer(&one, seconds(1000)).await.unwrap();
    assert_eq!(catalog.outstanding().await.unwrap(), []);
}

async fn an_upload_under_way_can_be_invalidated_and_a_current_one_cannot(catalog: Bench<'_>) {
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
    // An upload that the catalog has never seen is tracked until its objects are gone.
    let lost = record(99, 1);
    assert_eq!(invalidate(&lost).await, Invalidated::Removable);
    let due = HashSet::from([failed.avatar_id, lost.avatar_id]);
    assert_eq!(swept(catalog, 60).await, due);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(current));
    assert_eq!(swept(catalog, 3600).await, [first.avatar_id].into());
}

async fn a_repeated_commit_is_answered_by_what_happened(catalog: Bench<'_>) {
    let who = subject("repeated-commit");
    let first = uploaded(catalog, &who).await;
    let second = uploaded(catalog, &who).await;
    // The answer to the first commit was lost, and a later upload came before the repetition.
    assert_eq!(commit(catalog, &who, &first).await, Replaced::Committed);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(second.clone()));
    catalog
        .remove(&who, &Precondition::Anything, seconds(60))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    for record in [&first, &second] {
        assert_eq!(commit(catalog, &who, record).await, Replaced::Committed);
    }
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    swept(catalog, AGES).await;
}

async fn later_reservations_have_later_times(catalog: Bench<'_>) {
    let who = subject("reserved-at");
    let mut last = Timestamp::from_unix_ms(0);
    for _ in 0..3 {
        let record = reserved(catalog, &who).await;
        assert!(record.reserved_at > last);
        last = record.reserved_at;
        let again = catalog.reserve(&who, record.avatar_id, seconds(120)).await;
        assert_eq!(again.unwrap().reserved_at, record.reserved_at);
    }
    swept(catalog, AGES).await;
}

async fn forgetting_what_is_unknown_is_no_error(catalog: Bench<'_>) {
    let avatar = AvatarId::from_bytes([77; 16]);
    catalog
        .forget(&Outstanding {
            subject: subject("nobody"),
            avatar,
        })
        .await
        .unwrap();
}

async fn of_many_commits_at_once_the_last_reserved_stays(catalog: Bench<'_>) {
    let who = subject("crowd");
    let uploads = (0..16).map(async |_| {
        let record = reserved(catalog, &who).await;
        (commit(catalog, &who, &record).await, record.version)
    });
    let ended = futures_util::future::join_all(uploads).await;
    let last = ended.iter().map(|(_, version)| *version).max().unwrap();
    assert_eq!(last, Version(16));
    let versions: HashSet<_> = ended.iter().map(|(_, version)| version).collect();
    assert_eq!(versions.len(), 16, "no version is given twice");
    assert!(ended.iter().all(|(replaced, version)| match replaced {
        Replaced::Committed => true,
        other => *other == Replaced::Superseded && *version < last,
    }));
    assert_eq!(catalog.get(&who).await.unwrap().unwrap().version, last);
    assert_eq!(swept(catalog, AGES).await.len(), 15);
}

async fn stats_add_up(catalog: Bench<'_>) {
    let before = catalog.stats().await.unwrap();
    let medium_webp = |stats: &super::Stats| {
        let row = stats
            .renditions
            .iter()
            .find(|row| row.variant.as_str() == "medium" && row.format == Format::Webp);
        row.map_or((0, 0), |row| (row.objects, row.bytes))
    };
    let who = subject("counted");
    let record = uploaded(catalog, &who).await;
    uploaded(catalog, &who).await;
    let after = catalog.stats().await.unwrap();
    let (objects, bytes) = medium_webp(&before);
    let each = record
        .still(&VariantName::new("medium").unwrap(), Format::Webp)
        .unwrap()
        .bytes;
    assert_eq!(after.avatars, before.avatars + 1);
    assert_eq!(medium_webp(&after), (objects + 1, bytes + each));
    catalog
        .remove(&who, &Precondition::Anything, seconds(60))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let ended = catalog.stats().await.unwrap();
    assert_eq!(ended.avatars, before.avatars);
    assert_eq!(medium_webp(&ended), (objects, bytes));
    swept(catalog, AGES).await;
}
