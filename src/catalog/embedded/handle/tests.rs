use super::*;

#[test]
fn a_read_waits_until_the_file_is_reopened() {
    let folder = tempfile::tempdir().unwrap();
    let handle = Handle::open(&folder.path().join("catalog.redb")).unwrap();
    // Two failures in a row keep the file closed until the next attempt to reopen it.
    for _ in 0..2 {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let failed = handle.write_freeing(|_| -> Result<(), _> {
            let full = io::Error::from(full.kind());
            Err(Failure::Storage(redb::StorageError::Io(full)))
        });
        assert!(failed.is_err());
    }
    *handle.database.write().unwrap() = None;
    let read = handle.read(|database| Ok(is_usable(database)));
    assert!(read.unwrap());
}

#[test]
fn after_a_failed_write_uploads_are_refused_until_there_is_space_beside_the_reserve() {
    let folder = tempfile::tempdir().unwrap();
    let handle = Handle::open(&folder.path().join("catalog.redb")).unwrap();
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    let failed = handle
        .write(|_| -> Result<(), _> { Err(Failure::Storage(redb::StorageError::Io(full()))) });
    assert!(failed.unwrap_err().is_io());
    // The reserve stays for deletes. A folder in the test file's place makes the test fail.
    assert!(handle.reserve_path().exists());
    fs::create_dir(handle.test_path()).unwrap();
    for _ in 0..2 {
        std::thread::sleep(SPACE_TEST_INTERVAL);
        let refused = handle.write(|_| Ok(())).unwrap_err();
        assert!(matches!(refused, Failure::NoSpace(_)), "{refused:?}");
    }
    fs::remove_dir(handle.test_path()).unwrap();
    std::thread::sleep(SPACE_TEST_INTERVAL);
    handle.write(|_| Ok(())).unwrap();
    assert!(handle.refusal_reason().is_none() && !handle.test_path().exists());
}
