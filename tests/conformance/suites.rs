//! The suites that run on every server: the test programs of this crate.

use std::fmt::{Display, Formatter};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// How long a suite may take, in seconds, before it counts as hung.
const TIMEOUT_S: &str = "1200";

/// The outcome of a suite.
#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    /// The names of the tests that did not pass.
    pub(crate) failed: Vec<String>,
    /// The names of the tests that do not apply to this server.
    pub(crate) not_applicable: Vec<String>,
}

impl Outcome {
    pub(crate) fn all(&self) -> usize {
        self.passed + self.failed.len()
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.passed, self.all())?;
        if !self.not_applicable.is_empty() {
            write!(f, ", {} not applicable", self.not_applicable.len())?;
        }
        Ok(())
    }
}

/// The test programs.
pub(crate) struct Suites {
    unit: PathBuf,
    black_box: PathBuf,
    logs: PathBuf,
}

impl Suites {
    /// Builds the test programs.
    pub(crate) fn build() -> Self {
        println!("building the suites");
        let mut cargo = Command::new(env!("CARGO"));
        // These variables, which cargo set for this program, would cause needless rebuilding.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(name);
            }
        }
        let output = cargo
            .args([
                "test",
                "--locked",
                "--no-run",
                "--lib",
                "--test",
                "black_box",
            ])
            .args(["--message-format", "json-render-diagnostics"])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "the suites cannot be built");
        let text = String::from_utf8(output.stdout).unwrap();
        let messages = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let messages: Vec<Value> = messages.collect();
        let program = |kind: &str, name: &str| {
            let of = |message: &&Value| {
                message["target"]["kind"][0] == kind
                    && message["target"]["name"] == name
                    && message["profile"]["test"] == true
            };
            let found = messages
                .iter()
                .find(of)
                .and_then(|one| one["executable"].as_str());
            PathBuf::from(found.unwrap_or_else(|| panic!("no {kind} {name} was built")))
        };
        let logs = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/conformance"));
        fs::create_dir_all(&logs).unwrap();
        Self {
            unit: program("lib", "cameo"),
            black_box: program("test", "black_box"),
            logs,
        }
    }

    /// Runs the unit tests whose names contain one of `filters` and none of `skip`.
    pub(crate) fn unit(
        &self,
        log: &str,
        filters: &[&str],
        skip: &[&str],
        variables: &[(String, String)],
    ) -> Outcome {
        self.run(&self.unit, &format!("{log}-unit"), filters, skip, variables)
    }

    /// Runs the black-box tests whose names contain none of `skip`.
    pub(crate) fn black_box(
        &self,
        log: &str,
        skip: &[&str],
        variables: &[(String, String)],
    ) -> Outcome {
        let log = format!("{log}-black-box");
        self.run(&self.black_box, &log, &[], skip, variables)
    }

    fn run(
        &self,
        program: &PathBuf,
        log: &str,
        filters: &[&str],
        skip: &[&str],
        variables: &[(String, String)],
    ) -> Outcome {
        let path = self.logs.join(format!("{log}.log"));
        let skipped = skip.iter().flat_map(|name| ["--skip", name]);
        let words: Vec<_> = filters.iter().copied().chain(skipped).collect();
        let (mut passed, mut failed) = Self::run_once(program, &path, &words, variables);
        // Some tests check deadlines, which a busy machine may miss. So a failed test is repeated
        // alone, and the result is printed.
        failed.retain(|test| {
            let path = self.logs.join(format!("{log}-again.log"));
            let words = ["--exact", test.as_str()];
            let (again, _) = Self::run_once(program, &path, &words, variables);
            println!(
                "            {test}: failed together with others, passed alone: {}",
                again == 1
            );
            passed += again;
            again == 0
        });
        Outcome {
            passed,
            failed,
            not_applicable: Self::list(program, filters, skip),
        }
    }

    /// Runs the tests once. Returns the number of passed tests and the names of the others.
    fn run_once(
        program: &PathBuf,
        path: &PathBuf,
        words: &[&str],
        variables: &[(String, String)],
    ) -> (usize, Vec<String>) {
        let file = File::create(path).unwrap();
        let status = Command::new("timeout")
            .args(["--kill-after=10", TIMEOUT_S])
            .arg(program)
            .args(["--test-threads", "4"])
            .args(words)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("INSTA_UPDATE", "no")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .status()
            .unwrap();
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let ended = |how: &'static str| {
            let tests = text.lines().filter_map(|line| line.strip_prefix("test "));
            let tests = tests.filter_map(move |line| line.strip_suffix(how));
            tests.map(|name| name.trim_end_matches(" ... ").to_owned())
        };
        let mut failed: Vec<_> = ended("FAILED").collect();
        if !status.success() && failed.is_empty() {
            failed.push(format!(
                "the suite itself ({status}, see {})",
                path.display()
            ));
        }
        (ended("ok").count(), failed)
    }

    /// The tests that would run without `skip`.
    fn list(program: &PathBuf, filters: &[&str], skip: &[&str]) -> Vec<String> {
        if skip.is_empty() {
            return Vec::new();
        }
        let output = Command::new(program)
            .args(filters)
            .arg("--list")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        let left_out = names.filter(|name| skip.iter().any(|part| name.contains(part)));
        left_out.map(str::to_owned).collect()
    }
}
