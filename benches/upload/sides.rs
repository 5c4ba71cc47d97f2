//! The measured services: the program and the services of bench/peers. Also the servers that they
//! share.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::load::Load;
use crate::root;
use crate::tree::Tree;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_cameo");
const BUCKET: &str = "avatars";
/// How long a process may take to become ready.
const STARTUP_TIMEOUT: Duration = Duration::from_mins(1);

/// A process and its descendants. Dropping it kills them.
pub(crate) struct Group(Child);

impl Group {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn tree(&self) -> Tree {
        Tree::of(self.0.id())
    }

    /// Waits until the process has ended successfully. Returns its processor time, sampled every 20
    /// ms.
    pub(crate) async fn wait(&mut self) -> f64 {
        let tree = self.tree();
        let mut cpu_seconds = 0.0;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return cpu_seconds;
            }
            cpu_seconds = tree.cpu_seconds();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn still_runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("sh")
            .args(["-c", "kill -KILL \"$0\"", &group])
            // The process may have ended by itself.
            .stderr(Stdio::null())
            .status();
        let _ = self.0.wait();
    }
}

/// The addresses of the bucket and of Redis, which all services use.
pub(crate) struct Servers {
    pub(crate) endpoint: String,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) redis_url: String,
}

/// A running `SeaweedFS`, started by scripts/servers/seaweedfs.sh.
pub(crate) struct SeaweedFs {
    _group: Group,
    _folder: TempDir,
    facts: String,
}

impl SeaweedFs {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(root().join("scripts/servers/seaweedfs.sh"));
        command.arg("0").arg(folder.path());
        let mut group = Group::start(&mut command);
        let file = folder.path().join("server.env");
        wait_until(&mut group, async || file.exists()).await;
        Self {
            _group: group,
            facts: fs::read_to_string(file).unwrap(),
            _folder: folder,
        }
    }

    pub(crate) fn with_redis(&self, redis_url: String) -> Servers {
        Servers {
            endpoint: self.fact("ENDPOINT="),
            access_key_id: self.fact("ACCESS_KEY_ID="),
            secret_access_key: self.fact("SECRET_ACCESS_KEY="),
            redis_url,
        }
    }

    fn fact(&self, name: &str) -> String {
        let mut lines = self.facts.lines();
        lines
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .into()
    }
}

/// A measured service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Cameo with these formats.
    Cameo(&'static str),
    /// Another build of Cameo at this path, with WebP and JPEG.
    Build(&'static str),
    /// Cameo with WebP and JPEG, and this value of `processing.isolation`.
    Isolated(&'static str),
    /// `FastAPI` with Pillow, in the form `common` or `best`.
    FastApi(&'static str),
    /// Fastify with sharp.
    Fastify,
}

impl Side {
    /// All services. The first one is the reference, and creates the bucket.
    pub(crate) const ALL: [Self; 5] = [
        Self::Cameo("webp"),
        Self::Cameo("webp,jpeg"),
        Self::FastApi("common"),
        Self::FastApi("best"),
        Self::Fastify,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cameo("webp") => "Cameo, WebP",
            Self::Cameo(_) => "Cameo, WebP and JPEG",
            Self::Build(_) => "another build of Cameo",
            Self::Isolated(_) => "Cameo with a value of processing.isolation",
            Self::FastApi("common") => "FastAPI, Pillow",
            Self::FastApi(_) => "FastAPI, Pillow, optimised",
            Self::Fastify => "Fastify, sharp",
        }
    }

    fn command(self, port: u16, servers: &Servers, data_dir: &Path) -> Command {
        match self {
            Self::Cameo(formats) => serve(PROGRAM, formats, port, servers, data_dir),
            Self::Build(program) => serve(program, "webp,jpeg", port, servers, data_dir),
            Self::Isolated(isolation) => {
                let mut command = serve(PROGRAM, "webp,jpeg", port, servers, data_dir);
                command.env("CAMEO_PROCESSING__ISOLATION", isolation);
                command
            }
            Self::FastApi(form) => {
                let app = root().join("bench/peers/fastapi");
                let mut command =
                    Command::new(root().join(".tools/bench-peers/python/bin/uvicorn"));
                command
                    .arg("--app-dir")
                    .arg(app)
                    .args(["app:app", "--host", "127.0.0.1", "--workers", "2"])
                    .args(["--no-access-log", "--log-level", "warning", "--port"])
                    .arg(port.to_string())
                    .env("PICTURES", form)
                    .env("PYTHONDONTWRITEBYTECODE", "1");
                configure_peer(&mut command, servers);
                command
            }
            Self::Fastify => {
                let mut command = Command::new("node");
                command
                    .arg(root().join("bench/peers/fastify/server.mjs"))
                    .env("NODE_ENV", "production")
                    // Suppresses a warning about the version of Node.js.
                    .env("NODE_NO_WARNINGS", "1")
                    .env("PORT", port.to_string());
                configure_peer(&mut command, servers);
                command
            }
        }
    }
}

/// The command that starts a build of the program without rate limits.
fn serve(program: &str, formats: &str, port: u16, servers: &Servers, data_dir: &Path) -> Command {
    let mut command = Command::new(program);
    configure(&mut command, formats, servers, data_dir);
    command
        .env("CAMEO_HTTP__BIND", format!("127.0.0.1:{port}"))
        .env("CAMEO_LIMITS__ENABLED", "false")
        // A whole flood is answered, as by the other services, instead of 503.
        .env("CAMEO_PROCESSING__QUEUE_TIMEOUT", "90s")
        .stderr(Stdio::null());
    command
}

/// A command of the program on these servers.
pub(crate) fn cameo(formats: &str, servers: &Servers, data_dir: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    configure(&mut command, formats, servers, data_dir);
    command
}

fn configure(command: &mut Command, formats: &str, servers: &Servers, data_dir: &Path) {
    command
        .env("CAMEO_DATA_DIR", data_dir)
        .env("CAMEO_STORAGE__KIND", "s3")
        .env("CAMEO_STORAGE__S3__BUCKET", BUCKET)
        .env("CAMEO_STORAGE__S3__ENDPOINT", &servers.endpoint)
        .env("CAMEO_STORAGE__S3__ACCESS_KEY_ID", &servers.access_key_id)
        .env(
            "CAMEO_STORAGE__S3__SECRET_ACCESS_KEY",
            &servers.secret_access_key,
        )
        .env("CAMEO_CATALOG__KIND", "redis")
        .env("CAMEO_CATALOG__REDIS__URL", &servers.redis_url)
        .env("CAMEO_IMAGES__FORMATS", formats);
}

fn configure_peer(command: &mut Command, servers: &Servers) {
    command
        .env("S3_ENDPOINT", &servers.endpoint)
        .env("S3_BUCKET", BUCKET)
        .env("AWS_ACCESS_KEY_ID", &servers.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &servers.secret_access_key)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("REDIS_URL", &servers.redis_url);
}

/// A running service.
pub(crate) struct Running {
    pub(crate) side: Side,
    group: Group,
    folder: TempDir,
    url: String,
}

impl Running {
    pub(crate) async fn start(side: Side, servers: &Servers) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = side.command(port, servers, folder.path());
        let mut group = Group::start(&mut command);
        let url = format!("http://127.0.0.1:{port}");
        let health = match side {
            Side::Cameo(_) | Side::Build(_) | Side::Isolated(_) => format!("{url}/health/ready"),
            Side::FastApi(_) | Side::Fastify => format!("{url}/health"),
        };
        wait_until(&mut group, async || {
            let answer = reqwest::get(&health).await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        Self {
            side,
            group,
            folder,
            url,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.group.id()
    }

    pub(crate) fn tree(&self) -> Tree {
        self.group.tree()
    }

    /// The number of images that Cameo reports.
    pub(crate) async fn images(&self) -> u64 {
        let answer = reqwest::get(format!("{}/health/avatar", self.url)).await;
        let text = answer.unwrap().text().await.unwrap();
        let health: serde_json::Value = serde_json::from_str(&text).unwrap();
        health["storage"]["total_files"].as_u64().unwrap()
    }

    pub(crate) fn load(&self, picture: &[u8]) -> Load {
        match self.side {
            Side::Cameo(_) | Side::Build(_) | Side::Isolated(_) => {
                let url = format!("{}/api/v1/users/{{}}/avatar", self.url);
                Load::new(url, self.token(), picture)
            }
            Side::FastApi(_) | Side::Fastify => {
                let url = format!("{}/users/{{}}/avatar", self.url);
                Load::new(url, String::new(), picture)
            }
        }
    }

    fn token(&self) -> String {
        let output = Command::new(PROGRAM)
            .args(["token", "--sub", "bench", "--role", "service"])
            .env("CAMEO_DATA_DIR", self.folder.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Polls until the condition holds, because the services do not report that they are ready.
async fn wait_until(group: &mut Group, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(group.still_runs(), "the process ended before it was ready");
        assert!(
            begun.elapsed() < STARTUP_TIMEOUT,
            "the process does not become ready"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
