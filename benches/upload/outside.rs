//! Measures the cost of an upload outside imaging.

use std::fs;

use cameo_testing::redis::RedisServer;
use cameo_testing::s3::S3Server;

use crate::sides::{Running, SeaweedFs, Servers, Side};
use crate::tree::thread_cpu_seconds;
use crate::{root, value};

/// Concurrent uploads.
const AT_ONCE: usize = 4;

pub(crate) async fn run(options: &[String]) {
    let (mut seaweedfs, mut count) = (false, 300);
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seaweedfs" => seaweedfs = true,
            "--count" => count = value(word, &mut words),
            other => panic!("unknown option {other}"),
        }
    }
    let portrait = fs::read(root().join("examples/portrait.jpg")).unwrap();
    let redis = RedisServer::start();
    println!("| processor time of an upload, ms | outside imaging | inside | uploads/s |");
    println!("| --- | --- | --- | --- |");
    if !seaweedfs {
        let bucket = S3Server::start().await;
        let access = bucket.access().clone();
        let credentials = access.credentials;
        let servers = Servers {
            endpoint: access.endpoint,
            access_key_id: credentials.access_key_id,
            secret_access_key: credentials.secret_access_key,
            redis_url: redis.url(),
        };
        measure(
            "an 80 kB portrait, S3 in process",
            &portrait,
            &servers,
            count,
        )
        .await;
        return;
    }
    let photo = root().join("target/bench/phone-12mp.jpg");
    let photo = fs::read(photo).expect("the photo, which scripts/bench-photo.sh makes");
    let bucket = SeaweedFs::start().await;
    let servers = bucket.with_redis(redis.url());
    measure("an 80 kB portrait, SeaweedFS", &portrait, &servers, count).await;
    measure("a 12 MP photo, SeaweedFS", &photo, &servers, count).await;
}

async fn measure(what: &str, picture: &[u8], servers: &Servers, count: usize) {
    let cameo = Running::start(Side::Cameo("webp,jpeg"), servers).await;
    let load = cameo.load(picture);
    load.send(10, AT_ONCE).await;
    let (all, imaging) = thread_cpu_seconds(cameo.id(), "imaging-");
    let outcome = load.send(count, AT_ONCE).await;
    let (all_after, imaging_after) = thread_cpu_seconds(cameo.id(), "imaging-");
    assert_eq!(outcome.refused, 0);
    let each_ms = |seconds: f64| seconds * 1000.0 / count as f64;
    let (all, imaging) = (each_ms(all_after - all), each_ms(imaging_after - imaging));
    println!(
        "| {what} | {:.1} | {imaging:.1} | {:.1} |",
        all - imaging,
        count as f64 / outcome.took.as_secs_f64()
    );
}
