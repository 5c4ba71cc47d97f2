use std::collections::BTreeSet;

use super::*;

fn with(variables: &[(&str, &str)]) -> Result<Config, Faults> {
    load(
        None,
        variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value))),
    )
}

fn with_file(text: &str) -> Result<Config, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    std::fs::write(&path, text).unwrap();
    load(Some(&path), []).map_err(|Faults(faults)| {
        let folder = folder.path().display().to_string();
        faults
            .iter()
            .map(|fault| fault.to_string().replace(&format!("{folder}/"), ""))
            .collect()
    })
}

fn faults_of(variables: &[(&str, &str)]) -> Vec<String> {
    with(variables)
        .unwrap_err()
        .0
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = with(&[]).unwrap();
    assert_eq!(config.environment, Environment::Development);
    assert_eq!(config.http.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(config.upload.max_bytes, 5 * 1024 * 1024);
    assert_eq!(
        (config.upload.min_edge_px, config.upload.max_edge_px),
        (100, 4096)
    );
    let edges: Vec<_> = config
        .images
        .variants
        .iter()
        .map(|(_, edge)| *edge)
        .collect();
    assert_eq!(edges, [1024, 512, 256, 128, 64]);
    assert_eq!(config.images.primary_variant.as_str(), "medium");
    assert_eq!(config.images.formats, [Format::Webp, Format::Jpeg]);
    let limits = config.limits.unwrap();
    assert_eq!(
        (limits.upload.count.get(), limits.upload.per),
        (5, Duration::from_mins(1))
    );
    assert_eq!(config.lifecycle.retire_after, Duration::from_hours(1));
    let Catalog::Embedded { events_kept } = config.catalog else {
        panic!("{:?}", config.catalog)
    };
    assert_eq!(events_kept, 10_000);
}

/// Every key of `config.toml` is read, and every key that is read is in `config.toml`. A key in a
/// comment counts too.
#[test]
fn config_toml_has_exactly_the_keys_that_are_read() {
    let mut faults = Vec::new();
    let mut layers = Layers::of_defaults(&mut faults);
    layers.lay_file(
        Path::new("comments"),
        &commented_settings(DEFAULTS),
        &mut faults,
    );
    read::config(&layers, &mut faults);
    assert_eq!(faults, []);
    let documented: BTreeSet<_> = layers.keys().into_iter().collect();
    let read = layers.read_keys();
    let unread: Vec<_> = documented.difference(&read).collect();
    assert!(
        unread.is_empty(),
        "in config.toml, but never read: {unread:?}"
    );
    let undocumented: Vec<_> = read.difference(&documented).collect();
    assert!(
        undocumented.is_empty(),
        "read, but not in config.toml: {undocumented:?}"
    );
}

/// The settings that a TOML text has in comments (`# key = value`), under their tables.
fn commented_settings(text: &str) -> String {
    let mut settings = String::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            settings.push_str(line);
            settings.push('\n');
        }
        let Some(comment) = line.strip_prefix('#') else {
            continue;
        };
        let comment = comment.trim();
        let key = comment.split_once(" = ").map_or("", |(key, _)| key);
        let is_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_setting = !key.is_empty() && key.bytes().all(is_key);
        let is_table = comment.starts_with('[') && comment.ends_with(']');
        if is_setting || is_table {
            settings.push_str(comment);
            settings.push('\n');
        }
    }
    settings
}

#[test]
fn settings_in_comments_are_found_under_their_tables() {
    let text =
        "# On top.\n[http]\nbind = \"x\"\n# speed = 3 # of what\n#   see a = b\n# [http.more]\n";
    assert_eq!(
        commented_settings(text),
        "[http]\nspeed = 3 # of what\n[http.more]\n"
    );
}

#[test]
fn a_file_overrides_the_defaults_and_the_environment_overrides_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    let text =
        "[upload]\nmax_bytes = \"1MiB\"\nmin_edge_px = 50\n[images]\nvariants = { medium = 99 }";
    std::fs::write(&path, text).unwrap();
    let variables = [
        ("CAMEO_UPLOAD__MAX_BYTES", "2MiB"),
        ("CAMEO_UPLOAD__FORMATS", "png, gif"),
        ("CAMEO_IMAGES__FORMATS", "[\"png\"]"),
        ("CAMEO_LIMITS__ENABLED", "false"),
        ("CAMEO_HTTP__PUBLIC_URL", "https://avatars.example.com/"),
        ("HOME", "/nowhere"),
    ];
    let owned = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let config = load(Some(&path), owned).unwrap();
    assert_eq!(config.upload.max_bytes, 2 << 20);
    assert_eq!(config.upload.min_edge_px, 50);
    assert_eq!(
        config.upload.formats,
        [SourceFormat::Png, SourceFormat::Gif]
    );
    assert_eq!(
        config.images.variants,
        [(VariantName::new("medium").unwrap(), 99)]
    );
    assert_eq!(config.images.formats, [Format::Png]);
    assert_eq!(config.limits, None);
    assert_eq!(config.http.public_url, "https://avatars.example.com");
}

#[test]
fn the_public_url_follows_the_address_until_it_is_set() {
    let url = |variables: &[(&str, &str)]| with(variables).unwrap().http.public_url;
    assert_eq!(
        url(&[("CAMEO_HTTP__BIND", "127.0.0.1:9000")]),
        "http://127.0.0.1:9000"
    );
    assert_eq!(
        url(&[("CAMEO_HTTP__BIND", "0.0.0.0:9000")]),
        "http://127.0.0.1:9000"
    );
    assert_eq!(
        url(&[("CAMEO_HTTP__BIND", "[::1]:9000")]),
        "http://[::1]:9000"
    );
    let set = [
        ("CAMEO_HTTP__BIND", "0.0.0.0:9000"),
        ("CAMEO_HTTP__PUBLIC_URL", "https://a.example"),
    ];
    assert_eq!(url(&set), "https://a.example");
}

#[test]
fn the_documents_are_on_until_they_are_switched_off() {
    assert!(with(&[]).unwrap().http.docs);
    assert!(!with(&[("CAMEO_HTTP__DOCS", "false")]).unwrap().http.docs);
    assert_eq!(faults_of(&[("CAMEO_HTTP__DOCS", "maybe")]).len(), 1);
}

#[test]
fn metrics_are_on_the_main_address_or_on_another() {
    let of = |variables: &[(&str, &str)]| with(variables).unwrap().http.metrics_bind;
    let own = ("CAMEO_HTTP__METRICS_BIND", "127.0.0.1:9090");
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[own]).unwrap().to_string(), "127.0.0.1:9090");
    let faults = faults_of(&[own, ("CAMEO_HTTP__BIND", "127.0.0.1:9090")]);
    assert_eq!(
        faults,
        [
            "CAMEO_HTTP__METRICS_BIND: is 127.0.0.1:9090, as is http.bind; give another address, or nothing"
        ]
    );
    let faults = faults_of(&[("CAMEO_HTTP__METRICS_BIND", "9090")]);
    assert_eq!(
        faults,
        [
            "CAMEO_HTTP__METRICS_BIND: is \"9090\"; give an address such as \"127.0.0.1:9090\", or nothing"
        ]
    );
}

#[test]
fn the_events_kept_are_bounded() {
    for wrong in ["0", "10000001"] {
        let faults = faults_of(&[("CAMEO_CATALOG__EVENTS_KEPT", wrong)]);
        let fault = format!("CAMEO_CATALOG__EVENTS_KEPT: is {wrong}; give 1 to 10000000");
        assert_eq!(faults, [fault]);
    }
}

#[test]
fn all_faults_are_reported_together_with_their_places_and_the_accepted_values() {
    let faults = with_file(
        r#"
        enviroment = "production"
        environment = "staging"
        [http]
        bind = "localhost"
        [upload]
        max_bytes = "five"
        min_edge_px = "100"
        formats = ["jpeg", "svg"]
        [images]
        variants = { Big = 10, small = 0 }
        background = "white"
        [limits]
        upload = "5 per minute"
        [lifecycle]
        retire_after = "1 fortnight"
        "#,
    );
    insta::assert_snapshot!(faults.unwrap_err().join("\n"));
}

#[test]
fn a_variable_is_named_in_its_fault() {
    let faults = faults_of(&[
        ("CAMEO_UPLOAD__MAX_SIZE", "1MiB"),
        ("CAMEO_PROCESSING__WORKERS", "many"),
        ("CAMEO_PROCESSING__DEADLINE", "0s"),
        ("CAMEO_IMAGES", "{}"),
        ("CAMEO_IMAGES__PRIMARY_VARIANT", "huge"),
    ]);
    insta::assert_snapshot!(faults.join("\n"));
}

#[test]
fn variables_of_a_kubernetes_service_called_cameo_are_not_settings() {
    let links = [
        ("CAMEO_SERVICE_HOST", "10.0.0.11"),
        ("CAMEO_SERVICE_PORT", "8080"),
        ("CAMEO_SERVICE_PORT_HTTP", "8080"),
        ("CAMEO_PORT", "tcp://10.0.0.11:8080"),
        ("CAMEO_PORT_8080_TCP", "tcp://10.0.0.11:8080"),
        ("CAMEO_PORT_8080_TCP_ADDR", "10.0.0.11"),
        ("CAMEO_REDIS_SERVICE_HOST", "10.0.0.12"),
        ("CAMEO_REDIS_PORT", "tcp://10.0.0.12:6379"),
        ("CAMEO_DATA_DIR", "elsewhere"),
    ];
    assert_eq!(with(&links).unwrap().data_dir, Path::new("elsewhere"));
    // Without the Service, the variable is a mistake.
    let faults = faults_of(&[("CAMEO_PORT", "8080")]);
    assert!(
        faults[0].starts_with("CAMEO_PORT: there is no setting"),
        "{faults:?}"
    );
}

#[test]
fn a_file_that_is_not_toml_or_does_not_exist_is_a_fault() {
    let faults = with_file("[http]\nbind 8080").unwrap_err();
    assert!(
        faults[0].starts_with("my.toml: line 2 is not TOML"),
        "{faults:?}"
    );
    let missing = load(Some(Path::new("no-such-file.toml")), [])
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("no-such-file.toml: cannot be read"),
        "{missing}"
    );
}

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

const PRODUCTION: [(&str, &str); 3] = [
    ("CAMEO_ENVIRONMENT", "production"),
    ("CAMEO_AUTH__JWT_SECRET", "Pw5u1z0mQeCkX9rVb3Tn8sGh4yJd6LfA"),
    ("CAMEO_HTTP__PUBLIC_URL", "https://avatars.example.com"),
];

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

#[test]
fn faults_of_the_probe_are_reported_together_with_the_others() {
    let variables = [
        ("CAMEO_DATA_DIR", "/nowhere"),
        ("CAMEO_IMAGES__WEBP_QUALITY", "101"),
    ];
    let variables = variables.map(|(name, value)| (name.into(), value.into()));
    let probe = |config: &Config| {
        vec![(
            "data_dir".to_owned(),
            format!("is {}", config.data_dir.display()),
        )]
    };
    let faults = check(None, variables, probe).unwrap_err().to_string();
    assert_eq!(
        faults,
        "CAMEO_IMAGES__WEBP_QUALITY: is 101; give 1 to 100\nCAMEO_DATA_DIR: is /nowhere"
    );
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

#[test]
fn decimal_units_are_refused_and_the_fault_names_the_binary_unit() {
    for (size, meant) in [
        ("5MB", "5MiB"),
        ("5 mb", "5MiB"),
        ("64k", "64KiB"),
        ("1G", "1GiB"),
    ] {
        let faults = faults_of(&[("CAMEO_UPLOAD__MAX_BYTES", size)]);
        assert!(
            faults[0].contains(&format!("such as {meant:?}")),
            "{faults:?}"
        );
    }
    for size in ["5242880", "5242880B", "5120 KiB", "5MiB", "5mi"] {
        let config = with(&[("CAMEO_UPLOAD__MAX_BYTES", size)]).unwrap();
        assert_eq!(config.upload.max_bytes, 5 << 20, "{size}");
    }
}

#[test]
fn an_upload_limit_above_the_memory_for_bodies_is_a_fault_that_names_both_settings() {
    let budget = ("CAMEO_PROCESSING__MEMORY_BUDGET", "64MiB");
    let faults = faults_of(&[budget, ("CAMEO_UPLOAD__MAX_BYTES", "33MiB")]);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].starts_with("CAMEO_UPLOAD__MAX_BYTES: is 33.0 MiB"),
        "{faults:?}"
    );
    assert!(faults[0].contains("processing.memory_budget"), "{faults:?}");
    with(&[budget, ("CAMEO_UPLOAD__MAX_BYTES", "32MiB")]).unwrap();
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_a_fault_if_it_is_a_setting_and_is_ignored_otherwise() {
    use std::os::unix::ffi::OsStringExt;

    let odd = || OsString::from_vec(b"caf\xe9".to_vec());
    load(None, [("LC_NAME".into(), odd()), (odd(), odd())]).unwrap();
    let name = OsString::from_vec(b"CAMEO_\xe9".to_vec());
    let variables = [("CAMEO_AUTH__JWT_SECRET".into(), odd()), (name, "x".into())];
    let faults = load(None, variables).unwrap_err().to_string();
    assert_eq!(
        faults,
        "CAMEO_AUTH__JWT_SECRET: is not UTF-8; give text that is\n\
         CAMEO_\u{fffd}: is not UTF-8; give text that is"
    );
}

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
