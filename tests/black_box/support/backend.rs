//! The store and the catalog of a service under test.
//!
//! `TEST_BACKEND` chooses them for the whole suite: `alone` (the default) is a folder and the
//! embedded catalog; `fleet` is a bucket and Redis; `cluster` is a bucket and a Redis Cluster;
//! `sentinel` is a bucket and a Redis that a Sentinel monitors. Every test has servers of its own.
//! If `TEST_S3_ENDPOINT` names a real S3 server, every test has a bucket of its own there.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use cameo_testing::redis::{RedisCluster, RedisSentinel, RedisServer};
use cameo_testing::s3::{Fault, S3Server};

pub(crate) enum Backend {
    Alone,
    Fleet(Box<S3Server>, Box<Mutex<Redis>>),
}

pub(crate) enum Redis {
    One(RedisServer),
    Cluster(RedisCluster),
    Sentinel(RedisSentinel),
}

impl Backend {
    /// Starts the servers that `TEST_BACKEND` chooses.
    pub(crate) async fn start() -> Self {
        match std::env::var("TEST_BACKEND").as_deref() {
            Err(_) | Ok("" | "alone") => Self::Alone,
            Ok("fleet") => Self::fleet().await,
            Ok("cluster") => {
                let cluster = Redis::Cluster(RedisCluster::start());
                Self::of(S3Server::start().await, cluster)
            }
            Ok("sentinel") => Self::sentinel().await,
            Ok(other) => {
                panic!("TEST_BACKEND is {other:?}; give alone, fleet, cluster or sentinel")
            }
        }
    }

    /// Starts a bucket and one Redis.
    pub(crate) async fn fleet() -> Self {
        let redis = Redis::One(RedisServer::start());
        Self::of(S3Server::start().await, redis)
    }

    /// Starts a bucket, and a Redis that a Sentinel monitors.
    pub(crate) async fn sentinel() -> Self {
        let sentinel = Redis::Sentinel(RedisSentinel::start());
        Self::of(S3Server::start().await, sentinel)
    }

    fn of(bucket: S3Server, redis: Redis) -> Self {
        Self::Fleet(Box::new(bucket), Box::new(Mutex::new(redis)))
    }

    /// Starts a bucket that can simulate faults, and one Redis.
    pub(crate) async fn fleet_with_faults() -> Self {
        let redis = Redis::One(RedisServer::start());
        Self::of(S3Server::start_with_faults().await, redis)
    }

    /// Deletes all data of the single Redis.
    pub(crate) fn empty_redis(&self) {
        self.redis(|server| server.ask("FLUSHALL"));
    }

    /// Sends a command to the single Redis, and returns its answer as text.
    pub(crate) fn ask_redis(&self, command: &str) -> String {
        let mut answer = String::new();
        self.redis(|server| answer = server.ask(command));
        answer
    }

    /// Every key of the single Redis with all values, and the file of everything that was ever
    /// written.
    pub(crate) fn redis_contents(&self) -> Vec<(String, Vec<u8>)> {
        let mut contents = Vec::new();
        self.redis(|server| {
            for key in server.ask::<Vec<String>>("KEYS *") {
                let read = match server.ask::<String>(&format!("TYPE {key}")).as_str() {
                    "string" => format!("GET {key}"),
                    "hash" => format!("HGETALL {key}"),
                    "set" => format!("SMEMBERS {key}"),
                    "zset" => format!("ZRANGE {key} 0 -1 WITHSCORES"),
                    "list" => format!("LRANGE {key} 0 -1"),
                    "stream" => format!("XRANGE {key} - +"),
                    other => panic!("{key} is of the type {other}"),
                };
                let mut bytes = Vec::new();
                flatten(&server.ask(&read), &mut bytes);
                contents.push((key, bytes));
            }
            contents.push((
                "the append-only file".to_owned(),
                server.everything_written(),
            ));
        });
        contents
    }

    /// Makes the record of a user in the single Redis unreadable.
    pub(crate) fn damage(&self, user: &str) {
        self.redis(|server| {
            for key in server.ask::<Vec<String>>("KEYS cameo:{p*}:subjects") {
                if server.ask(&format!("HEXISTS {key} {user}")) {
                    server.ask::<()>(&format!("HSET {key} {user} x"));
                }
            }
        });
    }

    /// Kills the single Redis, and keeps its files.
    pub(crate) fn stop_redis(&self) {
        self.redis(RedisServer::kill);
    }

    /// Starts the single Redis again, with its files.
    pub(crate) fn start_redis(&self) {
        self.redis(RedisServer::restart);
    }

    /// Adds a replica to the master that the Sentinel monitors, and waits until it is in sync.
    pub(crate) fn add_replica(&self) -> RedisServer {
        self.with_sentinel(|sentinel| sentinel.add_replica())
    }

    /// Kills the master that the Sentinel monitors.
    pub(crate) fn kill_master(&self) {
        self.with_sentinel(|sentinel| sentinel.master.kill());
    }

    /// Waits until the Sentinel has promoted this replica to master.
    pub(crate) fn wait_for_master(&self, replica: &RedisServer) {
        self.with_sentinel(|sentinel| sentinel.wait_for_master(replica));
    }

    fn with_sentinel<T>(&self, change: impl FnOnce(&mut RedisSentinel) -> T) -> T {
        let Self::Fleet(_, redis) = self else {
            panic!("there is no Redis");
        };
        match &mut *redis.lock().unwrap() {
            Redis::Sentinel(sentinel) => change(sentinel),
            _ => panic!("there is no Sentinel"),
        }
    }

    /// Lets the bucket answer this many more requests. Further requests wait until
    /// [`release`](Self::release).
    pub(crate) fn hold_after(&self, requests: usize) {
        let s3 = self.bucket();
        s3.fail_next(requests, Fault::Delay(Duration::ZERO));
        s3.fail_next(1000, Fault::Delay(Duration::from_mins(1)));
    }

    /// Makes the bucket fail every request until [`release`](Self::release).
    pub(crate) fn fail(&self) {
        self.bucket().fail_next(1000, Fault::Status(503));
    }

    /// Makes the bucket answer every request again.
    pub(crate) fn release(&self) {
        self.bucket().clear_faults();
    }

    /// The URL of an object in the bucket, without a signature; `None` for a folder.
    pub(crate) fn object_url(&self, key: &str) -> Option<String> {
        let Self::Fleet(s3, _) = self else {
            return None;
        };
        let access = s3.access();
        Some(format!("{}/{}/{key}", access.endpoint, access.bucket))
    }

    /// The number of requests that the bucket has received.
    pub(crate) fn requests(&self) -> usize {
        self.bucket().requests().len()
    }

    /// The number of DELETE requests that the bucket has received.
    pub(crate) fn deletes(&self) -> usize {
        let requests = self.bucket().requests();
        let is_delete = |line: &&String| line.starts_with("DELETE ");
        requests.iter().filter(is_delete).count()
    }

    fn bucket(&self) -> &S3Server {
        match self {
            Self::Fleet(s3, _) => s3,
            Self::Alone => panic!("there is no bucket"),
        }
    }

    fn redis(&self, change: impl FnOnce(&mut RedisServer)) {
        let Self::Fleet(_, redis) = self else {
            panic!("there is no Redis");
        };
        match &mut *redis.lock().unwrap() {
            Redis::One(server) => change(server),
            _ => panic!("there is more than one Redis"),
        }
    }

    /// The environment variables that make a service use these servers.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let Self::Fleet(s3, redis) = self else {
            return Vec::new();
        };
        let access = s3.access().clone();
        let credentials = access.credentials;
        let redis = match &*redis.lock().unwrap() {
            Redis::One(server) => server.url(),
            Redis::Cluster(cluster) => cluster.url(),
            Redis::Sentinel(sentinel) => sentinel.url(),
        };
        vec![
            ("CAMEO_STORAGE__KIND", "s3".to_owned()),
            ("CAMEO_STORAGE__S3__BUCKET", access.bucket),
            ("CAMEO_STORAGE__S3__REGION", access.region),
            ("CAMEO_STORAGE__S3__ENDPOINT", access.endpoint),
            // The service serves the objects itself, as with a folder, so the same tests apply.
            ("CAMEO_STORAGE__S3__PUBLIC_ACCESS", "none".to_owned()),
            (
                "CAMEO_STORAGE__S3__ACCESS_KEY_ID",
                credentials.access_key_id,
            ),
            (
                "CAMEO_STORAGE__S3__SECRET_ACCESS_KEY",
                credentials.secret_access_key,
            ),
            ("CAMEO_CATALOG__KIND", "redis".to_owned()),
            ("CAMEO_CATALOG__REDIS__URL", redis),
        ]
    }

    /// The sorted keys of all objects of a service whose data folder is `data`.
    pub(crate) async fn objects(&self, data: &Path) -> Vec<String> {
        match self {
            Self::Alone => objects_in(&store_in(data)),
            Self::Fleet(s3, _) => s3.objects().await,
        }
    }

    /// The bytes of an object.
    pub(crate) async fn read_object(&self, data: &Path, key: &str) -> Vec<u8> {
        match self {
            Self::Alone => std::fs::read(store_in(data).join(key)).unwrap(),
            Self::Fleet(s3, _) => s3.read_object(key).await,
        }
    }

    /// Removes an object directly from the store, without the service.
    pub(crate) async fn remove_object(&self, data: &Path, key: &str) {
        match self {
            Self::Alone => std::fs::remove_file(store_in(data).join(key)).unwrap(),
            Self::Fleet(s3, _) => s3.remove_object(key).await,
        }
    }

    /// Puts an object directly into the bucket, without the service.
    pub(crate) async fn put_object(&self, key: &str, body: &'static [u8]) {
        self.bucket().put_objects(&[key.to_owned()], body).await;
    }

    /// Removes the whole store. A folder is replaced by a file, so that it cannot be made again.
    pub(crate) async fn remove_store(&self, data: &Path) {
        match self {
            Self::Alone => {
                std::fs::remove_dir_all(store_in(data)).unwrap();
                std::fs::write(store_in(data), "in the way").unwrap();
            }
            Self::Fleet(s3, _) => s3.remove_bucket().await,
        }
    }
}

/// Appends all texts and numbers of an answer of Redis, one to a line.
fn flatten(value: &redis::Value, bytes: &mut Vec<u8>) {
    match value {
        redis::Value::BulkString(text) => bytes.extend_from_slice(text),
        redis::Value::Array(values) => values.iter().for_each(|one| flatten(one, bytes)),
        redis::Value::SimpleString(text) => bytes.extend_from_slice(text.as_bytes()),
        redis::Value::Int(number) => bytes.extend_from_slice(number.to_string().as_bytes()),
        redis::Value::Nil => {}
        other => panic!("an answer of another kind: {other:?}"),
    }
    bytes.push(b'\n');
}

/// The folder of the disk store, which holds the objects by their keys.
fn store_in(data: &Path) -> PathBuf {
    data.join("store")
}

/// The sorted keys of all objects in a disk store.
fn objects_in(store: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, keys: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, keys);
            } else {
                let key = path.strip_prefix(root).unwrap();
                keys.push(key.to_str().unwrap().to_owned());
            }
        }
    }
    let mut keys = Vec::new();
    walk(store, store, &mut keys);
    keys.sort();
    keys
}
