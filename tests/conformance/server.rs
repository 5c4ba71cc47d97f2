//! Servers, by the scripts that run them (`scripts/servers`).

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);

fn script(name: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    format!("{root}/scripts/servers/{name}.sh")
}

/// Makes sure that a server is there.
///
/// # Errors
/// Why it cannot be had.
pub(crate) fn install(name: &str) -> Result<(), String> {
    println!("{name:<10}  installing, where it is missing");
    run(Command::new(script(name)).arg("install")).map(drop)
}

/// The path of a program that tests start by themselves, installed where it is missing.
///
/// # Errors
/// Why it cannot be had.
pub(crate) fn program(name: &str) -> Result<String, String> {
    println!("{name:<10}  installing, where it is missing");
    run(Command::new(script(name)).arg("program"))
}

/// What a program that speaks Redis calls its version.
pub(crate) fn version_of(program: &str) -> String {
    let said = run(Command::new(program).arg("--version")).unwrap();
    let version = said
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="));
    version.unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// Runs a command to its end, and gives what it printed.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(said.lines().last().unwrap_or("it does not say").to_owned())
    }
}

/// Starts a command that ends when this process ends, whatever ends it.
pub(crate) fn start_bound(command: &[&str]) -> Child {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "TERM"]).args(command);
    bound.stdin(Stdio::null()).stdout(Stdio::null());
    bound.spawn().expect("setpriv starts (Debian: util-linux)")
}

/// Tells a process to end, and waits until it has.
pub(crate) fn end(process: &mut Child) {
    let pid = process.id().to_string();
    let _ = Command::new("kill").args(["-TERM", &pid]).status();
    let _ = process.wait();
}

/// A running S3 server. It ends with the value.
pub(crate) struct Server {
    process: Child,
    facts: BTreeMap<String, String>,
    _folder: TempDir,
}

impl Server {
    /// Starts it on a free port and an empty folder.
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
            if begun.elapsed() > PATIENCE {
                return Err(format!("it was not up after {} s", PATIENCE.as_secs()));
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

    /// What its script says of it.
    pub(crate) fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(String::as_str)
    }

    fn known(&self, name: &str) -> &str {
        self.fact(name)
            .unwrap_or_else(|| panic!("its script does not say {name}"))
    }

    pub(crate) fn endpoint(&self) -> &str {
        self.known("ENDPOINT")
    }

    pub(crate) fn version(&self) -> String {
        self.known("VERSION").to_owned()
    }

    pub(crate) fn region(&self) -> &str {
        self.known("REGION")
    }

    /// Access key and secret of somebody who may do everything.
    pub(crate) fn admin(&self) -> (&str, &str) {
        (self.known("ACCESS_KEY_ID"), self.known("SECRET_ACCESS_KEY"))
    }

    /// Access key and secret of somebody who may do nothing with the buckets of others, where the
    /// server was given such a one.
    pub(crate) fn other(&self) -> Option<(&str, &str)> {
        let key = self.fact("OTHER_ACCESS_KEY_ID")?;
        Some((key, self.known("OTHER_SECRET_ACCESS_KEY")))
    }

    /// The variables that lead the tests here.
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
