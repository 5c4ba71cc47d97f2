//! Tests under faults. Two replicas of the program, one Redis and one bucket run as processes. They
//! are killed, stopped and disconnected while users send requests; then violations are counted.
//!
//! `make chaos` runs every part, and `make test` a short selection. `CHAOS_SECONDS` is the length of
//! the storm, `CHAOS_SEED` repeats the faults of a run, `CHAOS_S3` chooses the S3 server.
//! `docs/faults.md` describes the parts and their promises.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a panic fails the run
#![allow(clippy::print_stdout)] // the program prints its figures

mod bucket;
mod client;
mod clocks;
mod cluster;
mod control;
mod faults;
mod fleet;
mod frozen;
mod full_disk;
mod history;
mod judgement;
mod load;
mod memory;
mod outage;
mod power_cut;
mod process;
mod proof;
mod proxy;
mod quota;
mod slot;
mod storm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The length of the storm in `make test`, in seconds. A run of this length measures no times,
/// because other tests run at the same time.
const SHORT: u64 = 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let [serve, address, folder] = &arguments[..]
        && serve == bucket::SERVE
    {
        runtime.block_on(bucket::serve(address, folder));
        return ExitCode::SUCCESS;
    }
    if let [inside, folder, seed] = &arguments[..]
        && inside == full_disk::INSIDE
    {
        runtime.block_on(full_disk::inside(Path::new(folder), seed.parse().unwrap()));
        return ExitCode::SUCCESS;
    }
    // As with other test programs, an argument selects tests by a part of their name.
    let wanted = arguments.iter().find(|word| !word.starts_with('-'));
    let wanted = |part: &str| {
        let name = format!("chaos::{part}");
        wanted.is_none_or(|wanted| name.contains(wanted.as_str()))
    };
    if arguments.iter().any(|word| word == "--list") {
        for part in PARTS.into_iter().filter(|part| wanted(part)) {
            println!("chaos::{part}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !PARTS.into_iter().any(wanted) {
        return ExitCode::SUCCESS;
    }
    let by_name = arguments.iter().any(|word| !word.starts_with('-'));
    runtime.block_on(run(wanted, by_name))
}

/// The names of all parts, which select them on the command line.
const PARTS: [&str; 9] = [
    "storm",
    "outages",
    "limits",
    "power-cut",
    "clocks",
    "memory",
    "full-disk",
    "slot",
    "frozen",
];

/// Runs one part other than `storm`, `outages` and `limits`, and judges it like the storm.
async fn run_part(part: &str, folder: &Path, seed: u64) -> storm::PartResult {
    match part {
        "power-cut" => power_cut::run(folder, seed).await,
        "clocks" => clocks::run(folder, seed).await,
        "memory" => memory::run(folder).await,
        "full-disk" => full_disk::run(folder, seed).await,
        "slot" => slot::run(folder, seed).await,
        "frozen" => frozen::run(folder, seed).await,
        other => panic!("there is no part {other}"),
    }
}

/// Runs the selected parts. `by_name`: an argument selected them, so they run whatever the length.
async fn run(wanted: impl Fn(&str) -> bool, by_name: bool) -> ExitCode {
    let number = |name: &str, default: u64| match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().expect("a number"),
        _ => default,
    };
    let seed = number("CHAOS_SEED", fastrand::u64(..1_000_000));
    let seconds = number("CHAOS_SECONDS", SHORT);
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{seed}"));
    let _ = std::fs::remove_dir_all(&folder);
    let place = |name: &str| {
        let place = folder.join(name);
        std::fs::create_dir_all(&place).unwrap();
        place
    };
    let kind = bucket::Kind::from_environment();
    let run = format!(
        "CHAOS_SEED={seed} CHAOS_SECONDS={seconds} CHAOS_S3={}",
        kind.name()
    );
    println!("\nchaos: {run}");
    kind.install();
    proxy::self_test().await;
    proof::self_test();
    memory::self_test();
    full_disk::self_test();
    slot::self_test();

    let mut wrong = Vec::new();
    if wanted("limits") {
        let limits = quota::run(&place("limits")).await;
        println!("\n{limits}");
        if !limits.is_right() {
            wrong.push(limits.to_string());
        }
    }
    // The parts run one after the other, because the load of one would delay the answers of
    // another.
    if wanted("outages") {
        if seconds > SHORT || by_name {
            println!();
            wrong.extend(outage::run(&place("outages")).await);
        } else {
            println!("\noutages: only in longer runs (CHAOS_SECONDS above {SHORT})");
        }
    }
    for part in &PARTS[3..] {
        if !wanted(part) {
            continue;
        }
        if seconds > SHORT || by_name {
            let passed = run_part(part, &place(part), seed).await;
            println!("\n{part}: {}\n\n{}", passed.summary, passed.verdict);
            wrong.extend(passed.verdict.evidence());
        } else {
            println!("\n{part}: only in longer runs (CHAOS_SECONDS above {SHORT})");
        }
    }
    if wanted("storm") {
        let storm = storm::run(&place("storm"), seed, Duration::from_secs(seconds)).await;
        println!("\n  {}\n\n{}", storm.summary, storm.verdict);
        wrong.extend(storm.verdict.evidence());
    }
    if wrong.is_empty() {
        let _ = std::fs::remove_dir_all(&folder);
        return ExitCode::SUCCESS;
    }
    for line in wrong {
        println!("  {line}");
    }
    println!(
        "\nchaos failed; the history and the logs are in {}\nrepeat with: {run} make chaos",
        folder.display()
    );
    ExitCode::FAILURE
}
