//! The deployment files: the secrets and rights of the containers in the compose file, and the
//! requests that the gateway forwards.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Backend, TestService, photos};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[derive(Deserialize)]
struct Compose {
    services: BTreeMap<String, Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    command: serde_json::Value,
    stop_grace_period: Option<String>,
}

impl Container {
    /// The names of the secrets that the container can read.
    fn secrets(&self) -> BTreeSet<&str> {
        let names = self
            .volumes
            .iter()
            .filter_map(|volume| volume.split(':').next());
        names.filter(|name| name.ends_with("-secret")).collect()
    }

    fn setting(&self, name: &str) -> &str {
        self.environment.get(name).map_or("", String::as_str)
    }

    fn has_argument(&self, argument: &str) -> bool {
        let arguments = self.command.as_array().unwrap();
        arguments.iter().any(|word| word == argument)
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap()
}

fn compose() -> Compose {
    yaml_serde::from_str(&read("docker-compose.yml")).unwrap()
}

#[test]
fn a_container_can_read_only_the_secrets_that_it_uses() {
    let services = compose().services;
    for (name, secrets) in [
        ("minio", &["minio-secret"][..]),
        ("minio-init", &["bucket-secret", "minio-secret"]),
        ("redis", &["redis-secret"]),
        (
            "cameo",
            &["bucket-secret", "records-secret", "token-secret"],
        ),
        ("gateway", &[]),
    ] {
        let expected: BTreeSet<_> = secrets.iter().copied().collect();
        assert_eq!(services[name].secrets(), expected, "{name}");
    }
}

#[test]
fn cameo_is_an_ordinary_user_of_the_bucket_and_of_redis() {
    let services = compose().services;
    let (cameo, minio) = (&services["cameo"], &services["minio"]);
    let user = cameo.setting("CAMEO_STORAGE__S3__ACCESS_KEY_ID");
    assert_eq!(user, services["minio-init"].setting("CAMEO_ACCESS_KEY"));
    assert_ne!(user, minio.setting("MINIO_ROOT_USER"));
    assert_ne!(cameo.setting("CAMEO_CATALOG__REDIS__URL_FILE"), "");
    let redis = &services["redis"];
    assert!(redis.has_argument("--aclfile"));
    assert!(redis.has_argument("always"), "every write is synced");
    let secrets = services["secrets"].command.to_string();
    assert!(secrets.contains("user default off"), "{secrets}");
}

#[test]
fn the_stop_grace_period_is_longer_than_the_drain() {
    let defaults: toml::Table = read("config.toml").parse().unwrap();
    let drain = defaults["lifecycle"]["drain"].as_str().unwrap();
    let drain = humantime::parse_duration(drain).unwrap();
    let services = compose().services;
    for name in ["cameo", "gateway"] {
        let grace = services[name].stop_grace_period.as_deref();
        let grace = humantime::parse_duration(grace.expect("a grace period")).unwrap();
        assert!(grace > drain, "{name}: {grace:?}");
    }
}

/// The secrets that the script in the compose file makes, with one folder for each volume.
struct Secrets(TempDir);

impl Secrets {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let services = compose().services;
        let container = &services["secrets"];
        let mut script = container.command[0].as_str().unwrap().replace("$$", "$");
        for volume in &container.volumes {
            let (_, path) = volume.split_once(':').unwrap();
            let place = folder.path().join(path.trim_start_matches('/'));
            fs::create_dir(&place).unwrap();
            let place = place.to_str().unwrap();
            script = script.replace(&format!(" {path}/"), &format!(" {place}/"));
            script = script.replace(&format!(">{path}/"), &format!(">{place}/"));
        }
        let script = Command::new("/bin/sh")
            .args(["-euc", &script])
            .envs([("JWT_SECRET", ""), ("MINIO_ROOT_PASSWORD", "")])
            .status();
        assert!(script.unwrap().success());
        Self(folder)
    }

    /// The real path of the file that has this path in the script.
    fn path(&self, path: &str) -> String {
        self.0.path().join(path).to_str().unwrap().to_owned()
    }
}

/// A Redis with the options and users of the compose file.
struct Redis {
    process: Child,
    url: String,
    _secrets: Secrets,
}

impl Redis {
    async fn start() -> Self {
        let secrets = Secrets::make();
        let services = compose().services;
        let words = services["redis"].command.as_array().unwrap();
        let mut words = words.iter().map(|word| {
            let word = word.as_str().unwrap();
            match word.strip_prefix("/secrets/") {
                Some(file) => secrets.path(&format!("redis/{file}")),
                None => word.to_owned(),
            }
        });
        let port = free_port();
        let process = Command::new(words.next().unwrap())
            .args(words)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--dir", &secrets.path("")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server; `make test` installs it");
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let url = fs::read_to_string(secrets.path("records/redis-url")).unwrap();
        let shipped = "@redis:6379";
        assert!(url.ends_with(shipped), "{url}");
        let url = url.replace(shipped, &format!("@127.0.0.1:{port}"));
        Self {
            process,
            url,
            _secrets: secrets,
        }
    }

    /// Sends a command as the Redis user of Cameo.
    fn ask(&self, command: &str) -> redis::RedisResult<String> {
        let client = redis::Client::open(self.url.as_str())?;
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.query(&mut client.get_connection_with_timeout(Duration::from_secs(5))?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn cameo_works_with_the_rights_of_its_redis_user() {
    let redis = Redis::start().await;
    let service = TestService::start_on(
        Backend::fleet().await,
        &[
            ("CAMEO_CATALOG__REDIS__URL", &redis.url),
            ("CAMEO_LIMITS__ENABLED", "true"),
            ("CAMEO_LIMITS__UPLOAD", "2/h"),
        ],
    )
    .await;
    let owner = service.owner("42");
    let picture = photos::png(100, 100);
    owner.upload("42", picture.clone()).await.ok();
    assert_eq!(owner.avatar("42").await.ok()["version"], 1);
    owner.upload("42", picture.clone()).await.ok();
    let refused = owner.upload("42", picture).await;
    assert_eq!(refused.problem(), (429, "rate_limited".to_owned()));
    owner.delete("42").await.ok();
    assert_eq!(owner.avatar("42").await.problem().0, 404);
    let ready = service.anonymous().get("/health/ready").await;
    assert_eq!(ready.ok()["catalog"], "ok");

    // Redis counted the limits and rejected no command of Cameo.
    let metrics = service.anonymous().get("/metrics").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    let denied = metrics
        .lines()
        .find(|line| {
            line.starts_with("cameo_limit_decisions")
                && [
                    r#"action="upload""#,
                    r#"source="redis""#,
                    r#"verdict="denied""#,
                ]
                .iter()
                .all(|label| line.contains(label))
        })
        .unwrap_or_else(|| panic!("{metrics}"));
    assert!(denied.ends_with(" 1"), "{denied}");
    let calls = redis.ask("INFO commandstats").unwrap();
    let was_refused = |line: &&str| !line.contains("rejected_calls=0,");
    let refused: Vec<_> = calls
        .lines()
        .filter(|line| line.starts_with("cmdstat_"))
        .filter(was_refused)
        .collect();
    assert!(calls.contains("cmdstat_evalsha"), "{calls}");
    assert_eq!(refused, [""; 0]);

    // The user has no other rights.
    for command in [
        "FLUSHALL",
        "CONFIG GET maxmemory",
        "ACL LIST",
        "KEYS *",
        "SET other 1",
        "GET other",
    ] {
        let refused = redis.ask(command).unwrap_err();
        assert_eq!(refused.code(), Some("NOPERM"), "{command}: {refused}");
    }
    let default_user = redis.url.replace("cameo:", ":");
    let default_user = redis::Client::open(default_user.as_str()).unwrap();
    assert!(
        default_user.get_connection().is_err(),
        "there is no other user"
    );
}

#[test]
fn the_configuration_of_the_compose_file_is_valid() {
    let secrets = Secrets::make();
    let services = compose().services;
    let mut variables = services["cameo"].environment.clone();
    for value in variables.values_mut() {
        *value = value.replace(
            "${PUBLIC_URL:-http://localhost:8080}",
            "http://localhost:8080",
        );
        if let Some(file) = value.strip_prefix("/secrets/") {
            *value = secrets.path(file);
        }
        assert!(!value.contains("${"), "{value}");
    }
    let check = |variables: &BTreeMap<String, String>| {
        let output = Command::new(env!("CARGO_BIN_EXE_cameo"))
            .arg("check-config")
            .env_clear()
            .env("CAMEO_DATA_DIR", secrets.path("data"))
            .envs(variables)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = check(&variables);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("warning"), "{said}");
    // The check reads the secrets, so a missing one is a fault.
    fs::remove_file(secrets.path("token/jwt")).unwrap();
    let (code, said) = check(&variables);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn the_environment_of_the_image_is_production() {
    let dockerfile = read("deploy/Dockerfile");
    assert!(dockerfile.contains("ENV CAMEO_ENVIRONMENT=production"));
}

/// An nginx with the configuration of the gateway. One server that records its requests replaces
/// both upstreams.
struct Gateway {
    nginx: Child,
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    _folder: TempDir,
}

impl Gateway {
    async fn start() -> Self {
        let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", upstream.local_addr().unwrap());
        let requests = Arc::default();
        tokio::spawn(record(upstream, Arc::clone(&requests)));

        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        let port = free_port();
        let shipped = read("deploy/nginx.conf");
        let server = shipped
            .replace("listen 8080;", &format!("listen 127.0.0.1:{port};"))
            .replace("http://cameo:8080", &address)
            .replace("http://minio:9000", &address);
        assert_eq!(server.matches(&address).count(), 2, "{server}");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/{kind};"))
            .join("\n");
        let whole = format!(
            "daemon off; pid {place}/pid; error_log stderr; worker_processes 1;\n\
             events {{}}\n\
             http {{ access_log off;\n{temporary}\n{server} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, whole).unwrap();
        let nginx = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("nginx; `make test` installs it");
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Self {
            nginx,
            port,
            requests,
            _folder: folder,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The heads of the forwarded requests.
    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.nginx),
            rustix::process::Signal::TERM,
        );
        let _ = self.nginx.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Answers every request with 200, and records its head.
async fn record(listener: tokio::net::TcpListener, requests: Arc<Mutex<Vec<String>>>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let requests = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read_buf(&mut head).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
            requests.lock().unwrap().push(text);
            let answer = b"HTTP/1.1 200 OK\r\nVary: Origin\r\nAccess-Control-Allow-Origin: https://a.example\r\n\
                           Content-Length: 2\r\nConnection: close\r\n\r\nok";
            let _ = stream.write_all(answer).await;
        });
    }
}

#[tokio::test]
async fn the_gateway_does_not_forward_tokens_and_cookies_to_the_bucket() {
    let gateway = Gateway::start().await;
    let client = reqwest::Client::new();
    let get = |path: &str| {
        let request = client.get(gateway.url(path));
        let request = request.header("Authorization", "Bearer secret");
        request.header("Cookie", "access_token=secret").send()
    };
    let image = get("/images/public/avatars/abc/medium.webp").await.unwrap();
    assert_eq!(image.status(), 200);
    let headers = image.headers();
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(headers["cross-origin-resource-policy"], "cross-origin");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers.get("vary"), None);
    let seen = gateway.requests();
    assert!(
        seen[0].starts_with("get /avatars/public/avatars/abc/medium.webp "),
        "{}",
        seen[0]
    );
    assert!(!seen[0].contains("secret"), "{}", seen[0]);

    // Requests to Cameo keep them.
    assert_eq!(get("/api/v1/users/me/avatar").await.unwrap().status(), 200);
    let seen = gateway.requests();
    assert!(
        seen[1].contains("authorization: bearer secret"),
        "{}",
        seen[1]
    );

    // The rest of the bucket and the metrics are not reachable.
    for path in [
        "/images/private/x",
        "/images/public/../private/x",
        "/images/",
        "/metrics",
    ] {
        let answer = get(path).await.unwrap();
        assert_ne!(answer.status(), 200, "{path}");
    }
    assert_eq!(gateway.requests().len(), 2);
}

#[tokio::test]
async fn the_gateway_collects_a_whole_body_before_it_forwards_the_request() {
    let gateway = Gateway::start().await;
    let mut client = TcpStream::connect(("127.0.0.1", gateway.port))
        .await
        .unwrap();
    let head = "PUT /api/v1/users/42/avatar HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\n\
                Content-Length: 8\r\nConnection: close\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(b"half").await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        gateway.requests(),
        [""; 0],
        "no request is forwarded before its body is complete"
    );
    client.write_all(b"half").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(gateway.requests().len(), 1);
}
