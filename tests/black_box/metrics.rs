//! The metrics and their addresses.

#![allow(clippy::float_cmp)] // samples are whole numbers

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;

use crate::support::photos::PORTRAIT;
use crate::support::{Backend, Client, TestService, send};

const ON: (&str, &str) = ("CAMEO_LIMITS__ENABLED", "true");
const UPLOAD: &str = r#"method="POST",route="/api/v1/users/{user_id}/avatar""#;

/// The values of all samples, by name and labels.
struct Samples(BTreeMap<String, f64>);

impl Samples {
    async fn of(client: &Client) -> Self {
        let answer = client.get("/metrics").await;
        assert_eq!(answer.status, 200);
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        assert_eq!(answer.header("content-type"), kind);
        Self::read(&String::from_utf8(answer.body).unwrap())
    }

    fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        };
        Self(lines.map(sample).collect())
    }

    /// The value of a sample, or 0 if it does not exist yet.
    fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }
}

/// How much each of these samples grew while `done` ran, and the result of `done`.
async fn growth<T>(
    service: &TestService,
    names: &[String],
    done: impl Future<Output = T>,
) -> (Vec<f64>, T) {
    let before = Samples::of(&service.anonymous()).await;
    let done = done.await;
    let after = Samples::of(&service.anonymous()).await;
    let grew = names.iter().map(|name| after.get(name) - before.get(name));
    (grew.collect(), done)
}

fn operation(backend: &str, operation: &str, outcome: &str) -> String {
    format!(
        "cameo_backend_operations_total{{backend=\"{backend}\",operation=\"{operation}\",outcome=\"{outcome}\"}}"
    )
}

fn decision(source: &str, verdict: &str) -> String {
    format!(
        "cameo_limit_decisions_total{{action=\"upload\",source=\"{source}\",verdict=\"{verdict}\"}}"
    )
}

#[tokio::test]
async fn an_upload_is_counted_by_every_metric_of_its_path() {
    let service = TestService::start_with(&[ON]).await;
    let limits = service.config.catalog.kind();
    let source = if limits == "redis" { "redis" } else { "local" };
    let names = [
        format!("cameo_http_requests_total{{{UPLOAD},status=\"2xx\"}}"),
        format!("cameo_http_requests_total{{{UPLOAD},status=\"4xx\"}}"),
        format!("cameo_http_request_duration_seconds_count{{{UPLOAD}}}"),
        r#"cameo_changes_total{action="upload",outcome="done"}"#.to_owned(),
        r#"cameo_changes_total{action="upload",outcome="unsupported_format"}"#.to_owned(),
        r#"cameo_changes_total{action="upload",outcome="forbidden"}"#.to_owned(),
        decision(source, "allowed"),
        r#"cameo_imaging_duration_seconds_count{format="jpeg"}"#.to_owned(),
        "cameo_upload_wait_duration_seconds_count".to_owned(),
        // Ten renditions and the manifest.
        operation("store", "put", "ok"),
        operation("catalog", "reserve", "ok"),
        operation("catalog", "replace", "ok"),
        r#"cameo_backend_operation_duration_seconds_count{backend="catalog",operation="replace"}"#
            .to_owned(),
        "cameo_missing_objects_total".to_owned(),
    ];
    let (grew, ()) = growth(&service, &names, async {
        service.owner("42").upload("42", PORTRAIT).await.ok();
        let refused = service.owner("42").upload("42", "no picture").await;
        assert_eq!(refused.problem().0, 400);
        let refused = service.owner("43").upload("42", PORTRAIT).await;
        assert_eq!(refused.problem().0, 403);
    })
    .await;
    let expected = [1, 2, 3, 1, 1, 1, 2, 1, 1, 11, 1, 1, 1, 0];
    assert_eq!(grew, expected.map(f64::from));

    let samples = Samples::of(&service.anonymous()).await;
    let half = (service.config.processing.memory_budget / 2) as f64;
    for purpose in ["uploads", "pictures"] {
        let of = |name| samples.get(&format!("cameo_memory_{name}_bytes{{use=\"{purpose}\"}}"));
        assert_eq!((of("reserved"), of("budget")), (0.0, half));
    }
    assert!(samples.get("cameo_imaging_workers") >= 1.0);
    assert_eq!(samples.get("cameo_imaging_workers_busy"), 0.0);
    assert_eq!(samples.get("cameo_uploads_waiting"), 0.0);
    assert_eq!(samples.get("cameo_limits_fallback_active"), 0.0);
    assert!(samples.get("process_start_time_seconds") > 1.7e9);
    assert!(samples.get("process_resident_memory_bytes") > 1e6);
}

#[tokio::test]
async fn openmetrics_is_answered_if_accept_asks_for_it() {
    let service = TestService::start().await;
    let anyone = service.anonymous();
    let scraper =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    let answer = anyone.get_with("/metrics", "accept", scraper).await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(answer.header("content-type"), kind);
    let open = String::from_utf8(answer.body).unwrap();
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert!(
        open.contains("# TYPE cameo_missing_objects counter\n"),
        "{open}"
    );
    for accept in ["*/*", "text/plain", "text/html,*/*;q=0.8"] {
        let answer = anyone.get_with("/metrics", "accept", accept).await;
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        assert_eq!(answer.header("content-type"), kind, "{accept}");
        assert_eq!(answer.header("vary"), "Accept");
    }
}

#[tokio::test]
async fn promtool_finds_no_fault_in_the_metrics() {
    use tokio::io::AsyncWriteExt;

    let service = TestService::start_with(&[ON]).await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    service.anonymous().avatar("43").await.problem();
    let text = service.anonymous().get("/metrics").await.body;
    let root = env!("CARGO_MANIFEST_DIR");
    let found = std::process::Command::new(format!("{root}/scripts/promtool.sh"));
    let found = tokio::process::Command::from(found).output().await.unwrap();
    let said = String::from_utf8_lossy(&found.stderr);
    assert!(found.status.success(), "promtool is missing: {said}");
    let check = async |text: &[u8]| {
        let mut tool = tokio::process::Command::new(String::from_utf8_lossy(&found.stdout).trim())
            .args(["check", "metrics"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        tool.stdin.take().unwrap().write_all(text).await.unwrap();
        let output = tokio::time::timeout(Duration::from_secs(30), tool.wait_with_output());
        let output = output.await.expect("promtool ends").unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    assert_eq!(check(&text).await, (true, String::new()));
    // The tool does report faults.
    let (is_good, said) = check(b"# TYPE requests counter\nrequests 1\n").await;
    assert!(!is_good && said.contains("_total"), "{said}");
}

#[tokio::test]
async fn requests_to_unknown_addresses_share_the_route_none() {
    let service = TestService::start().await;
    let anyone = service.anonymous();
    for path in ["/nowhere", "/api/v2/users/42/avatar"] {
        assert_eq!(anyone.get(path).await.status, 404);
    }
    let brew = Method::from_bytes(b"BREW").unwrap();
    assert_eq!(send(anyone.request(brew, "/nowhere")).await.status, 404);
    let samples = Samples::of(&anyone).await;
    let requests = |method| {
        samples.get(&format!(
            "cameo_http_requests_total{{method=\"{method}\",route=\"none\",status=\"4xx\"}}"
        ))
    };
    assert_eq!((requests("GET"), requests("other")), (2.0, 1.0));
}

#[tokio::test]
async fn a_sweep_is_counted() {
    let variables = [
        ("CAMEO_LIFECYCLE__RETIRE_AFTER", "0s"),
        ("CAMEO_LIFECYCLE__SWEEP_EVERY", "100ms"),
    ];
    let service = TestService::start_with(&variables).await;
    let owner = service.owner("42");
    owner.upload("42", PORTRAIT).await.ok();
    owner.upload("42", PORTRAIT).await.ok();
    let swept = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let samples = Samples::of(&service.anonymous()).await;
            if samples.get("cameo_sweep_removed_total") > 0.0 {
                return samples;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let samples = swept.await.unwrap();
    assert_eq!(samples.get("cameo_sweep_claimed_total"), 1.0);
    assert_eq!(samples.get("cameo_sweep_removed_objects_total"), 10.0);
    assert_eq!(samples.get("cameo_sweep_failures_total"), 0.0);
    assert!(samples.get("cameo_sweep_last_success_timestamp_seconds") > 1.7e9);
}

#[tokio::test]
async fn the_fallback_of_the_limits_is_reported_while_redis_is_down() {
    let service = TestService::start_fleet(&[ON]).await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let names = [decision("redis", "allowed"), decision("local", "allowed")];
    let active = async || {
        let samples = Samples::of(&service.anonymous()).await;
        samples.get("cameo_limits_fallback_active")
    };
    assert_eq!(active().await, 0.0);
    service.backend().stop_redis();
    let (grew, ()) = growth(&service, &names, async {
        let refused = service.owner("42").upload("42", PORTRAIT).await;
        assert_eq!(refused.problem().0, 503);
    })
    .await;
    assert_eq!(grew, [0.0, 1.0]);
    assert_eq!(active().await, 1.0);
    let failed = Samples::of(&service.anonymous()).await;
    assert!(failed.get(&operation("catalog", "reserve", "error")) > 0.0);

    service.backend().start_redis();
    service.owner("42").upload("42", PORTRAIT).await.ok();
    assert_eq!(active().await, 0.0);
}

#[tokio::test]
async fn an_open_circuit_breaker_is_reported() {
    let service = TestService::start_on(Backend::fleet_with_faults().await, &[]).await;
    // Readers of one image would share a request to the store.
    let mut urls = Vec::new();
    for user in ["42", "43"] {
        let avatar = service.owner(user).upload(user, PORTRAIT).await.ok();
        let images = avatar["images"].as_array().unwrap().iter();
        urls.extend(images.map(|image| image["url"].as_str().unwrap().to_owned()));
    }
    let open = async || {
        let samples = Samples::of(&service.anonymous()).await;
        samples.get("cameo_store_breaker_open")
    };
    assert_eq!(open().await, 0.0);
    service.backend().fail();
    let names = [
        operation("store", "get", "error"),
        "cameo_store_retries_total".to_owned(),
    ];
    let anyone = service.anonymous();
    let (grew, ()) = growth(&service, &names, async {
        for answer in join_all(urls[..12].iter().map(|url| anyone.get(url))).await {
            assert_eq!(answer.problem().0, 503);
        }
    })
    .await;
    assert_eq!(grew[0], 12.0);
    assert!(grew[1] > 0.0);
    assert_eq!(open().await, 1.0);
    service.backend().release();
    // The readiness check sends a request to the store, also while the breaker is open. Its success
    // closes the breaker.
    assert_eq!(anyone.get("/health/ready").await.status, 200);
    assert_eq!(open().await, 0.0);
}

#[tokio::test]
async fn metrics_may_have_an_address_of_their_own() {
    let service = TestService::start_with(&[("CAMEO_HTTP__METRICS_BIND", "127.0.0.1:0")]).await;
    assert_eq!(service.anonymous().get("/metrics").await.status, 404);
    let address = service.metrics_address().unwrap();
    let operator = Client::new(&format!("http://{address}"), None);
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let samples = Samples::of(&operator).await;
    let uploads = samples.get(r#"cameo_changes_total{action="upload",outcome="done"}"#);
    assert_eq!(uploads, 1.0);
    // This address does not serve avatars.
    let nothing = reqwest::get(format!("http://{address}/api/v1/users/42/avatar")).await;
    assert_eq!(nothing.unwrap().status(), 404);
}

#[tokio::test]
async fn the_error_for_an_address_in_use_names_the_setting() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    for (setting, other) in [
        ("CAMEO_HTTP__METRICS_BIND", "CAMEO_HTTP__BIND"),
        ("CAMEO_HTTP__BIND", "CAMEO_HTTP__METRICS_BIND"),
    ] {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_cameo"))
            .env("CAMEO_DATA_DIR", folder.path())
            .env(setting, &taken)
            .env(other, "127.0.0.1:0")
            .output();
        let output = tokio::time::timeout(Duration::from_secs(20), output);
        let output = output.await.expect("the program ends").unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        let key = setting.trim_start_matches("CAMEO_").to_lowercase();
        let key = key.replace("__", ".");
        assert!(
            said.contains(&format!("{key}: cannot listen on {taken}")),
            "{said}"
        );
    }
}

#[tokio::test]
async fn the_document_lists_exactly_the_metrics_with_their_types() {
    // The metrics of fetched keys exist only if keys are fetched.
    let variables = [
        ("CAMEO_AUTH__ALGORITHMS", "HS256,ES256"),
        ("CAMEO_AUTH__JWKS_URL", "http://127.0.0.1:1/keys"),
    ];
    let service = TestService::start_with(&variables).await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    service.anonymous().get("/metrics").await;
    let text = service.anonymous().get("/metrics").await.body;
    let text = String::from_utf8(text).unwrap();
    let served: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind))
        .collect();
    let document = include_str!("../../docs/metrics.md");
    let written: BTreeSet<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap()))
        .collect();
    assert_eq!(served, written);
}
