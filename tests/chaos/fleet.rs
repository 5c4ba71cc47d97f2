//! A fleet under test: replicas of the program and their dependencies, each in a process of its
//! own.
//!
//! [`Plan`] describes its parts. By default there are two replicas, one Redis and one bucket. A
//! proxy between each replica and each dependency can simulate network faults.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::bucket::{self, BUCKET, DirectStore};
use crate::client::Client;
use crate::cluster;
use crate::process::Program;
use crate::proxy::{Link, Proxy};

pub(crate) const REPLICAS: usize = 2;
const SECRET: &str = "a secret that only this run knows, 32 bytes";
/// How long a process may take to become ready on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A dependency of the replicas.
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

/// The parts of a fleet.
#[derive(Default)]
pub(crate) struct Plan<'a> {
    /// Settings that override the program's defaults, as environment variables.
    pub(crate) settings: Vec<(&'static str, String)>,
    /// Further environment variables for each replica, in order.
    pub(crate) own: [Vec<(&'static str, String)>; REPLICAS],
    /// Further options of `redis-server`.
    pub(crate) redis_options: &'a [&'a str],
    pub(crate) shape: Shape,
}

/// The processes of a fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Two replicas, one Redis, one bucket, and proxies between them.
    #[default]
    Fleet,
    /// Two replicas, a Redis Cluster of three masters, one bucket. Only the bucket is behind a
    /// proxy, because the masters tell their own addresses to clients.
    Cluster,
    /// One process with a folder and an embedded catalog.
    Alone,
}

/// A running fleet. Dropping it ends its processes.
pub(crate) struct Fleet {
    /// No server, one, or the three masters of a Cluster.
    redis: Vec<Program>,
    redis_addresses: Vec<SocketAddr>,
    bucket: Option<Program>,
    replicas: Vec<Replica>,
    shape: Shape,
    /// The stored objects, accessed directly and without faults.
    pub(crate) store: DirectStore,
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
    /// Starts a fleet with these settings over the program's defaults, and waits until it is ready.
    /// Its files and logs are in `folder`.
    pub(crate) async fn start(folder: &Path, settings: &[(&'static str, String)]) -> Self {
        let plan = Plan {
            settings: settings.to_vec(),
            ..Plan::default()
        };
        Self::start_as(folder, &plan).await
    }

    /// Starts a fleet by this plan, and waits until it is ready. Its files and logs are in
    /// `folder`.
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
        let kind = bucket::Kind::from_environment();
        let bucket_address = free_address();
        let bucket = match plan.shape {
            Shape::Alone => None,
            _ => Some(kind.program(folder, bucket_address)),
        };
        if let Some(bucket) = &bucket {
            bucket.start().await;
        }
        let store = match plan.shape {
            Shape::Alone => DirectStore::on_folder(data_folder(folder, 0).join("store")),
            _ => DirectStore::on_server(kind, bucket_address),
        };
        // Few variants keep image processing cheap.
        let sizes = folder.join("sizes.toml");
        let text = "[images]\nvariants = { thumbnail = 64, medium = 256 }\n";
        fs::write(&sizes, text).unwrap();
        let mut fleet = Self {
            redis,
            redis_addresses,
            bucket,
            replicas: Vec::new(),
            shape: plan.shape,
            store,
            config: sizes.display().to_string(),
            folder: folder.to_owned(),
            token: token(folder, &["--sub", "chaos", "--role", "service"]),
        };
        let replicas = match plan.shape {
            Shape::Alone => 1,
            _ => REPLICAS,
        };
        for number in 0..replicas {
            let replica = fleet.make_replica(folder, plan, number, bucket_address);
            let replica = replica.await;
            replica.program.start().await;
            fleet.replicas.push(replica);
        }
        fleet.ready().await;
        fleet
    }

    /// Makes a replica that is not running yet.
    async fn make_replica(
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
            // The same for all replicas, so that they answer with the same JSON.
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

    /// The kind of fleet.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The number of replicas.
    pub(crate) fn replicas(&self) -> usize {
        self.replicas.len()
    }

    /// Runs one of the program's commands with the settings of the first replica.
    pub(crate) async fn operate(&self, words: &[&str]) -> Output {
        let words = [words, &["--config", &self.config]].concat();
        self.replicas[0].program.run_command(&words).await
    }

    /// A client of a replica, with the token of a service that may change every avatar.
    pub(crate) fn client(&self, replica: usize) -> Client {
        Client::new(&self.replicas[replica].url, &self.token)
    }

    /// A client of each replica, with the token of a user who may change only their own avatar.
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

    /// The program of a dependency; the first master in a Cluster.
    pub(crate) fn dependency(&self, which: Dependency) -> &Program {
        let program = match which {
            Dependency::Redis => self.redis.first(),
            Dependency::Bucket => self.bucket.as_ref(),
        };
        program.expect("the fleet has this dependency")
    }

    /// Sets the state of the link from one replica, or from all, to a dependency.
    pub(crate) fn set_link(&self, replica: Option<usize>, to: Dependency, link: Link) {
        for (number, one) in self.replicas.iter().enumerate() {
            if replica.is_none_or(|only| only == number) {
                let proxy = match to {
                    Dependency::Redis => &one.to_redis,
                    Dependency::Bucket => &one.to_bucket,
                };
                if let Some(proxy) = proxy {
                    proxy.set(link);
                }
            }
        }
    }

    /// Ends every fault: opens every link, and resumes or starts every program.
    pub(crate) async fn heal(&self) {
        for to in Dependency::ALL {
            self.set_link(None, to, Link::Pass);
        }
        for program in self.programs() {
            program.resume().await;
            program.start().await;
        }
    }

    /// Waits until every replica reports that it is ready.
    pub(crate) async fn ready(&self) {
        let begun = Instant::now();
        for (number, replica) in self.replicas.iter().enumerate() {
            let client = self.client(number);
            while !client.is_ready().await {
                let name = replica.program.name();
                assert!(begun.elapsed() < TIMEOUT, "{name} does not get ready");
                let ended = replica.program.ended_by_itself().await;
                assert!(ended.is_empty(), "{ended:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Whether a dependency accepts a direct write. A server that was stopped first carries out the
    /// requests that it received before.
    pub(crate) async fn accepts_writes(&self, which: Dependency) -> bool {
        match which {
            Dependency::Redis => self.ask_redis::<()>(&["SET", "chaos", ""]).await.is_ok(),
            Dependency::Bucket => self.store.try_put("chaos", b"x").await.is_ok(),
        }
    }

    /// Sends a command to Redis directly, without faults; in a Cluster to the master of the keys.
    pub(crate) async fn ask_redis<T: redis::FromRedisValue + Send + 'static>(
        &self,
        words: &[impl AsRef<[u8]>],
    ) -> redis::RedisResult<T> {
        match &self.redis_addresses[..] {
            [one] => ask_node(*one, words).await,
            nodes => cluster::ask(nodes, words).await,
        }
    }

    /// The addresses of the Redis servers.
    pub(crate) fn redis_addresses(&self) -> &[SocketAddr] {
        &self.redis_addresses
    }

    /// Every program that ended although the run did not kill it.
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

/// Sends a command to one Redis server, and waits a short time for its answer.
pub(crate) async fn ask_node<T: redis::FromRedisValue + Send + 'static>(
    address: SocketAddr,
    words: &[impl AsRef<[u8]>],
) -> redis::RedisResult<T> {
    let client = redis::Client::open(format!("redis://{address}"))?;
    let asked = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        command(words).query_async(&mut connection).await
    };
    with_timeout(asked).await
}

/// A Redis command of these words.
pub(crate) fn command(words: &[impl AsRef<[u8]>]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(word.as_ref());
    }
    command
}

/// Fails with a timeout if an answer does not come within two seconds.
pub(crate) async fn with_timeout<T>(
    asked: impl Future<Output = redis::RedisResult<T>>,
) -> redis::RedisResult<T> {
    match tokio::time::timeout(Duration::from_secs(2), asked).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// The data folder of a replica.
pub(crate) fn data_folder(folder: &Path, replica: usize) -> PathBuf {
    folder.join(format!("replica-{replica}"))
}

/// A Redis server that is part of a Cluster.
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

/// A Redis server that syncs a write to the disk before it answers.
fn redis_server(folder: &Path, name: &str, address: SocketAddr) -> Program {
    let (port, data) = (address.port().to_string(), created(folder.join(name)));
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

/// The settings for the bucket behind this proxy.
fn bucket_settings(proxy: &Proxy) -> Vec<(&'static str, String)> {
    let (key, secret) = bucket::Kind::from_environment().keys();
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

/// A token that is valid for longer than any run.
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

fn created(folder: PathBuf) -> PathBuf {
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A free address for a program that keeps it over all restarts. The port is below the range of
/// ephemeral ports, so no outgoing connection takes it while the program is down.
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
