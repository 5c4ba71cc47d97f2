//! A Redis Cluster of three masters, and the move of a slot from one to another.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::fleet::{ask_node, command, with_timeout};

/// The number of slots of every Cluster.
const SLOTS: usize = 16_384;
/// How long the Cluster may take to form on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The URL of the Cluster for clients.
pub(crate) fn url(nodes: &[SocketAddr]) -> String {
    let nodes: Vec<_> = nodes.iter().map(|node| format!("redis://{node}")).collect();
    nodes.join(",")
}

/// Makes a Cluster of these empty servers, with the slots divided equally.
pub(crate) async fn join(nodes: &[SocketAddr]) {
    let begun = Instant::now();
    for node in nodes {
        while ask_node::<String>(*node, &["PING"]).await.is_err() {
            assert!(begun.elapsed() < TIMEOUT, "{node} does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for (number, node) in nodes.iter().enumerate() {
        let first = (number * SLOTS / nodes.len()).to_string();
        let last = ((number + 1) * SLOTS / nodes.len() - 1).to_string();
        let epoch = (number + 1).to_string();
        send(*node, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await;
        send(*node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
        let port = node.port().to_string();
        let bus: Vec<String> = ask_node(*node, &["CONFIG", "GET", "cluster-port"])
            .await
            .unwrap();
        let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus[1]];
        send(nodes[0], &meet).await;
    }
    for node in nodes {
        loop {
            let info: String = ask_node(*node, &["CLUSTER", "INFO"]).await.unwrap();
            let knows_all = format!("cluster_known_nodes:{}", nodes.len());
            if info.contains("cluster_state:ok") && info.contains(&knows_all) {
                break;
            }
            assert!(begun.elapsed() < TIMEOUT, "the Cluster does not form");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Sends a command to the master that has its keys.
pub(crate) async fn ask<T: redis::FromRedisValue + Send + 'static>(
    nodes: &[SocketAddr],
    words: &[impl AsRef<[u8]>],
) -> redis::RedisResult<T> {
    let nodes = nodes.iter().map(|node| format!("redis://{node}"));
    let client = redis::cluster::ClusterClient::new(nodes)?;
    let asked = async {
        let mut connection = client.get_async_connection().await?;
        command(words).query_async(&mut connection).await
    };
    with_timeout(asked).await
}

/// A slot that moves from one master to another.
pub(crate) struct Move {
    slot: String,
    from: SocketAddr,
    to: SocketAddr,
    to_id: String,
    nodes: Vec<SocketAddr>,
}

impl Move {
    /// Begins to move the slot of this key to the next master, and moves half of its keys.
    pub(crate) async fn begin(nodes: &[SocketAddr], key: &str) -> Self {
        let slot: usize = ask_node(nodes[0], &["CLUSTER", "KEYSLOT", key])
            .await
            .unwrap();
        let slot = slot.to_string();
        let mut owner = None;
        for (number, node) in nodes.iter().enumerate() {
            if owns(*node, &slot).await {
                owner = Some(number);
            }
        }
        let owner = owner.expect("a master has the slot");
        let (from, to) = (nodes[owner], nodes[(owner + 1) % nodes.len()]);
        let (from_id, to_id) = (id(from).await, id(to).await);
        send(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
        send(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
        let begun = Self {
            slot,
            from,
            to,
            to_id,
            nodes: nodes.to_vec(),
        };
        let keys = begun.keys().await;
        for key in keys.iter().step_by(2) {
            begun.migrate(key).await;
        }
        begun
    }

    /// The number of keys that are still on the old master.
    pub(crate) async fn remaining_keys(&self) -> usize {
        self.keys().await.len()
    }

    /// Moves the remaining keys, and assigns the slot to its new master.
    pub(crate) async fn finish(self) {
        loop {
            let keys = self.keys().await;
            if keys.is_empty() {
                break;
            }
            for key in keys {
                self.migrate(&key).await;
            }
        }
        let others = self.nodes.iter().filter(|node| **node != self.to);
        for node in [&self.to].into_iter().chain(others) {
            send(
                *node,
                &["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.to_id],
            )
            .await;
        }
    }

    async fn keys(&self) -> Vec<Vec<u8>> {
        let words = ["CLUSTER", "GETKEYSINSLOT", &self.slot, "1000"];
        ask_node(self.from, &words).await.unwrap()
    }

    async fn migrate(&self, key: &[u8]) {
        let port = self.to.port().to_string();
        let words: [&[u8]; 6] = [
            b"MIGRATE",
            b"127.0.0.1",
            port.as_bytes(),
            key,
            b"0",
            b"1000",
        ];
        // The answer may also be NOKEY: the key was deleted meanwhile.
        let _: String = ask_node(self.from, &words).await.unwrap();
    }
}

async fn owns(node: SocketAddr, slot: &str) -> bool {
    let known: String = ask_node(node, &["CLUSTER", "NODES"]).await.unwrap();
    let own = known.lines().find(|line| line.contains("myself")).unwrap();
    let slot: usize = slot.parse().unwrap();
    own.split(' ').skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = (first.parse::<usize>(), last.parse::<usize>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&slot))
    })
}

async fn id(node: SocketAddr) -> String {
    ask_node(node, &["CLUSTER", "MYID"]).await.unwrap()
}

async fn send(node: SocketAddr, words: &[&str]) {
    let _: String = ask_node(node, words)
        .await
        .unwrap_or_else(|error| panic!("{words:?}: {error}"));
}
