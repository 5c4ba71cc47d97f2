use std::future::{Ready, ready};
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;

use super::removals::Removal;
use super::tables::{
    self, Change, DUE, FLOOR, OUTSTANDING, PENDING, RECORDS, STATS, VERSIONS, update_stats,
};
use super::*;
use crate::avatar::{AvatarId, Change as Happened, Format, SubjectId, Version};
use crate::catalog::contract::{self, Bench, Fixture, ManualClock};
use crate::catalog::{
    Cursor, InitialState, Precondition, Records, Removals, Replaced, Reservation, UploadState,
    Uploader, codec,
};

const MINUTE: Duration = Duration::from_mins(1);

struct EmbeddedFixture {
    catalog: EmbeddedCatalog,
    clock: Arc<ManualClock>,
    _folder: TempDir,
}

impl Fixture for EmbeddedFixture {
    fn bench(&self) -> Bench<'_> {
        Bench {
            catalog: &self.catalog,
            clock: &*self.clock,
        }
    }
}

fn fixture() -> Ready<EmbeddedFixture> {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, clock) = contract::embedded(folder.path());
    ready(EmbeddedFixture {
        catalog,
        clock,
        _folder: folder,
    })
}

contract::contract_tests!(crate::catalog::embedded::tests::fixture);

#[tokio::test]
async fn a_catalog_in_use_is_reported_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let _first = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).unwrap();
    let refused = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).err();
    let refused = refused.expect("another catalog has the file open");
    assert!(
        matches!(refused, EmbeddedOpenError::InUse { .. }),
        "{refused:?}"
    );
    assert!(!refused.to_string().contains("damaged"), "{refused}");
}

#[tokio::test]
async fn a_damaged_file_is_reported_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    drop(EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        bytes
    };
    let damaged = [
        b"somebody's notes".to_vec(),
        changed(&|bytes| bytes.truncate(5000)),
        changed(&|bytes| bytes[..512].fill(0)),
        changed(&|bytes| bytes[64..320].fill(0x5a)),
        changed(&|bytes| bytes[512..].fill(0xff)),
    ];
    for (case, bytes) in damaged.into_iter().enumerate() {
        std::fs::write(&path, &bytes).unwrap();
        let refused = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).err();
        let refused = refused.unwrap_or_else(|| panic!("case {case} was opened"));
        let EmbeddedOpenError::Damaged { .. } = refused else {
            panic!("case {case}: {refused:?}");
        };
        let text = refused.to_string();
        for part in ["damaged", "mv ", "cameo rebuild", path.to_str().unwrap()] {
            assert!(text.contains(part), "case {case}: {text}");
        }
        if case == 0 {
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "it was changed");
        }
    }
}

#[tokio::test]
async fn an_incompletely_created_catalog_is_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    std::fs::write(&path, "").unwrap();
    std::fs::write(path.with_extension("redb.new"), vec![0; 10_000]).unwrap();
    let catalog = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).unwrap();
    assert_eq!(catalog.check().await.unwrap(), Health::Healthy);
    assert!(!path.with_extension("redb.new").exists());
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read_the_catalogs_files() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let _catalog = contract::embedded(folder.path());
    let files = std::fs::read_dir(folder.path()).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file:?}");
    }
}

#[tokio::test]
async fn records_versions_and_events_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalog.redb");
    let subject = SubjectId::new("42").unwrap();
    let mut record = contract::record(1, 1);
    {
        let catalog = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).unwrap();
        catalog.initialize(InitialState::New).await.unwrap();
        let reserved = catalog
            .reserve(&subject, record.avatar_id, MINUTE, Uploader::Ordinary)
            .await;
        record.reserved_at = reserved.unwrap().unwrap().reserved_at;
        let anything = Precondition::Anything;
        let replaced = catalog
            .replace(&subject, &record, &anything, MINUTE, Uploader::Ordinary)
            .await;
        assert_eq!(replaced.unwrap(), Replaced::Committed);
    }
    let catalog = EmbeddedCatalog::open(&path, contract::EVENTS_KEPT).unwrap();
    let events = contract::events(&catalog).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].change, Happened::Updated(record.clone()));
    assert_eq!(catalog.get(&subject).await.unwrap(), Some(record));
    let next = AvatarId::from_bytes([9; 16]);
    let reserved = catalog
        .reserve(&subject, next, MINUTE, Uploader::Ordinary)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reserved.version, Version(2));
    assert!(reserved.reserved_at > events[0].at);
}

#[tokio::test]
async fn a_damaged_record_is_reported_as_corrupt_and_does_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, _) = contract::embedded(folder.path());
    let damaged: &[u8] = b"AAx";
    catalog
        .write("damage a record", move |transaction| {
            transaction.open_table(RECORDS)?.insert("42", damaged)?;
            Ok(())
        })
        .await
        .unwrap();
    let subject = SubjectId::new("42").unwrap();
    for error in [
        catalog.get(&subject).await.unwrap_err(),
        catalog
            .remove(&subject, &Precondition::Anything, MINUTE)
            .await
            .unwrap_err(),
    ] {
        assert!(error.is_corrupt(), "{error:?}");
    }
    let kept = catalog.read("read a record", |database| {
        let kept = database.begin_read()?.open_table(RECORDS)?.get("42")?;
        Ok(kept.map(|bytes| bytes.value().to_vec()))
    });
    assert_eq!(kept.await.unwrap().as_deref(), Some(damaged));
}

#[tokio::test]
async fn versions_and_reservation_times_increase_even_if_the_clock_is_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, clock) = contract::embedded(folder.path());
    let subject = SubjectId::new("42").unwrap();
    let reserve = async |id: u8| {
        let id = AvatarId::from_bytes([id; 16]);
        catalog
            .reserve(&subject, id, MINUTE, Uploader::Ordinary)
            .await
            .unwrap()
            .unwrap()
    };
    let first = reserve(1).await;
    clock.set_back(Duration::from_hours(1));
    let second = reserve(2).await;
    assert!(second.version > first.version);
    assert!(second.reserved_at > first.reserved_at);
}

#[tokio::test]
async fn data_of_the_previous_release_is_read_and_continued() {
    let folder = tempfile::tempdir().unwrap();
    let subject = SubjectId::new("42").unwrap();
    let under_way = AvatarId::from_bytes([9; 16]);
    {
        let (catalog, _) = contract::embedded(folder.path());
        let bytes = data_encoding::HEXLOWER.decode(contract::PREVIOUS_RECORD.as_bytes());
        let bytes = bytes.unwrap();
        let written = catalog.write("write as the previous release did", move |write| {
            let id = *under_way.as_bytes();
            let due = contract::NOW.unix_ms();
            let mut records = write.open_table(RECORDS)?;
            records.insert("42", bytes.as_slice())?;
            write.open_table(VERSIONS)?.insert("42", (701, 0))?;
            write.open_table(FLOOR)?.insert((), 0)?;
            let mut outstanding = write.open_table(OUTSTANDING)?;
            outstanding.insert(id, (true, due, "42"))?;
            write.open_table(DUE)?.insert((due, id), ())?;
            write.delete_table(PENDING)?;
            let mut reserved = write.open_table(tables::PREVIOUS_RESERVED)?;
            reserved.insert(id, 701)?;
            update_stats(write, &contract::previous_record(), Change::Added)
        });
        written.await.unwrap();
    }
    let (catalog, _) = contract::embedded(folder.path());
    let record = contract::previous_record();
    assert_eq!(catalog.get(&subject).await.unwrap().as_ref(), Some(&record));
    let upload = catalog.upload_state(&subject, under_way).await.unwrap();
    assert_eq!(upload, UploadState::Expired);
    let stats = catalog.stats().await.unwrap();
    assert_eq!((stats.pending, stats.retired), (1, 0));
    let next = AvatarId::from_bytes([8; 16]);
    let reserved = catalog
        .reserve(&subject, next, MINUTE, Uploader::Ordinary)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reserved.version, Version(702));
    let removed = catalog
        .remove(&subject, &Precondition::Anything, MINUTE)
        .await;
    let removed = removed.unwrap().unwrap().unwrap();
    assert_eq!(removed.record, Some(record));
    assert_eq!(removed.outstanding.len(), 3);
    let stats = catalog.stats().await.unwrap();
    assert_eq!((stats.avatars, stats.pending, stats.retired), (0, 0, 3));
}

#[tokio::test]
async fn a_record_of_an_unknown_layout_is_an_error_for_its_own_subject_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, _) = contract::embedded(folder.path());
    let record = codec::encode_numbered(&contract::record(1, 1)).unwrap();
    let written = catalog.write("write two records", move |write| {
        let mut records = write.open_table(RECORDS)?;
        records.insert("readable", record.as_slice())?;
        let later: &[u8] = &[99, 1, 2, 3];
        records.insert("later", later)?;
        Ok(())
    });
    written.await.unwrap();
    let all = ["later", "readable"].map(|name| SubjectId::new(name).unwrap());
    assert!(catalog.get(&all[0]).await.unwrap_err().is_corrupt());
    let found = catalog.get_many(&all).await.unwrap();
    assert!(matches!(&found[..], [Err(_), Ok(Some(_))]));
    let page = catalog.page(&Cursor::START).await.unwrap();
    assert_eq!(page.unreadable, all[..1]);
    assert_eq!(page.records.len(), 1);
}

#[tokio::test]
async fn a_delete_whose_step_runs_twice_returns_the_removed_record() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, _) = contract::embedded(folder.path());
    let subject = SubjectId::new("42").unwrap();
    let mut records = [contract::record(200, 0), contract::record(9, 0)];
    for record in &mut records {
        let reserved = catalog
            .reserve(&subject, record.avatar_id, MINUTE, Uploader::Ordinary)
            .await;
        Reservation {
            version: record.version,
            reserved_at: record.reserved_at,
        } = reserved.unwrap().unwrap();
        let anything = Precondition::Anything;
        let replaced = catalog
            .replace(&subject, record, &anything, MINUTE, Uploader::Ordinary)
            .await;
        assert_eq!(replaced.unwrap(), Replaced::Committed);
    }
    records.swap(0, 1);
    let removal = Arc::new(Removal {
        subject,
        precondition: Precondition::Present,
        lease: MINUTE,
        events_kept: contract::EVENTS_KEPT,
        clock: catalog.clock.clone(),
        taken: Mutex::default(),
    });
    // The first commit reported an error, but it happened.
    for run in 1..=2 {
        let removal = removal.clone();
        let removed = catalog
            .write("remove a record", move |transaction| {
                removal.run(transaction)
            })
            .await;
        let removed = removed.unwrap().unwrap().unwrap();
        assert_eq!(removed.record.as_ref(), Some(&records[0]), "run {run}");
        let ids: Vec<_> = removed.outstanding.iter().map(|one| one.avatar).collect();
        let expected = [records[0].avatar_id, records[1].avatar_id];
        assert_eq!(ids, expected, "run {run}");
    }
}

#[tokio::test]
async fn a_sum_of_an_unknown_format_is_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let (catalog, _) = contract::embedded(folder.path());
    let written = catalog.write("write sums", |transaction| {
        let mut stats = transaction.open_table(STATS)?;
        stats.insert("small.webp", (1, 2))?;
        stats.insert("small.tiff", (3, 4))?;
        Ok(())
    });
    written.await.unwrap();
    let stats = catalog.stats().await.unwrap();
    assert_eq!(stats.renditions.len(), 1);
    assert_eq!(stats.renditions[0].format, Format::Webp);
}
