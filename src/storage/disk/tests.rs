use std::future::{Ready, ready};

use super::*;
use crate::storage::contract::{self, Fixture};

fn fixture() -> Ready<Fixture> {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path().join("store")).unwrap();
    ready(Fixture::new(store, folder))
}

mod contract_suite {
    crate::storage::contract::contract_tests!(crate::storage::disk::tests::fixture);
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_use_the_folder_and_its_content() {
    use std::os::unix::fs::PermissionsExt;

    fn collect(path: &Path, modes: &mut Vec<(PathBuf, u32)>) {
        let facts = fs::metadata(path).unwrap();
        modes.push((path.to_owned(), facts.permissions().mode() & 0o777));
        for entry in fs::read_dir(path).into_iter().flatten() {
            collect(&entry.unwrap().path(), modes);
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data/store");
    let store = DiskStore::open(&root).unwrap();
    let avatar = contract::rendition(1).avatar().unwrap();
    for key in [contract::rendition(1), ObjectKey::Manifest { avatar }] {
        store.put(&key, Bytes::from_static(b"x")).await.unwrap();
    }
    let mut found = Vec::new();
    collect(&folder.path().join("data"), &mut found);
    assert!(found.len() > 8, "{found:?}");
    for (path, mode) in found {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
    }
}

#[tokio::test]
async fn objects_survive_reopening_and_temporary_files_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let key = contract::rendition(1);
    let store = DiskStore::open(folder.path()).unwrap();
    store.put(&key, Bytes::from_static(b"kept")).await.unwrap();
    fs::write(folder.path().join("tmp/99"), b"half an object").unwrap();
    drop(store);

    let store = DiskStore::open(folder.path()).unwrap();
    let object = store.get(&key).await.unwrap().unwrap();
    assert_eq!(object.into_bytes().await.unwrap(), "kept");
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_avatars_folder_is_removed_with_its_last_object() {
    let folder = tempfile::tempdir().unwrap();
    let key = contract::rendition(1);
    let store = DiskStore::open(folder.path()).unwrap();
    store.put(&key, Bytes::from_static(b"x")).await.unwrap();
    store.delete(&key).await.unwrap();
    assert_eq!(
        fs::read_dir(folder.path().join("public/avatars"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn a_listing_removes_the_empty_folder_of_an_avatar() {
    let folder = tempfile::tempdir().unwrap();
    let avatar = contract::rendition(1).avatar().unwrap();
    let store = DiskStore::open(folder.path()).unwrap();
    let empty = folder.path().join(format!("public/avatars/{avatar}"));
    fs::create_dir(&empty).unwrap();
    assert_eq!(store.list(avatar).await.unwrap(), []);
    assert!(!empty.exists());
}

#[tokio::test]
async fn a_folder_in_use_is_not_opened_or_changed() {
    let folder = tempfile::tempdir().unwrap();
    let _first = DiskStore::open(folder.path()).unwrap();
    fs::write(folder.path().join("tmp/0"), b"being written").unwrap();
    assert!(DiskStore::open(folder.path()).is_err());
    assert!(folder.path().join("tmp/0").exists());
}

#[tokio::test]
async fn a_file_in_place_of_a_folder_is_an_error_that_names_the_operation() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path()).unwrap();
    fs::remove_dir_all(folder.path().join("public")).unwrap();
    fs::write(folder.path().join("public"), b"in the way").unwrap();
    let error = store
        .put(&contract::rendition(1), Bytes::from_static(b"x"))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "the store could not write an object");
    assert_eq!(fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0);
}
