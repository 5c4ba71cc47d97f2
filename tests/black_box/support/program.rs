//! The program in a process of its own.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// The program in a process of its own.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) data: TempDir,
    pub(crate) address: String,
}

impl Program {
    /// Starts the program by this shell command, in which `cameo` stands for the program.
    pub(crate) async fn spawn(command: &str, variables: &[(&str, &str)]) -> Self {
        let data = TempDir::new().unwrap();
        // The system does not assign this port again so soon.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let command = command.replace("cameo", &format!("exec {}", env!("CARGO_BIN_EXE_cameo")));
        let child = Command::new("sh")
            .args(["-c", &command])
            .env("CAMEO_DATA_DIR", data.path())
            .env("CAMEO_HTTP__BIND", &address)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            child,
            data,
            address,
        }
    }

    /// Waits until the program prints that it is ready.
    pub(crate) async fn ready(mut self) -> Self {
        let ready = tokio::time::timeout(Duration::from_secs(30), url_when_ready(&mut self.child));
        ready.await.expect("the program starts");
        self
    }

    /// Waits until the program accepts connections.
    pub(crate) async fn listening(self) -> Self {
        for _ in 0..600 {
            if TcpStream::connect(&self.address).await.is_ok() {
                return self;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the program does not listen");
    }

    pub(crate) fn terminate(&self) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end of the program. Returns the time until then, and the exit code.
    pub(crate) async fn end(&mut self) -> (Duration, Option<i32>) {
        let begun = Instant::now();
        let ended = tokio::time::timeout(Duration::from_secs(40), self.child.wait());
        let ended = ended.await.expect("the program ends").unwrap();
        (begun.elapsed(), ended.code())
    }

    pub(crate) async fn token(&self, user: &str) -> String {
        let token = Command::new(env!("CARGO_BIN_EXE_cameo"))
            .args(["token", "--sub", user])
            .env("CAMEO_DATA_DIR", self.data.path())
            .output();
        let token = token.await.unwrap();
        String::from_utf8(token.stdout).unwrap().trim().to_owned()
    }
}

/// Runs a command of the program with these settings until it ends. Returns its exit code and its
/// output.
pub(crate) async fn run_program<'a>(
    words: &[&str],
    variables: impl IntoIterator<Item = (&'a str, String)>,
) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_cameo"))
        .args(words)
        .envs(variables)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    (output.status.code().unwrap(), said)
}

/// Waits until a program that was started prints that it is ready. Returns its URL. The standard output
/// of the program must be a pipe.
pub(crate) async fn url_when_ready(program: &mut Child) -> String {
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap();
        let line = line.expect("the program prints its address");
        if let Some((_, rest)) = line.split_once("Cameo is ready at ") {
            return rest.split_whitespace().next().unwrap().to_owned();
        }
    }
}
