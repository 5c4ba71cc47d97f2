//! What the service keeps its avatars in while it is tested.
//!
//! `TEST_BACKEND` chooses for the whole suite: `alone` (the default), a folder and the
//! embedded catalog; `fleet`, a bucket and Redis; `cluster`, a bucket and a Redis Cluster. Every
//! test has servers of its own.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use redis_server::{RedisCluster, RedisServer};

use super::s3::server::{Fault, S3Server};

#[allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // its other parts serve other tests
#[path = "../../../src/redis/testing.rs"]
mod redis_server;

pub(crate) enum Backend {
    Alone,
    Fleet(S3Server, Mutex<Redis>),
}

pub(crate) enum Redis {
    One(RedisServer),
    Cluster(RedisCluster),
}

impl Backend {
    /// The one that the suite runs on.
    pub(crate) async fn start() -> Self {
        match std::env::var("TEST_BACKEND").as_deref() {
            Err(_) | Ok("" | "alone") => Self::Alone,
            Ok("fleet") => Self::fleet().await,
            Ok("cluster") => {
                let cluster = Redis::Cluster(RedisCluster::start());
                Self::Fleet(S3Server::start().await, Mutex::new(cluster))
            }
            Ok(other) => panic!("TEST_BACKEND is {other:?}; give alone, fleet or cluster"),
        }
    }

    /// A bucket and one Redis.
    pub(crate) async fn fleet() -> Self {
        let redis = Redis::One(RedisServer::start());
        Self::Fleet(S3Server::start().await, Mutex::new(redis))
    }

    /// Makes a single Redis forget everything.
    pub(crate) fn empty_redis(&self) {
        self.redis(|server| server.ask("FLUSHALL"));
    }

    /// Kills a single Redis, which keeps its files.
    pub(crate) fn stop_redis(&self) {
        self.redis(RedisServer::kill);
    }

    /// Starts it again.
    pub(crate) fn start_redis(&self) {
        self.redis(RedisServer::restart);
    }

    /// Lets the bucket answer so many requests more, and none after them until
    /// [`release`](Self::release).
    pub(crate) fn hold_after(&self, requests: usize) {
        let s3 = self.bucket();
        s3.fail_next(requests, Fault::Delay(Duration::ZERO));
        s3.fail_next(1000, Fault::Delay(Duration::from_mins(1)));
    }

    /// Lets the bucket answer again.
    pub(crate) fn release(&self) {
        self.bucket().clear_faults();
    }

    /// How many requests the bucket has got.
    pub(crate) fn requests(&self) -> usize {
        self.bucket().requests().len()
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
            Redis::Cluster(_) => panic!("there are several"),
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
        };
        vec![
            ("CAMEO_STORAGE__KIND", "s3".to_owned()),
            ("CAMEO_STORAGE__S3__BUCKET", settings.bucket),
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

    /// The folder that holds the objects by their keys, of a service whose data is in `data`.
    pub(crate) fn store(&self, data: &Path) -> PathBuf {
        match self {
            Self::Alone => data.join("store"),
            Self::Fleet(s3, _) => s3.bucket_folder(),
        }
    }
}
