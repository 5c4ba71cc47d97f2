//! Real servers for tests: one `redis-server`, one with Sentinel, or a Cluster of three masters.
//!
//! `TEST_REDIS_SERVER` names another program than `redis-server`, such as a `valkey-server`. A few
//! tests need a certain program, which a script in `scripts/servers` installs. A test fails if its
//! program is missing. The servers listen on the loopback, and each keeps its files in its own
//! folder. A server stops when its value is dropped.

mod cluster;
mod sentinel;
mod server;
mod shared;

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use cluster::RedisCluster;
pub use sentinel::RedisSentinel;
pub use server::RedisServer;
pub use shared::{SharedServer, SharedServerGuard};

/// The longest time for a server to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A program, and its first arguments.
#[derive(Clone)]
pub struct Program(Vec<String>);

impl Program {
    fn of_the_suite() -> Self {
        let program = std::env::var("TEST_REDIS_SERVER");
        Self(vec![program.unwrap_or("redis-server".to_owned())])
    }

    /// Valkey, which has `WAITAOF`.
    pub fn valkey() -> Self {
        static PROGRAM: OnceLock<String> = OnceLock::new();
        Self(vec![
            PROGRAM
                .get_or_init(|| installed("scripts/servers/valkey.sh"))
                .clone(),
        ])
    }

    /// Debian's Redis, which has no `WAITAOF`.
    pub fn redis() -> Self {
        Self(vec!["redis-server".to_owned()])
    }

    /// Redis 6.2, which is too old.
    pub fn redis6() -> Self {
        static PROGRAM: OnceLock<String> = OnceLock::new();
        Self(vec![
            PROGRAM
                .get_or_init(|| installed("scripts/servers/redis6.sh"))
                .clone(),
        ])
    }

    /// The same program with a clock that is ahead by `seconds` (Debian: faketime).
    #[must_use]
    pub fn ahead_by(mut self, seconds: i32) -> Self {
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
    let script = crate::repository().join(script);
    let output = Command::new(&script).arg("program").output().unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn ask<T: redis::FromRedisValue>(address: &str, command: &str) -> redis::RedisResult<T> {
    let client = redis::Client::open(address)?;
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
    let mut words = command.split(' ');
    let mut command = redis::cmd(words.next().unwrap_or_default());
    command.arg(words.collect::<Vec<_>>());
    command.query(&mut connection)
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// Polls until `holds` is true. Servers have no other signal that they are up.
fn wait_until(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < START_TIMEOUT, "a server did not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
}
