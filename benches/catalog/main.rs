//! Measures what a catalog of a million avatars costs Redis: memory, processor time, a snapshot.
//!
//!     cargo bench --bench catalog [-- COUNT]
//!
//! The benchmark commits the avatars like uploads, then reads, lists, replaces and sweeps them. It
//! starts its own `redis-server` and takes a few minutes.

// The benchmark prints its figures.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

mod steps;

use std::time::{Duration, Instant};

use cameo::avatar::{
    Audience, AvatarId, Format, Placeholder, Record, Rendition, Source, SourceFormat, SubjectId,
    Timestamp, VariantName,
};
use cameo::catalog::{InitialState, Precondition, Records, RedisCatalog, Replaced, Uploader};
use cameo::config::{Partitions, RedisSettings};
use cameo_testing::redis::RedisServer;
use futures_util::StreamExt;

/// The default of `catalog.events_kept`.
const EVENTS_KEPT: u32 = 10_000;
/// Concurrent uploads.
const CONCURRENCY: usize = 256;

#[tokio::main]
async fn main() {
    let count = std::env::args()
        .skip(1)
        .find_map(|word| word.parse().ok())
        .unwrap_or(1_000_000_u64);
    let mut server = RedisServer::start_with(&[]);
    let settings = RedisSettings {
        address: server.url().parse().unwrap(),
        partitions: Partitions::new(16).unwrap(),
        events_kept: EVENTS_KEPT,
        wait: None,
        wait_timeout: std::time::Duration::from_secs(3),
    };
    let (catalog, _) = RedisCatalog::open(&settings).await.unwrap();
    catalog.initialize(InitialState::New).await.unwrap();
    let before = used_memory(&server);
    let begun = Instant::now();
    futures_util::stream::iter(0..count)
        .for_each_concurrent(CONCURRENCY, |number| upload(&catalog, number))
        .await;
    let took = begun.elapsed();
    let events = (0..16).map(|number| {
        let key = format!("cameo:{{p{number:02}}}:events");
        let length: u64 = server.ask(&format!("XLEN {key}"));
        let bytes: u64 = server.ask(&format!("MEMORY USAGE {key} SAMPLES 0"));
        (length, bytes)
    });
    let (events, event_bytes) = events.fold((0, 0), |(events, bytes), (length, more)| {
        (events + length, bytes + more)
    });
    let used = used_memory(&server) - before - event_bytes;
    assert_eq!(catalog.stats().await.unwrap().avatars, count);
    println!(
        "{count} avatars of 10 renditions, user ids of 36 characters: {} bytes of Redis memory each, {:.0} uploads/s ({:.2} ms of Redis each)",
        used / count,
        count as f64 / took.as_secs_f64(),
        server_cpu_seconds(&server) * 1000.0 / count as f64,
    );
    println!(
        "{events} events are kept, {} bytes each, {:.1} MiB in all",
        event_bytes / events,
        event_bytes as f64 / f64::from(1 << 20)
    );
    steps::measure(&mut server, &catalog, count).await;
}

/// Makes the catalog calls of an upload.
async fn upload(catalog: &RedisCatalog, number: u64) {
    let subject = subject(number);
    let mut record = record(number);
    let reserved = catalog.reserve(
        &subject,
        record.avatar_id,
        Duration::from_mins(2),
        Uploader::Ordinary,
    );
    let reserved = reserved.await.unwrap().unwrap();
    (record.version, record.reserved_at) = (reserved.version, reserved.reserved_at);
    let anything = Precondition::Anything;
    let replaced = catalog
        .replace(
            &subject,
            &record,
            &anything,
            Duration::ZERO,
            Uploader::Ordinary,
        )
        .await;
    assert_eq!(replaced.unwrap(), Replaced::Committed);
}

fn subject(number: u64) -> SubjectId {
    SubjectId::new(format!("6f1c2d8e-4b7a-4c3e-9f00-{number:012x}")).unwrap()
}

/// A record with five variants in two formats, with sizes as of photos.
fn record(number: u64) -> Record {
    let edges = [
        ("full", 1024),
        ("large", 512),
        ("medium", 256),
        ("small", 128),
        ("thumbnail", 64),
    ];
    let of = |format| {
        edges.map(|(name, edge): (&str, u32)| Rendition {
            variant: VariantName::new(name).unwrap(),
            format,
            width: edge,
            height: edge,
            bytes: u64::from(edge) * u64::from(edge) / 8 + number % 997,
            animated: false,
        })
    };
    Record {
        avatar_id: AvatarId::random().unwrap(),
        version: cameo::avatar::Version(0),
        reserved_at: Timestamp::now(),
        uploaded_at: Timestamp::now(),
        source: Source {
            format: SourceFormat::Jpeg,
            bytes: 3_273_581 + number % 997,
            width: 3022,
            height: 4032,
            animated: false,
        },
        renditions: [of(Format::Webp), of(Format::Jpeg)].concat(),
        audience: Audience::Public,
        original: None,
        master: None,
        placeholder: Placeholder {
            thumbhash: vec![7; 25],
            color: [1, 2, 3],
        },
    }
}

fn used_memory(server: &RedisServer) -> u64 {
    fact(server, "memory", "used_memory:").parse().unwrap()
}

fn server_cpu_seconds(server: &RedisServer) -> f64 {
    let seconds = |name| fact(server, "cpu", name).parse::<f64>().unwrap();
    seconds("used_cpu_user:") + seconds("used_cpu_sys:")
}

fn fact(server: &RedisServer, section: &str, name: &str) -> String {
    let info: String = server.ask(&format!("INFO {section}"));
    let mut lines = info.lines();
    lines
        .find_map(|line| line.strip_prefix(name))
        .unwrap()
        .to_owned()
}
