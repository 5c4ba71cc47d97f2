//! Measures the operations on a filled catalog.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use cameo::avatar::SubjectId;
use cameo::catalog::{Cursor, Records, RedisCatalog, Removals};
use cameo_testing::redis::RedisServer;
use futures_util::StreamExt;

use super::{CONCURRENCY, server_cpu_seconds, subject, upload, used_memory};

/// Records in one lookup: the maximum of the API.
const LOOKUP: u64 = 100;
/// Concurrent lookups.
const LOOKUPS_AT_ONCE: usize = 16;
/// How many avatars are claimed at once, as by the sweep.
const CLAIMED: usize = 64;
/// How many avatars are removed at once, as by the sweep.
const REMOVED_AT_ONCE: usize = 4;

/// Measures on a catalog of `count` avatars, and prints a line for each step.
pub(crate) async fn measure(server: &mut RedisServer, catalog: &RedisCatalog, count: u64) {
    reads(server, catalog, count).await;
    pages(server, catalog, count).await;
    sweep(server, catalog, count / 10).await;
    snapshot(server, count);
}

async fn reads(server: &RedisServer, catalog: &RedisCatalog, count: u64) {
    let lookups = 5_000;
    let clock = Clock::start(server);
    futures_util::stream::iter(0..lookups)
        .for_each_concurrent(LOOKUPS_AT_ONCE, |lookup| async move {
            let subjects: Vec<SubjectId> = (0..LOOKUP)
                .map(|number| subject(scattered(lookup * LOOKUP + number, count)))
                .collect();
            let found = catalog.get_many(&subjects).await.unwrap();
            assert!(found.iter().all(|found| matches!(found, Ok(Some(_)))));
        })
        .await;
    clock.stop("avatars looked up, 100 at a time", lookups * LOOKUP);

    let reads = 200_000;
    let clock = Clock::start(server);
    futures_util::stream::iter(0..reads)
        .for_each_concurrent(CONCURRENCY, |number| async move {
            let found = catalog.get(&subject(scattered(number, count))).await;
            assert!(found.unwrap().is_some());
        })
        .await;
    clock.stop("avatars read one by one", reads);
}

/// Reads all records page by page, as `cameo gc` does.
async fn pages(server: &RedisServer, catalog: &RedisCatalog, count: u64) {
    let clock = Clock::start(server);
    let (mut next, mut seen) = (Some(Cursor::START), 0);
    while let Some(from) = next {
        let page = catalog.page(&from).await.unwrap();
        seen += page.records.len() as u64;
        next = page.next;
    }
    assert_eq!(seen, count);
    clock.stop("records in a full scan", seen);
}

/// Replaces some avatars, then sweeps the replaced ones, without any objects.
async fn sweep(server: &RedisServer, catalog: &RedisCatalog, replaced: u64) {
    let before = used_memory(server);
    let clock = Clock::start(server);
    futures_util::stream::iter(0..replaced)
        .for_each_concurrent(CONCURRENCY, |number| upload(catalog, number))
        .await;
    clock.stop("avatars replaced", replaced);
    println!(
        "{} bytes of Redis memory for each avatar that waits for the sweep",
        (used_memory(server) - before) / replaced
    );
    let clock = Clock::start(server);
    let mut swept = 0;
    loop {
        let lease = std::time::Duration::from_mins(2);
        let claimed = catalog.claim(lease, CLAIMED).await.unwrap();
        if claimed.is_empty() {
            break;
        }
        swept += claimed.len() as u64;
        futures_util::stream::iter(claimed)
            .for_each_concurrent(REMOVED_AT_ONCE, |one| async move {
                catalog.forget(&one.outstanding).await.unwrap();
            })
            .await;
    }
    assert_eq!(swept, replaced);
    clock.stop("avatars claimed and removed by one sweeper", swept);
}

fn snapshot(server: &mut RedisServer, count: u64) {
    let begun = Instant::now();
    server.ask::<()>("SAVE");
    let saved = begun.elapsed().as_secs_f64();
    let folder: Vec<String> = server.ask("CONFIG GET dir");
    let bytes = fs::metadata(PathBuf::from(&folder[1]).join("dump.rdb"))
        .unwrap()
        .len();
    server.kill();
    let begun = Instant::now();
    server.restart();
    let read = begun.elapsed().as_secs_f64();
    let subjects = (0..16).map(|number| format!("HLEN cameo:{{p{number:02}}}:subjects"));
    let found: u64 = subjects.map(|command| server.ask::<u64>(&command)).sum();
    assert_eq!(found, count);
    println!(
        "the snapshot has {} bytes per avatar; writing it takes {saved:.1} s, reading it {read:.1} s",
        bytes / count,
    );
}

/// A number below `count`, far from the number of the previous step.
fn scattered(step: u64, count: u64) -> u64 {
    step.wrapping_mul(0x9E37_79B9_7F4A_7C15) % count
}

/// Measures the wall time of a step and the processor time of Redis.
struct Clock<'a> {
    server: &'a RedisServer,
    begun: Instant,
    cpu_seconds: f64,
}

impl<'a> Clock<'a> {
    fn start(server: &'a RedisServer) -> Self {
        Self {
            server,
            cpu_seconds: server_cpu_seconds(server),
            begun: Instant::now(),
        }
    }

    fn stop(self, what: &str, count: u64) {
        let took = self.begun.elapsed().as_secs_f64();
        let cpu_seconds = server_cpu_seconds(self.server) - self.cpu_seconds;
        println!(
            "{count} {what}: {:.0}/s, {:.1} µs of Redis each",
            count as f64 / took,
            cpu_seconds * 1e6 / count as f64
        );
    }
}
