//! What the service keeps its avatars in while it is tested.
//!
//! `TEST_BACKEND` chooses for the whole suite: `alone` (the default), a folder and the
//! embedded catalog; `fleet`, a bucket and Redis; `cluster`, a bucket and a Redis Cluster;
//! `sentinel`, a bucket and a Redis that a Sentinel knows. Every test has servers of its own, or a
//! bucket of its own where `TEST_S3_ENDPOINT` names a real S3 server.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use redis_server::{RedisCluster, RedisSentinel, RedisServer};

use super::s3::server::{Fault, S3Server};

#[allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // its other parts serve other tests
#[path = "../../../src/redis/testing.rs"]
mod redis_server;

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
    /// The one that the suite runs on.
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

    /// A bucket and one Redis.
    pub(crate) async fn fleet() -> Self {
        let redis = Redis::One(RedisServer::start());
        Self::of(S3Server::start().await, redis)
    }

    /// A bucket, and a Redis that a Sentinel knows.
    pub(crate) async fn sentinel() -> Self {
        let sentinel = Redis::Sentinel(RedisSentinel::start());
        Self::of(S3Server::start().await, sentinel)
    }

    fn of(bucket: S3Server, redis: Redis) -> Self {
        Self::Fleet(Box::new(bucket), Box::new(Mutex::new(redis)))
    }

    /// A bucket and one Redis, where the bucket can be held up.
    pub(crate) async fn fleet_with_faults() -> Self {
        let redis = Redis::One(RedisServer::start());
        Self::of(S3Server::start_with_faults().await, redis)
    }

    /// Makes a single Redis forget everything.
    pub(crate) fn empty_redis(&self) {
        self.redis(|server| server.ask("FLUSHALL"));
    }

    /// Sends a single Redis a command, whose answer is a text.
    pub(crate) fn ask_redis(&self, command: &str) -> String {
        let mut answer = String::new();
        self.redis(|server| answer = server.ask(command));
        answer
    }

    /// Makes what a single Redis holds of a user unreadable.
    pub(crate) fn damage(&self, user: &str) {
        self.redis(|server| {
            for key in server.ask::<Vec<String>>("KEYS cameo:{p*}:subjects") {
                if server.ask(&format!("HEXISTS {key} {user}")) {
                    server.ask::<()>(&format!("HSET {key} {user} x"));
                }
            }
        });
    }

    /// Kills a single Redis, which keeps its files.
    pub(crate) fn stop_redis(&self) {
        self.redis(RedisServer::kill);
    }

    /// Starts it again.
    pub(crate) fn start_redis(&self) {
        self.redis(RedisServer::restart);
    }

    /// Gives the master that a Sentinel knows a replica, which has caught up with it.
    pub(crate) fn add_replica(&self) -> RedisServer {
        self.with_sentinel(|sentinel| sentinel.add_replica())
    }

    /// Kills the master that a Sentinel knows.
    pub(crate) fn kill_master(&self) {
        self.with_sentinel(|sentinel| sentinel.master.kill());
    }

    /// Waits until the Sentinel has made this the master.
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

    /// Lets the bucket answer so many requests more, and none after them until
    /// [`release`](Self::release).
    pub(crate) fn hold_after(&self, requests: usize) {
        let s3 = self.bucket();
        s3.fail_next(requests, Fault::Delay(Duration::ZERO));
        s3.fail_next(1000, Fault::Delay(Duration::from_mins(1)));
    }

    /// Has the bucket fail every request until [`release`](Self::release).
    pub(crate) fn fail(&self) {
        self.bucket().fail_next(1000, Fault::Status(503));
    }

    /// Lets the bucket answer again.
    pub(crate) fn release(&self) {
        self.bucket().clear_faults();
    }

    /// How many requests the bucket has got.
    pub(crate) fn requests(&self) -> usize {
        self.bucket().requests().len()
    }

    /// How many requests the bucket has got to delete something.
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
            _ => panic!("there are several"),
        }
    }

    /// The settings that lead there.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let Self::Fleet(s3, redis) = self else {
            return Vec::new();
        };
        let settings = s3.settings();
        let credentials = settings.credentials.unwrap();
        let redis = match &*redis.lock().unwrap() {
            Redis::One(server) => server.url(),
            Redis::Cluster(cluster) => cluster.url(),
            Redis::Sentinel(sentinel) => sentinel.url(),
        };
        vec![
            ("CAMEO_STORAGE__KIND", "s3".to_owned()),
            ("CAMEO_STORAGE__S3__BUCKET", settings.bucket),
            ("CAMEO_STORAGE__S3__REGION", settings.region),
            ("CAMEO_STORAGE__S3__ENDPOINT", settings.endpoint.unwrap()),
            // Objects have the same addresses as with a folder, and so the same tests.
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

    /// Every object of a service whose data is in `data`, as keys, sorted.
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

    /// Takes an object away behind the service's back.
    pub(crate) async fn remove_object(&self, data: &Path, key: &str) {
        match self {
            Self::Alone => std::fs::remove_file(store_in(data).join(key)).unwrap(),
            Self::Fleet(s3, _) => s3.remove_object(key).await,
        }
    }

    /// Puts an object into the bucket behind the service's back.
    pub(crate) async fn put_object(&self, key: &str, body: &'static [u8]) {
        self.bucket().put_objects(&[key.to_owned()], body).await;
    }

    /// Takes the whole store away, in such a way that it does not come back.
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

/// The folder that holds the objects by their keys, where there is no bucket.
fn store_in(data: &Path) -> PathBuf {
    data.join("store")
}

/// Every object below a store's folder, as keys, sorted.
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
