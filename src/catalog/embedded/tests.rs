use super::*;
use crate::avatar::Change as Happened;
use crate::catalog::contract;

#[tokio::test]
async fn the_embedded_database_keeps_the_contract_of_a_catalog() {
    let folder = tempfile::tempdir().unwrap();
    contract::run(&contract::embedded(folder.path())).await;
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
    let record = contract::record(1, 1);
    {
        let catalog = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).unwrap();
        catalog
            .reserve(&subject, record.avatar_id, Timestamp::now())
            .await
            .unwrap();
        let anything = Precondition::Anything;
        catalog
            .replace(
                &subject,
                &record,
                &anything,
                Timestamp::now(),
                Timestamp::now(),
            )
            .await
            .unwrap();
    }
    let catalog = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).unwrap();
    let told = contract::events(&catalog).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].change, Happened::Updated(record.clone()));
    assert_eq!(catalog.get(&subject).await.unwrap(), Some(record));
    let next = AvatarId::from_bytes([9; 16]);
    let version = catalog
        .reserve(&subject, next, Timestamp::now())
        .await
        .unwrap();
    assert_eq!(version, Version(2));
}

#[tokio::test]
async fn a_damaged_record_is_told_as_such_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = contract::embedded(folder.path());
    let write = catalog.database.begin_write().unwrap();
    let damaged: &[u8] = b"AAx";
    write
        .open_table(RECORDS)
        .unwrap()
        .insert("42", damaged)
        .unwrap();
    write.commit().unwrap();
    let subject = SubjectId::new("42").unwrap();
    let now = Timestamp::now();
    for error in [
        catalog.get(&subject).await.unwrap_err(),
        catalog.remove(&subject, now, now).await.unwrap_err(),
    ] {
        assert!(error.is_damage(), "{error:?}");
    }
    let read = catalog.database.begin_read().unwrap();
    let kept = read.open_table(RECORDS).unwrap().get("42").unwrap();
    assert_eq!(kept.unwrap().value(), damaged);
}
