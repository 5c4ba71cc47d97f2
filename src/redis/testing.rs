//! Real servers for tests: one `redis-server`, one with Sentinel, or a Cluster of three masters.
//!
//! `TEST_REDIS_SERVER` names another program in the place of `redis-server`, such as a
//! `valkey-server`. A test fails where it is missing. The servers listen on the loopback or on a socket
//! of their own, keep their files in a folder of their own and end with the value.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// One running server.
pub(crate) struct RedisServer {
    process: Child,
    folder: TempDir,
    options: Vec<String>,
    port: String,
}

impl RedisServer {
    /// An empty server that keeps an append-only file and answers nothing before it is on the disk:
    /// by default a busy server may put a write off and lose it when it is killed.
    pub(crate) fn start() -> Self {
        Self::start_with(&[
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--maxmemory-policy",
            "noeviction",
        ])
    }

    /// A server with these options.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let process = spawn(folder.path(), &port, &options);
        let server = Self {
            process,
            folder,
            options,
            port,
        };
        server.wait_until_it_answers();
        server
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port, as text for an option of another server.
    pub(crate) fn port(&self) -> &str {
        &self.port
    }

    /// Kills it as a power cut would; its port stays its own.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on its files, after [`kill`](Self::kill).
    pub(crate) fn restart(&mut self) {
        self.process = spawn(self.folder.path(), &self.port, &self.options);
        self.wait_until_it_answers();
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, command: &str) -> T {
        ask(&self.url(), command).unwrap()
    }

    fn wait_until_it_answers(&self) {
        wait_until(|| match ask::<String>(&self.url(), "PING") {
            Ok(_) => true,
            // It answers, but wants to be asked politely.
            Err(error) => matches!(error.code(), Some("NOAUTH" | "NOPERM")),
        });
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Three masters that share the slots.
pub(crate) struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// An empty Cluster.
    pub(crate) fn start() -> Self {
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let nodes: Vec<_> = (0..3)
            .map(|_| {
                let bus = free_port();
                RedisServer::start_with(&[&options[..], &["--cluster-port", &bus]].concat())
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

    /// Its address, by all of its nodes.
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(RedisServer::url).collect();
        nodes.join(",")
    }

    /// Its nodes.
    pub(crate) fn nodes(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }
}

fn knows_every_slot(node: &RedisServer) -> bool {
    let info: String = node.ask("CLUSTER INFO");
    info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
}

/// A master, and the Sentinel that knows it.
pub(crate) struct RedisSentinel {
    pub(crate) master: RedisServer,
    process: Child,
    _folder: TempDir,
    port: String,
}

impl RedisSentinel {
    /// An empty master called `main`.
    pub(crate) fn start() -> Self {
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
        let process = command()
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

    /// A replica that has caught up with the master, and that the Sentinel knows.
    pub(crate) fn add_replica(&self) -> RedisServer {
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", self.master.port()]);
        wait_until(|| {
            replica
                .ask::<String>("INFO replication")
                .contains("master_link_status:up")
        });
        wait_until(|| self.fact("num-slaves") == "1");
        replica
    }

    /// Waits until this server is the master.
    pub(crate) fn wait_for_master(&self, server: &RedisServer) {
        wait_until(|| {
            self.fact("port") == server.port
                && self.fact("flags") == "master"
                && server
                    .ask::<String>("INFO replication")
                    .contains("role:master")
        });
    }

    /// What the Sentinel says of the master.
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

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main", self.port)
    }
}

impl Drop for RedisSentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ask<T: redis::FromRedisValue>(address: &str, command: &str) -> redis::RedisResult<T> {
    let client = redis::Client::open(address)?;
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
    let mut words = command.split(' ');
    let mut command = redis::cmd(words.next().unwrap_or_default());
    command.arg(words.collect::<Vec<_>>());
    command.query(&mut connection)
}

fn command() -> Command {
    let program = std::env::var_os("TEST_REDIS_SERVER");
    let mut command = Command::new(program.unwrap_or("redis-server".into()));
    command.stdout(Stdio::null()).stdin(Stdio::null());
    command
}

fn spawn(folder: &Path, port: &str, options: &Vec<String>) -> Child {
    command()
        .args(["--port", port, "--bind", "127.0.0.1", "--save", ""])
        .arg("--dir")
        .arg(folder)
        .args(options)
        .spawn()
        .expect("redis-server is needed for tests (Debian: redis-server)")
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Asks until it holds. Servers tell in no other way that they are up.
fn wait_until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "a server did not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
}
