//! The rules of production.

use super::*;

#[test]
fn production_refuses_settings_that_are_safe_only_in_development() {
    insta::assert_snapshot!(faults_of(&[("CAMEO_ENVIRONMENT", "production")]).join("\n"));
    let short = [
        ("CAMEO_ENVIRONMENT", "production"),
        ("CAMEO_AUTH__JWT_SECRET", "secret"),
    ];
    assert!(faults_of(&short)[0].contains("shorter than 32 bytes"));
    with(&PRODUCTION).unwrap();
}

#[test]
fn production_needs_a_secret_for_urls_unless_everybody_sees_avatars_or_the_bucket_signs() {
    let private = ("CAMEO_DELIVERY__ACCESS", "private");
    let with_these = |more: &[(&'static str, &'static str)]| [&PRODUCTION[..], more].concat();
    let faults = faults_of(&with_these(&[private]));
    assert_eq!(faults.len(), 1, "{faults:?}");
    for part in ["delivery.url_secret", "openssl rand", "redirect"] {
        assert!(faults[0].contains(part), "{faults:?}");
    }
    let weak = ("CAMEO_DELIVERY__URL_SECRET", "secret");
    let faults = faults_of(&with_these(&[private, weak]));
    assert!(faults[0].contains("shorter than 32 bytes"), "{faults:?}");
    let strong = (
        "CAMEO_DELIVERY__URL_SECRET",
        "t7Yb2nQx9LpVw4sKd8Rm1cHz6GjAfE3u",
    );
    with(&with_these(&[private, strong])).unwrap();
    let weak = ("CAMEO_DELIVERY__PREVIOUS_URL_SECRETS", "secret");
    let faults = faults_of(&with_these(&[private, strong, weak]));
    assert!(
        faults[0].to_lowercase().contains("previous_url_secrets"),
        "{faults:?}"
    );
    let redirect = [
        private,
        ("CAMEO_DELIVERY__MODE", "redirect"),
        ("CAMEO_STORAGE__KIND", "s3"),
    ];
    with(&with_these(&redirect)).unwrap();
    assert_eq!(faults_of(&with_these(&redirect[..2])).len(), 1);
    with(&PRODUCTION).unwrap();
    // Development generates one.
    with(&[private]).unwrap();
}

#[test]
fn production_refuses_a_secret_that_can_be_guessed_and_says_how_to_make_one() {
    let secret = "a".repeat(32);
    let mut variables = PRODUCTION;
    variables[1].1 = &secret;
    let faults = faults_of(&variables);
    assert_eq!(
        faults,
        [
            "CAMEO_AUTH__JWT_SECRET: has only 1 different characters and can be guessed; make one \
             with: openssl rand -base64 48"
        ]
    );
    // Development accepts it.
    with(&variables[1..]).unwrap();
}

#[test]
fn a_short_deadline_for_uploads_is_a_fault_in_production_and_a_warning_elsewhere() {
    let short = ("CAMEO_LIFECYCLE__UPLOAD_DEADLINE", "29s");
    let [one, two, three] = PRODUCTION;
    let faults = faults_of(&[one, two, three, short]);
    let expected = "CAMEO_LIFECYCLE__UPLOAD_DEADLINE: is 29s; an upload that takes longer fails";
    assert!(faults[0].starts_with(expected), "{faults:?}");
    let warnings = with(&[short]).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].to_string().starts_with(expected));
    let enough = ("CAMEO_LIFECYCLE__UPLOAD_DEADLINE", "30s");
    let config = with(&[one, two, three, enough]).unwrap();
    assert_eq!(config.warnings, []);
}
