//! Tests of the settings as a whole: defaults, layers, faults.

mod adapters;
mod auth;
mod moderation;
mod production;
mod secrets;

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

const PRODUCTION: [(&str, &str); 3] = [
    ("CAMEO_ENVIRONMENT", "production"),
    ("CAMEO_AUTH__JWT_SECRET", "Pw5u1z0mQeCkX9rVb3Tn8sGh4yJd6LfA"),
    ("CAMEO_HTTP__PUBLIC_URL", "https://avatars.example.com"),
];

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
