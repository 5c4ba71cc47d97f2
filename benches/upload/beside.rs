//! Compares the program with the services of bench/peers in one run.

use std::fs;
use std::time::Duration;

use cameo_testing::redis::RedisServer;

use crate::sides::{Running, SeaweedFs, Servers, Side};
use crate::tree::Watch;
use crate::{root, value};

struct Options {
    pictures: Vec<String>,
    at_once: Vec<usize>,
    rounds: usize,
    flood: usize,
}

impl Options {
    fn read(words: &[String]) -> Self {
        let mut options = Self {
            pictures: Vec::new(),
            at_once: Vec::new(),
            rounds: 3,
            flood: 200,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--picture" => options.pictures.push(value(word, &mut words)),
                "--at-once" => options.at_once.push(value(word, &mut words)),
                "--rounds" => options.rounds = value(word, &mut words),
                "--flood" => options.flood = value(word, &mut words),
                other => panic!("unknown option {other}"),
            }
        }
        if options.pictures.is_empty() {
            options.pictures = ["12mp.jpg", "2000.jpg", "1200.png"]
                .map(str::to_owned)
                .into();
        }
        if options.at_once.is_empty() {
            options.at_once = vec![1, 4, 16];
        }
        // Ascending order, because an allocator may keep memory of a larger number of uploads.
        options.at_once.sort_unstable();
        options
    }
}

pub(crate) async fn run(words: &[String]) {
    let options = Options::read(words);
    for name in &options.pictures {
        if options.rounds > 0 {
            rounds(name, &picture(name), &options).await;
        }
    }
    if options.flood > 0 {
        let name = &options.pictures[0];
        flood(name, &picture(name), options.flood).await;
    }
}

fn picture(name: &str) -> Vec<u8> {
    let path = root().join("target/bench/peers").join(name);
    fs::read(path).expect("the picture; bench/peers/run.sh makes it")
}

/// The figures of one service.
#[derive(Default)]
struct Figures {
    per_second: Vec<f64>,
    cpu_ms: Vec<f64>,
    latencies: Vec<Duration>,
    peak_mib: f64,
    refused: usize,
}

/// Measures all services with each number of concurrent uploads, in interleaved rounds.
async fn rounds(name: &str, picture: &[u8], options: &Options) {
    let (redis, bucket) = (RedisServer::start(), SeaweedFs::start().await);
    let servers = bucket.with_redis(redis.url());
    let mut sides = Vec::new();
    for side in Side::ALL {
        let running = Running::start(side, &servers).await;
        running.load(picture).send(8, 4).await;
        sides.push(running);
    }
    for &at_once in &options.at_once {
        let mut table: Vec<_> = Side::ALL.map(|side| (side, Figures::default())).into();
        for round in 1..=options.rounds {
            for (side, (_, figures)) in sides.iter().zip(&mut table) {
                eprintln!(
                    "{name}, {at_once} at once, round {round}: {}",
                    side.side.name()
                );
                measure(side, picture, (12.max(2 * at_once), at_once), figures).await;
            }
        }
        print(&format!("{name}, {at_once} at once"), &table);
    }
}

/// Measures a flood of `count` uploads at once, for each service alone and freshly started.
async fn flood(name: &str, picture: &[u8], count: usize) {
    let mut table = Vec::new();
    let (redis, bucket) = (RedisServer::start(), SeaweedFs::start().await);
    let servers = bucket.with_redis(redis.url());
    for side in Side::ALL {
        eprintln!("{name}, {count} at once: {}", side.name());
        let figures = flood_one(side, &servers, picture, count).await;
        table.push((side, figures));
    }
    print(&format!("{name}, all {count} at once"), &table);
}

async fn flood_one(side: Side, servers: &Servers, picture: &[u8], count: usize) -> Figures {
    let running = Running::start(side, servers).await;
    running.load(picture).send(8, 4).await;
    let mut figures = Figures::default();
    measure(&running, picture, (count, count), &mut figures).await;
    figures
}

async fn measure(
    running: &Running,
    picture: &[u8],
    (count, at_once): (usize, usize),
    figures: &mut Figures,
) {
    let (tree, load) = (running.tree(), running.load(picture));
    let watch = Watch::start(tree.clone());
    let before = tree.cpu_seconds();
    let outcome = load.send(count, at_once).await;
    let cpu_seconds = tree.cpu_seconds() - before;
    figures.peak_mib = figures.peak_mib.max(watch.peak_mib());
    let done = outcome.latencies.len() as f64;
    figures.per_second.push(done / outcome.took.as_secs_f64());
    figures.cpu_ms.push(cpu_seconds * 1000.0 / done);
    figures.latencies.extend(outcome.latencies);
    figures.refused += outcome.refused;
}

/// Prints the figures as Markdown. The ratios are those of the first service to each service.
fn print(title: &str, table: &[(Side, Figures)]) {
    println!("\n**{title}**\n");
    println!("| | uploads/s | ratio | p50 ms | p99 ms | CPU ms | ratio | peak MiB | ratio |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let ours = &table[0].1;
    for (side, figures) in table {
        let (per_second, cpu_ms) = (median(&figures.per_second), median(&figures.cpu_ms));
        println!(
            "| {} | {per_second:.1} | {:.2} | {:.0} | {:.0} | {cpu_ms:.0} | {:.2} | {:.0} | {:.3} |",
            side.name(),
            median(&ours.per_second) / per_second,
            quantile_ms(&figures.latencies, 0.5),
            quantile_ms(&figures.latencies, 0.99),
            median(&ours.cpu_ms) / cpu_ms,
            figures.peak_mib,
            ours.peak_mib / figures.peak_mib,
        );
    }
    for (side, figures) in table.iter().filter(|(_, figures)| figures.refused > 0) {
        println!("\n{}: {} answered 503.", side.name(), figures.refused);
    }
}

fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    }
}

/// A quantile by the nearest-rank method.
fn quantile_ms(latencies: &[Duration], share: f64) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort();
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.max(1) - 1].as_secs_f64() * 1000.0
}
