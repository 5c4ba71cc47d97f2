use super::*;
use crate::avatar::Change as Happened;

use crate::catalog::contract;

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_embedded_database_keeps_the_contract_of_a_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, clock) = contract::embedded(folder.path());
    contract::run(&catalog, &*clock).await;
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let _first = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).unwrap();
    assert!(EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).is_err());
}

#[tokio::test]
async fn a_file_that_is_no_catalog_is_an_error_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    std::fs::write(&path, "somebody's notes").unwrap();
    assert!(EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's notes");
}

#[tokio::test]
async fn records_versions_and_events_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let subject = SubjectId::new("42").unwrap();
    let mut record = contract::record(1, 1);
    {
        let catalog = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).unwrap();
        catalog.begin(Beginning::New).await.unwrap();
        let reserved = catalog.reserve(&subject, record.avatar_id, MINUTE).await;
        record.reserved_at = reserved.unwrap().reserved_at;
        let anything = Precondition::Anything;
        let replaced = catalog.replace(&subject, &record, &anything, MINUTE).await;
        assert_eq!(replaced.unwrap(), Replaced::Committed);
    }
    let catalog = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).unwrap();
    let told = contract::events(&catalog).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].change, Happened::Updated(record.clone()));
    assert_eq!(catalog.get(&subject).await.unwrap(), Some(record));
    let next = AvatarId::from_bytes([9; 16]);
    let reserved = catalog.reserve(&subject, next, MINUTE).await.unwrap();
    assert_eq!(reserved.version, Version(2));
    assert!(reserved.reserved_at > told[0].at);
}

#[tokio::test]
async fn a_damaged_record_is_told_as_such_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, _) = contract::embedded(folder.path());
    let write = catalog.database.begin_write().unwrap();
    let damaged: &[u8] = b"AAx";
    write
        .open_table(RECORDS)
        .unwrap()
        .insert("42", damaged)
        .unwrap();
    write.commit().unwrap();
    let subject = SubjectId::new("42").unwrap();
    for error in [
        catalog.get(&subject).await.unwrap_err(),
        catalog.remove(&subject, MINUTE).await.unwrap_err(),
    ] {
        assert!(error.is_damage(), "{error:?}");
    }
    let read = catalog.database.begin_read().unwrap();
    let kept = read.open_table(RECORDS).unwrap().get("42").unwrap();
    assert_eq!(kept.unwrap().value(), damaged);
}

#[tokio::test]
async fn a_clock_that_is_set_back_takes_no_reservation_back() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, clock) = contract::embedded(folder.path());
    let subject = SubjectId::new("42").unwrap();
    let reserve = async |id: u8| {
        let id = AvatarId::from_bytes([id; 16]);
        catalog.reserve(&subject, id, MINUTE).await.unwrap()
    };
    let first = reserve(1).await;
    clock.set_back(Duration::from_hours(1));
    let second = reserve(2).await;
    assert!(second.version > first.version);
    assert!(second.reserved_at > first.reserved_at);
}
