//! A master with a Sentinel.

use std::process::Child;

use tempfile::TempDir;

use super::{Program, RedisServer, ask, free_port, wait_until};

/// A master, and the Sentinel that monitors it.
pub struct RedisSentinel {
    /// The first master.
    pub master: RedisServer,
    process: Child,
    _folder: TempDir,
    port: String,
}

impl RedisSentinel {
    /// An empty master called `main`.
    pub fn start() -> Self {
        let master = RedisServer::start();
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 500\n",
            folder.path().display(),
            master.port
        );
        std::fs::write(&file, text).unwrap();
        let process = Program::of_the_suite()
            .command()
            .arg(&file)
            .arg("--sentinel")
            .spawn()
            .expect("redis-server starts");
        let sentinel = Self {
            master,
            process,
            _folder: folder,
            port,
        };
        wait_until(|| ask::<String>(&sentinel.own_url(), "PING").is_ok());
        sentinel
    }

    /// Adds a replica, and waits until it has caught up with the master and the Sentinel knows it.
    pub fn add_replica(&self) -> RedisServer {
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", self.master.port()]);
        replica.wait_until_it_follows();
        wait_until(|| self.fact("num-slaves") == "1");
        replica
    }

    /// Waits until this server is the Sentinel's master.
    pub fn wait_for_master(&self, server: &RedisServer) {
        wait_until(|| {
            self.fact("port") == server.port
                && self.fact("flags") == "master"
                && server
                    .ask::<String>("INFO replication")
                    .contains("role:master")
        });
    }

    /// A field of the Sentinel's report about the master.
    fn fact(&self, name: &str) -> String {
        let facts: Vec<String> = self.ask("SENTINEL MASTER main");
        let at = facts.iter().position(|fact| fact == name).unwrap();
        facts[at + 1].clone()
    }

    fn ask<T: redis::FromRedisValue>(&self, command: &str) -> T {
        ask(&self.own_url(), command).unwrap()
    }

    fn own_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The server's address.
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main", self.port)
    }
}

impl Drop for RedisSentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
