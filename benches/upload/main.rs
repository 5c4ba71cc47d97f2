//! Measures uploads to the whole program on a real bucket and a real Redis, alone and compared with
//! services of the kind that teams write.
//!
//! ```text
//! cargo bench --bench upload [-- outside [--seaweedfs] [--count N]]
//! cargo bench --bench upload -- beside [--picture NAME]... [--at-once N]... [--rounds N]
//!                                      [--flood N]
//! cargo bench --bench upload -- against PROGRAM [--rounds N]
//! cargo bench --bench upload -- isolation [--rounds N]
//! cargo bench --bench upload -- maintain [--avatars N]
//! ```
//!
//! `outside` measures the cost of an upload outside imaging: the processor time of the program minus
//! that of its imaging threads, with Redis and an S3 server inside this process. With `--seaweedfs` it
//! measures on `SeaweedFS`, also with a phone's photo.
//!
//! `beside` measures the program and the services of bench/peers in one run with interleaved rounds.
//! bench/peers/run.sh installs them; bench/peers/README.md explains the figures. NAME is a picture in
//! target/bench/peers. `--flood N` sends N uploads at once to each service in turn; 0 omits the flood.
//!
//! `against` compares this build with PROGRAM, another build of Cameo. It measures the processor time
//! of an upload in N (15) interleaved rounds, and prints the median of the ratios with its 95 %
//! confidence interval.
//!
//! `isolation` compares `processing.isolation = "process"` with `"thread"`, in interleaved rounds: the
//! time until the service is ready, its idle memory, and the processor time and latency of uploads.
//!
//! `maintain` uploads N avatars (9000, which are 99,000 objects) to `SeaweedFS` and measures
//! `cameo gc` and `cameo rebuild` on them.
//!
//! All servers listen on the loopback interface and end with this process.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark prints its figures, and a panic ends it"
)]

mod against;
mod beside;
mod isolation;
mod load;
mod maintain;
mod outside;
mod sides;
mod tree;

use std::env;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

/// The root folder of the repository.
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
            "isolation" => isolation::run(options).await,
            "maintain" => maintain::run(options).await,
            other => {
                panic!(
                    "unknown command {other}; there are outside, beside, against, isolation and maintain"
                )
            }
        }
    };
    // After an interruption the run is dropped, which ends the processes that it started.
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

/// The next word as the value of an option.
fn value<T: std::str::FromStr>(option: &str, words: &mut std::slice::Iter<'_, String>) -> T {
    words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{option} needs a value"))
}
