//! Servers, which the scripts in `scripts/servers` install and run.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(5);

fn script(name: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    format!("{root}/scripts/servers/{name}.sh")
}

/// Installs a server if it is missing.
///
/// # Errors
/// The reason why it cannot be installed.
pub(crate) fn install(name: &str) -> Result<(), String> {
    println!("{name:<10}  installing, if it is missing");
    run(Command::new(script(name)).arg("install")).map(drop)
}

/// Installs a program that the tests start, if it is missing, and returns its path.
///
/// # Errors
/// The reason why it cannot be installed.
pub(crate) fn program(name: &str) -> Result<String, String> {
    println!("{name:<10}  installing, if it is missing");
    run(Command::new(script(name)).arg("program"))
}

/// The version of a Redis or Valkey program.
pub(crate) fn version_of(program: &str) -> String {
    let output = run(Command::new(program).arg("--version")).unwrap();
    let version = output
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="));
    version.unwrap_or_else(|| panic!("{output}")).to_owned()
}

/// Runs a command until it ends, and returns its output.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(errors.lines().last().unwrap_or("no message").to_owned())
    }
}

/// Starts a command that ends when this process ends for any reason.
pub(crate) fn start_bound(command: &[&str]) -> Child {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "TERM"]).args(command);
    bound.stdin(Stdio::null()).stdout(Stdio::null());
    bound.spawn().expect("setpriv starts (Debian: util-linux)")
}

/// Sends SIGTERM to a process and waits until it has ended.
pub(crate) fn end(process: &mut Child) {
    let pid = process.id().to_string();
    let _ = Command::new("kill").args(["-TERM", &pid]).status();
    let _ = process.wait();
}

/// A running S3 server. Dropping it ends the server.
pub(crate) struct Server {
    process: Child,
    facts: BTreeMap<String, String>,
    _folder: TempDir,
}

impl Server {
    /// Starts a server on a free port with an empty folder.
    pub(crate) fn start(name: &str) -> Result<Self, String> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().to_str().unwrap();
        let process = start_bound(&[&script(name), "0", path]);
        let facts = folder.path().join("server.env");
        let mut server = Self {
            process,
            facts: BTreeMap::new(),
            _folder: folder,
        };
        let begun = Instant::now();
        while !facts.exists() {
            if let Some(status) = server.process.try_wait().unwrap() {
                return Err(format!("its script ended with {status}"));
            }
            if begun.elapsed() > TIMEOUT {
                return Err(format!("it was not ready after {} s", TIMEOUT.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let text = std::fs::read_to_string(facts).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        server.facts = pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(server)
    }

    /// A value from the `server.env` of its script.
    pub(crate) fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    fn required_fact(&self, name: &str) -> &str {
        self.fact(name)
            .unwrap_or_else(|| panic!("the script of the server does not give {name}"))
    }

    pub(crate) fn endpoint(&self) -> &str {
        self.required_fact("ENDPOINT")
    }

    pub(crate) fn version(&self) -> String {
        self.required_fact("VERSION").to_owned()
    }

    pub(crate) fn region(&self) -> &str {
        self.required_fact("REGION")
    }

    /// The access key and secret of a user with all rights.
    pub(crate) fn admin(&self) -> (&str, &str) {
        (
            self.required_fact("ACCESS_KEY_ID"),
            self.required_fact("SECRET_ACCESS_KEY"),
        )
    }

    /// The access key and secret of a user without rights to the buckets of others; `None` if the
    /// server has no such user.
    pub(crate) fn other(&self) -> Option<(&str, &str)> {
        let key = self.fact("OTHER_ACCESS_KEY_ID")?;
        Some((key, self.required_fact("OTHER_SECRET_ACCESS_KEY")))
    }

    /// The environment variables with which the tests use this server.
    pub(crate) fn test_variables(&self) -> Vec<(String, String)> {
        let (key, secret) = self.admin();
        let variables = [
            ("ENDPOINT", self.endpoint()),
            ("REGION", self.region()),
            ("ACCESS_KEY_ID", key),
            ("SECRET_ACCESS_KEY", secret),
        ];
        let named = |(name, value): (&str, &str)| (format!("TEST_S3_{name}"), value.to_owned());
        variables.map(named).to_vec()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}
