//! Health checks, logs, connections and commands for the operator.

use std::time::Duration;

use crate::support::photos::PORTRAIT;
use crate::support::{Backend, Client, TestService, shape, url_when_ready};

#[tokio::test]
async fn health_reports_liveness_readiness_and_the_stored_files() {
    let service = TestService::start().await;
    let anyone = service.anonymous();
    insta::assert_snapshot!(shape(&anyone.get("/health/live").await, service.url()));
    insta::assert_snapshot!(shape(&anyone.get("/health/ready").await, service.url()));
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let health = anyone.get("/health").await;
    assert_eq!(health.body, anyone.get("/health/ready").await.body);
    assert_eq!(health.status, 200);
    let overview = anyone.get("/health/avatar").await.ok();
    let bytes: u64 = avatar["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["bytes"].as_u64().unwrap())
        .sum();
    let mib = (bytes as f64 / 1_048_576.0 * 100.0).round() / 100.0;
    let expected = serde_json::json!({
        "status": "healthy",
        "config_valid": true,
        "errors": [],
        "version": env!("CARGO_PKG_VERSION"),
        "storage": { "total_files": 10, "total_size_mb": mib },
    });
    assert_eq!(overview, expected);
}

#[tokio::test]
async fn in_production_only_operators_see_the_figures() {
    let variables = [
        ("CAMEO_ENVIRONMENT", "production"),
        // Production refuses a secret that can be guessed.
        (
            "CAMEO_AUTH__JWT_SECRET",
            "q7Jw0mX2vT9cRkYbHs4eUzLd6fNpAi81oGQ3xEWV5tM=",
        ),
        ("CAMEO_HTTP__METRICS_BIND", "127.0.0.1:0"),
    ];
    let service = TestService::start_with(&variables).await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
    let bad = Client::new(service.url(), Some("nonsense".to_owned()));
    for client in [service.anonymous(), service.owner("42"), bad] {
        let overview = client.get("/health/avatar").await.ok();
        assert_eq!(overview["status"], "healthy");
        assert_eq!(overview.get("storage"), None);
    }
    let address = service.metrics_address().unwrap();
    let inside = Client::new(&format!("http://{address}"), None);
    for client in [service.admin(), service.service(), inside] {
        let overview = client.get("/health/avatar").await.ok();
        assert_eq!(overview["storage"]["total_files"], 10);
    }
}

#[tokio::test]
async fn the_root_redirects_to_the_documentation_if_it_is_on() {
    let service = TestService::start().await;
    let root = service.anonymous().get("/").await;
    assert_eq!(
        (root.status.as_u16(), root.header("location")),
        (307, "/docs")
    );
    let without = TestService::start_with(&[("CAMEO_HTTP__DOCS", "false")]).await;
    for path in ["/", "/docs", "/docs/", "/docs/index.html", "/openapi.json"] {
        let answer = without.anonymous().get(path).await;
        assert_eq!(answer.problem(), (404, "not_found".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_request_without_exactly_one_valid_host_is_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let service = TestService::start_with(&[("CAMEO_HTTP__METRICS_BIND", "127.0.0.1:0")]).await;
    let main = service.url().trim_start_matches("http://").to_owned();
    let metrics = service.metrics_address().unwrap().to_string();
    for (address, path) in [(main, "/health/live"), (metrics, "/metrics")] {
        let answered = async |version: &str, hosts: &str| {
            let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            let head = format!("GET {path} HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let reading = stream.read_to_string(&mut answer);
            let reading = tokio::time::timeout(Duration::from_secs(10), reading);
            reading.await.expect("an answer in time").unwrap();
            answer
        };
        for (version, hosts) in [
            ("1.1", ""),
            ("1.1", "Host: a\r\nHost: b\r\n"),
            ("1.1", "Host: a\r\nhost: a\r\n"),
            ("1.1", "Host: a b\r\n"),
            ("1.1", "Host:\r\n"),
            ("1.0", "Host: a\r\nHost: b\r\n"),
        ] {
            let answer = answered(version, hosts).await;
            assert!(
                answer.contains(" 400 Bad Request\r\n"),
                "{hosts:?}: {answer}"
            );
            assert!(answer.contains("\"malformed_request\""), "{answer}");
        }
        for (version, hosts) in [("1.1", "Host: cameo:80\r\n"), ("1.0", "")] {
            let answer = answered(version, hosts).await;
            assert!(answer.contains(" 200 OK\r\n"), "{hosts:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn the_log_line_of_a_refused_request_has_its_problem_code() {
    use tokio::io::{AsyncBufReadExt, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_cameo"))
        .env("CAMEO_DATA_DIR", folder.path())
        .env("CAMEO_HTTP__BIND", "127.0.0.1:0")
        .env("RUST_LOG", "info")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let url = url_when_ready(&mut child).await;
    let secret = "secret-that-is-never-logged";
    let caller = Client::new(&url, Some(secret.to_owned()));
    let path = format!("/api/v1/users/{secret}%20/avatar?size={secret}");
    assert_eq!(caller.get(&path).await.problem().0, 400);
    caller.get("/api/v1/users/42/avatar").await.problem();
    assert_eq!(caller.avatar("me").await.problem().0, 401);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let logged = tokio::time::timeout(Duration::from_secs(20), async {
        let mut codes = Vec::new();
        while codes.len() < 3 {
            let line = lines
                .next_line()
                .await
                .unwrap()
                .expect("the program logs requests");
            assert!(!line.contains(secret), "{line}");
            if line.contains("cameo::access") {
                let (_, code) = line.split_once("code=\"").expect("a code");
                codes.push(code.split('"').next().unwrap().to_owned());
            }
        }
        codes
    });
    assert_eq!(
        logged.await.unwrap(),
        ["invalid_user_id", "avatar_not_found", "unauthenticated"]
    );
}

#[tokio::test]
async fn an_unavailable_store_is_reported_and_uploads_are_answered_503() {
    // The service would create a bucket again, so this test uses a folder.
    let service = TestService::start_on(Backend::Alone, &[]).await;
    service.remove_store().await;
    let ready = service.anonymous().get("/health/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["store"], "unavailable");
    assert_eq!(ready.json()["catalog"], "ok");
    assert_eq!(ready.json()["public_read"], "unknown");
    let overview = service.anonymous().get("/health/avatar").await;
    assert_eq!(overview.status, 503);
    assert_eq!(overview.json()["status"], "unhealthy");
    let errors = serde_json::json!(["the store is unavailable"]);
    assert_eq!(overview.json()["errors"], errors);
    let refused = service.owner("42").upload("42", PORTRAIT).await;
    assert_eq!(refused.problem(), (503, "storage_unavailable".to_owned()));
    assert_eq!(refused.header("retry-after"), "2");
    assert_eq!(service.anonymous().avatar("42").await.problem().0, 404);
}

#[tokio::test]
async fn a_harmless_request_id_of_the_client_is_kept() {
    let service = TestService::start().await;
    let anyone = service.anonymous();
    let answer = anyone
        .get_with("/health/live", "x-request-id", "gateway-7.a:b_c")
        .await;
    assert_eq!(answer.header("x-request-id"), "gateway-7.a:b_c");
    for harmful in ["<script>", "a b", &"x".repeat(129)] {
        let answer = anyone
            .get_with("/health/live", "x-request-id", harmful)
            .await;
        assert_ne!(answer.header("x-request-id"), harmful);
    }
}

#[tokio::test]
async fn an_upload_in_progress_is_answered_before_the_shutdown() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    let anonymous = service.anonymous();
    let upload = tokio::spawn(async move { owner.upload("42", PORTRAIT).await });
    // The upload is in progress when its first object is stored.
    let under_way = tokio::time::timeout(Duration::from_secs(20), async {
        while service.objects().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    under_way.await.unwrap();
    let (ended, _data) = service.stop();
    upload.await.unwrap().ok();
    ended.await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(5), async {
        anonymous
            .request(reqwest::Method::GET, "/health/live")
            .send()
            .await
    });
    assert!(
        refused.await.unwrap().is_err(),
        "the service no longer listens"
    );
}

#[tokio::test]
async fn unknown_addresses_and_methods_are_answered_404_and_405() {
    let service = TestService::start().await;
    insta::assert_snapshot!(shape(
        &service.anonymous().get("/nothing").await,
        service.url()
    ));
    let patch = service
        .anonymous()
        .request(reqwest::Method::PATCH, "/api/v1/users/42/avatar");
    insta::assert_snapshot!(shape(&crate::support::send(patch).await, service.url()));
}

#[tokio::test]
async fn a_connection_that_sends_no_request_is_closed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let service = TestService::start().await;
    let address = service.url().trim_start_matches("http://").to_owned();
    let closed = async |sent: &[u8]| {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = [0; 64];
        let answer = tokio::time::timeout(Duration::from_secs(25), stream.read(&mut answer));
        answer.await.expect("the connection is closed").unwrap_or(0)
    };
    let (silent, partial) = tokio::join!(closed(b""), closed(b"GET /health/li"));
    assert_eq!((silent, partial), (0, 0));
}

#[tokio::test]
async fn a_request_head_above_64_kib_is_answered_431() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const BOUND: usize = 64 * 1024;
    let service = TestService::start().await;
    let address = service.url().trim_start_matches("http://").to_owned();
    let status = async |head: &[u8]| {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(head).await.unwrap();
        let mut status = [0; "HTTP/1.1 200".len()];
        let answer = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut status));
        answer.await.expect("an answer in time").unwrap();
        String::from_utf8(status.to_vec()).unwrap()
    };
    let filled = |bytes: usize, end: &str| {
        let begin = "GET /health/live HTTP/1.1\r\nHost: cameo\r\nConnection: close\r\nX-Filler: ";
        let filler = "x".repeat(bytes - begin.len() - end.len());
        format!("{begin}{filler}{end}").into_bytes()
    };
    let within = filled(BOUND - 1024, "\r\n\r\n");
    assert_eq!(status(&within).await, "HTTP/1.1 200");
    // The service answers although the head has not ended.
    assert_eq!(status(&filled(BOUND, "")).await, "HTTP/1.1 431");
}

/// Runs `cameo check-config` with only these variables. Returns its exit code and its output.
fn check_config(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cameo"))
        .arg("check-config")
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn check_config_reports_a_data_folder_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("in-the-way");
    std::fs::write(&file, "").unwrap();
    let below = file.join("data");
    let below = below.to_str().unwrap();
    let (code, said) = check_config(&[
        ("CAMEO_DATA_DIR", below),
        ("CAMEO_IMAGES__WEBP_QUALITY", "0"),
    ]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("has 2 faults"), "{said}");
    let fault = format!("CAMEO_DATA_DIR: is {below:?}, which cannot be written: ");
    assert!(said.contains(&fault), "{said}");
    // A replica of a fleet does not use the folder.
    let fleet = [
        ("CAMEO_DATA_DIR", below),
        ("CAMEO_STORAGE__KIND", "s3"),
        ("CAMEO_CATALOG__KIND", "redis"),
        ("CAMEO_AUTH__JWT_SECRET", "Pw5u1z0mQeCkX9rVb3Tn8sGh4yJd6LfA"),
    ];
    let (code, said) = check_config(&fleet);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn check_config_leaves_nothing_behind_and_prints_warnings() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("not/made/yet");
    let (code, said) = check_config(&[
        ("CAMEO_DATA_DIR", data.to_str().unwrap()),
        ("CAMEO_LIFECYCLE__UPLOAD_DEADLINE", "5s"),
    ]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the configuration is good"), "{said}");
    let warning = "warning: CAMEO_LIFECYCLE__UPLOAD_DEADLINE: is 5s; ";
    assert!(said.contains(warning), "{said}");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0);
}
