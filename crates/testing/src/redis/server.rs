//! One `redis-server`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::{Program, ask, free_port, wait_until};

/// One running server.
pub struct RedisServer {
    process: Child,
    folder: TempDir,
    program: Program,
    pub(super) options: Vec<String>,
    pub(super) port: String,
}

impl RedisServer {
    /// An empty server that syncs its append-only file before each answer. By default a busy server
    /// may delay a write, and lose it when it is killed.
    pub fn start() -> Self {
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
    pub fn start_with(options: &[&str]) -> Self {
        Self::start_program(Program::of_the_suite(), options)
    }

    /// A server of this program with these options.
    pub fn start_program(program: Program, options: &[&str]) -> Self {
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
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The server's port, as text for an option of another server.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Kills the server, as a power cut would. A restart uses the same port.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts the server again with its files, after [`kill`](Self::kill).
    pub fn restart(&mut self) {
        self.process = spawn(&self.program, self.folder.path(), &self.port, &self.options);
        self.wait_until_it_answers();
    }

    /// Makes the server refuse writes because it cannot save snapshots (`MISCONF`). The server needs
    /// the option `--save` with an interval. [`save`](Self::save) ends this.
    pub fn fail_to_save(&self) {
        // The server cannot replace a folder by its snapshot file.
        std::fs::create_dir(self.folder.path().join("dump.rdb")).unwrap();
        self.save_in_background("err");
    }

    /// Lets the server save again, after [`fail_to_save`](Self::fail_to_save).
    pub fn save(&self) {
        std::fs::remove_dir(self.folder.path().join("dump.rdb")).unwrap();
        self.save_in_background("ok");
    }

    fn save_in_background(&self, outcome: &str) {
        self.ask::<()>("BGSAVE");
        let outcome = format!("rdb_last_bgsave_status:{outcome}");
        wait_until(|| self.ask::<String>("INFO persistence").contains(&outcome));
    }

    /// Stops the process, like a machine that hangs. [`resume`](Self::resume) ends this.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Continues the process after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        assert!(status.unwrap().success());
    }

    /// The length of the append-only file, which holds every acknowledged write.
    pub fn written(&self) -> u64 {
        std::fs::metadata(self.append_only_file()).unwrap().len()
    }

    /// The append-only file: every change since the start.
    pub fn everything_written(&self) -> Vec<u8> {
        std::fs::read(self.append_only_file()).unwrap()
    }

    /// Kills the server, truncates its append-only file to `length` bytes, and starts it again. This
    /// is like a power cut that loses writes that were not synced.
    pub fn lose_writes_after(&mut self, length: u64) {
        self.kill();
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).open(self.append_only_file()).unwrap();
        file.set_len(length).unwrap();
        self.restart();
    }

    fn append_only_file(&self) -> PathBuf {
        let folder = self.folder.path().join("appendonlydir");
        let mut files = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .find(|file| file.to_string_lossy().ends_with(".incr.aof"))
            .unwrap()
    }

    /// Sends a command and waits for its answer.
    pub fn ask<T: redis::FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command).unwrap()
    }

    /// Sends a command and waits for its answer, which may be an error.
    pub fn try_ask<T: redis::FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        ask(&self.url(), command)
    }

    /// Waits until this replica has caught up with its master.
    pub fn wait_until_it_follows(&self) {
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
