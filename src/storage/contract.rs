//! The contract suite: the cases that every adapter of the store must pass.

use std::any::Any;

use bytes::Bytes;

use super::{RangedObject, Store, StoredUpload};
use crate::avatar::{
    Audience, AvatarId, Format, ObjectKey, SubjectHash, SubjectId, Timestamp, VariantName,
};

/// The key of a rendition of the avatar with this number.
pub(crate) fn rendition(number: u8) -> ObjectKey {
    let variant = VariantName::new("medium").unwrap();
    let avatar = AvatarId::from_bytes([number; 16]);
    ObjectKey::Rendition {
        audience: Audience::Public,
        avatar,
        variant,
        format: Format::Webp,
        animated: false,
    }
}

/// An empty store, and the folder or server that it needs.
pub(crate) struct Fixture {
    pub(crate) store: Box<dyn Store>,
    _owner: Box<dyn Any>,
}

impl Fixture {
    pub(crate) fn new(store: impl Store, owner: impl Any) -> Self {
        Self {
            store: Box::new(store),
            _owner: Box::new(owner),
        }
    }
}

/// Makes one test of each case for an adapter, so that a failure names the case. `$fixture` is a
/// function that returns a future of a new [`Fixture`].
macro_rules! contract_tests {
    ($fixture:path) => {
        $crate::storage::contract::contract_tests! { $fixture,
            objects_are_read_back_completely,
            a_range_of_an_object_is_read,
            a_missing_object_is_none,
            a_put_can_be_repeated,
            a_deleted_object_is_gone_and_can_be_deleted_again,
            a_listing_has_the_objects_of_one_avatar,
            the_objects_of_an_avatar_can_be_deleted_concurrently,
            concurrent_writes_all_succeed,
            uploads_are_listed_in_order_with_their_totals,
            policies_are_listed_apart_from_uploads_and_can_be_replaced,
            a_check_leaves_nothing_behind,
        }
    };
    ($fixture:path, $($case:ident,)*) => {
        $(#[tokio::test]
        async fn $case() {
            let fixture = $fixture().await;
            $crate::storage::contract::$case(&*fixture.store).await;
        })*
    };
}
pub(crate) use contract_tests;

async fn read(store: &dyn Store, key: &ObjectKey) -> Option<Bytes> {
    let object = store.get(key).await.unwrap()?;
    let len = object.len;
    let bytes = object.into_bytes().await.unwrap();
    assert_eq!(bytes.len() as u64, len);
    Some(bytes)
}

pub(crate) async fn objects_are_read_back_completely(store: &dyn Store) {
    let key = rendition(1);
    for size in [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 1_000_003] {
        let body: Bytes = (0..size).map(|at| (at % 251) as u8).collect();
        store.put(&key, body.clone()).await.unwrap();
        assert_eq!(read(store, &key).await, Some(body), "{size} bytes");
    }
    store.delete(&key).await.unwrap();
}

pub(crate) async fn policies_are_listed_apart_from_uploads_and_can_be_replaced(store: &dyn Store) {
    assert_eq!(store.policies(None).await.unwrap(), []);
    let hashes = ["a", "b", "c", "d"].map(|id| SubjectHash::of(&SubjectId::new(id).unwrap()));
    let mut hashes = hashes.to_vec();
    for (number, owner) in hashes.iter().enumerate() {
        let key = ObjectKey::Policy { owner: *owner };
        for content in [vec![b'1'; 9], vec![b'2'; number]] {
            let content = Bytes::from(content);
            store.put(&key, content.clone()).await.unwrap();
            assert_eq!(read(store, &key).await, Some(content));
        }
    }
    store
        .put(&rendition(1), Bytes::from_static(b"x"))
        .await
        .unwrap();
    hashes.sort_unstable();
    let mut listed = Vec::new();
    loop {
        let page = store.policies(listed.last().copied()).await.unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert_eq!(listed, hashes);
    assert_eq!(store.policies(Some(hashes[2])).await.unwrap(), hashes[3..]);
    assert_eq!(store.uploads(None).await.unwrap().len(), 1);
}

pub(crate) async fn a_range_of_an_object_is_read(store: &dyn Store) {
    let key = rendition(8);
    let body: Bytes = (0..200_000).map(|at| (at % 251) as u8).collect();
    let total = body.len() as u64;
    store.put(&key, body.clone()).await.unwrap();
    for (range, covered) in [
        (0..=0, Some(0..1)),
        (0..=99, Some(0..100)),
        (7..=70_000, Some(7..70_001)),
        (65_536..=131_071, Some(65_536..131_072)),
        (199_999..=199_999, Some(199_999..200_000)),
        (199_990..=5_000_000, Some(199_990..200_000)),
        (150_000..=u64::MAX, Some(150_000..200_000)),
        (0..=u64::MAX, Some(0..200_000)),
        (200_000..=200_001, None),
        (200_000..=u64::MAX, None),
        (u64::MAX..=u64::MAX, None),
    ] {
        let found = store.get_range(&key, range.clone()).await.unwrap();
        match (found.unwrap(), covered) {
            (RangedObject::Part { first, total, part }, Some(covered)) => {
                assert_eq!((first, total), (covered.start as u64, 200_000), "{range:?}");
                assert_eq!(part.len, covered.len() as u64, "{range:?}");
                let bytes = part.into_bytes().await.unwrap();
                assert!(bytes == body[covered], "{range:?}");
            }
            (RangedObject::Unsatisfiable { total: size }, None) => assert_eq!(size, total),
            _ => panic!("{range:?}"),
        }
    }
    store.put(&key, Bytes::new()).await.unwrap();
    let empty = store.get_range(&key, 0..=0).await.unwrap();
    assert!(matches!(
        empty,
        Some(RangedObject::Unsatisfiable { total: 0 })
    ));
    store.delete(&key).await.unwrap();
}

pub(crate) async fn a_missing_object_is_none(store: &dyn Store) {
    assert_eq!(read(store, &rendition(2)).await, None);
    let part = store.get_range(&rendition(2), 0..=0).await;
    assert!(part.unwrap().is_none());
}

pub(crate) async fn a_put_can_be_repeated(store: &dyn Store) {
    let key = rendition(3);
    for _ in 0..2 {
        store.put(&key, Bytes::from_static(b"same")).await.unwrap();
    }
    assert_eq!(read(store, &key).await.unwrap(), "same");
    store.delete(&key).await.unwrap();
}

pub(crate) async fn a_deleted_object_is_gone_and_can_be_deleted_again(store: &dyn Store) {
    let key = rendition(4);
    store.put(&key, Bytes::from_static(b"x")).await.unwrap();
    for _ in 0..2 {
        store.delete(&key).await.unwrap();
        assert_eq!(read(store, &key).await, None);
    }
}

pub(crate) async fn a_listing_has_the_objects_of_one_avatar(store: &dyn Store) {
    let one = AvatarId::from_bytes([5; 16]);
    let keys = [
        ObjectKey::Manifest { avatar: one },
        ObjectKey::PrivateOriginal {
            avatar: one,
            format: Format::Webp,
        },
        rendition(5),
    ];
    assert_eq!(store.list(one).await.unwrap(), []);
    for key in keys.iter().chain([&rendition(6)]) {
        store.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    let listed = store.list(one).await.unwrap();
    assert_eq!(listed.first(), keys.first(), "the manifest comes first");
    assert_eq!(listed.len(), keys.len());
    assert!(keys.iter().all(|key| listed.contains(key)));
    for key in keys.iter().chain([&rendition(6)]) {
        store.delete(key).await.unwrap();
    }
    assert_eq!(store.list(one).await.unwrap(), []);
}

pub(crate) async fn the_objects_of_an_avatar_can_be_deleted_concurrently(store: &dyn Store) {
    let avatar = AvatarId::from_bytes([7; 16]);
    let variants = (0..16).map(|number| VariantName::new(format!("v{number}")).unwrap());
    let keys: Vec<_> = variants
        .map(|variant| {
            let format = Format::Jpeg;
            ObjectKey::Rendition {
                audience: Audience::Public,
                avatar,
                variant,
                format,
                animated: false,
            }
        })
        .collect();
    for _ in 0..8 {
        let writes = keys
            .iter()
            .map(|key| store.put(key, Bytes::from_static(b"x")));
        futures_util::future::try_join_all(writes).await.unwrap();
        let deletes = keys.iter().map(|key| store.delete(key));
        futures_util::future::try_join_all(deletes).await.unwrap();
        assert_eq!(store.list(avatar).await.unwrap(), []);
    }
}

pub(crate) async fn uploads_are_listed_in_order_with_their_totals(store: &dyn Store) {
    assert_eq!(store.uploads(None).await.unwrap(), []);
    let begun = Timestamp::now();
    let ids: Vec<_> = (50..60)
        .map(|number| AvatarId::from_bytes([number; 16]))
        .collect();
    for &avatar in &ids {
        let manifest = ObjectKey::Manifest { avatar };
        let rendition = rendition(avatar.as_bytes()[0]);
        // An incomplete upload may have only renditions or only a manifest.
        if avatar != ids[0] {
            store
                .put(&manifest, Bytes::from_static(b"{}"))
                .await
                .unwrap();
        }
        if avatar != ids[1] {
            store
                .put(&rendition, Bytes::from_static(b"image"))
                .await
                .unwrap();
        }
    }
    let mut found = Vec::new();
    loop {
        let after = found.last().map(|upload: &StoredUpload| upload.avatar);
        let page = store.uploads(after).await.unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    let mut in_order = ids.clone();
    in_order.sort_by_key(ToString::to_string);
    assert_eq!(
        found.iter().map(|upload| upload.avatar).collect::<Vec<_>>(),
        in_order
    );
    for upload in found {
        let (has_manifest, objects, bytes) = match upload.avatar {
            id if id == ids[0] => (false, 1, 5),
            id if id == ids[1] => (true, 1, 2),
            _ => (true, 2, 7),
        };
        assert_eq!(
            (upload.has_manifest, upload.objects, upload.bytes),
            (has_manifest, objects, bytes)
        );
        // Stores report whole seconds.
        assert!(upload.written.unix_ms() + 1000 > begun.unix_ms());
        for key in store.list(upload.avatar).await.unwrap() {
            store.delete(&key).await.unwrap();
        }
    }
}

pub(crate) async fn concurrent_writes_all_succeed(store: &dyn Store) {
    let keys: Vec<_> = (10..42).map(rendition).collect();
    let writes = keys
        .iter()
        .map(|key| store.put(key, Bytes::from(key.to_string())));
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    for key in &keys {
        assert_eq!(read(store, key).await.unwrap(), key.to_string());
        store.delete(key).await.unwrap();
    }
}

pub(crate) async fn a_check_leaves_nothing_behind(store: &dyn Store) {
    store.check().await.unwrap();
    assert_eq!(store.uploads(None).await.unwrap(), []);
    for number in 0..=42 {
        assert_eq!(
            store
                .list(AvatarId::from_bytes([number; 16]))
                .await
                .unwrap(),
            []
        );
    }
}
