//! A Redis Cluster.

use super::{Program, RedisServer, free_port, wait_until};

/// Three masters that share the slots.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// An empty Cluster.
    pub fn start() -> Self {
        Self::start_program(&Program::of_the_suite(), &[])
    }

    /// An empty Cluster of this program, with these additional options.
    pub fn start_program(program: &Program, more: &[&str]) -> Self {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let nodes: Vec<_> = (0..3)
            .map(|_| {
                let bus = free_port();
                let options = [&options[..], more, &["--cluster-port", &bus]].concat();
                RedisServer::start_program(program.clone(), &options)
            })
            .collect();
        for (number, node) in nodes.iter().enumerate() {
            let (first, last) = (number * 5461 + usize::from(number > 0), (number + 1) * 5461);
            let last = if number == 2 { 16383 } else { last };
            node.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
            node.ask::<()>(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1));
            let bus = node.options.last().unwrap();
            nodes[0].ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port));
        }
        let cluster = Self { nodes };
        wait_until(|| cluster.nodes.iter().all(knows_every_slot));
        cluster
    }

    /// The Cluster's address, with all of its nodes.
    pub fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(RedisServer::url).collect();
        nodes.join(",")
    }

    /// The node that owns this key's slot, another node, and the slot.
    pub fn owner_and_other(&self, key: &str) -> (&RedisServer, &RedisServer, u16) {
        let slot: u16 = self.nodes[0].ask(&format!("CLUSTER KEYSLOT {key}"));
        // As `start` assigned the slots.
        let owner = usize::from(slot.saturating_sub(1) / 5461).min(2);
        (&self.nodes[owner], &self.nodes[(owner + 1) % 3], slot)
    }

    /// The nodes.
    pub fn all(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The nodes, for tests that kill or restart one.
    pub fn nodes(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }
}

fn knows_every_slot(node: &RedisServer) -> bool {
    let info: String = node.ask("CLUSTER INFO");
    info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
}
