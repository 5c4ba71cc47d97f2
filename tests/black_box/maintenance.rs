//! `doctor`, `gc` and `rebuild` on a bucket and a Redis that the tests damage.

use std::time::{Duration, Instant};

use crate::support::photos::PORTRAIT;
use crate::support::{TestService, run_program, until_seen};

/// Runs a command on the bucket and Redis of the service. Returns its exit code and its output.
async fn cameo(service: &TestService, words: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let more = variables
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    run_program(words, service.variables().into_iter().chain(more)).await
}

#[tokio::test]
async fn rebuild_restores_an_emptied_redis_with_the_same_urls_and_versions() {
    let service = TestService::start_fleet(&[]).await;
    for user in ["replaced", "replaced", "once", "impatient"] {
        service.owner(user).upload(user, PORTRAIT).await.ok();
    }
    let deleted = service.owner("deleted");
    for version in 1..=3 {
        let avatar = deleted.upload("deleted", PORTRAIT).await.ok();
        assert_eq!(avatar["version"], version);
    }
    deleted.delete("deleted").await.ok();
    let before = [
        service.anonymous().avatar("replaced").await.ok(),
        service.anonymous().avatar("once").await.ok(),
    ];

    service.backend().empty_redis();
    let anyone = service.anonymous();
    until_seen(async || anyone.avatar("once").await.status == 404).await;
    let (code, said) = cameo(&service, &["doctor"], &[]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("run `cameo rebuild`"), "{said}");
    // `gc` keeps complete uploads of any age, because a rebuild can restore them.
    let (code, said) = cameo(&service, &["gc", "--min-age", "0s"], &[]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("0 are garbage"), "{said}");

    // This user uploads before the rebuild, which must keep the upload.
    let impatient = service.owner("impatient");
    let latest = impatient.upload("impatient", PORTRAIT).await.ok();
    assert!(latest["version"].as_u64().unwrap() > 1, "{latest}");

    let (code, said) = cameo(&service, &["rebuild"], &[]).await;
    assert_eq!(code, 0, "{said}");
    let now = service.anonymous().avatar("impatient").await.ok();
    assert_eq!(now["avatar_id"], latest["avatar_id"]);
    assert!(
        said.contains("5 uploads in the store: 2 are current now, 2 are older"),
        "{said}"
    );
    until_seen(async || anyone.avatar("replaced").await.json() == before[0]).await;
    until_seen(async || anyone.avatar("once").await.json() == before[1]).await;
    assert_eq!(service.anonymous().avatar("deleted").await.status, 404);
    let next = service
        .owner("replaced")
        .upload("replaced", PORTRAIT)
        .await
        .ok();
    // The rebuild cannot know the lost versions, so every new version is above all of them.
    assert!(next["version"].as_u64().unwrap() > 50_000_000_000, "{next}");
    let next = deleted.upload("deleted", PORTRAIT).await.ok();
    let version = next["version"].as_u64().unwrap();
    assert!(version > 3, "{version}");
    let next = deleted.upload("deleted", PORTRAIT).await.ok();
    assert_eq!(next["version"], version + 1);
    let (code, said) = cameo(&service, &["rebuild"], &[]).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("0 are current now, 0 are older and will be swept, 8 were known"),
        "{said}"
    );
}

#[tokio::test]
async fn gc_removes_garbage_and_nothing_else() {
    let service = TestService::start_fleet(&[]).await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let kept = service.objects().await;
    // A crashed upload that the catalog has lost too leaves such an object.
    let crashed = "public/avatars/aaaaaaaaaaaaaaaaaaaaaaaaaa/full.webp";
    service.backend().put_object(crashed, b"image").await;
    let (code, said) = cameo(&service, &["gc"], &[]).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("0 are garbage (0 bytes), 1 more are too young"),
        "{said}"
    );
    assert_eq!(service.objects().await.len(), kept.len() + 1);

    // With a short upload deadline, `gc` may judge objects that are only seconds old.
    let quick = [("CAMEO_LIFECYCLE__UPLOAD_DEADLINE", "1s")];
    let begun = Instant::now();
    let said = loop {
        let (code, said) = cameo(&service, &["gc", "--dry-run", "--min-age", "3s"], &quick).await;
        assert_eq!(code, 0, "{said}");
        if said.contains("2 uploads in the store: 1 are garbage (5 bytes)") {
            break said;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{said}");
    };
    assert!(
        said.contains("would remove aaaaaaaaaaaaaaaaaaaaaaaaaa"),
        "{said}"
    );
    let words = ["gc", "--min-age", "3s", "--max-deletes", "0"];
    let (code, said) = cameo(&service, &words, &quick).await;
    assert_eq!(code, 1, "{said}");
    assert_eq!(service.objects().await.len(), kept.len() + 1);

    let (code, said) = cameo(&service, &["gc", "--min-age", "3s"], &quick).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(service.objects().await, kept);
}

#[tokio::test]
async fn doctor_reports_missing_objects_wrong_credentials_and_an_unreachable_redis() {
    let service = TestService::start_fleet(&[]).await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let (code, said) = cameo(&service, &["doctor"], &[]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("there are 1 avatars; of 1 checked"), "{said}");

    let id = avatar["avatar_id"].as_str().unwrap();
    let object = format!("public/avatars/{id}/medium.webp");
    service.remove_object(&object).await;
    let (code, said) = cameo(&service, &["doctor"], &[]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("{id} lacks objects")), "{said}");

    let wrong = [("CAMEO_STORAGE__S3__SECRET_ACCESS_KEY", "wrong")];
    for command in ["doctor", "serve"] {
        let (code, said) = cameo(&service, &[command], &wrong).await;
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("refuses these credentials"), "{said}");
    }
    service.backend().stop_redis();
    let (code, said) = cameo(&service, &["doctor"], &[]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is not reached"), "{said}");
}

#[tokio::test]
async fn maintenance_knows_originals() {
    for kept in ["public", "private"] {
        let setting = [("CAMEO_IMAGES__ORIGINAL", kept)];
        let service = TestService::start_fleet(&setting).await;
        let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
        let before = service.anonymous().avatar("42").await.ok();
        let objects = service.objects().await;
        // The setting of the command does not matter: the record says what is kept.
        let (code, said) = cameo(&service, &["gc", "--min-age", "0s"], &[]).await;
        assert_eq!(code, 0, "{said}");
        assert_eq!(service.objects().await, objects);
        service.backend().empty_redis();
        let (code, said) = cameo(&service, &["rebuild"], &[]).await;
        assert_eq!(code, 0, "{said}");
        assert_eq!(service.anonymous().avatar("42").await.ok(), before);
        let (code, said) = cameo(&service, &["doctor"], &[]).await;
        assert_eq!(code, 0, "{said}");

        let id = avatar["avatar_id"].as_str().unwrap();
        let original = match kept {
            "public" => format!("public/avatars/{id}/original.jpg"),
            _ => format!("private/avatars/{id}/master.jpg"),
        };
        assert!(objects.contains(&original), "{objects:?}");
        service.remove_object(&original).await;
        let (code, said) = cameo(&service, &["doctor"], &[]).await;
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("{id} lacks objects")), "{said}");
    }
}
