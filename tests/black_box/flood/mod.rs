//! A flood of hostile requests on raw connections: what a client library would never send.
//!
//! The requests come from a seed, so a failure can be repeated: `HOSTILE_SEED` and
//! `HOSTILE_REQUESTS` choose the seed and the number of requests.

mod attack;
mod forms;
mod heads;
mod reads;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cameo_testing::photos;
use cameo_testing::tokens::Signer;
use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::photos::PORTRAIT;
use crate::support::{Backend, Client, Program, run_program};
use attack::Attack;

const SECRET: &str = "a secret that only the tests know, 32 bytes";

/// How many requests are under way at once.
const AT_ONCE: usize = 32;
/// How much resident memory a flood may leave behind: allocators keep some of what they freed.
const MAX_KEPT_MIB: f64 = 8.0;
/// How much the resident memory of an idle program varies. If each request kept 1 KiB, a round would keep
/// 5 MiB.
const NOISE_MIB: f64 = 3.0;

/// What the requests are aimed at.
struct Target {
    /// The tokens of a user without an avatar, and of an admin.
    owner: String,
    admin: String,
    /// The paths of the avatar of that user, and of the avatar of another user.
    own_avatar: String,
    avatar: String,
    /// The path of an image of the other user.
    image: String,
    /// Good pictures. The first is a PNG of 100 × 100 pixels.
    pictures: Vec<Vec<u8>>,
}

impl Target {
    /// The head of an upload, with these further header lines.
    fn upload_head(&self, lines: &str) -> Vec<u8> {
        let (path, token) = (&self.own_avatar, &self.owner);
        format!(
            "PUT {path} HTTP/1.1\r\nHost: cameo\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\n{lines}\r\n"
        )
        .into_bytes()
    }
}

/// Makes one request of a kind.
type Kind = fn(&mut Rng, &Target) -> Attack;

const KINDS: [Kind; 16] = [
    heads::lines,
    heads::headers,
    heads::lengths,
    heads::chunks,
    heads::slow,
    heads::pipelines,
    forms::forms,
    forms::pictures,
    forms::crops,
    forms::locks,
    tokens::tokens,
    reads::paths,
    reads::queries,
    reads::ranges,
    reads::conditions,
    reads::accepts,
];

/// The value of an environment variable, or another number.
fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|_| panic!("{name}={text}")),
        _ => otherwise,
    }
}

/// Sends the requests of a seed. Returns how many times each kind was answered with each status; 0
/// is no answer.
async fn flood(
    address: &str,
    target: &Arc<Target>,
    seed: u64,
    requests: usize,
) -> BTreeMap<(&'static str, u16), usize> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (address, target, next) = (address.to_owned(), Arc::clone(target), Arc::clone(&next));
        clients.spawn(async move {
            let mut counted = BTreeMap::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return counted;
                }
                let mut rng = Rng::with_seed(seed.wrapping_mul(1 << 32) ^ number as u64);
                let attack = KINDS[number % KINDS.len()](&mut rng, &target);
                let answer = attack.run(&address, &mut rng).await;
                let answer = answer.unwrap_or_else(|fault| {
                    let bytes = &attack.bytes[..attack.bytes.len().min(600)];
                    panic!(
                        "HOSTILE_SEED={seed}, request {number}, {}: {fault}\n{}",
                        attack.kind,
                        bytes.escape_ascii()
                    )
                });
                // Many ranges of an image must not multiply its bytes.
                assert!(
                    answer.bytes.len() < 2 << 20,
                    "HOSTILE_SEED={seed}, request {number}, {}: {} bytes",
                    attack.kind,
                    answer.bytes.len()
                );
                let first = answer.statuses.first().copied().unwrap_or(0);
                *counted.entry((attack.kind, first)).or_insert(0) += 1;
            }
        });
    }
    let mut counted = BTreeMap::new();
    while let Some(client) = clients.join_next().await {
        match client {
            Ok(some) => {
                for (key, count) in some {
                    *counted.entry(key).or_insert(0) += count;
                }
            }
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
    counted
}

/// The resident memory of the program in MiB, after a moment without requests.
async fn idle_resident_mib(program: &Program) -> f64 {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let path = format!("/proc/{}/status", program.child.id().unwrap());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

/// Panics if the log has a panic, or an answer above 499 that is not 503.
fn check_log(log: &str) {
    for line in log.lines() {
        assert!(!line.contains("panicked"), "{line}");
        let status = line.split_once(" status=").map_or("", |(_, rest)| rest);
        let is_failure = status.starts_with('5') && !status.starts_with("503");
        assert!(!is_failure, "{line}");
    }
}

/// Waits until no memory is reserved, no worker is busy and no upload waits. A worker may still be
/// busy for a moment after its answer.
async fn expect_nothing_in_use(client: &Client) {
    let in_use = [
        "cameo_uploads_waiting ",
        "cameo_imaging_workers_busy ",
        "cameo_memory_reserved_bytes{",
    ];
    let mut left = Vec::new();
    for _ in 0..50 {
        let metrics = String::from_utf8(client.get("/metrics").await.body).unwrap();
        left.clear();
        for name in in_use {
            let values: Vec<_> = metrics
                .lines()
                .filter(|line| line.starts_with(name))
                .collect();
            assert!(!values.is_empty(), "{name}: {metrics}");
            let busy = values.into_iter().filter(|line| !line.ends_with(" 0"));
            left.extend(busy.map(str::to_owned));
        }
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still in use: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_cause_no_failure_and_keep_nothing() {
    let seed = number("HOSTILE_SEED", 1);
    let backend = Backend::start().await;
    // Refused requests seldom reach the bucket and Redis, so fewer are enough there.
    let is_alone = matches!(backend, Backend::Alone);
    let requests = number("HOSTILE_REQUESTS", if is_alone { 10_000 } else { 2_000 }) as usize;
    println!("HOSTILE_SEED={seed} HOSTILE_REQUESTS={requests}");
    let servers = backend.variables();
    let mut variables = vec![
        ("CAMEO_AUTH__JWT_SECRET", SECRET),
        ("CAMEO_LIMITS__ENABLED", "false"),
    ];
    variables.extend(servers.iter().map(|(name, value)| (*name, value.as_str())));
    let command = "cameo 2> \"$CAMEO_DATA_DIR/log\"";
    let mut program = Program::spawn(command, &variables).await.ready().await;
    let token = |user: &str, role: &str| {
        let claims = json!({"sub": user, "role": role, "exp": 4_000_000_000_u64});
        Signer::secret(SECRET).token(&claims)
    };
    let url = format!("http://{}", program.address);
    let client = |user: &str| Client::new(&url, Some(token(user, "user")));
    let avatar = client("victim").upload("victim", PORTRAIT).await.ok();
    let image = avatar["variants"]["large"].as_str().unwrap();
    let target = Arc::new(Target {
        owner: token("hostile", "user"),
        admin: token("root", "admin"),
        own_avatar: "/api/v1/users/hostile/avatar".to_owned(),
        avatar: "/api/v1/users/victim/avatar".to_owned(),
        image: image[image.find("/files/").unwrap()..].to_owned(),
        pictures: vec![
            photos::png(100, 100),
            photos::jpeg(300, 300),
            photos::webp(300, 300),
            photos::gif(300, 300),
            photos::AVIF.to_vec(),
            PORTRAIT.to_vec(),
        ],
    });
    let objects = backend.objects(program.data.path()).await;

    // The first requests make buffers, threads and metrics grow to their sizes.
    flood(&program.address, &target, seed, requests / 10).await;
    let before = idle_resident_mib(&program).await;
    let begun = Instant::now();
    let counted = flood(&program.address, &target, seed, requests / 2).await;
    let first = idle_resident_mib(&program).await;
    flood(&program.address, &target, seed, requests / 2).await;
    let second = idle_resident_mib(&program).await;
    println!("{counted:?}");
    println!(
        "{:?}; resident: {before:.1} MiB, then {first:.1} MiB, then {second:.1} MiB",
        begun.elapsed()
    );
    let log = std::fs::read_to_string(program.data.path().join("log")).unwrap();
    check_log(&log);
    assert!(
        first - before < MAX_KEPT_MIB,
        "{before} MiB, then {first} MiB"
    );
    assert!(second - first < NOISE_MIB, "{first} MiB, then {second} MiB");

    // Nothing has changed, and the service works.
    let now = Client::new(&url, None).avatar("victim").await.ok();
    assert_eq!(now["avatar_id"], avatar["avatar_id"]);
    let own = client("hostile").avatar("hostile").await;
    assert_eq!(own.problem(), (404, "avatar_not_found".to_owned()));
    assert_eq!(backend.objects(program.data.path()).await, objects);
    client("hostile").upload("hostile", PORTRAIT).await.ok();
    expect_nothing_in_use(&Client::new(&url, None)).await;
    program.terminate();
    let (_, code) = program.end().await;
    assert_eq!(code, Some(0));
    let data = program.data.path().display().to_string();
    let settings = variables
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    let settings = settings.chain([("CAMEO_DATA_DIR", data)]);
    let (code, said) = run_program(&["gc", "--dry-run"], settings).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("2 uploads in the store: 0 are garbage"),
        "{said}"
    );
}
