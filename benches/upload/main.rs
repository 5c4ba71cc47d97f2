//! Uploads to the whole program, on a real bucket and a real Redis: alone, and beside services as
//! teams write them.
//!
//! ```text
//! cargo bench --bench upload [-- outside [--seaweedfs] [--count N]]
//! cargo bench --bench upload -- beside [--picture NAME]... [--at-once N]... [--rounds N]
//!                                      [--flood N]
//! cargo bench --bench upload -- against PROGRAM [--rounds N]
//! cargo bench --bench upload -- maintain [--avatars N]
//! ```
//!
//! `outside` tells what an upload costs outside imaging: the program's own processor time less that
//! of its imaging threads, on Redis and an S3 server inside this process; with `--seaweedfs` on
//! `SeaweedFS` too, and of a phone's photo.
//!
//! `beside` measures the program and the services of bench/peers in one run, their rounds
//! interleaved; bench/peers/run.sh installs them and says what the figures mean. NAME is a picture in
//! target/bench/peers. `--flood N` sends N uploads at once to each, by itself; 0 leaves it out.
//!
//! `against` compares this build with PROGRAM, another build of Cameo: the processor time of an upload,
//! N (15) interleaved rounds, as the median of the ratios with its 95 % confidence interval.
//!
//! `maintain` uploads N avatars (9000, which are 99,000 objects) to `SeaweedFS` and tells what
//! `cameo gc` and `cameo rebuild` take on them.
//!
//! What is started here listens on the loopback, and ends with this process.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark prints what it finds, and stops where it finds nothing"
)]

mod against;
mod beside;
mod load;
mod maintain;
mod outside;
mod sides;
mod tree;

#[allow(dead_code, unreachable_pub)]
#[path = "../../src/redis/testing.rs"]
mod redis_server;
#[path = "../../tests/black_box/support/s3.rs"]
mod s3;

use std::env;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

/// Where the repository is.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let (command, options) = match words.split_first() {
        Some((command, options)) => (command.as_str(), options),
        None => ("outside", &[][..]),
    };
    let run = async {
        match command {
            "outside" => outside::run(options).await,
            "beside" => beside::run(options).await,
            "against" => against::run(options).await,
            "maintain" => maintain::run(options).await,
            other => panic!("{other}: outside, beside, against or maintain"),
        }
    };
    // Whoever is interrupted drops what it started, which ends it.
    tokio::select! {
        () = run => {}
        () = interruption() => std::process::exit(130),
    }
}

async fn interruption() {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.unwrap(),
        _ = terminate.recv() => {}
    }
}

/// The next word as a value of its option.
fn value<T: std::str::FromStr>(option: &str, words: &mut std::slice::Iter<'_, String>) -> T {
    words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{option} needs a value"))
}
