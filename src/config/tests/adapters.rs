//! The settings of the bucket and of Redis.

use super::*;

#[test]
fn a_restricted_access_closes_the_bucket_and_reserves_the_name_of_the_master() {
    for access in ["signed_in", "private"] {
        let access = ("CAMEO_DELIVERY__ACCESS", access);
        let config = with(&[access, ("CAMEO_STORAGE__KIND", "s3")]).unwrap();
        let Storage::S3(settings, _) = config.storage else {
            panic!("{:?}", config.storage)
        };
        assert_eq!(settings.public_access, PublicAccess::Forbidden);
        let variants = ("CAMEO_IMAGES__VARIANTS", "{ master = 512, medium = 256 }");
        let faults = faults_of(&[access, variants]);
        assert!(
            faults.len() == 1 && faults[0].contains("master"),
            "{faults:?}"
        );
        with(&[variants]).unwrap();
    }
}

#[test]
fn a_bucket_and_redis_are_chosen_with_their_settings() {
    let config = with(&[
        ("CAMEO_STORAGE__KIND", "s3"),
        ("CAMEO_STORAGE__S3__ENDPOINT", "http://minio:9000/"),
        ("CAMEO_STORAGE__S3__PUBLIC_ACCESS", "none"),
        ("CAMEO_STORAGE__S3__ACCESS_KEY_ID", "cameo"),
        ("CAMEO_STORAGE__S3__SECRET_ACCESS_KEY", "hush"),
        ("CAMEO_CATALOG__KIND", "redis"),
        (
            "CAMEO_CATALOG__REDIS__URL",
            "redis://:hush@one:7000,two:7000",
        ),
        ("CAMEO_HTTP__TRUSTED_ORIGINS", "https://app.example.com"),
    ])
    .unwrap();
    let Storage::S3(settings, None) = &config.storage else {
        panic!("{:?}", config.storage)
    };
    assert_eq!(settings.endpoint.as_deref(), Some("http://minio:9000"));
    assert_eq!(settings.trusted_origins, ["https://app.example.com"]);
    let Catalog::Redis(settings) = &config.catalog else {
        panic!("{:?}", config.catalog)
    };
    assert_eq!(settings.address.to_string(), "one:7000,two:7000");
    assert_eq!(settings.partitions.count(), 16);
    let shown = format!("{config:?}");
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn the_address_of_redis_is_read_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("redis-url");
    std::fs::write(&path, "redis://:hush@cache:6380/1\n").unwrap();
    let path = path.to_str().unwrap();
    let variables = [
        ("CAMEO_CATALOG__KIND", "redis"),
        ("CAMEO_CATALOG__REDIS__URL_FILE", path),
    ];
    let config = with(&variables).unwrap();
    let Catalog::Redis(settings) = config.catalog else {
        panic!("{:?}", config.catalog)
    };
    assert_eq!(settings.address.to_string(), "cache:6380");
}

#[test]
fn faults_of_a_bucket_and_of_redis_are_reported_even_if_they_are_not_chosen() {
    let faults = faults_of(&[
        ("CAMEO_STORAGE__S3__BUCKET", "My_Bucket"),
        ("CAMEO_STORAGE__S3__ENDPOINT", "minio:9000"),
        ("CAMEO_STORAGE__S3__PUBLIC_ACCESS", "all"),
        ("CAMEO_STORAGE__S3__ACCESS_KEY_ID", "cameo"),
        ("CAMEO_CATALOG__REDIS__URL", "http://:hush@cache"),
        ("CAMEO_CATALOG__REDIS__PARTITIONS", "0"),
        ("CAMEO_LIMITS__WHEN_REDIS_IS_DOWN", "allow"),
    ]);
    insta::assert_snapshot!(faults.join("\n"));
}
