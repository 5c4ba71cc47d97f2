//! The fleet: two replicas of the program, one Redis, one bucket, and between each replica and
//! each of the two a way that can fail.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::bucket::{self, BUCKET, Eye};
use crate::client::Client;
use crate::process::Program;
use crate::proxy::{Proxy, Way};

pub(crate) const REPLICAS: usize = 2;
const SECRET: &str = "a secret that only this run knows, 32 bytes";
/// How long anything may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a replica depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dependency {
    Redis,
    Bucket,
}

impl Dependency {
    pub(crate) const ALL: [Self; 2] = [Self::Redis, Self::Bucket];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Bucket => "bucket",
        }
    }
}

/// A running fleet; it ends with the value.
pub(crate) struct Fleet {
    redis: Program,
    bucket: Program,
    replicas: Vec<Replica>,
    /// The bucket, past every fault.
    pub(crate) eye: Eye,
    redis_url: String,
    token: String,
}

struct Replica {
    program: Program,
    url: String,
    to_redis: Proxy,
    to_bucket: Proxy,
}

impl Fleet {
    /// A fleet that is ready, with these settings over the program's defaults, and its files and
    /// logs in `folder`.
    pub(crate) async fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let (redis_address, bucket_address) = (free_address(), free_address());
        let redis = redis(folder, redis_address);
        let kind = bucket::Kind::wanted();
        let bucket = kind.program(folder, bucket_address);
        let (key, secret) = kind.keys();
        redis.start().await;
        bucket.start().await;
        // Few sizes, so that pictures are the least of the work.
        let sizes = folder.join("sizes.toml");
        let text = "[images]\nvariants = { thumbnail = 64, medium = 256 }\n";
        fs::write(&sizes, text).unwrap();
        let sizes = sizes.display().to_string();
        let mut replicas = Vec::new();
        for number in 0..REPLICAS {
            let address = free_address();
            let to_redis = Proxy::start(redis_address).await;
            let to_bucket = Proxy::start(bucket_address).await;
            let url = format!("http://{address}");
            let data = folder.join(format!("replica-{number}"));
            let own = [
                ("CAMEO_DATA_DIR", data.display().to_string()),
                ("CAMEO_HTTP__BIND", address.to_string()),
                // The same for both, so that an avatar's JSON is the same whoever gives it.
                ("CAMEO_HTTP__PUBLIC_URL", "http://fleet".to_owned()),
                (
                    "CAMEO_STORAGE__S3__ENDPOINT",
                    format!("http://{}", to_bucket.address()),
                ),
                ("CAMEO_STORAGE__S3__ACCESS_KEY_ID", key.to_owned()),
                ("CAMEO_STORAGE__S3__SECRET_ACCESS_KEY", secret.to_owned()),
                (
                    "CAMEO_CATALOG__REDIS__URL",
                    format!("redis://{}", to_redis.address()),
                ),
            ];
            let program = Program::new(
                &format!("replica-{number}"),
                env!("CARGO_BIN_EXE_cameo"),
                folder,
            )
            .arguments(["serve", "--config", &sizes])
            .variables(fixed_settings())
            .variables(own)
            .variables(
                settings
                    .iter()
                    .map(|(name, value)| (*name, (*value).into())),
            );
            program.start().await;
            replicas.push(Replica {
                program,
                url,
                to_redis,
                to_bucket,
            });
        }
        let fleet = Self {
            redis,
            bucket,
            replicas,
            eye: Eye::new(kind, bucket_address),
            redis_url: format!("redis://{redis_address}"),
            token: token(folder),
        };
        fleet.ready().await;
        fleet
    }

    /// Where a replica is spoken to, as a service that may change every avatar.
    pub(crate) fn client(&self, replica: usize) -> Client {
        Client::new(&self.replicas[replica].url, &self.token)
    }

    pub(crate) fn replica(&self, number: usize) -> &Program {
        &self.replicas[number].program
    }

    pub(crate) fn dependency(&self, which: Dependency) -> &Program {
        match which {
            Dependency::Redis => &self.redis,
            Dependency::Bucket => &self.bucket,
        }
    }

    /// Makes the way from a replica, or from each, to a dependency so.
    pub(crate) fn set_way(&self, replica: Option<usize>, to: Dependency, way: Way) {
        for (number, one) in self.replicas.iter().enumerate() {
            if replica.is_none_or(|only| only == number) {
                match to {
                    Dependency::Redis => one.to_redis.set(way),
                    Dependency::Bucket => one.to_bucket.set(way),
                }
            }
        }
    }

    /// Ends every fault: every way open, every program running.
    pub(crate) async fn heal(&self) {
        for to in Dependency::ALL {
            self.set_way(None, to, Way::Pass);
        }
        for program in self.programs() {
            program.go_on().await;
            program.start().await;
        }
    }

    /// Waits until every replica says that it can do its work.
    pub(crate) async fn ready(&self) {
        let begun = Instant::now();
        for (number, replica) in self.replicas.iter().enumerate() {
            let client = self.client(number);
            while !client.is_ready().await {
                let name = replica.program.name();
                assert!(begun.elapsed() < PATIENCE, "{name} does not get ready");
                let ended = replica.program.ended_by_itself().await;
                assert!(ended.is_empty(), "{ended:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Whether a dependency takes what is written past every fault: with whatever had been waiting
    /// for it before, and onto the machine's disk.
    pub(crate) async fn answers(&self, which: Dependency) -> bool {
        match which {
            Dependency::Redis => self.ask_redis::<()>(&["SET", "chaos", ""]).await.is_ok(),
            Dependency::Bucket => self.eye.try_put("chaos", b"x").await.is_ok(),
        }
    }

    /// Asks Redis, past every fault.
    pub(crate) async fn ask_redis<T: redis::FromRedisValue + Send + 'static>(
        &self,
        words: &[impl AsRef<[u8]>],
    ) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word.as_ref());
        }
        let client = redis::Client::open(self.redis_url.as_str())?;
        let asked = async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            command.query_async(&mut connection).await
        };
        match tokio::time::timeout(Duration::from_secs(2), asked).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    /// Every program that ended though nobody had killed it.
    pub(crate) async fn ended_by_themselves(&self) -> Vec<String> {
        let mut ended = Vec::new();
        for program in self.programs() {
            ended.extend(program.ended_by_itself().await);
        }
        ended
    }

    fn programs(&self) -> impl Iterator<Item = &Program> {
        let replicas = self.replicas.iter().map(|replica| &replica.program);
        [&self.redis, &self.bucket].into_iter().chain(replicas)
    }
}

/// A Redis that answers a write when it is on the disk.
fn redis(folder: &Path, address: SocketAddr) -> Program {
    let (port, data) = (address.port().to_string(), made(folder.join("redis")));
    let data = data.display().to_string();
    Program::new("redis", "redis-server", folder).arguments(
        [
            ["--port", &port],
            ["--bind", "127.0.0.1"],
            ["--dir", &data],
            ["--save", ""],
            ["--appendonly", "yes"],
            ["--appendfsync", "always"],
            ["--maxmemory-policy", "noeviction"],
        ]
        .concat(),
    )
}

fn fixed_settings() -> impl Iterator<Item = (&'static str, String)> {
    [
        ("CAMEO_AUTH__JWT_SECRET", SECRET),
        ("CAMEO_STORAGE__KIND", "s3"),
        ("CAMEO_STORAGE__S3__BUCKET", BUCKET),
        ("CAMEO_STORAGE__S3__PUBLIC_ACCESS", "none"),
        ("CAMEO_CATALOG__KIND", "redis"),
    ]
    .into_iter()
    .map(|(name, value)| (name, value.to_owned()))
}

/// A token of a service, which may change every avatar, for longer than any run.
fn token(folder: &Path) -> String {
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_cameo"))
        .args([
            "token", "--sub", "chaos", "--role", "service", "--ttl", "7d",
        ])
        .env("CAMEO_DATA_DIR", folder)
        .env("CAMEO_AUTH__JWT_SECRET", SECRET)
        .output()
        .unwrap();
    assert!(made.status.success());
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn made(folder: PathBuf) -> PathBuf {
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// An address that nobody listens on, for a program that is to keep it over all its restarts: below
/// the ports that a system gives to whoever connects, which would be taken while it is down.
fn free_address() -> SocketAddr {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(..)));
    let all = 15_000..30_000_u16;
    loop {
        let port = all.start + NEXT.fetch_add(1, Ordering::Relaxed) % (all.end - all.start);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
