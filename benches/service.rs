//! Measures the whole program: the time until it is ready, and the processor time, wall time and
//! memory of an upload of a phone's photo.
//!
//! ```text
//! cargo bench --bench service -- [--rounds N] [PHOTO]
//! ```
//!
//! By default `PHOTO` is `target/bench/phone-12mp.jpg`, which `scripts/bench-photo.sh` makes. Each
//! round starts a process with a folder of its own and waits until `/health/ready` answers 200.
//! Then it uploads the photo once (the cold first upload), and five times more. Processor time is
//! the user and system time of the process. Peak memory is its largest resident size minus the size
//! while idle. The figures are medians of the rounds.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark prints its figures, and a panic ends it"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use reqwest::multipart::{Form, Part};
use tokio::net::TcpListener;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cameo");
const SECRET: &str = "a secret of the benchmark's own, 32 bytes";
/// Further uploads in each round.
const WARM: u32 = 5;

#[derive(Clone, Copy)]
struct Round {
    ready_ms: f64,
    idle_mib: f64,
    cold_ms: f64,
    cold_cpu_ms: f64,
    cold_peak_mib: f64,
    warm_ms: f64,
    warm_cpu_ms: f64,
    warm_peak_mib: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut rounds, mut photo) = (9, PathBuf::from("target/bench/phone-12mp.jpg"));
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => {
                rounds = arguments
                    .next()
                    .and_then(|n| n.parse().ok())
                    .expect("a number");
            }
            path => photo = path.into(),
        }
    }
    let bytes = fs::read(&photo).expect("the photo, which scripts/bench-photo.sh makes");
    println!(
        "{}: {} bytes, {rounds} rounds\n",
        photo.display(),
        bytes.len()
    );
    let mut measured = Vec::new();
    for _ in 0..rounds {
        measured.push(round(&bytes).await);
    }
    let median = |figure: fn(&Round) -> f64| {
        let mut figures: Vec<f64> = measured.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    println!("| | |\n| --- | --- |");
    println!(
        "| time from start to ready | {:.0} ms |",
        median(|round| round.ready_ms)
    );
    println!(
        "| resident memory while idle | {:.0} MiB |",
        median(|round| round.idle_mib)
    );
    for (name, wall, cpu, peak) in [
        (
            "first upload",
            median(|round| round.cold_ms),
            median(|round| round.cold_cpu_ms),
            median(|round| round.cold_peak_mib),
        ),
        (
            "further uploads, one at a time",
            median(|round| round.warm_ms),
            median(|round| round.warm_cpu_ms),
            median(|round| round.warm_peak_mib),
        ),
    ] {
        println!("| {name} | {wall:.0} ms, {cpu:.0} ms of CPU, {peak:.0} MiB above idle |");
    }
}

async fn round(photo: &[u8]) -> Round {
    let data = tempfile::tempdir().unwrap();
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap().port()
    };
    let url = format!("http://127.0.0.1:{port}");
    let client = reqwest::Client::new();
    let started = Instant::now();
    let mut process = start(data.path(), port);
    let ready = format!("{url}/health/ready");
    while !client
        .get(&ready)
        .send()
        .await
        .is_ok_and(|answer| answer.status() == 200)
    {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "the program does not become ready"
        );
        thread::sleep(Duration::from_millis(1));
    }
    let ready_ms = ms(started.elapsed());
    let pid = process.id();
    let idle_mib = resident_mib(pid, "VmRSS:");
    let token = token(data.path());
    let upload = async || {
        let form = Form::new().part("file", Part::bytes(photo.to_vec()).file_name("photo.jpg"));
        let request = client
            .put(format!("{url}/api/v1/users/42/avatar"))
            .bearer_auth(&token);
        let answer = request.multipart(form).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
    };
    let (before, begun) = (cpu_ms(pid), Instant::now());
    upload().await;
    let (cold_ms, cold_cpu_ms) = (ms(begun.elapsed()), cpu_ms(pid) - before);
    let cold_peak_mib = resident_mib(pid, "VmHWM:") - idle_mib;
    let (before, begun) = (cpu_ms(pid), Instant::now());
    for _ in 0..WARM {
        upload().await;
    }
    let warm_ms = ms(begun.elapsed()) / f64::from(WARM);
    let warm_cpu_ms = (cpu_ms(pid) - before) / f64::from(WARM);
    let warm_peak_mib = resident_mib(pid, "VmHWM:") - idle_mib;
    process.kill().unwrap();
    process.wait().unwrap();
    Round {
        ready_ms,
        idle_mib,
        cold_ms,
        cold_cpu_ms,
        cold_peak_mib,
        warm_ms,
        warm_cpu_ms,
        warm_peak_mib,
    }
}

fn start(data: &Path, port: u16) -> Child {
    Command::new(PROGRAM)
        .env("CAMEO_DATA_DIR", data)
        .env("CAMEO_HTTP__BIND", format!("127.0.0.1:{port}"))
        .env("CAMEO_AUTH__JWT_SECRET", SECRET)
        .env("CAMEO_LIMITS__ENABLED", "false")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn token(data: &Path) -> String {
    let mut command = Command::new(PROGRAM);
    command
        .args(["token", "--sub", "42"])
        .env("CAMEO_AUTH__JWT_SECRET", SECRET);
    let output = command.env("CAMEO_DATA_DIR", data).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A line of `/proc/PID/status`, in mebibytes.
fn resident_mib(pid: u32, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1024.0
}

/// The user and system time of the process so far. The kernel counts in hundredths of a second.
fn cpu_ms(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The second field is the name in parentheses, which may contain spaces.
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks = |field: usize| fields[field].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) * 10.0
}
