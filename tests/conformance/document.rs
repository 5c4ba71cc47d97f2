//! Writes `docs/object-stores.md`: the results as tables.

use std::fmt::Write;

use crate::doctor::Verdicts;
use crate::features::Features;
use crate::prepared::Prepared;
use crate::suites::Outcome;
use crate::{CATALOGS, FORMS, STORES};

/// The results of a store: name, version, suite of the adapter, black-box suite, features, verdicts
/// of the doctor.
type StoreResults = (&'static str, String, Outcome, Outcome, Features, Verdicts);
/// The results of a catalog: name, version, suite of the adapter, black-box suites by form, verdict
/// of the doctor.
type CatalogResults = (&'static str, String, Outcome, Vec<Outcome>, String);

/// The results of all servers that could be installed.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) stores: Vec<StoreResults>,
    pub(crate) catalogs: Vec<CatalogResults>,
    /// The results of prepared buckets, by the title of the store.
    pub(crate) prepared: Vec<(&'static str, Prepared)>,
}

impl Results {
    pub(crate) fn count(&self) -> usize {
        self.stores.len() + self.catalogs.len()
    }

    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        let of_stores = self
            .stores
            .iter()
            .flat_map(|results| [&results.2, &results.3]);
        let of_prepared = self.prepared.iter();
        let of_prepared =
            of_prepared.flat_map(|(_, results)| [&results.contract, &results.black_box]);
        let of_catalogs = self.catalogs.iter();
        let of_catalogs =
            of_catalogs.flat_map(|results| std::iter::once(&results.2).chain(&results.3));
        of_stores.chain(of_prepared).chain(of_catalogs)
    }
}

/// Writes the document.
pub(crate) fn write(results: &Results) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/object-stores.md");
    std::fs::write(path, text(results, &time::OffsetDateTime::now_utc().date())).unwrap();
    println!("wrote docs/object-stores.md");
}

fn text(results: &Results, date: &impl std::fmt::Display) -> String {
    let mut text = format!(
        "# Servers that Cameo is tested on\n\n\
         `make conformance` wrote this page on {date}. Each server ran on the loopback interface, one \
         at a time. Every cell is a measured result; `n of n` counts passed tests of Cameo.\n\n\
         ## Object stores\n\n"
    );
    stores(&mut text, results);
    text.push_str(
        "\nCameo needs these S3 calls: HeadBucket, PutObject from bytes, GetObject, DeleteObject and \
         ListObjectsV2. It also needs CreateBucket and PutBucketPolicy, unless an operator has prepared \
         the bucket. It does not need the calls of the last five rows: it writes no object twice, sends \
         whole bodies, deletes objects one by one, and logs a warning if CORS rules are refused.\n\n\
         For a server without bucket policies, set `storage.s3.public_access = \"none\"`. Then the \
         service serves the images itself, or the server at `storage.s3.public_base_url` does. Set \
         `storage.s3.endpoint` and `storage.s3.path_style = true`. Garage needs \
         `storage.s3.region = \"garage\"`, or the value of its `s3_region`.\n",
    );
    for (name, _, adapter, black_box, ..) in &results.stores {
        let left_out = adapter
            .not_applicable
            .iter()
            .chain(&black_box.not_applicable);
        let left_out: Vec<_> = left_out.map(|test| format!("`{test}`")).collect();
        if !left_out.is_empty() {
            let title = title_of(name);
            let left_out = left_out.join(", ");
            write!(
                text,
                "\nNot applicable to {title}, which has no bucket policies: {left_out}.\n"
            )
            .unwrap();
        }
    }
    prepared(&mut text, results);
    text.push_str("\n## Catalogs\n\n");
    catalogs(&mut text, results);
    text.push_str(
        "\nWith `catalog.kind = \"redis\"`, `catalog.redis.url` names one server, several nodes of a \
         Cluster, or Sentinels (`redis+sentinel://host:26379/NAME`).\n\n\
         Redis sends writes to its replicas after it has answered. So a failover may lose writes that \
         the old master had answered and not yet replicated when it crashed. Then the record of an \
         upload is lost although the upload was answered 200. Older records are kept, and uploads \
         continue on the new master; a test uploads during a failover and checks this. \
         `catalog.redis.wait` can delay the answer until a replica has the change; by default Cameo \
         does not wait. The new master never assigns a version that the old one may have assigned. \
         `cameo rebuild` restores a lost upload from the bucket, unless a later one replaced it: at \
         any time if its reservation was lost too, otherwise within `lifecycle.orphan_grace`; after \
         that it is swept.\n",
    );
    text
}

fn title_of(name: &str) -> &'static str {
    let store = STORES.iter().find(|store| store.name == name);
    store.map_or("", |store| store.title)
}

fn row(text: &mut String, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<_> = cells.into_iter().collect();
    writeln!(text, "| {} |", cells.join(" | ")).unwrap();
}

fn stores(text: &mut String, results: &Results) {
    let found = |name: &str| results.stores.iter().find(|results| results.0 == name);
    let all: Vec<_> = STORES.iter().map(|store| found(store.name)).collect();
    let titles = STORES.iter().map(|store| store.title.to_owned());
    row(text, std::iter::once(String::new()).chain(titles));
    row(text, vec!["---".to_owned(); STORES.len() + 1]);
    let mut line = |name: &str, cell: &dyn Fn(&StoreResults) -> String| {
        let cells = all
            .iter()
            .map(|results| results.map_or_else(|| "not tried".to_owned(), cell));
        row(text, std::iter::once(name.to_owned()).chain(cells));
    };
    line("version", &|results| results.1.clone());
    line("**the store's contract and adapter**", &|results| {
        results.2.to_string()
    });
    line("**the service, black-box**", &|results| {
        results.3.to_string()
    });
    line("**`cameo doctor`**", &|results| results.5.verdict.clone());
    line("images served by the service", &|results| {
        results.5.proxy.clone()
    });
    line("doctor: a wrong secret", &|results| {
        results.5.wrong_secret.clone()
    });
    line(
        "doctor: a bucket of another user",
        &|results| match &results.5.others_bucket {
            verdict if verdict.is_empty() => "not tried: it has one user".to_owned(),
            verdict => verdict.clone(),
        },
    );
    let names = results.stores.first().map(|results| &results.4);
    for (at, (name, _)) in names.into_iter().flatten().enumerate() {
        line(name, &|results| results.4[at].1.clone());
    }
}

fn prepared(text: &mut String, results: &Results) {
    text.push_str(
        "\n## A prepared bucket\n\n\
         `minio-init.sh` uses `mc` to make a bucket, its policy, and a user with few rights for the \
         service.\n\n",
    );
    if results.prepared.is_empty() {
        text.push_str("Not tried.\n");
    }
    for (title, results) in &results.prepared {
        let title = format!("{title}, with `mc` {}", results.client);
        row(text, [title, "result".to_owned()]);
        row(text, ["---", "---"].map(str::to_owned));
        for (name, cell) in &results.rows {
            row(text, [(*name).to_owned(), cell.clone()]);
        }
        for (name, outcome) in [
            ("**the store's contract**, as the user", &results.contract),
            (
                "**the service, black-box**, each test as a user in a bucket of its own",
                &results.black_box,
            ),
        ] {
            row(text, [name.to_owned(), outcome.to_string()]);
        }
    }
}

fn catalogs(text: &mut String, results: &Results) {
    let forms = FORMS.map(|(_, form)| format!("black-box, {form}"));
    let header = ["", "version", "catalog's contract and adapter, limits"].map(str::to_owned);
    let header: Vec<_> = header.into_iter().chain(forms).collect();
    let rule = vec!["---".to_owned(); header.len() + 1];
    row(
        text,
        header.into_iter().chain(["`cameo doctor`".to_owned()]),
    );
    row(text, rule);
    for (name, title) in CATALOGS {
        let mut cells = vec![title.to_owned()];
        match results.catalogs.iter().find(|results| results.0 == name) {
            Some((_, version, adapter, forms, doctor)) => {
                cells.extend([version.clone(), adapter.to_string()]);
                cells.extend(forms.iter().map(ToString::to_string));
                cells.push(doctor.clone());
            }
            None => cells.extend(vec!["not tried".to_owned(); FORMS.len() + 3]),
        }
        row(text, cells);
    }
}
