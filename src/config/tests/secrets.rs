//! Secrets and passwords are never shown.

use super::*;

#[test]
fn a_password_in_a_url_is_refused_and_never_shown() {
    for name in [
        "CAMEO_HTTP__PUBLIC_URL",
        "CAMEO_STORAGE__S3__ENDPOINT",
        "CAMEO_STORAGE__S3__PUBLIC_BASE_URL",
        "CAMEO_HTTP__TRUSTED_ORIGINS",
        "CAMEO_CATALOG__REDIS__URL",
    ] {
        for value in [
            "https://minio:hush@bucket.example.com",
            "https://hush@bucket.example.com/",
            "minio:hush@bucket.example.com",
            "ftp://minio:hush@bucket.example.com",
            "https://minio:hush@bucket.example.com?a=b",
        ] {
            let faults = faults_of(&[(name, value)]);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].starts_with(&format!("{name}: ")), "{faults:?}");
            assert!(!faults[0].contains("hush"), "{faults:?}");
        }
    }
    let faults = faults_of(&[(
        "CAMEO_STORAGE__S3__ENDPOINT",
        "https://minio:hush@bucket.example.com",
    )]);
    assert!(faults[0].contains("holds a user name or a password"));
}

#[test]
fn a_secret_given_where_its_file_is_expected_is_not_shown() {
    for (name, value) in [
        ("CAMEO_AUTH__JWT_SECRET_FILE", "hush-hush"),
        ("CAMEO_CATALOG__REDIS__URL_FILE", "redis://:hush@cache"),
    ] {
        let faults = faults_of(&[(name, value)]);
        assert!(faults[0].contains("cannot be read"), "{faults:?}");
        assert!(!faults[0].contains("hush"), "{faults:?}");
    }
}

#[test]
fn a_secret_is_read_from_its_file_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "tell-nobody\n").unwrap();
    let path = path.display().to_string();
    let config = with(&[("CAMEO_AUTH__JWT_SECRET_FILE", &path)]).unwrap();
    assert_eq!(
        config
            .auth
            .main
            .jwt_secret
            .as_ref()
            .unwrap()
            .expose_secret(),
        "tell-nobody"
    );
    assert!(!format!("{config:?}").contains("tell-nobody"));

    let both = faults_of(&[
        ("CAMEO_AUTH__JWT_SECRET_FILE", &path),
        ("CAMEO_AUTH__JWT_SECRET", "x"),
    ]);
    assert!(both[0].contains("give one of them"), "{both:?}");
    let missing = faults_of(&[("CAMEO_AUTH__JWT_SECRET_FILE", "/no/such/file")]);
    assert!(missing[0].contains("cannot be read"), "{missing:?}");
    std::fs::write(folder.path().join("secret"), "\n").unwrap();
    assert!(faults_of(&[("CAMEO_AUTH__JWT_SECRET_FILE", &path)])[0].contains("empty file"));
}
