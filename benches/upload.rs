//! What an upload costs outside imaging: the program's own processor time on a bucket and Redis,
//! less that of its imaging threads.
//!
//!     cargo bench --bench upload [-- COUNT]
//!
//! It starts a `redis-server` and an S3 server of its own; their time is not counted.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use s3::server::S3Server;

#[allow(dead_code, unreachable_pub)]
#[path = "../src/redis/testing.rs"]
mod redis_server;
#[path = "../tests/black_box/support/s3.rs"]
mod s3;

/// Uploads at once.
const CONCURRENCY: usize = 4;

#[tokio::main]
async fn main() {
    let count = std::env::args()
        .skip(1)
        .find_map(|word| word.parse().ok())
        .unwrap_or(300_u32);
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/portrait.jpg");
    let photo = std::fs::read(photo).unwrap();
    let redis = redis_server::RedisServer::start();
    let bucket = S3Server::start().await;
    let data = tempfile::tempdir().unwrap();
    let program = Program::start(&redis, &bucket, data.path());
    program.wait_until_ready().await;
    let token = token(data.path());

    program.upload(&token, &photo, 10).await;
    let (all, imaging) = program.cpu_seconds();
    let begun = Instant::now();
    program.upload(&token, &photo, count).await;
    let took = begun.elapsed().as_secs_f64();
    let (all_after, imaging_after) = program.cpu_seconds();
    let each_ms = |seconds: f64| seconds * 1000.0 / f64::from(count);
    let (all, imaging) = (each_ms(all_after - all), each_ms(imaging_after - imaging));
    println!(
        "{count} uploads, {CONCURRENCY} at once, in {took:.1} s: {:.1} ms of processor time each outside imaging, {imaging:.1} ms inside",
        all - imaging
    );
}

fn token(data: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cameo"))
        .args(["token", "--sub", "bench", "--role", "service"])
        .env("CAMEO_DATA_DIR", data)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

struct Program {
    process: Child,
    url: String,
}

impl Program {
    fn start(redis: &redis_server::RedisServer, bucket: &S3Server, data: &Path) -> Self {
        let settings = bucket.settings();
        let credentials = settings.credentials.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let process = Command::new(env!("CARGO_BIN_EXE_cameo"))
            .env("CAMEO_DATA_DIR", data)
            .env("CAMEO_HTTP__BIND", address.to_string())
            .env("CAMEO_STORAGE__KIND", "s3")
            .env("CAMEO_STORAGE__S3__ENDPOINT", settings.endpoint.unwrap())
            .env(
                "CAMEO_STORAGE__S3__ACCESS_KEY_ID",
                credentials.access_key_id,
            )
            .env(
                "CAMEO_STORAGE__S3__SECRET_ACCESS_KEY",
                credentials.secret_access_key,
            )
            .env("CAMEO_CATALOG__KIND", "redis")
            .env("CAMEO_CATALOG__REDIS__URL", redis.url())
            .env("CAMEO_LIMITS__UPLOAD", "1000000/s")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("http://{address}");
        Self { process, url }
    }

    async fn wait_until_ready(&self) {
        let begun = Instant::now();
        while reqwest::get(format!("{}/health/ready", self.url))
            .await
            .is_err()
        {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "it does not start"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn upload(&self, token: &str, photo: &[u8], count: u32) {
        let client = reqwest::Client::new();
        futures_util::stream::iter(0..count)
            .for_each_concurrent(CONCURRENCY, |number| {
                let url = format!("{}/api/v1/users/user-{number}/avatar", self.url);
                let request = client
                    .post(url)
                    .bearer_auth(token)
                    .header("content-type", "image/jpeg")
                    .body(photo.to_vec());
                async move {
                    let answer = request.send().await.unwrap();
                    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
                }
            })
            .await;
    }

    /// Processor time so far: all threads, and of them those of imaging.
    fn cpu_seconds(&self) -> (f64, f64) {
        let (mut all, mut imaging) = (0.0, 0.0);
        let tasks = format!("/proc/{}/task", self.process.id());
        for task in std::fs::read_dir(tasks).unwrap() {
            let task = task.unwrap().path();
            let stat = std::fs::read_to_string(task.join("schedstat")).unwrap();
            let nanoseconds = stat.split_whitespace().next().unwrap();
            let seconds = nanoseconds.parse::<f64>().unwrap() / 1e9;
            all += seconds;
            if std::fs::read_to_string(task.join("comm"))
                .unwrap()
                .starts_with("imaging-")
            {
                imaging += seconds;
            }
        }
        (all, imaging)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
