//! Reading a private image by its signed URL, compared with a public image.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::median;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cameo");
const SECRET: &str = "a secret of the benchmark's own, 32 bytes";
const CONNECTIONS: &str = "-c32";
/// How long one program is loaded in each round.
const SECONDS: u32 = 3;

/// A running program with one avatar.
struct Running {
    process: Child,
    /// The URL of an image of the avatar.
    image: String,
    /// Dropping it removes the data.
    _data: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The figures of one program.
#[derive(Default)]
struct Figures {
    per_second: Vec<f64>,
    cpu_microseconds: Vec<f64>,
}

pub(crate) fn run(rounds: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let programs = ["public", "private"].map(|access| runtime.block_on(start(access)));
    let mut figures = [Figures::default(), Figures::default()];
    // The first load fills the caches.
    for program in &programs {
        load(program, 1);
    }
    for _ in 0..rounds {
        for (program, figures) in programs.iter().zip(&mut figures) {
            let before = cpu_seconds(program.process.id());
            let (requests, seconds) = load(program, SECONDS);
            let cpu = cpu_seconds(program.process.id()) - before;
            figures.per_second.push(requests / seconds);
            figures.cpu_microseconds.push(cpu * 1e6 / requests);
        }
    }
    let [public, private] = figures;
    let share = |one: &[f64], other: &[f64]| {
        median(
            one.iter()
                .zip(other)
                .map(|(one, other)| one / other)
                .collect(),
        )
    };
    let rate = share(&private.per_second, &public.per_second);
    let cpu = share(&public.cpu_microseconds, &private.cpu_microseconds);
    println!("**reading a hot image**, wrk with 32 connections\n");
    println!("| | requests/s | CPU of a request |\n| --- | --- | --- |");
    for (name, figures) in [("public", public), ("private, by its signed URL", private)] {
        let (per_second, cpu) = (median(figures.per_second), median(figures.cpu_microseconds));
        println!("| {name} | {per_second:.0} | {cpu:.1} µs |");
    }
    println!(
        "\nprivate / public: {rate:.2} of the requests/s, {cpu:.2} of the requests per CPU time"
    );
}

/// Starts a program with this `delivery.access`, and uploads a picture.
async fn start(access: &str) -> Running {
    let data = tempfile::tempdir().unwrap();
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap().port()
    };
    let url = format!("http://127.0.0.1:{port}");
    let folder = data.path().to_owned();
    let program = |words: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command
            .args(words)
            .env("CAMEO_DATA_DIR", &folder)
            .env("CAMEO_HTTP__BIND", format!("127.0.0.1:{port}"))
            .env("CAMEO_HTTP__PUBLIC_URL", &url)
            .env("CAMEO_AUTH__JWT_SECRET", SECRET)
            .env("CAMEO_DELIVERY__ACCESS", access)
            .env("CAMEO_DELIVERY__URL_TTL", "1h")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    };
    let mut running = Running {
        process: program(&["serve"]).spawn().unwrap(),
        image: String::new(),
        _data: data,
    };
    let client = reqwest::Client::new();
    let begun = Instant::now();
    let ready = format!("{url}/health/ready");
    while !client
        .get(&ready)
        .send()
        .await
        .is_ok_and(|answer| answer.status() == 200)
    {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "the program does not become ready"
        );
        thread::sleep(Duration::from_millis(10));
    }
    let token = program(&["token", "--sub", "42"])
        .stdout(Stdio::piped())
        .output();
    let token = String::from_utf8(token.unwrap().stdout).unwrap();
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/portrait.jpg");
    let answer = client
        .put(format!("{url}/api/v1/users/42/avatar"))
        .bearer_auth(token.trim())
        .header(CONTENT_TYPE, "image/jpeg")
        .body(fs::read(picture).unwrap())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let avatar: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let image = avatar["avatar_url"].as_str().unwrap();
    let is_signed = image.contains("signature=");
    assert_eq!(is_signed, access == "private", "{image}");
    assert_eq!(client.get(image).send().await.unwrap().status(), 200);
    running.image = image.to_owned();
    running
}

/// Reads the image for this time. Returns the number of requests and the seconds.
fn load(program: &Running, seconds: u32) -> (f64, f64) {
    let output = Command::new("wrk")
        .args(["-t1", CONNECTIONS, &format!("-d{seconds}s"), &program.image])
        .output()
        .expect("wrk, which `make bench` installs");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "{text}"
    );
    // wrk prints, for instance, "  51234 requests in 3.00s, 1.10GB read".
    let line = text
        .lines()
        .find(|line| line.contains(" requests in "))
        .expect("a summary");
    let (requests, rest) = line.trim().split_once(" requests in ").unwrap();
    let (took, _) = rest.split_once("s,").unwrap();
    (requests.parse().unwrap(), took.parse().unwrap())
}

/// The user and system time of the process so far. The kernel counts in hundredths of a second.
fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The second field is the name in parentheses, which may contain spaces.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}
