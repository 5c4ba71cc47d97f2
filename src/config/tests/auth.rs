//! The settings of tokens and issuers.

use super::*;

#[test]
fn a_secret_is_generated_only_in_development_and_only_for_hs256() {
    let public_only = [
        ("CAMEO_AUTH__ALGORITHMS", "RS256"),
        ("CAMEO_AUTH__JWKS_URL", "https://id.example.com/keys"),
        ("CAMEO_AUTH__ISSUER", "https://id.example.com"),
        ("CAMEO_AUTH__AUDIENCE", "avatars"),
    ];
    let mut production = vec![PRODUCTION[0], PRODUCTION[2]];
    production.extend(public_only);
    let config = with(&production).unwrap();
    assert_eq!(config.auth.main.algorithms, [Algorithm::Rs256]);
    assert!(config.auth.main.jwt_secret.is_none());
    let url = "https://id.example.com/keys".to_owned();
    let key_set = config.auth.main.key_set.unwrap();
    assert_eq!(key_set.location, KeySetLocation::Url(url));
    assert_eq!(key_set.refresh, Duration::from_mins(5));
    assert_eq!(key_set.max_stale, Duration::from_hours(1));
}

#[test]
fn keys_and_algorithms_that_do_not_fit_are_faults() {
    let url = ("CAMEO_AUTH__JWKS_URL", "https://id.example.com/keys");
    let on = ("CAMEO_AUTH__DISCOVERY", "true");
    for (variables, expected) in [
        (
            &[("CAMEO_AUTH__ALGORITHMS", "HS256, RS512")][..],
            "CAMEO_AUTH__ALGORITHMS: holds \"RS512\"; give HS256, RS256, ES256, EdDSA",
        ),
        (
            &[("CAMEO_AUTH__ALGORITHMS", "")],
            "CAMEO_AUTH__ALGORITHMS: is empty; give at least one, such as [\"RS256\"]",
        ),
        (
            &[("CAMEO_AUTH__ALGORITHMS", "ES256")],
            "CAMEO_AUTH__ALGORITHMS: has \"ES256\", but there is no key for it; set \
             auth.discovery, auth.jwks_url or auth.public_key_file",
        ),
        (
            &[url],
            "auth.algorithms: has only \"HS256\", so the public keys of auth verify nothing; add \
             their algorithm, such as \"RS256\"",
        ),
        (
            &[on, ("CAMEO_AUTH__ALGORITHMS", "RS256")],
            "auth.issuer: is not set, but discovery asks the issuer for its keys; give its URL",
        ),
        (
            &[
                on,
                url,
                ("CAMEO_AUTH__ALGORITHMS", "RS256"),
                ("CAMEO_AUTH__ISSUER", "https://id.example.com"),
            ],
            "CAMEO_AUTH__JWKS_URL: is given, and discovery is on, which finds the keys too; give \
             one of them",
        ),
        (
            &[
                on,
                ("CAMEO_AUTH__ALGORITHMS", "RS256"),
                ("CAMEO_AUTH__ISSUER", "id.example.com"),
            ],
            "CAMEO_AUTH__ISSUER: is \"id.example.com\"; give a URL such as \
             \"https://id.example.com\"",
        ),
        (
            &[
                ("CAMEO_AUTH__PUBLIC_KEY_FILE", "/no/such/file"),
                ("CAMEO_AUTH__ALGORITHMS", "RS256"),
            ],
            "CAMEO_AUTH__PUBLIC_KEY_FILE: is \"/no/such/file\", which cannot be read: No such file \
             or directory (os error 2)",
        ),
        (
            &[("CAMEO_AUTH__JWKS_REFRESH", "2h")],
            "auth.jwks_max_stale: is shorter than jwks_refresh, so keys would be dropped between \
             two fetches",
        ),
    ] {
        assert_eq!(faults_of(variables), [expected], "{variables:?}");
    }
    let hidden = [
        ("CAMEO_AUTH__ALGORITHMS", "RS256"),
        (
            "CAMEO_AUTH__JWKS_URL",
            "https://user:hush@id.example.com/keys",
        ),
    ];
    let faults = faults_of(&hidden);
    assert!(
        faults[0].contains("holds a user name or a password"),
        "{faults:?}"
    );
    assert!(!faults[0].contains("hush"), "{faults:?}");
}

#[test]
fn production_requires_issuer_audience_and_tls_for_fetched_keys() {
    let mut variables = vec![
        PRODUCTION[0],
        PRODUCTION[2],
        ("CAMEO_AUTH__ALGORITHMS", "RS256"),
        ("CAMEO_AUTH__JWKS_URL", "http://id.example.com/keys"),
    ];
    let faults = faults_of(&variables);
    assert_eq!(faults.len(), 3, "{faults:?}");
    let tls = "CAMEO_AUTH__JWKS_URL: does not use TLS";
    assert!(faults[0].starts_with(tls), "{faults:?}");
    assert!(
        faults[1].starts_with("auth.issuer: is not set"),
        "{faults:?}"
    );
    assert!(
        faults[2].starts_with("auth.audience: is not set"),
        "{faults:?}"
    );
    variables.extend([
        ("CAMEO_AUTH__ISSUER", "x"),
        ("CAMEO_AUTH__AUDIENCE", "avatars"),
    ]);
    assert_eq!(faults_of(&variables).len(), 1);
    // A program on the same machine needs no TLS.
    for local in [
        "http://127.0.0.1:80/a",
        "http://localhost/a",
        "http://[::1]:8/a?b=c",
    ] {
        variables[3].1 = local;
        with(&variables).unwrap();
    }
    variables[3].1 = "http://id.example.com/keys";
    let warnings = with(&variables[2..]).unwrap().warnings;
    assert!(warnings[0].to_string().starts_with(tls), "{warnings:?}");
}

#[test]
fn previous_secrets_come_from_a_list_and_a_file_and_must_not_be_guessable_in_production() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("previous");
    std::fs::write(&path, "q8Zt2Lw0yXc5Vb7Nm3Kj9Hg1Fd4Sa6Pu\n\nchangeme\n").unwrap();
    let mut variables = PRODUCTION.to_vec();
    variables.push((
        "CAMEO_AUTH__PREVIOUS_JWT_SECRETS_FILE",
        path.to_str().unwrap(),
    ));
    variables.push(("CAMEO_AUTH__PREVIOUS_JWT_SECRETS", "short"));
    let faults = faults_of(&variables);
    for (fault, number) in faults.iter().zip([1, 3]) {
        let expected = format!(
            "CAMEO_AUTH__PREVIOUS_JWT_SECRETS: its secret number {number} is shorter than 32 bytes"
        );
        assert!(fault.starts_with(&expected), "{faults:?}");
        assert!(!fault.contains("changeme"), "{faults:?}");
    }
    assert_eq!(faults.len(), 2, "{faults:?}");
    let config = with(&variables[1..]).unwrap();
    let secrets = config.auth.main.previous_jwt_secrets;
    let secrets: Vec<_> = secrets.iter().map(ExposeSecret::expose_secret).collect();
    assert_eq!(
        secrets,
        ["short", "q8Zt2Lw0yXc5Vb7Nm3Kj9Hg1Fd4Sa6Pu", "changeme"]
    );
}

/// A configuration with two further issuers.
const ISSUERS: &str = r#"
    [[auth.issuers]]
    issuer = "https://id.example.org"
    subject_prefix = "partner|"
    algorithms = ["RS256"]
    discovery = true
    service_roles = ["sync"]
    leeway = "5s"
    [[auth.issuers]]
    issuer = "tools"
    subject_prefix = "tools|"
    jwt_secret = "hush"
"#;

#[test]
fn further_issuers_have_the_settings_of_the_first_with_its_defaults_but_no_roles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    let text = format!("[auth]\nleeway = \"1m\"\nadmin_roles = [\"root\"]\n{ISSUERS}");
    std::fs::write(&path, text).unwrap();
    let auth = load(Some(&path), []).unwrap().auth;
    assert_eq!(auth.main.claims.admin_roles, ["root"]);
    let [partner, tools] = &auth.further[..] else {
        panic!("{auth:?}")
    };
    assert_eq!(partner.path, "auth.issuers[0]");
    assert_eq!(partner.subject_prefix, "partner|");
    assert_eq!(partner.algorithms, [Algorithm::Rs256]);
    assert_eq!(partner.leeway, Duration::from_secs(5));
    assert_eq!(partner.claims.service_roles, ["sync"]);
    assert_eq!(partner.claims.admin_roles, [""; 0]);
    assert_eq!(partner.claims.roles, ["role", "roles"]);
    let location = KeySetLocation::Discovery("https://id.example.org".to_owned());
    assert_eq!(partner.key_set.as_ref().unwrap().location, location);
    // The default is that of the program, not the value of the first issuer.
    assert_eq!(tools.leeway, Duration::from_secs(30));
    assert_eq!(tools.claims.service_roles, [""; 0]);
    assert_eq!(tools.jwt_secret.as_ref().unwrap().expose_secret(), "hush");
    assert!(!format!("{auth:?}").contains("hush"));
}

#[test]
fn further_issuers_can_be_given_in_a_variable() {
    let list = "[{ issuer = \"tools\", subject_prefix = \"t|\", jwt_secret = \"hush\" }]";
    let auth = with(&[("CAMEO_AUTH__ISSUERS", list)]).unwrap().auth;
    assert_eq!(auth.further[0].issuer.as_deref(), Some("tools"));
    let open = "[{ issuer = \"tools\", subject_prefix = \"t\", jwt_secret = \"hush\" }]";
    let warnings = with(&[("CAMEO_AUTH__ISSUERS", open)]).unwrap().warnings;
    let expected = "CAMEO_AUTH__ISSUERS[0].subject_prefix: is \"t\", and users of [auth]";
    assert!(
        warnings[0].to_string().starts_with(expected),
        "{warnings:?}"
    );
    let list = "[{ issuer = \"tools\", jwt_secret = \"hush\" }]";
    let faults = faults_of(&[("CAMEO_AUTH__ISSUERS", list)]);
    let expected = "CAMEO_AUTH__ISSUERS[0].subject_prefix: is not set";
    assert!(faults[0].starts_with(expected), "{faults:?}");
    let faults = faults_of(&[("CAMEO_AUTH__ISSUERS", "tools")]);
    assert!(
        faults[0].starts_with("CAMEO_AUTH__ISSUERS[0]: is a text"),
        "{faults:?}"
    );
}

#[test]
fn faults_of_further_issuers_are_reported_together_with_their_places() {
    let faults = with_file(
        r#"
        [auth]
        issuer = "us"
        [[auth.issuers]]
        isuer = "https://id.example.org"
        cookie_name = "other"
        leeway = 5
        subject_prefix = "a b"
        [[auth.issuers]]
        issuer = "us"
        subject_prefix = "partner|"
        jwt_secret = "hush"
        [[auth.issuers]]
        issuer = "them"
        subject_prefix = "partner|eu|"
        jwt_secret = "hush"
        role_claims = [""]
        "#,
    );
    insta::assert_snapshot!(faults.unwrap_err().join("\n"));
}
