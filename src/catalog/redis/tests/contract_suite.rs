//! The contract suite on one server, on a Cluster, and on the master that Sentinels know.
//!
//! The cases share a server, because starting a Cluster takes longer than a case.

use cameo_testing::redis::{SharedServer, SharedServerGuard};

use super::*;
use crate::catalog::contract::{AdvanceClock, Bench, Fixture, contract_tests};

static SERVER: SharedServer<RedisServer> = SharedServer::new(RedisServer::start);
static CLUSTER: SharedServer<RedisCluster> = SharedServer::new(RedisCluster::start);
static SENTINEL: SharedServer<RedisSentinel> = SharedServer::new(RedisSentinel::start);

/// A Redis clock that a key of the partition sets forward.
const SHIFTED_CLOCK: &str = "local function now() \
     local time = redis.call('TIME') \
     local shift = redis.call('GET', (KEYS[1]:gsub('subjects$', 'clock-shift'))) or 0 \
     return time[1] * 1000 + math.floor(time[2] / 1000) + shift \
     end\n";

struct RedisFixture<T> {
    catalog: RedisCatalog,
    _server: SharedServerGuard<T>,
}

impl<T> RedisFixture<T> {
    async fn open(server: SharedServerGuard<T>, url: &str) -> Self {
        let opened = RedisCatalog::open_with_clock(&settings(url), SHIFTED_CLOCK).await;
        Self {
            catalog: opened.unwrap().0,
            _server: server,
        }
    }
}

impl<T: Sync> Fixture for RedisFixture<T> {
    fn bench(&self) -> Bench<'_> {
        Bench {
            catalog: &self.catalog,
            clock: &self.catalog,
        }
    }
}

#[async_trait]
impl AdvanceClock for RedisCatalog {
    async fn advance(&self, seconds: u64) {
        for partition in self.partitions.all() {
            let mut shift = redis::cmd("INCRBY");
            shift.arg(partition.key("clock-shift")).arg(seconds * 1000);
            self.link.run::<i64>(&shift).await.unwrap();
        }
    }
}

async fn on_one_server() -> RedisFixture<RedisServer> {
    let server = SERVER.lock().await;
    server.ask::<()>("FLUSHALL");
    let url = server.url();
    RedisFixture::open(server, &url).await
}

async fn on_a_cluster() -> RedisFixture<RedisCluster> {
    let cluster = CLUSTER.lock().await;
    for node in cluster.all() {
        node.ask::<()>("FLUSHALL");
    }
    let url = cluster.url();
    RedisFixture::open(cluster, &url).await
}

async fn on_a_sentinels_master() -> RedisFixture<RedisSentinel> {
    let sentinel = SENTINEL.lock().await;
    sentinel.master.ask::<()>("FLUSHALL");
    let url = sentinel.url();
    RedisFixture::open(sentinel, &url).await
}

mod one_server {
    super::contract_tests!(crate::catalog::redis::tests::contract_suite::on_one_server);
}

mod cluster {
    super::contract_tests!(crate::catalog::redis::tests::contract_suite::on_a_cluster);
}

mod sentinel {
    super::contract_tests!(crate::catalog::redis::tests::contract_suite::on_a_sentinels_master);
}
