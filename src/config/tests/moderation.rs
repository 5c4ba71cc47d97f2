//! The settings of `[moderation]` and `[telemetry]`.

use super::*;

const URL: (&str, &str) = (
    "CAMEO_MODERATION__URL",
    "https://moderation.example.com/check",
);
/// `openssl rand -base64 32`
const SECRET: &str = "whsec_9wVbIu1q6xWm2nYd0cKfRz8LtGpQ7aJe4hXs5oTvB3k=";
const SECRETS: (&str, &str) = ("CAMEO_MODERATION__SECRETS", SECRET);

#[test]
fn moderation_is_off_by_default_and_its_settings_are_checked_all_the_same() {
    assert!(with(&[]).unwrap().moderation.is_none());
    let faults = faults_of(&[
        ("CAMEO_MODERATION__TIMEOUT", "2m"),
        ("CAMEO_MODERATION__WHEN_DOWN", "maybe"),
        ("CAMEO_MODERATION__SECRETS", "whsec_short"),
    ]);
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(!faults.concat().contains("whsec_short"), "{faults:?}");
}

#[test]
fn moderation_refuses_uploads_without_a_verdict_unless_it_is_told_otherwise() {
    let moderation = with(&[URL, SECRETS]).unwrap().moderation.unwrap();
    assert_eq!(moderation.url, URL.1);
    assert_eq!(moderation.secrets.len(), 1);
    assert_eq!(moderation.timeout, Duration::from_secs(3));
    assert_eq!(moderation.when_down, WhenModerationIsDown::Deny);
    let allow = ("CAMEO_MODERATION__WHEN_DOWN", "allow");
    let moderation = with(&[URL, SECRETS, allow]).unwrap().moderation.unwrap();
    assert_eq!(moderation.when_down, WhenModerationIsDown::Allow);
}

#[test]
fn secrets_of_moderation_are_read_from_the_lines_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets");
    std::fs::write(&path, format!("{SECRET}\n\n{SECRET}\n")).unwrap();
    let file = ("CAMEO_MODERATION__SECRETS_FILE", path.to_str().unwrap());
    let moderation = with(&[URL, file]).unwrap().moderation.unwrap();
    assert_eq!(moderation.secrets.len(), 2);
}

#[test]
fn moderation_without_a_secret_is_a_fault_in_production_and_a_warning_elsewhere() {
    let in_production = |more: &[(&'static str, &'static str)]| [&PRODUCTION[..], more].concat();
    let faults = faults_of(&in_production(&[URL]));
    assert_eq!(faults.len(), 1, "{faults:?}");
    for part in ["moderation.secrets", "secrets_file", "openssl rand"] {
        assert!(faults[0].contains(part), "{faults:?}");
    }
    let config = with(&[URL]).unwrap();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    let weak = "whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=";
    let weak = ("CAMEO_MODERATION__SECRETS", weak);
    let faults = faults_of(&in_production(&[URL, weak]));
    assert!(faults[0].contains("can be guessed"), "{faults:?}");
    with(&[URL, weak]).unwrap();
    let config = with(&in_production(&[URL, SECRETS])).unwrap();
    assert_eq!(config.warnings, []);
}

#[test]
fn moderation_without_tls_on_a_public_host_is_a_warning_in_production() {
    let warnings = |url: &str| {
        let url = ("CAMEO_MODERATION__URL", url);
        let variables = [&PRODUCTION[..], &[url, SECRETS]].concat();
        with(&variables).unwrap().warnings
    };
    let [warning] = &warnings("http://moderation.example.com/")[..] else {
        panic!("there is not one warning");
    };
    assert!(
        warning.to_string().contains("does not use TLS"),
        "{warning}"
    );
    assert_eq!(warnings("http://moderation:8000/check"), []);
    assert_eq!(warnings("http://10.0.0.7/check"), []);
}

#[test]
fn an_address_of_moderation_without_a_host_or_with_a_password_is_a_fault() {
    for url in [
        "moderation.example.com",
        "ftp://moderation.example.com",
        "https://",
        "https://moderation.example.com/#part",
        "https://hush@moderation.example.com/",
    ] {
        let faults = faults_of(&[("CAMEO_MODERATION__URL", url), SECRETS]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(
            faults[0].starts_with("CAMEO_MODERATION__URL: "),
            "{faults:?}"
        );
        assert!(!faults[0].contains("hush"), "{faults:?}");
    }
}

#[test]
fn the_audit_file_is_off_by_default() {
    assert_eq!(with(&[]).unwrap().telemetry.audit_file, None);
    let file = ("CAMEO_TELEMETRY__AUDIT_FILE", "/var/log/cameo/audit.log");
    let path = with(&[file]).unwrap().telemetry.audit_file;
    assert_eq!(path, Some("/var/log/cameo/audit.log".into()));
}
