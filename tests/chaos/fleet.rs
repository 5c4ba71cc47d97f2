//! A fleet under test: replicas of the program and what they depend on, each a process of its own.
//!
//! [`Plan`] says what it consists of. By default it is two replicas, one Redis and one bucket, with
//! a proxy that can fail between each replica and each of the two.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::bucket::{self, BUCKET, Eye};
use crate::client::Client;
use crate::cluster;
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

/// What a fleet consists of.
#[derive(Default)]
pub(crate) struct Plan<'a> {
    /// Settings over the program's defaults, as environment variables.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Further environment variables of each replica, in order.
    pub(crate) own: [Vec<(&'static str, String)>; REPLICAS],
    /// Options of `redis-server`, after the usual ones.
    pub(crate) redis_options: &'a [&'a str],
    pub(crate) shape: Shape,
}

/// Which processes there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Two replicas, one Redis, one bucket, and proxies between them.
    #[default]
    Fleet,
    /// Two replicas, a Redis Cluster of three masters, one bucket. Only the way to the bucket has
    /// a proxy: the masters tell clients each other's addresses.
    Cluster,
    /// One process with a folder and an embedded catalog.
    Alone,
}

/// A running fleet; it ends with the value.
pub(crate) struct Fleet {
    /// No server, one, or the three masters of a Cluster.
    redis: Vec<Program>,
    redis_addresses: Vec<SocketAddr>,
    bucket: Option<Program>,
    replicas: Vec<Replica>,
    shape: Shape,
    /// The bucket, past every fault.
    pub(crate) eye: Eye,
    config: String,
    folder: PathBuf,
    token: String,
}

struct Replica {
    program: Program,
    url: String,
    to_redis: Option<Proxy>,
    to_bucket: Option<Proxy>,
}

impl Fleet {
    /// A fleet that is ready, with these settings over the program's defaults, and its files and
    /// logs in `folder`.
    pub(crate) async fn start(folder: &Path, settings: &[(&'static str, String)]) -> Self {
        let plan = Plan {
            settings: settings.to_vec(),
            ..Plan::default()
        };
        Self::start_as(folder, &plan).await
    }

    /// A fleet that is ready and built to this plan, with its files and logs in `folder`.
    pub(crate) async fn start_as(folder: &Path, plan: &Plan<'_>) -> Self {
        let redis_addresses: Vec<_> = match plan.shape {
            Shape::Fleet => vec![free_address()],
            Shape::Cluster => (0..3).map(|_| free_address()).collect(),
            Shape::Alone => Vec::new(),
        };
        let mut redis = Vec::new();
        for (number, address) in redis_addresses.iter().enumerate() {
            let program = match plan.shape {
                Shape::Cluster => redis_node(folder, *address, number),
                _ => redis_server(folder, "redis", *address),
            };
            redis.push(program.arguments(plan.redis_options));
        }
        for program in &redis {
            program.start().await;
        }
        if plan.shape == Shape::Cluster {
            cluster::join(&redis_addresses).await;
        }
        let kind = bucket::Kind::wanted();
        let bucket_address = free_address();
        let bucket = match plan.shape {
            Shape::Alone => None,
            _ => Some(kind.program(folder, bucket_address)),
        };
        if let Some(bucket) = &bucket {
            bucket.start().await;
        }
        let eye = match plan.shape {
            Shape::Alone => Eye::on_folder(data_folder(folder, 0).join("store")),
            _ => Eye::on_server(kind, bucket_address),
        };
        // Few sizes, so that pictures are the least of the work.
        let sizes = folder.join("sizes.toml");
        let text = "[images]\nvariants = { thumbnail = 64, medium = 256 }\n";
        fs::write(&sizes, text).unwrap();
        let mut fleet = Self {
            redis,
            redis_addresses,
            bucket,
            replicas: Vec::new(),
            shape: plan.shape,
            eye,
            config: sizes.display().to_string(),
            folder: folder.to_owned(),
            token: token(folder, &["--sub", "chaos", "--role", "service"]),
        };
        let replicas = match plan.shape {
            Shape::Alone => 1,
            _ => REPLICAS,
        };
        for number in 0..replicas {
            let replica = fleet.replica_of(folder, plan, number, bucket_address);
            let replica = replica.await;
            replica.program.start().await;
            fleet.replicas.push(replica);
        }
        fleet.ready().await;
        fleet
    }

    /// A replica that is not running yet.
    async fn replica_of(
        &self,
        folder: &Path,
        plan: &Plan<'_>,
        number: usize,
        bucket: SocketAddr,
    ) -> Replica {
        let address = free_address();
        let url = format!("http://{address}");
        let data = data_folder(folder, number).display().to_string();
        let mut own = vec![
            ("CAMEO_AUTH__JWT_SECRET", SECRET.to_owned()),
            ("CAMEO_DATA_DIR", data),
            ("CAMEO_HTTP__BIND", address.to_string()),
            // The same for all, so that an avatar's JSON is the same whichever replica answers.
            ("CAMEO_HTTP__PUBLIC_URL", "http://fleet".to_owned()),
        ];
        let (mut to_redis, mut to_bucket) = (None, None);
        if plan.shape != Shape::Alone {
            let proxy = Proxy::start(bucket).await;
            own.extend(bucket_settings(&proxy));
            to_bucket = Some(proxy);
        }
        let redis_url = match (plan.shape, &self.redis_addresses[..]) {
            (Shape::Fleet, [redis]) => {
                let proxy = Proxy::start(*redis).await;
                let url = format!("redis://{}", proxy.address());
                to_redis = Some(proxy);
                Some(url)
            }
            (_, []) => None,
            (_, nodes) => Some(cluster::url(nodes)),
        };
        if let Some(url) = redis_url {
            own.push(("CAMEO_CATALOG__KIND", "redis".to_owned()));
            own.push(("CAMEO_CATALOG__REDIS__URL", url));
        }
        let program = env!("CARGO_BIN_EXE_cameo");
        let program = Program::new(&format!("replica-{number}"), program, folder)
            .arguments(["serve", "--config", &self.config])
            .variables(own)
            .variables(plan.settings.iter().cloned())
            .variables(plan.own[number].iter().cloned());
        Replica {
            program,
            url,
            to_redis,
            to_bucket,
        }
    }

    /// What it consists of.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// How many replicas there are.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Runs one of the program's commands as an operator would, set up as the first replica is.
    pub(crate) async fn operate(&self, words: &[&str]) -> Output {
        let words = [words, &["--config", &self.config]].concat();
        self.replicas[0].program.run_beside(&words).await
    }

    /// Where a replica is spoken to, as a service that may change every avatar.
    pub(crate) fn client(&self, replica: usize) -> Client {
        Client::new(&self.replicas[replica].url, &self.token)
    }

    /// Each replica, spoken to as a user who may change their own avatar alone.
    pub(crate) fn clients_of(&self, user: &str) -> Vec<Client> {
        let token = token(&self.folder, &["--sub", user]);
        let replicas = self.replicas.iter();
        replicas
            .map(|replica| Client::new(&replica.url, &token))
            .collect()
    }

    pub(crate) fn replica(&self, number: usize) -> &Program {
        &self.replicas[number].program
    }

    /// A dependency's program; of a Cluster the first master.
    pub(crate) fn dependency(&self, which: Dependency) -> &Program {
        let program = match which {
            Dependency::Redis => self.redis.first(),
            Dependency::Bucket => self.bucket.as_ref(),
        };
        program.expect("the fleet has this dependency")
    }

    /// Makes the way from a replica, or from each, to a dependency so.
    pub(crate) fn set_way(&self, replica: Option<usize>, to: Dependency, way: Way) {
        for (number, one) in self.replicas.iter().enumerate() {
            if replica.is_none_or(|only| only == number) {
                let proxy = match to {
                    Dependency::Redis => &one.to_redis,
                    Dependency::Bucket => &one.to_bucket,
                };
                if let Some(proxy) = proxy {
                    proxy.set(way);
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

    /// Asks Redis, past every fault; of a Cluster the master that has the keys.
    pub(crate) async fn ask_redis<T: redis::FromRedisValue + Send + 'static>(
        &self,
        words: &[impl AsRef<[u8]>],
    ) -> redis::RedisResult<T> {
        match &self.redis_addresses[..] {
            [one] => ask_node(*one, words).await,
            nodes => cluster::ask(nodes, words).await,
        }
    }

    /// Where the Redis servers listen.
    pub(crate) fn redis_addresses(&self) -> &[SocketAddr] {
        &self.redis_addresses
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
        self.redis.iter().chain(&self.bucket).chain(replicas)
    }
}

/// Sends one command to one Redis server, and waits a short time for the answer.
pub(crate) async fn ask_node<T: redis::FromRedisValue + Send + 'static>(
    address: SocketAddr,
    words: &[impl AsRef<[u8]>],
) -> redis::RedisResult<T> {
    let client = redis::Client::open(format!("redis://{address}"))?;
    let asked = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        command(words).query_async(&mut connection).await
    };
    bounded(asked).await
}

/// A command of these words.
pub(crate) fn command(words: &[impl AsRef<[u8]>]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word.as_ref());
    }
    command
}

/// Gives an answer up that does not come soon.
pub(crate) async fn bounded<T>(
    asked: impl Future<Output = redis::RedisResult<T>>,
) -> redis::RedisResult<T> {
    match tokio::time::timeout(Duration::from_secs(2), asked).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// The folder that a replica keeps its data in.
pub(crate) fn data_folder(folder: &Path, replica: usize) -> PathBuf {
    folder.join(format!("replica-{replica}"))
}

/// A server that takes part in a Cluster.
fn redis_node(folder: &Path, address: SocketAddr, number: usize) -> Program {
    let bus = free_address().port().to_string();
    redis_server(folder, &format!("redis-{number}"), address).arguments([
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "2000",
        "--cluster-port",
        &bus,
    ])
}

/// A Redis that answers a write when it is on the disk.
fn redis_server(folder: &Path, name: &str, address: SocketAddr) -> Program {
    let (port, data) = (address.port().to_string(), made(folder.join(name)));
    let data = data.display().to_string();
    Program::new(name, "redis-server", folder).arguments(
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

/// The settings of a bucket behind this proxy.
fn bucket_settings(proxy: &Proxy) -> Vec<(&'static str, String)> {
    let (key, secret) = bucket::Kind::wanted().keys();
    let endpoint = format!("http://{}", proxy.address());
    [
        ("CAMEO_STORAGE__KIND", "s3"),
        ("CAMEO_STORAGE__S3__BUCKET", BUCKET),
        ("CAMEO_STORAGE__S3__PUBLIC_ACCESS", "none"),
        ("CAMEO_STORAGE__S3__ENDPOINT", &endpoint),
        ("CAMEO_STORAGE__S3__ACCESS_KEY_ID", key),
        ("CAMEO_STORAGE__S3__SECRET_ACCESS_KEY", secret),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

/// A token for longer than any run.
fn token(folder: &Path, whose: &[&str]) -> String {
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_cameo"))
        .args(["token", "--ttl", "7d"])
        .args(whose)
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
