//! What maintenance asks of a catalog: reading many records, and taking back what is in the store.

use std::collections::HashMap;

use super::{NOW, commit, later, record, reserved, subject, swept, uploaded};
use crate::avatar::{AvatarId, Record, SubjectId, Version};
use crate::catalog::{Catalog, Cursor, Outstanding, Replaced, Restored};

pub(super) async fn run(catalog: &dyn Catalog) {
    many_records_are_read_in_the_order_asked_for(catalog).await;
    pages_give_every_record(catalog).await;
    what_is_outstanding_is_listed(catalog).await;
    an_upload_is_known_until_it_is_forgotten(catalog).await;
    an_upload_found_in_the_store_is_taken_back_with_its_version(catalog).await;
    of_several_found_the_newest_is_current_in_whatever_order(catalog).await;
    what_the_catalog_knows_stays_as_it_is(catalog).await;
    nothing_deleted_comes_back(catalog).await;
}

async fn many_records_are_read_in_the_order_asked_for(catalog: &dyn Catalog) {
    let names: Vec<_> = (0..100)
        .map(|number| subject(&format!("many-{number}")))
        .collect();
    assert_eq!(catalog.get_many(&[]).await.unwrap(), []);
    let mut expected = Vec::new();
    for (number, name) in names.iter().enumerate() {
        expected.push(match number % 3 {
            0 => None,
            _ => Some(uploaded(catalog, name).await),
        });
    }
    assert_eq!(catalog.get_many(&names).await.unwrap(), expected);
}

async fn pages_give_every_record(catalog: &dyn Catalog) {
    let mut found: HashMap<SubjectId, Record> = HashMap::new();
    let mut next = Some(Cursor::START);
    while let Some(from) = next {
        let page = catalog.page(&from).await.unwrap();
        found.extend(page.records);
        next = page.next;
    }
    let avatars = catalog.stats().await.unwrap().avatars;
    assert_eq!(found.len() as u64, avatars);
    for (subject, record) in found {
        assert_eq!(catalog.get(&subject).await.unwrap(), Some(record));
    }
}

async fn what_is_outstanding_is_listed(catalog: &dyn Catalog) {
    assert_eq!(catalog.outstanding().await.unwrap(), []);
    let who = subject("outstanding");
    let retired = uploaded(catalog, &who).await;
    uploaded(catalog, &who).await;
    let pending = reserved(catalog, &who).await;
    let listed = catalog.outstanding().await.unwrap();
    assert_eq!(listed.len(), 2);
    for avatar in [retired.avatar_id, pending.avatar_id] {
        let subject = who.clone();
        assert!(listed.contains(&Outstanding { subject, avatar }));
    }
    swept(catalog, later(1_000_000)).await;
    assert_eq!(catalog.outstanding().await.unwrap(), []);
}

async fn an_upload_is_known_until_it_is_forgotten(catalog: &dyn Catalog) {
    let (who, other) = (subject("knows"), subject("knows-nothing"));
    let knows = async |who: &SubjectId, record: &Record| {
        let known = catalog.knows(who, record.avatar_id).await;
        known.unwrap()
    };
    let upload = reserved(catalog, &who).await;
    assert!(knows(&who, &upload).await, "pending");
    assert!(!knows(&other, &upload).await);
    commit(catalog, &who, &upload).await;
    assert!(knows(&who, &upload).await, "current");
    assert!(!knows(&other, &upload).await);
    uploaded(catalog, &who).await;
    assert!(knows(&who, &upload).await, "retired");
    swept(catalog, later(1_000_000)).await;
    assert!(!knows(&who, &upload).await, "forgotten");
}

/// An upload of this version as its manifest tells of it.
fn found(version: u64) -> Record {
    let mut record = record(1, version);
    record.avatar_id = AvatarId::random().unwrap();
    record
}

async fn restore(catalog: &dyn Catalog, subject: &SubjectId, record: &Record) -> Restored {
    catalog.restore(subject, record, later(60)).await.unwrap()
}

async fn an_upload_found_in_the_store_is_taken_back_with_its_version(catalog: &dyn Catalog) {
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
    swept(catalog, later(1_000_000)).await;
}

async fn of_several_found_the_newest_is_current_in_whatever_order(catalog: &dyn Catalog) {
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
        assert!(swept(catalog, later(59)).await.is_empty());
        assert_eq!(swept(catalog, later(60)).await, older);
        assert_eq!(uploaded(catalog, &who).await.version, Version(4));
        swept(catalog, later(1_000_000)).await;
    }
}

async fn what_the_catalog_knows_stays_as_it_is(catalog: &dyn Catalog) {
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
    swept(catalog, later(1_000_000)).await;
}

async fn nothing_deleted_comes_back(catalog: &dyn Catalog) {
    let who = subject("deleted-and-found");
    let deleted = uploaded(catalog, &who).await;
    let under_way = reserved(catalog, &who).await;
    catalog.remove(&who, NOW, NOW).await.unwrap().unwrap();
    swept(catalog, later(1_000_000)).await;
    for record in [&deleted, &under_way] {
        assert_eq!(restore(catalog, &who, record).await, Restored::Retired);
    }
    assert_eq!(catalog.get(&who).await.unwrap(), None);
    assert_eq!(swept(catalog, later(60)).await.len(), 2);
}

/// First of all: everything after it counts from 1.
pub(super) async fn begins_once(catalog: &dyn Catalog) {
    assert!(!catalog.has_begun().await.unwrap());
    catalog.begin(Version(0)).await.unwrap();
    assert!(catalog.has_begun().await.unwrap());
    catalog.begin(Version(7)).await.unwrap();
    let first = uploaded(catalog, &subject("the-first")).await;
    assert_eq!(first.version, Version(1));
}

/// Last of all, because a floor never sinks.
pub(super) async fn run_with_a_floor(catalog: &dyn Catalog) {
    above_a_floor_begin_those_who_never_had_a_version(catalog).await;
}

async fn above_a_floor_begin_those_who_never_had_a_version(catalog: &dyn Catalog) {
    let (known, deleted) = (subject("had-versions"), subject("had-versions-once"));
    uploaded(catalog, &known).await;
    uploaded(catalog, &deleted).await;
    catalog.remove(&deleted, NOW, later(60)).await.unwrap();
    for floor in [60_000_000, 59_000_000] {
        catalog.raise_floor(Version(floor)).await.unwrap();
    }
    // One in each partition, of whatever adapter.
    for number in 0..64 {
        let who = subject(&format!("never-had-a-version-{number}"));
        let record = reserved(catalog, &who).await;
        assert_eq!(record.version, Version(60_000_001));
        let again = catalog.reserve(&who, record.avatar_id, later(120)).await;
        assert_eq!(again.unwrap(), Version(60_000_001));
        assert_eq!(commit(catalog, &who, &record).await, Replaced::Committed);
    }
    assert_eq!(uploaded(catalog, &known).await.version, Version(2));
    assert_eq!(uploaded(catalog, &deleted).await.version, Version(2));

    let restored = subject("restored-above-a-floor");
    let record = found(7);
    restore(catalog, &restored, &record).await;
    let current = catalog.get(&restored).await.unwrap();
    assert_eq!(current, Some(record));
    assert_eq!(uploaded(catalog, &restored).await.version, Version(8));
    swept(catalog, later(1_000_000)).await;
}
