//! The life of an avatar: upload, replacement, delete, and the removal of its objects.

use std::collections::HashSet;
use std::time::Duration;

use crate::support::photos::{self, PORTRAIT};
use crate::support::{Backend, TestService, shape};

/// Waits, for a bounded time, until the store holds this many objects.
async fn until_objects(service: &TestService, wanted: usize) {
    let in_time = tokio::time::timeout(Duration::from_secs(20), async {
        while service.objects().await.len() != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(in_time.await.is_ok(), "{:#?}", service.objects().await);
}

#[tokio::test]
async fn a_delete_leaves_nothing() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    let avatar = owner.upload("42", PORTRAIT).await.ok();
    owner.upload("42", photos::png(100, 100)).await.ok();
    assert_eq!(
        service.objects().await.len(),
        22,
        "the images of the replaced avatar are still there during its grace period"
    );
    let answer = owner.delete("42").await;
    insta::assert_snapshot!(shape(&answer, service.url()));
    assert_eq!(service.objects().await, [""; 0]);
    assert_eq!(service.anonymous().avatar("42").await.problem().0, 404);
    let url = avatar["avatar_url"].as_str().unwrap();
    assert_eq!(service.anonymous().get(url).await.problem().0, 404);
    assert_eq!(
        owner.delete("42").await.problem(),
        (404, "avatar_not_found".to_owned())
    );
    let next = owner.upload("42", PORTRAIT).await.ok();
    assert_eq!(next["version"], 3, "versions never decrease");
}

#[tokio::test]
async fn a_replaced_avatar_is_removed_after_its_grace_period() {
    let variables = [
        ("CAMEO_LIFECYCLE__RETIRE_AFTER", "0s"),
        ("CAMEO_LIFECYCLE__SWEEP_EVERY", "100ms"),
    ];
    let service = TestService::start_with(&variables).await;
    let owner = service.owner("42");
    let first = owner.upload("42", PORTRAIT).await.ok();
    let second = owner.upload("42", photos::png(100, 100)).await.ok();
    assert_ne!(first["avatar_id"], second["avatar_id"]);
    assert_eq!(
        (&first["version"], &second["version"]),
        (&1.into(), &2.into())
    );
    until_objects(&service, 11).await;
    let kept = second["avatar_id"].as_str().unwrap();
    assert!(service.objects().await.iter().all(|key| key.contains(kept)));
}

#[tokio::test]
async fn avatars_survive_a_restart() {
    let service = TestService::start().await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let before = service
        .anonymous()
        .avatar("42")
        .await
        .header("etag")
        .to_owned();
    let service = service.restart_with(&[]).await;
    let after = service.anonymous().avatar("42").await;
    assert_eq!(after.header("etag"), before);
    let url = after.ok()["avatar_url"].as_str().unwrap().to_owned();
    assert_eq!(service.anonymous().get(&url).await.status, 200);
}

#[tokio::test]
async fn of_concurrent_uploads_one_becomes_current_and_the_others_leave_nothing() {
    let variables = [
        ("CAMEO_LIFECYCLE__RETIRE_AFTER", "0s"),
        ("CAMEO_LIFECYCLE__SWEEP_EVERY", "100ms"),
    ];
    let service = TestService::start_with(&variables).await;
    let owner = service.owner("42");
    let uploads = (0..8).map(|number| {
        let (owner, picture) = (owner.clone(), photos::png(100 + number, 100));
        async move { owner.upload("42", picture).await }
    });
    let answers = futures_util::future::join_all(uploads).await;
    let mut versions = HashSet::new();
    for answer in &answers {
        if answer.status == 200 {
            assert!(versions.insert(answer.json()["version"].as_u64().unwrap()));
        } else {
            assert_eq!(answer.problem(), (409, "superseded".to_owned()));
        }
    }
    let current = service.anonymous().avatar("42").await.ok();
    assert_eq!(
        current["version"].as_u64(),
        versions.iter().max().copied(),
        "the upload with the highest version is current"
    );
    until_objects(&service, 11).await;
}

#[tokio::test]
async fn an_upload_concurrent_with_a_delete_is_current_or_leaves_nothing() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    owner.upload("42", PORTRAIT).await.ok();
    let (upload, delete) = tokio::join!(owner.upload("42", PORTRAIT), owner.delete("42"));
    delete.ok();
    let current = service.anonymous().avatar("42").await;
    // An upload that was reserved after the delete is current. An earlier one is either superseded,
    // or the delete removed it.
    if current.status == 200 {
        assert_eq!(upload.ok()["avatar_id"], current.json()["avatar_id"]);
        assert_eq!(service.objects().await.len(), 11);
    } else {
        assert!(upload.status == 200 || upload.problem() == (409, "superseded".to_owned()));
        assert_eq!(service.objects().await, [""; 0]);
    }
}

#[tokio::test]
async fn of_concurrent_deletes_exactly_one_is_answered_200() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    owner.upload("42", PORTRAIT).await.ok();
    let deletes = (0..4).map(|_| owner.delete("42"));
    let answers = futures_util::future::join_all(deletes).await;
    let mut statuses: Vec<_> = answers
        .iter()
        .map(|answer| answer.status.as_u16())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404, 404, 404]);
    assert_eq!(service.objects().await, [""; 0]);
}

#[tokio::test]
async fn a_delete_completes_after_its_client_has_disconnected() {
    let service = TestService::start_on(Backend::fleet_with_faults().await, &[]).await;
    let owner = service.owner("42");
    owner.upload("42", PORTRAIT).await.ok();
    let asked = service.backend().requests();
    service.backend().hold_after(0);
    let delete = owner.request(reqwest::Method::DELETE, "/api/v1/users/42/avatar");
    let delete = tokio::spawn(delete.send());
    let begun = tokio::time::timeout(Duration::from_secs(20), async {
        while service.backend().requests() == asked {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    begun.await.unwrap();
    // The client disconnects before the bucket has answered. Then the bucket answers again.
    delete.abort();
    assert!(delete.await.unwrap_err().is_cancelled());
    service.backend().release();
    // The delete completes long before a sweep could do the work.
    until_objects(&service, 0).await;
    assert_eq!(service.anonymous().avatar("42").await.problem().0, 404);
}
