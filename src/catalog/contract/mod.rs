//! What every catalog must do, run against each adapter.

mod events;
mod maintenance;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use super::{Catalog, Claimed, EmbeddedCatalog, Outstanding, Precondition, Removed, Replaced};
use crate::avatar::{
    AvatarId, Format, Placeholder, Record, Rendition, Source, SourceFormat, SubjectId, Timestamp,
    VariantName, Version,
};
use crate::telemetry::Health;

pub(crate) use events::all as events;

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

/// How many events the catalog under test keeps: six in each of sixteen partitions.
pub(crate) const EVENTS_KEPT: u32 = 96;

/// An embedded catalog in this folder.
pub(crate) fn embedded(folder: &Path) -> EmbeddedCatalog {
    EmbeddedCatalog::open(&folder.join("catalog.redb"), EVENTS_KEPT).unwrap()
}

/// Runs the whole suite against an empty catalog that keeps [`EVENTS_KEPT`] events.
pub(crate) async fn run(catalog: &dyn Catalog) {
    maintenance::begins_once(catalog).await;
    an_upload_becomes_the_record_only_when_it_is_committed(catalog).await;
    versions_count_up_and_survive_a_delete(catalog).await;
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

fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

/// Reserves an id for the subject and gives the record that its upload would commit.
async fn reserved(catalog: &dyn Catalog, subject: &SubjectId) -> Record {
    let mut record = record(1, 0);
    record.avatar_id = AvatarId::random().unwrap();
    record.version = catalog
        .reserve(subject, record.avatar_id, later(120))
        .await
        .unwrap();
    record
}

async fn commit(catalog: &dyn Catalog, subject: &SubjectId, record: &Record) -> Replaced {
    catalog
        .replace(subject, record, &Precondition::Anything, NOW, later(3600))
        .await
        .unwrap()
}

async fn uploaded(catalog: &dyn Catalog, subject: &SubjectId) -> Record {
    let record = reserved(catalog, subject).await;
    assert!(matches!(
        commit(catalog, subject, &record).await,
        Replaced::Committed
    ));
    record
}

/// Claims everything due at `now` and forgets it: what a sweep does.
async fn swept(catalog: &dyn Catalog, now: Timestamp) -> HashSet<AvatarId> {
    let mut ids = HashSet::new();
    loop {
        let lease = now.plus(Duration::from_mins(1));
        let claimed = catalog.claim(now, lease, 3).await.unwrap();
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

async fn an_upload_becomes_the_record_only_when_it_is_committed(catalog: &dyn Catalog) {
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
        "whoever lost the answer may ask again"
    );
    assert_eq!(catalog.get(&who).await.unwrap(), Some(record));
    assert!(
        swept(catalog, later(1_000_000)).await.is_empty(),
        "a current avatar is never due"
    );
}

async fn versions_count_up_and_survive_a_delete(catalog: &dyn Catalog) {
    let who = subject("versions");
    assert_eq!(uploaded(catalog, &who).await.version, Version(1));
    assert_eq!(uploaded(catalog, &who).await.version, Version(2));
    catalog.remove(&who, NOW, later(60)).await.unwrap().unwrap();
    assert_eq!(uploaded(catalog, &who).await.version, Version(3));
    swept(catalog, later(1_000_000)).await;
    assert_eq!(uploaded(catalog, &who).await.version, Version(4));
    assert_eq!(
        uploaded(catalog, &subject("versions-of-another"))
            .await
            .version,
        Version(1)
    );
    swept(catalog, later(1_000_000)).await;
}

async fn a_replaced_avatar_is_due_at_its_time_and_not_before(catalog: &dyn Catalog) {
    let who = subject("retired");
    let first = uploaded(catalog, &who).await;
    let second = reserved(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &second).await, Replaced::Committed);
    assert!(swept(catalog, later(3599)).await.is_empty());
    assert_eq!(
        swept(catalog, later(3600)).await,
        HashSet::from([first.avatar_id])
    );
    assert!(swept(catalog, later(1_000_000)).await.is_empty());
    assert_eq!(catalog.get(&who).await.unwrap(), Some(second));
}

async fn a_reservation_may_be_repeated(catalog: &dyn Catalog) {
    let who = subject("reserved-again");
    let again = async |record: &Record| {
        let version = catalog.reserve(&who, record.avatar_id, later(120)).await;
        version.unwrap()
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
    let claimed = catalog.claim(later(120), later(200), 10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].outstanding.avatar, first.avatar_id);
    again(&first).await;
    assert_eq!(commit(catalog, &who, &first).await, Replaced::NotPending);
    for _ in 0..2 {
        catalog.forget(&claimed[0].outstanding).await.unwrap();
    }
    assert!(swept(catalog, later(3599)).await.is_empty());
    let due = HashSet::from([second.avatar_id]);
    assert_eq!(swept(catalog, later(3600)).await, due);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(third));
}

async fn the_later_reserved_of_two_uploads_wins(catalog: &dyn Catalog) {
    let who = subject("later-wins");
    let early = reserved(catalog, &who).await;
    let late = reserved(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &late).await, Replaced::Committed);
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Superseded);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(late));
    // The loser is still accounted for until its objects are gone.
    assert_eq!(
        swept(catalog, later(120)).await,
        HashSet::from([early.avatar_id])
    );
}

async fn the_earlier_reserved_may_commit_first(catalog: &dyn Catalog) {
    let who = subject("earlier-first");
    let early = reserved(catalog, &who).await;
    let late = reserved(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Committed);
    assert_eq!(commit(catalog, &who, &late).await, Replaced::Committed);
    assert_eq!(
        swept(catalog, later(3600)).await,
        HashSet::from([early.avatar_id])
    );
}

async fn a_claimed_upload_cannot_be_committed(catalog: &dyn Catalog) {
    let who = subject("claimed");
    let current = uploaded(catalog, &who).await;
    let slow = reserved(catalog, &who).await;
    assert!(
        catalog
            .claim(later(119), later(200), 10)
            .await
            .unwrap()
            .is_empty()
    );
    let claimed = catalog.claim(later(120), later(200), 10).await.unwrap();
    assert_eq!(
        claimed,
        [Claimed {
            outstanding: Outstanding {
                subject: who.clone(),
                avatar: slow.avatar_id
            },
            was_pending: true
        }]
    );
    assert_eq!(commit(catalog, &who, &slow).await, Replaced::NotPending);
    catalog.forget(&claimed[0].outstanding).await.unwrap();
    assert_eq!(commit(catalog, &who, &slow).await, Replaced::NotPending);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(current));
}

async fn an_id_that_was_never_reserved_cannot_be_committed(catalog: &dyn Catalog) {
    let who = subject("never-reserved");
    assert_eq!(
        commit(catalog, &who, &record(200, 1)).await,
        Replaced::NotPending
    );
    assert_eq!(catalog.get(&who).await.unwrap(), None);
}

async fn an_id_reserved_for_somebody_else_cannot_be_committed(catalog: &dyn Catalog) {
    let (who, other) = (subject("somebody"), subject("somebody-else"));
    let theirs = reserved(catalog, &other).await;
    assert_eq!(commit(catalog, &who, &theirs).await, Replaced::NotPending);
    assert!(matches!(
        commit(catalog, &other, &theirs).await,
        Replaced::Committed
    ));
}

async fn preconditions_are_checked_by_the_commit(catalog: &dyn Catalog) {
    let who = subject("preconditions");
    let replace = async |precondition: Precondition| {
        let record = reserved(catalog, &who).await;
        let replaced = catalog
            .replace(&who, &record, &precondition, NOW, later(3600))
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
    assert_eq!(swept(catalog, later(1_000_000)).await.len(), 2 + 3 + 2);
}

async fn a_delete_takes_every_id_of_the_subject_and_stops_uploads_under_way(catalog: &dyn Catalog) {
    let who = subject("deleted");
    let bystander = uploaded(catalog, &subject("bystander")).await;
    let old = uploaded(catalog, &who).await;
    let current = uploaded(catalog, &who).await;
    let under_way = reserved(catalog, &who).await;

    let Removed {
        record,
        outstanding,
    } = catalog.remove(&who, NOW, later(60)).await.unwrap().unwrap();
    assert_eq!(record.as_ref(), Some(&current));
    let ids: Vec<_> = outstanding
        .iter()
        .map(|outstanding| outstanding.avatar)
        .collect();
    assert_eq!(ids, [current.avatar_id, old.avatar_id]);
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    assert_eq!(
        commit(catalog, &who, &under_way).await,
        Replaced::Superseded
    );
    assert!(
        swept(catalog, later(59)).await.is_empty(),
        "leased to whoever deletes"
    );
    for outstanding in &outstanding {
        catalog.forget(outstanding).await.unwrap();
    }
    assert_eq!(catalog.remove(&who, NOW, later(60)).await.unwrap(), None);
    assert_eq!(
        swept(catalog, later(1_000_000)).await,
        HashSet::from([under_way.avatar_id])
    );
    assert_eq!(
        catalog.get(&subject("bystander")).await.unwrap(),
        Some(bystander)
    );
}

async fn a_delete_of_nothing_stops_uploads_under_way(catalog: &dyn Catalog) {
    let who = subject("nothing-yet");
    assert_eq!(catalog.remove(&who, NOW, later(60)).await.unwrap(), None);
    let under_way = reserved(catalog, &who).await;
    assert_eq!(catalog.remove(&who, NOW, later(60)).await.unwrap(), None);
    let late = commit(catalog, &who, &under_way).await;
    assert_eq!(late, Replaced::Superseded);
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    let next = uploaded(catalog, &who).await;
    assert!(next.version > under_way.version);
    swept(catalog, later(1_000_000)).await;
}

async fn an_unfinished_delete_can_be_finished_by_the_next(catalog: &dyn Catalog) {
    let who = subject("unfinished-delete");
    let current = uploaded(catalog, &who).await;
    let first = catalog.remove(&who, NOW, later(60)).await.unwrap().unwrap();
    let second = catalog.remove(&who, NOW, later(90)).await.unwrap().unwrap();
    assert_eq!(second.record, None);
    assert_eq!(second.outstanding, first.outstanding);
    assert!(swept(catalog, later(89)).await.is_empty());
    assert_eq!(
        swept(catalog, later(90)).await,
        HashSet::from([current.avatar_id])
    );
    assert_eq!(catalog.remove(&who, NOW, later(60)).await.unwrap(), None);
}

async fn a_claim_is_leased_and_comes_due_again(catalog: &dyn Catalog) {
    let who = subject("leased");
    let slow = reserved(catalog, &who).await;
    let claim = async |now, lease| catalog.claim(later(now), later(lease), 10).await.unwrap();
    let first = claim(120, 180).await;
    assert!(first.len() == 1 && first[0].was_pending);
    assert_eq!(claim(179, 240).await, []);
    let again = claim(180, 240).await;
    assert_eq!(again.len(), 1, "whoever claimed it first is dead");
    assert!(!again[0].was_pending);
    assert_eq!(
        swept(catalog, later(240)).await,
        HashSet::from([slow.avatar_id])
    );
}

async fn forgetting_what_is_unknown_is_no_error(catalog: &dyn Catalog) {
    let avatar = AvatarId::from_bytes([77; 16]);
    catalog
        .forget(&Outstanding {
            subject: subject("nobody"),
            avatar,
        })
        .await
        .unwrap();
}

async fn of_many_commits_at_once_the_last_reserved_stays(catalog: &dyn Catalog) {
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
    assert_eq!(swept(catalog, later(1_000_000)).await.len(), 15);
}

async fn stats_add_up(catalog: &dyn Catalog) {
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
    catalog.remove(&who, NOW, later(60)).await.unwrap().unwrap();
    let ended = catalog.stats().await.unwrap();
    assert_eq!(ended.avatars, before.avatars);
    assert_eq!(medium_webp(&ended), (objects, bytes));
    swept(catalog, later(1_000_000)).await;
}
