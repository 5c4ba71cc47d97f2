//! The cases for [`Records`](crate::catalog::Records).

use std::collections::{BTreeSet, HashMap, HashSet};

use super::restores::{found, restore};
use super::{
    AGES, Bench, commit, outstanding, record, reserved, seconds, subject, sweep, uploaded,
    with_original,
};
use crate::avatar::{
    AvatarId, Format, OriginalAccess, Policy, Record, SubjectId, Timestamp, VariantName, Version,
};
use crate::catalog::{
    Cursor, Due, Found, PolicyChange, Precondition, Replaced, Restored, Stats, Uploader,
};

pub(crate) async fn an_upload_becomes_current_only_when_it_is_committed(catalog: Bench<'_>) {
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
        "a caller that lost the answer can repeat the commit"
    );
    assert_eq!(catalog.get(&who).await.unwrap(), Some(record));
    assert!(
        sweep(catalog, AGES).await.is_empty(),
        "a current avatar is never due"
    );
}

pub(crate) async fn versions_count_up_and_survive_a_delete(catalog: Bench<'_>) {
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
    sweep(catalog, AGES).await;
    assert_eq!(uploaded(catalog, &who).await.version, Version(4));
    assert_eq!(
        uploaded(catalog, &subject("versions-of-another"))
            .await
            .version,
        Version(1)
    );
}

pub(crate) async fn a_reservation_can_be_repeated(catalog: Bench<'_>) {
    let who = subject("reserved-again");
    let again = async |record: &Record| {
        let again = catalog
            .reserve(&who, record.avatar_id, seconds(120), Uploader::Ordinary)
            .await;
        again.unwrap().unwrap().version
    };
    let first = reserved(catalog, &who).await;
    let second = reserved(catalog, &who).await;
    assert_eq!(again(&first).await, first.version);
    assert_eq!(again(&second).await, second.version);
    let third = reserved(catalog, &who).await;
    assert_eq!(third.version, Version(3), "no version is skipped");

    // After a late repetition an id that is no longer pending does not become pending again.
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
    assert!(sweep(catalog, 3470).await.is_empty());
    let due = HashSet::from([second.avatar_id]);
    assert_eq!(sweep(catalog, 10).await, due);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(third));
}

pub(crate) async fn a_later_reservation_has_a_later_time(catalog: Bench<'_>) {
    let who = subject("reserved-at");
    let mut last = Timestamp::from_unix_ms(0);
    for _ in 0..3 {
        let record = reserved(catalog, &who).await;
        assert!(record.reserved_at > last);
        last = record.reserved_at;
        let again = catalog
            .reserve(&who, record.avatar_id, seconds(120), Uploader::Ordinary)
            .await;
        assert_eq!(again.unwrap().unwrap().reserved_at, record.reserved_at);
    }
}

pub(crate) async fn the_later_reservation_wins(catalog: Bench<'_>) {
    let who = subject("later-wins");
    let early = reserved(catalog, &who).await;
    let late = reserved(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &late).await, Replaced::Committed);
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Superseded);
    assert_eq!(catalog.get(&who).await.unwrap(), Some(late));
    // The catalog keeps the superseded id until its objects are gone.
    assert_eq!(sweep(catalog, 120).await, HashSet::from([early.avatar_id]));
}

pub(crate) async fn the_earlier_reservation_can_commit_first(catalog: Bench<'_>) {
    let who = subject("earlier-first");
    let early = reserved(catalog, &who).await;
    let late = reserved(catalog, &who).await;
    assert_eq!(commit(catalog, &who, &early).await, Replaced::Committed);
    assert_eq!(commit(catalog, &who, &late).await, Replaced::Committed);
    assert_eq!(sweep(catalog, 3600).await, HashSet::from([early.avatar_id]));
}

pub(crate) async fn concurrent_commits_leave_the_last_reservation_current(catalog: Bench<'_>) {
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
    assert_eq!(sweep(catalog, AGES).await.len(), 15);
}

pub(crate) async fn an_id_that_was_never_reserved_cannot_be_committed(catalog: Bench<'_>) {
    let who = subject("never-reserved");
    assert_eq!(
        commit(catalog, &who, &record(200, 1)).await,
        Replaced::NotPending
    );
    assert_eq!(catalog.get(&who).await.unwrap(), None);
}

pub(crate) async fn an_id_of_another_subject_cannot_be_committed(catalog: Bench<'_>) {
    let (who, other) = (subject("somebody"), subject("somebody-else"));
    let theirs = reserved(catalog, &other).await;
    assert_eq!(commit(catalog, &who, &theirs).await, Replaced::NotPending);
    assert!(matches!(
        commit(catalog, &other, &theirs).await,
        Replaced::Committed
    ));
}

pub(crate) async fn a_claimed_upload_cannot_be_committed(catalog: Bench<'_>) {
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

pub(crate) async fn preconditions_are_checked_by_the_commit(catalog: Bench<'_>) {
    let who = subject("preconditions");
    let replace = async |precondition: Precondition| {
        let record = reserved(catalog, &who).await;
        let replaced = catalog
            .replace(
                &who,
                &record,
                &precondition,
                seconds(3600),
                Uploader::Ordinary,
            )
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
    assert_eq!(sweep(catalog, AGES).await.len(), 2 + 3 + 2);
}

pub(crate) async fn a_repeated_commit_gets_the_answer_of_the_first(catalog: Bench<'_>) {
    let who = subject("repeated-commit");
    let first = uploaded(catalog, &who).await;
    let second = uploaded(catalog, &who).await;
    // The answer of the first commit was lost, and a later upload was committed before the repetition.
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
}

pub(crate) async fn stats_are_the_totals_of_the_current_records(catalog: Bench<'_>) {
    let before = catalog.stats().await.unwrap();
    let medium_webp = |stats: &Stats| {
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
}

pub(crate) async fn many_records_are_returned_in_the_order_of_the_request(catalog: Bench<'_>) {
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

pub(crate) async fn a_lookup_says_of_which_subjects_the_reader_is_a_viewer(catalog: Bench<'_>) {
    let names: Vec<_> = (0..40)
        .map(|number| subject(&format!("looked-up-{number}")))
        .collect();
    // "look" is in the bytes of every list of viewers, but only as a part of another id.
    let (viewer, other) = (subject("look"), subject("looks-like-it"));
    let mut expected = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let record = match number % 3 {
            0 => None,
            _ => Some(uploaded(catalog, name).await),
        };
        let is_viewer = number % 2 == 0;
        let mut viewers = BTreeSet::from([other.clone(), subject("a-look")]);
        if is_viewer {
            viewers.insert(viewer.clone());
        }
        let policy = Policy {
            sequence: 1,
            lock: None,
            viewers,
        };
        let stored = catalog.set_policy(name, &policy, 0).await.unwrap();
        assert_eq!(stored, PolicyChange::Stored);
        expected.push(Found { record, is_viewer });
    }
    let found = catalog.look_up(&names, Some(&viewer)).await.unwrap();
    let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
    assert_eq!(found, expected);

    for reader in [None, Some(&subject("nobody"))] {
        let found = catalog.look_up(&names, reader).await.unwrap();
        assert!(found.into_iter().all(|found| !found.unwrap().is_viewer));
    }
    let unknown = subject("never-looked-up");
    let found = catalog.look_up(&[unknown], Some(&viewer)).await.unwrap();
    let nothing = Found {
        record: None,
        is_viewer: false,
    };
    assert_eq!(
        found.into_iter().map(Result::unwrap).collect::<Vec<_>>(),
        [nothing]
    );
}

pub(crate) async fn stats_count_pending_and_retired_uploads(catalog: Bench<'_>) {
    let before = catalog.stats().await.unwrap();
    let counts = async || {
        let stats = catalog.stats().await.unwrap();
        (
            stats.pending - before.pending,
            stats.retired - before.retired,
        )
    };
    let who = subject("counted-while-it-is-under-way");
    let first = reserved(catalog, &who).await;
    reserved(catalog, &who).await;
    assert_eq!(counts().await, (2, 0));
    assert_eq!(commit(catalog, &who, &first).await, Replaced::Committed);
    assert_eq!(counts().await, (1, 0));
    uploaded(catalog, &who).await;
    assert_eq!(counts().await, (1, 1));
    let removed = catalog.remove(&who, &Precondition::Anything, seconds(60));
    removed.await.unwrap().unwrap().unwrap();
    assert_eq!(counts().await, (0, 3));
    assert_eq!(sweep(catalog, AGES).await.len(), 3);
    assert_eq!(counts().await, (0, 0));
}

pub(crate) async fn an_original_is_kept_with_its_record_and_counted(catalog: Bench<'_>) {
    let who = subject("with-an-original");
    let row = async || {
        let stats = catalog.stats().await.unwrap();
        let mut rows = stats.renditions.into_iter();
        let row = rows.find(|row| row.variant == VariantName::original());
        row.map(|row| (row.format, row.objects, row.bytes))
    };
    assert_eq!(row().await, None);
    for access in [OriginalAccess::Private, OriginalAccess::Public] {
        let original = with_original(access).original;
        let record = Record {
            original,
            ..reserved(catalog, &who).await
        };
        assert_eq!(commit(catalog, &who, &record).await, Replaced::Committed);
        assert_eq!(catalog.get(&who).await.unwrap().as_ref(), Some(&record));
        assert_eq!(row().await, Some((Format::Jpeg, 1, 700_123)));
    }
    let removed = catalog.remove(&who, &Precondition::Anything, seconds(60));
    let removed = removed.await.unwrap().unwrap().unwrap();
    let access = removed.record.unwrap().original.unwrap().access;
    assert_eq!(access, OriginalAccess::Public);
    assert_eq!(row().await, None);
}

pub(crate) async fn pages_return_every_record(catalog: Bench<'_>) {
    let mut expected = HashMap::new();
    for number in 0..50 {
        let who = subject(&format!("paged-{number}"));
        let record = uploaded(catalog, &who).await;
        expected.insert(who, record);
    }
    let mut found: HashMap<SubjectId, Record> = HashMap::new();
    let mut next = Some(Cursor::START);
    while let Some(from) = next {
        let page = catalog.page(&from).await.unwrap();
        found.extend(page.records);
        assert_eq!(page.unreadable, []);
        next = page.next;
    }
    assert_eq!(found, expected);
    assert_eq!(catalog.stats().await.unwrap().avatars, 50);
}

pub(crate) async fn every_new_version_is_above_the_floor(catalog: Bench<'_>) {
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
    // Enough subjects to reach every partition of every adapter.
    for number in 0..64 {
        let who = subject(&format!("never-had-a-version-{number}"));
        let record = reserved(catalog, &who).await;
        assert_eq!(record.version, Version(seen.0 + 1));
        let again = catalog
            .reserve(&who, record.avatar_id, seconds(120), Uploader::Ordinary)
            .await;
        assert_eq!(again.unwrap().unwrap().version, record.version);
        assert_eq!(commit(catalog, &who, &record).await, Replaced::Committed);
    }
    for who in [&known, &deleted] {
        assert_eq!(uploaded(catalog, who).await.version, Version(seen.0 + 1));
        assert_eq!(uploaded(catalog, who).await.version, Version(seen.0 + 2));
    }

    // A delete also covers uploads of a lost catalog.
    let lost = found(1_000_000);
    let anything = Precondition::Anything;
    let removed = catalog.remove(&known, &anything, seconds(0)).await;
    assert!(removed.unwrap().unwrap().is_some());
    assert_eq!(restore(catalog, &known, &lost).await, Restored::Retired);
    assert_eq!(catalog.get(&known).await.unwrap(), None);
    // This also holds if the catalog has lost the subject.
    let unknown = subject("lost-with-its-subject");
    let removed = catalog.remove(&unknown, &anything, seconds(0)).await;
    assert_eq!(removed.unwrap().unwrap(), None);
    assert_eq!(catalog.deleted_up_to(&unknown).await.unwrap(), seen);
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
}
