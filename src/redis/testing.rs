//! Real servers for tests: one `redis-server`, one with Sentinel, or a Cluster of three masters.
//!
//! `TEST_REDIS_SERVER` names another program in the place of `redis-server`, such as a
//! `valkey-server`. A few tests need a certain program, which a script of `scripts/servers` installs.
//! A test fails where its program is missing. The servers listen on the loopback or on a socket
//! of their own, keep their files in a folder of their own and end with the value.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// One running server.
pub(crate) struct RedisServer {
    process: Child,
    folder: TempDir,
    program: Program,
    options: Vec<String>,
    port: String,
}

/// What runs, and the words before its options.
#[derive(Clone)]
pub(crate) struct Program(Vec<String>);

impl Program {
    fn of_the_suite() -> Self {
        let program = std::env::var("TEST_REDIS_SERVER");
        Self(vec![program.unwrap_or("redis-server".to_owned())])
    }

    /// Valkey, which has `WAITAOF`.
    pub(crate) fn valkey() -> Self {
        static PROGRAM: OnceLock<String> = OnceLock::new();
        Self(vec![
            PROGRAM
                .get_or_init(|| installed("scripts/servers/valkey.sh"))
                .clone(),
        ])
    }

    /// Debian's Redis, which has no `WAITAOF`.
    pub(crate) fn redis() -> Self {
        Self(vec!["redis-server".to_owned()])
    }

    /// Redis 6.2, which is too old.
    pub(crate) fn redis6() -> Self {
        static PROGRAM: OnceLock<String> = OnceLock::new();
        Self(vec![
            PROGRAM
                .get_or_init(|| installed("scripts/servers/redis6.sh"))
                .clone(),
        ])
    }

    /// The same program with a clock that is ahead by so many seconds (Debian: faketime).
    pub(crate) fn ahead_by(mut self, seconds: i32) -> Self {
        // The library alone: its program would run the server as a child that outlives it.
        let printed = Command::new("faketime")
            .args(["-f", "+0s", "printenv", "LD_PRELOAD"])
            .output()
            .expect("faketime is needed for tests (Debian: faketime)");
        let library = String::from_utf8(printed.stdout).unwrap();
        let variables = [
            format!("LD_PRELOAD={}", library.trim()),
            format!("FAKETIME={seconds:+}s"),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ];
        self.0
            .splice(..0, ["env".to_owned()].into_iter().chain(variables));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]);
        command.stdout(Stdio::null()).stdin(Stdio::null());
        command
    }
}

/// The path of the program that a script installs.
fn installed(script: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(&script).arg("program").output().unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
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
        Self::start_program(Program::of_the_suite(), options)
    }

    /// A server of this program with these options.
    pub(crate) fn start_program(program: Program, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let process = spawn(&program, folder.path(), &port, &options);
        let server = Self {
            process,
            folder,
            program,
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
        self.process = spawn(&self.program, self.folder.path(), &self.port, &self.options);
        self.wait_until_it_answers();
    }

    /// Makes it refuse writes as one that cannot save its snapshots (`MISCONF`). It needs the option
    /// `--save` with an interval; [`save`](Self::save) ends it.
    pub(crate) fn fail_to_save(&self) {
        // A file cannot take the place of a folder.
        std::fs::create_dir(self.folder.path().join("dump.rdb")).unwrap();
        self.save_in_background("err");
    }

    /// Lets it save again, after [`fail_to_save`](Self::fail_to_save).
    pub(crate) fn save(&self) {
        std::fs::remove_dir(self.folder.path().join("dump.rdb")).unwrap();
        self.save_in_background("ok");
    }

    fn save_in_background(&self, outcome: &str) {
        self.ask::<()>("BGSAVE");
        let outcome = format!("rdb_last_bgsave_status:{outcome}");
        wait_until(|| self.ask::<String>("INFO persistence").contains(&outcome));
    }

    /// Stops it, as a machine that hangs does; [`resume`](Self::resume) lets it go on.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        assert!(status.unwrap().success());
    }

    /// How long its append-only file is. What it has answered is in there, unless it is killed with
    /// the machine.
    pub(crate) fn written(&self) -> u64 {
        std::fs::metadata(self.append_only_file()).unwrap().len()
    }

    /// Kills it, takes everything after the first `length` bytes of its append-only file away, as a
    /// power cut does to writes that were not synced, and starts it again.
    pub(crate) fn lose_writes_after(&mut self, length: u64) {
        self.kill();
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).open(self.append_only_file()).unwrap();
        file.set_len(length).unwrap();
        self.restart();
    }

    fn append_only_file(&self) -> std::path::PathBuf {
        let folder = self.folder.path().join("appendonlydir");
        let mut files = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .find(|file| file.to_string_lossy().ends_with(".incr.aof"))
            .unwrap()
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command).unwrap()
    }

    /// Sends a command and waits for its answer, which may be an error.
    pub(crate) fn try_ask<T: redis::FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        ask(&self.url(), command)
    }

    /// Waits until it is a replica that has caught up with its master.
    pub(crate) fn wait_until_it_follows(&self) {
        wait_until(|| {
            self.ask::<String>("INFO replication")
                .contains("master_link_status:up")
        });
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
        Self::start_program(&Program::of_the_suite(), &[])
    }

    /// An empty Cluster of this program with these options beside those of a Cluster.
    pub(crate) fn start_program(program: &Program, more: &[&str]) -> Self {
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

    /// Its address, by all of its nodes.
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(RedisServer::url).collect();
        nodes.join(",")
    }

    /// The nodes that own this key's slot and that do not, the owner first; and the slot.
    pub(crate) fn owner_and_other(&self, key: &str) -> (&RedisServer, &RedisServer, u16) {
        let slot: u16 = self.nodes[0].ask(&format!("CLUSTER KEYSLOT {key}"));
        // As `start` gave them out.
        let owner = usize::from(slot.saturating_sub(1) / 5461).min(2);
        (&self.nodes[owner], &self.nodes[(owner + 1) % 3], slot)
    }

    /// Its nodes, to look at.
    pub(crate) fn all(&self) -> &[RedisServer] {
        &self.nodes
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

    /// A replica that has caught up with the master, and that the Sentinel knows.
    pub(crate) fn add_replica(&self) -> RedisServer {
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", self.master.port()]);
        replica.wait_until_it_follows();
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

fn spawn(program: &Program, folder: &Path, port: &str, options: &[String]) -> Child {
    program
        .command()
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
