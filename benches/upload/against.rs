//! Compares the cost of an upload between this build of the program and another one, as a ratio.

use std::fs;
use std::path::PathBuf;

use cameo_testing::redis::RedisServer;
use cameo_testing::s3::S3Server;

use crate::load::Load;
use crate::sides::{Running, Servers, Side};
use crate::{root, value};

/// Concurrent uploads.
pub(crate) const AT_ONCE: usize = 2;
/// The number of resamples for the confidence interval (bootstrap, percentile method).
const RESAMPLES: usize = 10_000;

/// A build of the program with servers of its own, because two builds may not share a catalog.
pub(crate) struct Build {
    _redis: RedisServer,
    _bucket: S3Server,
    pub(crate) running: Running,
}

impl Build {
    pub(crate) async fn start(side: Side) -> Self {
        let (redis, bucket) = (RedisServer::start(), S3Server::start().await);
        let access = bucket.access().clone();
        let credentials = access.credentials;
        let servers = Servers {
            endpoint: access.endpoint,
            access_key_id: credentials.access_key_id,
            secret_access_key: credentials.secret_access_key,
            redis_url: redis.url(),
        };
        Self {
            running: Running::start(side, &servers).await,
            _redis: redis,
            _bucket: bucket,
        }
    }

    /// The mean processor time of `count` uploads, in milliseconds.
    pub(crate) async fn cpu_ms(&self, load: &Load, count: usize) -> f64 {
        let before = self.running.tree().cpu_seconds();
        let outcome = load.send(count, AT_ONCE).await;
        assert_eq!(outcome.refused, 0);
        (self.running.tree().cpu_seconds() - before) * 1000.0 / count as f64
    }
}

pub(crate) async fn run(words: &[String]) {
    let (other, words) = words.split_first().expect("the path of another build");
    let mut rounds = 15;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => rounds = value(word, &mut words),
            word => panic!("unknown option {word}"),
        }
    }
    let photo = root().join("target/bench/phone-12mp.jpg");
    println!("| CPU of an upload, ms | this build | the other | ratio, median | 95 % interval |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, path, count) in [
        (
            "an 80 kB portrait",
            root().join("examples/portrait.jpg"),
            100,
        ),
        ("a 12 MP photo", photo, 12),
    ] {
        compare(name, &path, other, count, rounds).await;
    }
}

async fn compare(name: &str, path: &PathBuf, other: &str, count: usize, rounds: usize) {
    let picture = fs::read(path).expect("the picture; scripts/bench-photo.sh makes the photo");
    let other = Side::Build(Box::leak(other.to_owned().into_boxed_str()));
    let builds = [
        Build::start(Side::Cameo("webp,jpeg")).await,
        Build::start(other).await,
    ];
    let loads = [0, 1].map(|build: usize| builds[build].running.load(&picture));
    for build in [0, 1] {
        builds[build].cpu_ms(&loads[build], count / 2).await;
    }
    let mut figures: [Vec<f64>; 2] = Default::default();
    for round in 0..rounds {
        // The builds alternate in going first.
        for build in [round % 2, (round + 1) % 2] {
            let cpu_ms = builds[build].cpu_ms(&loads[build], count).await;
            figures[build].push(cpu_ms);
        }
    }
    let ratios: Vec<f64> = figures[0]
        .iter()
        .zip(&figures[1])
        .map(|(a, b)| a / b)
        .collect();
    let (low, high) = interval(&ratios);
    let [this, other] = figures.map(|mut figures| median(&mut figures));
    let ratio = median(&mut ratios.clone());
    println!("| {name} | {this:.2} | {other:.2} | {ratio:.3} | {low:.3} to {high:.3} |");
}

/// The 95 % confidence interval of the median.
pub(crate) fn interval(ratios: &[f64]) -> (f64, f64) {
    let mut random = fastrand::Rng::with_seed(1);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut drawn: Vec<f64> = ratios
                .iter()
                .map(|_| ratios[random.usize(..ratios.len())])
                .collect();
            median(&mut drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    (medians[RESAMPLES / 40], medians[RESAMPLES - RESAMPLES / 40])
}

pub(crate) fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    }
}
