//! `make conformance`: every suite that Cameo has for a store and a catalog, on real servers of
//! other people's making.
//!
//! Each server is installed where it is missing, started on a port and a folder of its own, tried,
//! and stopped. What was seen becomes `docs/object-stores.md`. A server that cannot be had is named
//! and counts as a failure, unless `--allow-missing NAME` says that it may be missing. With `--only`
//! the document stays as it is, unless `--document` asks for one that says "not tried" of the rest.
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

use document::Seen;
use server::Server;
use suites::{Outcome, Suites};

/// An S3 server, by the name of its script.
pub(crate) struct Store {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Whether it has bucket policies, by which anybody may read what is public.
    pub(crate) has_policies: bool,
    /// Whether `minio-init.sh` makes buckets on it.
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

/// Programs that speak Redis, by the names of their scripts; tests start their own.
pub(crate) const CATALOGS: [(&str, &str); 2] = [("redis", "Redis"), ("valkey", "Valkey")];

/// How the tests put such programs together, by the names that `TEST_BACKEND` has for them.
pub(crate) const FORMS: [(&str, &str); 3] = [
    ("fleet", "one server"),
    ("cluster", "Cluster of three"),
    ("sentinel", "Sentinel"),
];

/// What is wrong, in words, in the order in which it was found.
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
                    return Err(format!("{word} takes names out of {known:?}, not {name:?}"));
                }
            }
            match word.as_str() {
                "--only" => arguments.only = Some(names),
                "--allow-missing" => arguments.allow_missing.extend(names),
                _ => {
                    return Err(format!(
                        "{word}? There are --only, --allow-missing and --document"
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
    let mut seen = Seen::default();
    for store in STORES.iter().filter(|store| arguments.wants(store.name)) {
        match server::install(store.name) {
            Ok(()) => try_store(store, &suites, &mut seen, &mut faults),
            Err(reason) => missing(store.name, &reason, &arguments, &mut faults),
        }
    }
    for (name, title) in CATALOGS.iter().filter(|one| arguments.wants(one.0)) {
        match server::program(name) {
            Ok(program) => try_catalog(name, title, &program, &suites, &mut seen, &mut faults),
            Err(reason) => missing(name, &reason, &arguments, &mut faults),
        }
    }

    if arguments.only.is_none() || arguments.document {
        document::write(&seen);
    } else {
        println!("docs/object-stores.md stays as it is: not every server was tried");
    }
    let passed: usize = seen.outcomes().map(|outcome| outcome.passed).sum();
    let all: usize = seen.outcomes().map(Outcome::all).sum();
    let minutes = begun.elapsed().as_secs() / 60;
    println!(
        "{} servers, {passed} of {all} tests passed, {} faults, {minutes} min",
        seen.count(),
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

/// Says that a server could not be had.
fn missing(name: &str, reason: &str, arguments: &Arguments, faults: &mut Faults) {
    if arguments.allow_missing.contains(name) {
        println!("{name:<10}  is missing, as it may: {reason}");
    } else {
        faults.add(format!("{name} could not be had: {reason}"));
    }
}

/// Tells how a suite went.
fn told(name: &str, suite: &str, outcome: Outcome, faults: &mut Faults) -> Outcome {
    println!("{name:<10}  {suite}: {outcome}");
    for test in &outcome.failed {
        faults.add(format!("{name}: {suite}: {test} failed"));
    }
    if outcome.passed == 0 {
        faults.add(format!("{name}: {suite}: nothing was run"));
    }
    outcome
}

fn try_store(store: &Store, suites: &Suites, seen: &mut Seen, faults: &mut Faults) {
    let name = store.name;
    let server = match Server::start(name) {
        Ok(server) => server,
        Err(reason) => return faults.add(format!("{name} does not start: {reason}")),
    };
    println!(
        "{name:<10}  {} {} is up at {}",
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
    let adapter = told(name, "store", adapter, faults);
    variables.push(("TEST_BACKEND".to_owned(), "fleet".to_owned()));
    let black_box = suites.black_box(name, skip, &variables);
    let black_box = told(name, "black-box", black_box, faults);
    let features = features::look(&server);
    let doctor = doctor::of_store(store, &server, faults);
    println!("{name:<10}  doctor: {}", doctor.verdict);
    if store.is_prepared {
        let prepared = prepared::of_store(store, &server, suites, &variables, faults);
        seen.prepared.push((store.title, prepared));
    }
    seen.stores
        .push((name, server.version(), adapter, black_box, features, doctor));
}

fn try_catalog(
    name: &'static str,
    title: &str,
    program: &str,
    suites: &Suites,
    seen: &mut Seen,
    faults: &mut Faults,
) {
    let version = server::version_of(program);
    println!("{name:<10}  {title} {version} is {program}");
    let mut variables = vec![("TEST_REDIS_SERVER".to_owned(), program.to_owned())];
    let filters = ["catalog::redis::tests", "limits::redis::tests"];
    let adapter = suites.unit(name, &filters, &[], &variables);
    let adapter = told(name, "catalog and limits", adapter, faults);
    let mut forms = Vec::new();
    for (backend, form) in FORMS {
        variables.truncate(1);
        variables.push(("TEST_BACKEND".to_owned(), backend.to_owned()));
        let log = format!("{name}-{backend}");
        let outcome = suites.black_box(&log, &[], &variables);
        forms.push(told(name, &format!("black-box, {form}"), outcome, faults));
    }
    let doctor = doctor::of_catalog(program, faults);
    println!("{name:<10}  doctor: {doctor}");
    seen.catalogs.push((name, version, adapter, forms, doctor));
}
