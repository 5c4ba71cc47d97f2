//! Compares this build with itself: pictures in separate processes, and pictures on threads
//! (`processing.isolation`).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::against::{AT_ONCE, Build, interval, median};
use crate::load::Load;
use crate::sides::{Group, PROGRAM, Side, free_port};
use crate::{root, value};

const SETTINGS: [&str; 2] = ["process", "thread"];
/// How often each setting is started for the time to readiness and the idle memory.
const STARTS: usize = 11;
/// The pause between the start of a service and the measurement of its idle memory.
const IDLE: Duration = Duration::from_millis(500);

pub(crate) async fn run(words: &[String]) {
    let mut rounds = 15;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => rounds = value(word, &mut words),
            word => panic!("unknown option {word}"),
        }
    }
    println!("| | process | thread | process against thread, median | 95 % interval |");
    println!("| --- | --- | --- | --- | --- |");
    starts().await;
    let photo = root().join("target/bench/phone-12mp.jpg");
    let portrait = root().join("examples/portrait.jpg");
    for (name, path, count) in [
        ("an 80 kB portrait", portrait, 100),
        ("a 12 MP photo", photo, 12),
    ] {
        uploads(name, &path, count, rounds).await;
    }
}

/// Measures the time to readiness and the idle memory, on a folder and the embedded catalog.
async fn starts() {
    let (mut ready_ms, mut idle_mib) = (<[Vec<f64>; 2]>::default(), <[Vec<f64>; 2]>::default());
    for round in 0..STARTS {
        for setting in [round % 2, (round + 1) % 2] {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port();
            let mut command = Command::new(PROGRAM);
            command
                .env("CAMEO_DATA_DIR", folder.path())
                .env("CAMEO_HTTP__BIND", format!("127.0.0.1:{port}"))
                .env("CAMEO_PROCESSING__ISOLATION", SETTINGS[setting])
                .stderr(std::process::Stdio::null());
            let begun = Instant::now();
            let group = Group::start(&mut command);
            let url = format!("http://127.0.0.1:{port}/health/ready");
            while !reqwest::get(&url).await.is_ok_and(|a| a.status() == 200) {
                assert!(
                    begun.elapsed() < Duration::from_mins(1),
                    "it does not start"
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            ready_ms[setting].push(begun.elapsed().as_secs_f64() * 1e3);
            tokio::time::sleep(IDLE).await;
            idle_mib[setting].push(group.tree().pss_kib() as f64 / 1024.0);
        }
    }
    print_difference("ready, ms", &ready_ms);
    print_difference("idle memory (PSS), MiB", &idle_mib);
}

/// Measures the processor time of uploads, two at once, and the latency of one at a time.
async fn uploads(name: &str, path: &Path, count: usize, rounds: usize) {
    let picture = fs::read(path).expect("the picture; scripts/bench-photo.sh makes the photo");
    let builds = [
        Build::start(Side::Isolated(SETTINGS[0])).await,
        Build::start(Side::Isolated(SETTINGS[1])).await,
    ];
    let loads = [0, 1].map(|build: usize| builds[build].running.load(&picture));
    for build in [0, 1] {
        builds[build].cpu_ms(&loads[build], count / 2).await;
    }
    let (mut cpu_ms, mut p50_ms) = (<[Vec<f64>; 2]>::default(), <[Vec<f64>; 2]>::default());
    for round in 0..rounds {
        // The settings alternate in going first.
        for build in [round % 2, (round + 1) % 2] {
            cpu_ms[build].push(builds[build].cpu_ms(&loads[build], count).await);
        }
        for build in [round % 2, (round + 1) % 2] {
            p50_ms[build].push(p50(&loads[build], count).await);
        }
    }
    assert_eq!(AT_ONCE, 2);
    print_ratio(&format!("{name}: CPU of an upload, ms"), &cpu_ms);
    print_difference(&format!("{name}: p50, one at a time, ms"), &p50_ms);
}

/// The median latency of `count` uploads, one after the other, in milliseconds.
async fn p50(load: &Load, count: usize) -> f64 {
    let outcome = load.send(count, 1).await;
    assert_eq!(outcome.refused, 0);
    let mut latencies: Vec<f64> = outcome
        .latencies
        .iter()
        .map(|latency| latency.as_secs_f64() * 1e3)
        .collect();
    median(&mut latencies)
}

fn print_ratio(name: &str, figures: &[Vec<f64>; 2]) {
    print(name, figures, |process, thread| process / thread, "");
}

fn print_difference(name: &str, figures: &[Vec<f64>; 2]) {
    print(name, figures, |process, thread| process - thread, "+");
}

fn print(name: &str, figures: &[Vec<f64>; 2], compare: impl Fn(f64, f64) -> f64, sign: &str) {
    let pairs = figures[0].iter().zip(&figures[1]);
    let compared: Vec<f64> = pairs.map(|(a, b)| compare(*a, *b)).collect();
    let (low, high) = interval(&compared);
    let middle = median(&mut compared.clone());
    let [process, thread] = figures
        .each_ref()
        .map(|figures| median(&mut figures.clone()));
    let number = |number: f64| match sign {
        "" => format!("{number:.3}"),
        _ => format!("{number:+.2}"),
    };
    println!(
        "| {name} | {process:.2} | {thread:.2} | {} | {} to {} |",
        number(middle),
        number(low),
        number(high)
    );
}
