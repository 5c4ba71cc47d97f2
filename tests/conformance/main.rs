//! `make conformance`: runs all suites for stores and catalogs on real servers.
//!
//! Each server is installed if it is missing, started on a free port with its own folder, tested, and
//! stopped. The results become `docs/object-stores.md`. If a server cannot be installed, the run
//! fails, unless `--allow-missing NAME` allows that. With `--only` the document is not written, unless
//! `--document` is given; then the other servers are "not tried" in it.
//!
//!     make conformance [ARGS='--only minio,redis --allow-missing garage']

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod doctor;
mod document;
mod features;
mod prepared;
mod server;
mod suites;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use document::Results;
use server::Server;
use suites::{Outcome, Suites};

/// An S3 server.
pub(crate) struct Store {
    /// The name of its script in `scripts/servers`.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Whether it supports bucket policies, with which anyone can read public objects.
    pub(crate) has_policies: bool,
    /// Whether `minio-init.sh` is tested on it.
    pub(crate) is_prepared: bool,
}

pub(crate) const STORES: [Store; 5] = [
    Store {
        name: "minio",
        title: "MinIO",
        has_policies: true,
        is_prepared: true,
    },
    Store {
        name: "seaweedfs",
        title: "SeaweedFS",
        has_policies: true,
        is_prepared: false,
    },
    Store {
        name: "ceph",
        title: "Ceph RGW",
        has_policies: true,
        is_prepared: false,
    },
    Store {
        name: "garage",
        title: "Garage",
        has_policies: false,
        is_prepared: false,
    },
    Store {
        name: "juicefs",
        title: "JuiceFS gateway",
        has_policies: true,
        is_prepared: false,
    },
];

/// Servers with the Redis protocol: the names of their scripts, and their titles. The tests start
/// them.
pub(crate) const CATALOGS: [(&str, &str); 2] = [("redis", "Redis"), ("valkey", "Valkey")];

/// The arrangements of these servers: their values of `TEST_BACKEND`, and their titles.
pub(crate) const FORMS: [(&str, &str); 3] = [
    ("fleet", "one server"),
    ("cluster", "Cluster of three"),
    ("sentinel", "Sentinel"),
];

/// Descriptions of all faults, in the order in which they were found.
#[derive(Default)]
pub(crate) struct Faults(Vec<String>);

impl Faults {
    pub(crate) fn add(&mut self, fault: String) {
        println!("            {fault}");
        self.0.push(fault);
    }
}

struct Arguments {
    only: Option<BTreeSet<String>>,
    allow_missing: BTreeSet<String>,
    document: bool,
}

impl Arguments {
    fn read() -> Result<Self, String> {
        let mut arguments = Self {
            only: None,
            allow_missing: BTreeSet::new(),
            document: false,
        };
        let known: BTreeSet<_> = STORES.iter().map(|store| store.name).collect();
        let known: BTreeSet<_> = known.into_iter().chain(CATALOGS.map(|one| one.0)).collect();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            if word == "--document" {
                arguments.document = true;
                continue;
            }
            let names = words.next().unwrap_or_default();
            let names: BTreeSet<_> = names.split(',').map(str::to_owned).collect();
            for name in &names {
                if !known.contains(name.as_str()) {
                    return Err(format!("{word} accepts names from {known:?}, not {name:?}"));
                }
            }
            match word.as_str() {
                "--only" => arguments.only = Some(names),
                "--allow-missing" => arguments.allow_missing.extend(names),
                _ => {
                    return Err(format!(
                        "unknown option {word}; there are --only, --allow-missing and --document"
                    ));
                }
            }
        }
        Ok(arguments)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(name))
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("conformance: {message}");
            return ExitCode::from(2);
        }
    };
    let begun = Instant::now();
    let suites = Suites::build();
    let mut faults = Faults::default();
    let mut results = Results::default();
    for store in STORES.iter().filter(|store| arguments.wants(store.name)) {
        match server::install(store.name) {
            Ok(()) => try_store(store, &suites, &mut results, &mut faults),
            Err(reason) => report_missing(store.name, &reason, &arguments, &mut faults),
        }
    }
    for (name, title) in CATALOGS.iter().filter(|one| arguments.wants(one.0)) {
        match server::program(name) {
            Ok(program) => try_catalog(name, title, &program, &suites, &mut results, &mut faults),
            Err(reason) => report_missing(name, &reason, &arguments, &mut faults),
        }
    }

    if arguments.only.is_none() || arguments.document {
        document::write(&results);
    } else {
        println!("docs/object-stores.md is not written, because not every server was tried");
    }
    let passed: usize = results.outcomes().map(|outcome| outcome.passed).sum();
    let all: usize = results.outcomes().map(Outcome::all).sum();
    let minutes = begun.elapsed().as_secs() / 60;
    println!(
        "{} servers, {passed} of {all} tests passed, {} faults, {minutes} min",
        results.count(),
        faults.0.len()
    );
    for fault in &faults.0 {
        println!("  {fault}");
    }
    if faults.0.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Reports a server that could not be installed.
fn report_missing(name: &str, reason: &str, arguments: &Arguments, faults: &mut Faults) {
    if arguments.allow_missing.contains(name) {
        println!("{name:<10}  is missing, which is allowed: {reason}");
    } else {
        faults.add(format!("{name} could not be installed: {reason}"));
    }
}

/// Reports the outcome of a suite.
fn report(name: &str, suite: &str, outcome: Outcome, faults: &mut Faults) -> Outcome {
    println!("{name:<10}  {suite}: {outcome}");
    for test in &outcome.failed {
        faults.add(format!("{name}: {suite}: {test} failed"));
    }
    if outcome.passed == 0 {
        faults.add(format!("{name}: {suite}: no test passed"));
    }
    outcome
}

fn try_store(store: &Store, suites: &Suites, results: &mut Results, faults: &mut Faults) {
    let name = store.name;
    let server = match Server::start(name) {
        Ok(server) => server,
        Err(reason) => return faults.add(format!("{name} does not start: {reason}")),
    };
    println!(
        "{name:<10}  {} {} runs at {}",
        store.title,
        server.version(),
        server.endpoint()
    );
    let access = if store.has_policies { "policy" } else { "none" };
    let mut variables = server.test_variables();
    variables.push(("TEST_S3_PUBLIC_ACCESS".to_owned(), access.to_owned()));
    let skip: &[&str] = if store.has_policies {
        &[]
    } else {
        &["by_policy::"]
    };

    let adapter = suites.unit(name, &["storage::s3::tests"], skip, &variables);
    let adapter = report(name, "store", adapter, faults);
    variables.push(("TEST_BACKEND".to_owned(), "fleet".to_owned()));
    let black_box = suites.black_box(name, skip, &variables);
    let black_box = report(name, "black-box", black_box, faults);
    let features = features::test(&server);
    let doctor = doctor::of_store(store, &server, faults);
    println!("{name:<10}  doctor: {}", doctor.verdict);
    if store.is_prepared {
        let prepared = prepared::of_store(store, &server, suites, &variables, faults);
        results.prepared.push((store.title, prepared));
    }
    results
        .stores
        .push((name, server.version(), adapter, black_box, features, doctor));
}

fn try_catalog(
    name: &'static str,
    title: &str,
    program: &str,
    suites: &Suites,
    results: &mut Results,
    faults: &mut Faults,
) {
    let version = server::version_of(program);
    println!("{name:<10}  {title} {version} is {program}");
    let mut variables = vec![("TEST_REDIS_SERVER".to_owned(), program.to_owned())];
    let filters = ["catalog::redis::tests", "limits::redis::tests"];
    let adapter = suites.unit(name, &filters, &[], &variables);
    let adapter = report(name, "catalog and limits", adapter, faults);
    let mut forms = Vec::new();
    for (backend, form) in FORMS {
        variables.truncate(1);
        variables.push(("TEST_BACKEND".to_owned(), backend.to_owned()));
        let log = format!("{name}-{backend}");
        let outcome = suites.black_box(&log, &[], &variables);
        forms.push(report(name, &format!("black-box, {form}"), outcome, faults));
    }
    let doctor = doctor::of_catalog(program, faults);
    println!("{name:<10}  doctor: {doctor}");
    results
        .catalogs
        .push((name, version, adapter, forms, doctor));
}
