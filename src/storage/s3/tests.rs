use super::testing::{Fault, S3Server};
use super::*;
use crate::storage::contract;

async fn open(server: &S3Server) -> S3Store {
    S3Store::open(&server.settings()).await.unwrap().0
}

async fn refused(settings: &S3Settings) -> S3StartError {
    match S3Store::open(settings).await {
        Ok(_) => panic!("the bucket was accepted"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_bucket_keeps_the_contract_of_a_store() {
    let server = S3Server::start().await;
    contract::run(&open(&server).await).await;
}

#[tokio::test]
async fn a_bucket_is_made_public_for_reading_and_for_nothing_else() {
    let server = S3Server::start().await;
    let (store, concerns) = S3Store::open(&server.settings()).await.unwrap();
    assert_eq!(concerns, []);
    assert!(server.policy().unwrap().contains("s3:GetObject"));
    assert!(!server.policy().unwrap().contains("List"));
    assert_eq!(
        store.list_prefix("").await.unwrap(),
        [""; 0],
        "no probe is left"
    );
    // The second replica finds all of it done.
    let before = server.requests().len();
    open(&server).await;
    let again = server.requests().split_off(before);
    assert!(
        !again.iter().any(|line| line.contains("policy")),
        "{again:?}"
    );
    assert!(
        !again.iter().any(|line| line == "PUT /avatars/"),
        "{again:?}"
    );
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
}

#[tokio::test]
async fn a_policy_that_is_there_already_is_kept() {
    let server = S3Server::start().await;
    let theirs = r#"{"Version":"2012-10-17","Statement":[{"Sid":"Theirs","Effect":"Deny"}]}"#;
    server.set_policy(theirs);
    open(&server).await;
    let policy = server.policy().unwrap();
    assert!(
        policy.contains("Theirs") && policy.contains("CameoPublicRead"),
        "{policy}"
    );
}

#[tokio::test]
async fn a_server_without_policies_is_used_without_public_access() {
    let server = S3Server::start().await;
    server.deny("?policy");
    let mut settings = server.settings();
    let error = refused(&settings).await;
    assert!(matches!(error, S3StartError::NotPublic { .. }), "{error:?}");
    assert!(!error.may_pass());
    settings.public_access = PublicAccess::None;
    let (store, concerns) = S3Store::open(&settings).await.unwrap();
    assert_eq!(concerns, []);
    contract::run(&store).await;
}

#[tokio::test]
async fn a_bucket_that_everybody_can_read_or_list_is_told() {
    let server = S3Server::start().await;
    server.set_policy(r#"{"Action":"s3:GetObject","Resource":"arn:aws:s3:::avatars/*"}"#);
    let error = refused(&server.settings()).await;
    assert!(
        matches!(error, S3StartError::PrivateReadable { .. }),
        "{error:?}"
    );

    server.set_policy(r#"["s3:GetObject","avatars/public/*","s3:ListBucket","avatars"]"#);
    let (_, concerns) = S3Store::open(&server.settings()).await.unwrap();
    let bucket = "avatars".to_owned();
    assert_eq!(concerns, [S3Concern::Listable { bucket }]);
}

#[tokio::test]
async fn what_keeps_a_bucket_from_being_the_store_is_told_by_what_to_change() {
    let server = S3Server::start().await;
    let wrong = |access: &str, secret: &str| {
        let mut settings = server.settings();
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
        assert!(!error.may_pass());
    }

    let mut settings = server.settings();
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
    assert!(error.may_pass());

    server.fail_next(1, Fault::Status(503));
    let error = refused(&server.settings()).await;
    assert!(error.may_pass(), "{error:?}");

    server.deny("PUT /avatars/public");
    let error = refused(&server.settings()).await;
    let S3StartError::Permission { permission, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(permission, "s3:PutObject");
    // HEAD and LIST are refused alike: it is not ours.
    server.deny("HEAD /avatars");
    server.deny("GET /avatars");
    let error = refused(&server.settings()).await;
    assert!(
        matches!(error, S3StartError::Permission { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_certificate_file_that_is_none_is_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let server = S3Server::start().await;
    let mut settings = server.settings();
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
async fn an_error_says_whether_trying_again_may_help() {
    let server = S3Server::start().await;
    let store = open(&server).await;
    let key = contract::rendition(1);
    for (fault, may_pass) in [
        (Fault::Status(503), true),
        (Fault::Drop, true),
        (Fault::Status(403), false),
    ] {
        // A dropped connection of the pool is tried once more by the HTTP client itself.
        server.fail_next(2, fault);
        let error = store.put(&key, Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.may_pass(), may_pass);
        assert_eq!(error.to_string(), "the store could not write an object");
        server.clear_faults();
    }
}

#[tokio::test]
async fn a_bucket_that_was_taken_away_is_an_error_and_no_missing_object() {
    let server = S3Server::start().await;
    let store = open(&server).await;
    std::fs::remove_dir_all(server.bucket_folder()).unwrap();
    assert!(store.get(&contract::rendition(1)).await.is_err());
    assert!(store.check().await.is_err());
}

#[tokio::test]
async fn a_check_tells_who_reads_public_objects() {
    let server = S3Server::start().await;
    let store = open(&server).await;
    let public_read = async || store.check().await.unwrap().public_read;
    assert_eq!(public_read().await, PublicRead::Anyone);
    server.set_policy("");
    assert_eq!(public_read().await, PublicRead::Refused);
    let mut settings = server.settings();
    settings.public_access = PublicAccess::None;
    let (store, _) = S3Store::open(&settings).await.unwrap();
    let checkup = store.check().await.unwrap();
    assert_eq!(checkup.public_read, PublicRead::Proxy);
}

#[tokio::test]
async fn checks_that_fail_leave_one_probe_at_most() {
    let server = S3Server::start().await;
    let store = open(&server).await;
    server.deny("GET /avatars/public/probe/");
    server.deny("GET /avatars/private/probe/");
    store.check().await.unwrap_err();
    assert_eq!(store.list_prefix("").await.unwrap(), [""; 0]);
    // A check that is dropped cannot delete either.
    server.deny("DELETE /avatars/");
    for _ in 0..3 {
        store.check().await.unwrap_err();
        refused(&server.settings()).await;
    }
    let left = store.list_prefix("").await.unwrap();
    assert_eq!(left.len(), 2, "one of checks, two of the start: {left:?}");
}

#[tokio::test]
async fn uploads_are_whole_where_a_page_ends_amid_one() {
    let server = S3Server::start().await;
    let store = open(&server).await;
    let folder = server.bucket_folder();
    for number in 0..130 {
        let avatar = AvatarId::from_bytes([number; 16]);
        let of = |root: &str| folder.join(format!("{root}/{avatar}"));
        std::fs::create_dir_all(of(PUBLIC_ROOT)).unwrap();
        std::fs::create_dir_all(of(PRIVATE_ROOT)).unwrap();
        std::fs::write(of(PRIVATE_ROOT).join("manifest.json"), "{}").unwrap();
        for variant in 0..9 {
            let name = format!("v{variant}.webp");
            std::fs::write(of(PUBLIC_ROOT).join(name), "image").unwrap();
        }
    }
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
async fn cors_rules_that_a_server_does_not_take_are_told_and_do_no_harm() {
    let server = S3Server::start().await;
    let mut settings = server.settings();
    settings.trusted_origins = vec!["https://app.example.com".to_owned()];
    let (_, concerns) = S3Store::open(&settings).await.unwrap();
    let [S3Concern::Cors { reason, .. }] = &concerns[..] else {
        panic!("{concerns:?}")
    };
    assert!(reason.contains("501"), "{reason}");
}
