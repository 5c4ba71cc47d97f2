//! The programs of a fleet: processes that are killed, stopped, and started again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(2);

/// A program that runs or has been killed. Dropping it ends its process.
pub(crate) struct Program {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
    /// Descriptions of the exits without a kill.
    ended: std::sync::Mutex<Vec<String>>,
}

impl Program {
    /// Describes a program that is not running yet. Its output goes to `NAME.log` in `folder`.
    pub(crate) fn new(name: &str, program: impl Into<PathBuf>, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
            log: folder.join(format!("{name}.log")),
            child: Mutex::default(),
            ended: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn arguments<T: ToString>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|one| one.to_string()));
        self
    }

    pub(crate) fn variables<'a>(
        mut self,
        variables: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Self {
        let named = |(name, value): (&str, String)| (name.to_owned(), value);
        self.variables.extend(variables.into_iter().map(named));
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Starts the program, unless it is running.
    pub(crate) async fn start(&self) {
        let mut child = self.child.lock().await;
        self.note_exit(&mut child);
        if child.is_some() {
            return;
        }
        let mut log = File::options();
        let log = log.create(true).append(true).open(&self.log).unwrap();
        let started = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        *child = Some(started.unwrap_or_else(|error| {
            panic!("{} is needed for this run: {error}", self.program.display())
        }));
    }

    /// Runs the same program with the same variables and these arguments until it ends. Its output
    /// is also appended to the log.
    pub(crate) async fn run_command(&self, arguments: &[&str]) -> Output {
        let run = Command::new(&self.program)
            .args(arguments)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(COMMAND_TIMEOUT, run).await;
        let output = output
            .unwrap_or_else(|_| panic!("{arguments:?} does not end"))
            .unwrap();
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        writeln!(log, "{arguments:?}: {}", output.status).unwrap();
        log.write_all(&output.stdout).unwrap();
        log.write_all(&output.stderr).unwrap();
        output
    }

    /// Sends SIGKILL. Unlike a power cut, this keeps the buffers of the system.
    pub(crate) async fn kill(&self) {
        let mut child = self.child.lock().await;
        self.note_exit(&mut child);
        if let Some(mut child) = child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Sends SIGSTOP: the process stops, and its connections stay open.
    pub(crate) async fn stop(&self) {
        self.signal(Signal::STOP).await;
    }

    /// Sends SIGCONT: the process continues.
    pub(crate) async fn resume(&self) {
        self.signal(Signal::CONT).await;
    }

    async fn signal(&self, signal: Signal) {
        let mut child = self.child.lock().await;
        self.note_exit(&mut child);
        let id = child.as_ref().and_then(Child::id);
        let id = id.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(id) = id {
            kill_process(id, signal).unwrap();
        }
    }

    /// The number of lines in the log that contain this text.
    pub(crate) fn count_log_lines(&self, words: &str) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap();
        log.lines().filter(|line| line.contains(words)).count()
    }

    /// Descriptions of all exits without a kill.
    pub(crate) async fn ended_by_itself(&self) -> Vec<String> {
        self.note_exit(&mut *self.child.lock().await);
        self.ended.lock().unwrap().clone()
    }

    fn note_exit(&self, child: &mut Option<Child>) {
        let ended = child.as_mut().and_then(|child| child.try_wait().unwrap());
        if let Some(status) = ended {
            let ended = format!("{} ended by itself: {status}", self.name);
            self.ended.lock().unwrap().push(ended);
            *child = None;
        }
    }
}
