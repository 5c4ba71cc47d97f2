//! Measures the maintenance commands `cameo gc` and `cameo rebuild` on a bucket with many uploads.

use std::io::Cursor;
use std::time::Instant;

use cameo_testing::redis::RedisServer;
use image::{ImageFormat, Rgb, RgbImage};

use crate::sides::{self, Running, SeaweedFs, Servers, Side};
use crate::tree::Watch;
use crate::value;

/// The objects of each upload: five variants in two formats, and the manifest.
const OBJECTS: usize = 11;
const CAMEO: Side = Side::Cameo("webp,jpeg");
/// Concurrent uploads.
const AT_ONCE: usize = 16;

pub(crate) async fn run(options: &[String]) {
    let mut avatars = 9_000;
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--avatars" => avatars = value(word, &mut words),
            other => panic!("unknown option {other}"),
        }
    }
    let (redis, bucket) = (RedisServer::start(), SeaweedFs::start().await);
    let servers = bucket.with_redis(redis.url());
    let cameo = Running::start(CAMEO, &servers).await;
    let outcome = cameo.load(&picture()).send(avatars, AT_ONCE).await;
    assert_eq!(outcome.refused, 0);
    println!(
        "{avatars} avatars of {OBJECTS} objects of some kB, uploaded to SeaweedFS in {:.0} s",
        outcome.took.as_secs_f64()
    );
    drop(cameo);
    measure(&["gc", "--dry-run"], &servers, avatars).await;
    redis.ask::<()>("FLUSHALL");
    measure(&["rebuild"], &servers, avatars).await;
    let cameo = Running::start(CAMEO, &servers).await;
    assert_eq!(cameo.images().await, (avatars * (OBJECTS - 1)) as u64);
}

/// The smallest picture that may be uploaded, because only the number of objects matters.
fn picture() -> Vec<u8> {
    let picture = RgbImage::from_fn(100, 100, |x, y| Rgb([x as u8, y as u8, (x ^ y) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Runs a command until it ends, and prints its time, processor time and memory.
async fn measure(words: &[&str], servers: &Servers, avatars: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = sides::cameo("webp,jpeg", servers, folder.path());
    let begun = Instant::now();
    let mut group = sides::Group::start(command.args(words));
    let watch = Watch::start(group.tree());
    let cpu_seconds = group.wait().await;
    let took = begun.elapsed().as_secs_f64();
    println!(
        "cameo {}: {took:.1} s, {:.0} avatars/s, {:.2} ms of its processor time each, peak {:.0} MiB",
        words.join(" "),
        avatars as f64 / took,
        cpu_seconds * 1000.0 / avatars as f64,
        watch.peak_mib(),
    );
}
