//! Real servers for tests: one `redis-server`, one with Sentinel, or a Cluster of three masters.
//!
//! `TEST_REDIS_SERVER` names another program than `redis-server`, such as a `valkey-server`. A few
//! tests need a certain program, which a script in `scripts/servers` installs. A test fails if its
//! program is missing. The servers listen on the loopback, and each keeps its files in its own
//! folder. A server stops when its value is dropped.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The longest time for a server to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// One running server.
pub(crate) struct RedisServer {
    process: Child,
    folder: TempDir,
    program: Program,
    options: Vec<String>,
    port: String,
}

/// A program, and its first arguments.
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

    /// The same program with a clock that is ahead by `seconds` (Debian: faketime).
    pub(crate) fn ahead_by(mut self, seconds: i32) -> Self {
        // Only faketime's library is used: its program would run the server as a child process, which
        // would survive a kill of its parent.
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

/// Runs a script that installs a program, and returns the program's path.
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
    /// An empty server that syncs its append-only file before each answer. By default a busy server
    /// may delay a write, and lose it when it is killed.
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

    /// The server's address.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The server's port, as text for an option of another server.
    pub(crate) fn port(&self) -> &str {
        &self.port
    }

    /// Kills the server, as a power cut would. A restart uses the same port.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts the server again with its files, after [`kill`](Self::kill).
    pub(crate) fn restart(&mut self) {
        self.process = spawn(&self.program, self.folder.path(), &self.port, &self.options);
        self.wait_until_it_answers();
    }

    /// Makes the server refuse writes because it cannot save snapshots (`MISCONF`). The server needs
    /// the option `--save` with an interval. [`save`](Self::save) ends this.
    pub(crate) fn fail_to_save(&self) {
        // The server cannot replace a folder by its snapshot file.
        std::fs::create_dir(self.folder.path().join("dump.rdb")).unwrap();
        self.save_in_background("err");
    }

    /// Lets the server save again, after [`fail_to_save`](Self::fail_to_save).
    pub(crate) fn save(&self) {
        std::fs::remove_dir(self.folder.path().join("dump.rdb")).unwrap();
        self.save_in_background("ok");
    }

    fn save_in_background(&self, outcome: &str) {
        self.ask::<()>("BGSAVE");
        let outcome = format!("rdb_last_bgsave_status:{outcome}");
        wait_until(|| self.ask::<String>("INFO persistence").contains(&outcome));
    }

    /// Stops the process, like a machine that hangs. [`resume`](Self::resume) ends this.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Continues the process after [`pause`](Self::pause).
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        assert!(status.unwrap().success());
    }

    /// The length of the append-only file, which holds every acknowledged write.
    pub(crate) fn written(&self) -> u64 {
        std::fs::metadata(self.append_only_file()).unwrap().len()
    }

    /// Kills the server, truncates its append-only file to `length` bytes, and starts it again. This
    /// is like a power cut that loses writes that were not synced.
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

    /// Waits until this replica has caught up with its master.
    pub(crate) fn wait_until_it_follows(&self) {
        wait_until(|| {
            self.ask::<String>("INFO replication")
                .contains("master_link_status:up")
        });
    }

    fn wait_until_it_answers(&self) {
        wait_until(|| match ask::<String>(&self.url(), "PING") {
            Ok(_) => true,
            // The server answers, but requires a login.
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

/// A server that tests share, one test at a time. It starts with the first test that needs it, and
/// ends with the last test that holds it or waits for it.
pub(crate) struct SharedServer<T> {
    start: fn() -> T,
    running: Mutex<Weak<AsyncMutex<T>>>,
}

/// The right to use a [`SharedServer`].
pub(crate) type SharedServerGuard<T> = OwnedMutexGuard<T>;

impl<T> SharedServer<T> {
    /// A server that `start` starts.
    pub(crate) const fn new(start: fn() -> T) -> Self {
        Self {
            start,
            running: Mutex::new(Weak::new()),
        }
    }

    /// Waits until no other test uses the server. The server has the data of the test before.
    pub(crate) async fn lock(&self) -> SharedServerGuard<T> {
        self.running().lock_owned().await
    }

    fn running(&self) -> Arc<AsyncMutex<T>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let started = Arc::new(AsyncMutex::new((self.start)()));
            *running = Arc::downgrade(&started);
            started
        })
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

    /// An empty Cluster of this program, with these additional options.
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

    /// The Cluster's address, with all of its nodes.
    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(RedisServer::url).collect();
        nodes.join(",")
    }

    /// The node that owns this key's slot, another node, and the slot.
    pub(crate) fn owner_and_other(&self, key: &str) -> (&RedisServer, &RedisServer, u16) {
        let slot: u16 = self.nodes[0].ask(&format!("CLUSTER KEYSLOT {key}"));
        // As `start` assigned the slots.
        let owner = usize::from(slot.saturating_sub(1) / 5461).min(2);
        (&self.nodes[owner], &self.nodes[(owner + 1) % 3], slot)
    }

    /// The nodes.
    pub(crate) fn all(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The nodes, for tests that kill or restart one.
    pub(crate) fn nodes(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }
}

fn knows_every_slot(node: &RedisServer) -> bool {
    let info: String = node.ask("CLUSTER INFO");
    info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
}

/// A master, and the Sentinel that monitors it.
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

    /// Adds a replica, and waits until it has caught up with the master and the Sentinel knows it.
    pub(crate) fn add_replica(&self) -> RedisServer {
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", self.master.port()]);
        replica.wait_until_it_follows();
        wait_until(|| self.fact("num-slaves") == "1");
        replica
    }

    /// Waits until this server is the Sentinel's master.
    pub(crate) fn wait_for_master(&self, server: &RedisServer) {
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

/// Polls until `holds` is true. Servers have no other signal that they are up.
fn wait_until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "a server did not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
}
