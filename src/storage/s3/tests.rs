use cameo_testing::s3::{Fault, S3Server};

use super::testing::settings_of;
use super::*;
use crate::storage::contract::{self, Fixture};

async fn open(server: &S3Server) -> S3Store {
    S3Store::open(&settings_of(server)).await.unwrap().0
}

async fn refused(settings: &S3Settings) -> S3StartError {
    match S3Store::open(settings).await {
        Ok(_) => panic!("the bucket was accepted"),
        Err(error) => error,
    }
}

async fn bucket() -> Fixture {
    let server = S3Server::start().await;
    Fixture::new(open(&server).await, server)
}

/// A bucket on a server without bucket policies.
async fn bucket_without_policy() -> Fixture {
    let server = S3Server::start_with_faults().await;
    server.deny("?policy");
    let mut settings = settings_of(&server);
    settings.public_access = PublicAccess::None;
    let (store, warnings) = S3Store::open(&settings).await.unwrap();
    assert_eq!(warnings, []);
    Fixture::new(store, server)
}

mod contract_suite {
    crate::storage::contract::contract_tests!(crate::storage::s3::tests::bucket);
}

mod contract_suite_without_policy {
    crate::storage::contract::contract_tests!(crate::storage::s3::tests::bucket_without_policy);
}

#[tokio::test]
async fn objects_carry_the_type_and_cache_policy_of_their_key() {
    let server = S3Server::start().await;
    let store = open(&server).await;
    let key = contract::rendition(1);
    store.put(&key, Bytes::from_static(b"x")).await.unwrap();
    let object = store.open_path(&key.to_string()).await.unwrap().unwrap();
    assert_eq!(object.content_type.as_deref(), Some("image/webp"));
    assert_eq!(
        object.cache_control.as_deref(),
        Some("public, max-age=31536000, immutable")
    );
    assert_eq!(server.read_object(&key.to_string()).await, b"x");
}

#[tokio::test]
async fn a_server_without_policies_needs_public_access_none() {
    let server = S3Server::start_with_faults().await;
    server.deny("?policy");
    let mut settings = settings_of(&server);
    settings.public_access = PublicAccess::Policy;
    let error = refused(&settings).await;
    assert!(matches!(error, S3StartError::NotPublic { .. }), "{error:?}");
    assert!(!error.is_transient());
    settings.public_access = PublicAccess::None;
    S3Store::open(&settings).await.unwrap();
}

#[tokio::test]
async fn where_access_is_restricted_the_own_policy_is_withdrawn_and_others_stay() {
    let server = S3Server::start_with_faults().await;
    let mut settings = settings_of(&server);
    settings.public_access = PublicAccess::Policy;
    let (store, _) = S3Store::open(&settings).await.unwrap();
    let key = contract::rendition(1);
    store.put(&key, Bytes::from_static(b"x")).await.unwrap();
    let url = format!("{}/{key}", settings.public_base());
    let status = async || reqwest::get(&url).await.unwrap().status();
    assert!(status().await.is_success());
    settings.public_access = PublicAccess::Forbidden;
    for _ in 0..2 {
        let (store, warnings) = S3Store::open(&settings).await.unwrap();
        assert_eq!(warnings, []);
        assert!(!status().await.is_success());
        let checkup = store.check().await.unwrap();
        assert_eq!(checkup.public_read, PublicRead::Proxy);
    }
    assert_eq!(server.policy().await, None);
    // A statement of an operator that opens public/ is not removed, and is an error.
    settings.public_access = PublicAccess::Policy;
    S3Store::open(&settings).await.unwrap();
    let theirs = server
        .policy()
        .await
        .unwrap()
        .replace("CameoPublicRead", "Theirs");
    server.set_policy(&theirs).await;
    settings.public_access = PublicAccess::Forbidden;
    let error = refused(&settings).await;
    assert!(
        matches!(error, S3StartError::StillPublic { .. }),
        "{error:?}"
    );
    assert!(server.policy().await.unwrap().contains("Theirs"));
}

#[tokio::test]
async fn a_presigned_url_shows_one_object_for_a_while() {
    let server = S3Server::start().await;
    let mut settings = settings_of(&server);
    settings.public_access = PublicAccess::Forbidden;
    let (store, _) = S3Store::open(&settings).await.unwrap();
    let key = contract::rendition(1);
    store.put(&key, Bytes::from_static(b"image")).await.unwrap();
    let url = store
        .presign(&key, Duration::from_mins(15))
        .await
        .unwrap()
        .unwrap();
    assert!(url.contains("X-Amz-Expires=900"), "{url}");
    let image = reqwest::get(&url).await.unwrap();
    assert_eq!(image.bytes().await.unwrap(), "image");
    let (path, query) = url.split_once('?').unwrap();
    let other = contract::rendition(2);
    store
        .put(&other, Bytes::from_static(b"other"))
        .await
        .unwrap();
    let turned = format!("{}/{other}?{query}", settings.public_base());
    for wrong in [path.to_owned(), turned] {
        let status = reqwest::get(&wrong).await.unwrap().status();
        assert!(!status.is_success(), "{wrong}");
    }
}

#[tokio::test]
async fn an_unusable_bucket_is_reported_with_the_reason() {
    let server = S3Server::start_with_faults().await;
    let wrong = |access: &str, secret: &str| {
        let mut settings = settings_of(&server);
        settings.credentials = Some(S3Credentials {
            access_key_id: access.into(),
            secret_access_key: secret.into(),
        });
        settings
    };
    for settings in [wrong("nobody", "x"), wrong("test", "wrong")] {
        let error = refused(&settings).await;
        assert!(
            matches!(error, S3StartError::Credentials { .. }),
            "{error:?}"
        );
        assert!(!error.is_transient());
    }

    let mut settings = settings_of(&server);
    settings.bucket = "No_Bucket".into();
    let error = refused(&settings).await;
    assert!(
        matches!(error, S3StartError::BucketName { .. }),
        "{error:?}"
    );

    settings.endpoint = Some("minio:9000".into());
    assert!(matches!(refused(&settings).await, S3StartError::Endpoint));
    settings.endpoint = Some("http://127.0.0.1:1".into());
    let error = refused(&settings).await;
    assert!(
        matches!(error, S3StartError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.is_transient());

    server.fail_next(1, Fault::Status(503));
    let error = refused(&settings_of(&server)).await;
    assert!(error.is_transient(), "{error:?}");

    server.deny(format!("PUT /{}/public", server.bucket()));
    let error = refused(&settings_of(&server)).await;
    let S3StartError::Permission { permission, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(permission, "s3:PutObject");
    // Both HEAD and LIST are refused, as for a bucket of another owner.
    server.deny(format!("HEAD /{}", server.bucket()));
    server.deny(format!("GET /{}", server.bucket()));
    let error = refused(&settings_of(&server)).await;
    assert!(
        matches!(error, S3StartError::Permission { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_invalid_certificate_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let server = S3Server::start().await;
    let mut settings = settings_of(&server);
    settings.ca_file = Some(path.clone());
    for content in [
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&path, content).unwrap();
        let error = refused(&settings).await;
        assert!(matches!(error, S3StartError::CaFile { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_error_says_whether_a_retry_may_succeed() {
    let server = S3Server::start_with_faults().await;
    let store = open(&server).await;
    let key = contract::rendition(1);
    for (fault, is_transient) in [
        (Fault::Status(503), true),
        (Fault::Drop, true),
        (Fault::Status(403), false),
    ] {
        // The HTTP client itself retries once if a pooled connection is dropped.
        server.fail_next(2, fault);
        let error = store.put(&key, Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.is_transient(), is_transient);
        assert_eq!(error.to_string(), "the store could not write an object");
        server.clear_faults();
    }
}

#[tokio::test]
async fn a_deleted_bucket_is_an_error_and_not_a_missing_object() {
    let server = S3Server::start().await;
    let store = open(&server).await;
    server.remove_bucket().await;
    let error = store.get(&contract::rendition(1)).await.err();
    assert!(error.expect("the bucket is gone").is_transient());
}

#[tokio::test]
async fn failed_checks_leave_at_most_one_probe() {
    let server = S3Server::start_with_faults().await;
    let store = open(&server).await;
    for folder in ["public", "private"] {
        server.deny(format!("GET /{}/{folder}/probe/", server.bucket()));
    }
    store.check().await.unwrap_err();
    assert_eq!(store.list_prefix("").await.unwrap(), [""; 0]);
    // A dropped check cannot delete its probe either.
    server.deny(format!("DELETE /{}/", server.bucket()));
    for _ in 0..3 {
        store.check().await.unwrap_err();
        refused(&settings_of(&server)).await;
    }
    let left = store.list_prefix("").await.unwrap();
    assert_eq!(left.len(), 2, "one of checks, two of the start: {left:?}");
}

#[tokio::test]
async fn uploads_are_complete_even_if_a_page_ends_inside_one() {
    let server = S3Server::start().await;
    let store = open(&server).await;
    let keys: Vec<_> = (0..130)
        .flat_map(|number| {
            let avatar = AvatarId::from_bytes([number; 16]);
            let manifest = format!("{PRIVATE_ROOT}/{avatar}/manifest.json");
            let image = move |variant| format!("{PUBLIC_ROOT}/{avatar}/v{variant}.webp");
            std::iter::once(manifest).chain((0..9).map(image))
        })
        .collect();
    server.put_objects(&keys, b"image").await;
    // A page of foreign objects does not end the listing.
    let foreign: Vec<_> = (0..=PAGE)
        .map(|number| format!("{PUBLIC_ROOT}/a/{number}.txt"))
        .collect();
    server.put_objects(&foreign, b"text").await;
    let mut found = Vec::new();
    let mut pages = 0;
    loop {
        let after = found.last().map(|upload: &StoredUpload| upload.avatar);
        let page = store.uploads(after).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages += 1;
        found.extend(page);
    }
    assert_eq!((found.len(), pages), (130, 2));
    assert!(
        found
            .iter()
            .all(|upload| upload.objects == 10 && upload.has_manifest)
    );
}

#[tokio::test]
async fn refused_cors_rules_are_a_warning() {
    let server = S3Server::start_with_faults().await;
    server.deny("?cors");
    let mut settings = settings_of(&server);
    settings.trusted_origins = vec!["https://app.example.com".to_owned()];
    let (_, warnings) = S3Store::open(&settings).await.unwrap();
    let [S3StartupWarning::Cors { reason, .. }] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(reason.contains("PutBucketCors: 403"), "{reason}");
}

/// Tests that need a server with bucket policies.
mod by_policy {
    use super::*;

    #[tokio::test]
    async fn the_policy_makes_a_bucket_public_for_reads_only() {
        let server = S3Server::start_with_faults().await;
        let (store, warnings) = S3Store::open(&settings_of(&server)).await.unwrap();
        assert_eq!(warnings, []);
        let policy = server.policy().await.unwrap();
        assert!(policy.contains("s3:GetObject"), "{policy}");
        assert!(!policy.contains("List"), "{policy}");
        assert_eq!(
            store.list_prefix("").await.unwrap(),
            [""; 0],
            "no probe is left"
        );
        // MinIO would read this as a request to delete the bucket.
        let asked = server.requests();
        assert!(
            !asked.iter().any(|line| line.contains("publicAccessBlock")),
            "{asked:?}"
        );
        // A second replica finds the bucket ready.
        let before = server.requests().len();
        open(&server).await;
        let again = server.requests().split_off(before);
        assert!(
            !again.iter().any(|line| line.contains("policy")),
            "{again:?}"
        );
        let create = format!("PUT /{}/", server.bucket());
        assert!(!again.contains(&create), "{again:?}");
    }

    #[tokio::test]
    async fn a_deleted_bucket_is_created_again_with_its_policy() {
        let server = S3Server::start_with_faults().await;
        let store = open(&server).await;
        assert_eq!(store.losses(), 1, "opening created the bucket");
        for losses in 2..=3 {
            server.delete_policy().await;
            server.remove_bucket().await;
            let key = contract::rendition(1);
            let put = || store.put(&key, Bytes::from_static(b"x"));
            let error = put().await.expect_err("the bucket is gone");
            assert!(error.is_transient(), "{error:?}");
            let begun = Instant::now();
            // A check fails while the bucket is created again.
            while put().await.is_err()
                || !matches!(store.check().await, Ok(seen) if seen.public_read == PublicRead::Anyone)
            {
                assert!(
                    begun.elapsed() < Duration::from_secs(30),
                    "the bucket is not created again"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(server.policy().await.unwrap().contains("s3:GetObject"));
            assert_eq!(store.losses(), losses);
        }
    }

    #[tokio::test]
    async fn an_existing_policy_is_kept() {
        let server = S3Server::start().await;
        server.create_bucket().await;
        let theirs = statement("Deny", "s3:DeleteObject", server.bucket(), "/theirs/*");
        server.set_policy(&policy(&[theirs])).await;
        open(&server).await;
        let policy = server.policy().await.unwrap();
        assert!(
            policy.contains("/theirs/*") && policy.contains("/public/*"),
            "{policy}"
        );
    }

    #[tokio::test]
    async fn an_unreadable_policy_is_not_overwritten() {
        let server = S3Server::start_with_faults().await;
        server.create_bucket().await;
        let theirs = statement("Deny", "s3:DeleteObject", server.bucket(), "/theirs/*");
        server.set_policy(&policy(&[theirs])).await;
        let before = server.policy().await;
        server.deny(format!("GET /{}?policy", server.bucket()));
        server.deny(format!("GET /{}/?policy", server.bucket()));
        let error = refused(&settings_of(&server)).await;
        assert!(matches!(error, S3StartError::NotPublic { .. }), "{error:?}");
        server.deny_nothing();
        assert_eq!(server.policy().await, before);
    }

    #[tokio::test]
    async fn a_bucket_that_everybody_can_read_or_list_is_reported() {
        let server = S3Server::start().await;
        server.create_bucket().await;
        let bucket = server.bucket();
        let all = statement("Allow", "s3:GetObject", bucket, "/*");
        server.set_policy(&policy(&[all])).await;
        let error = refused(&settings_of(&server)).await;
        assert!(
            matches!(error, S3StartError::PrivateReadable { .. }),
            "{error:?}"
        );

        let public = statement("Allow", "s3:GetObject", bucket, "/public/*");
        let list = statement("Allow", "s3:ListBucket", bucket, "");
        server.set_policy(&policy(&[public, list])).await;
        let (_, warnings) = S3Store::open(&settings_of(&server)).await.unwrap();
        let bucket = bucket.to_owned();
        assert_eq!(warnings, [S3StartupWarning::Listable { bucket }]);
    }

    #[tokio::test]
    async fn a_check_reports_who_can_read_public_objects() {
        let server = S3Server::start().await;
        let store = open(&server).await;
        let public_read = async || store.check().await.unwrap().public_read;
        assert_eq!(public_read().await, PublicRead::Anyone);
        server.delete_policy().await;
        assert_eq!(public_read().await, PublicRead::Refused);
        let mut settings = settings_of(&server);
        settings.public_access = PublicAccess::None;
        let (store, _) = S3Store::open(&settings).await.unwrap();
        let checkup = store.check().await.unwrap();
        assert_eq!(checkup.public_read, PublicRead::Proxy);
    }

    fn statement(effect: &str, action: &str, bucket: &str, objects: &str) -> serde_json::Value {
        serde_json::json!({
            "Effect": effect,
            "Principal": {"AWS": ["*"]},
            "Action": [action],
            "Resource": [format!("arn:aws:s3:::{bucket}{objects}")],
        })
    }

    fn policy(statements: &[serde_json::Value]) -> String {
        serde_json::json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
    }
}

#[tokio::test]
async fn probes_of_killed_processes_are_removed() {
    let server = S3Server::start().await;
    let store = open(&server).await;
    let named = |name: &str| Probe::FOLDERS.map(|folder| format!("{folder}{name}"));
    server.put_objects(&named("abandoned"), b"cameo").await;
    // The store's clock decides, and a test cannot set it.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    server
        .put_objects(&named("of-another-replica"), b"cameo")
        .await;
    let own = Probe::private();
    store.write_probe(&own).await.unwrap();
    store
        .remove_abandoned_probes(&own, Duration::from_secs(1))
        .await
        .unwrap();
    store.delete_path(&own.path).await.unwrap();
    let mut left = named("of-another-replica");
    left.sort();
    assert_eq!(store.list_prefix("").await.unwrap(), left);
}
