//! What `cameo doctor` says of a server: that it is good where it is, and what to change where it
//! is not.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::server::{Server, end, start_bound};
use crate::{Faults, Store};

/// The setting for a server without bucket policies.
pub(crate) const NO_POLICIES: &str = "storage.s3.public_access = \"none\"";

/// What it said.
pub(crate) struct Said {
    /// Of the server, in a word or with the setting that it needs.
    pub(crate) verdict: String,
    /// Where images are handed out by the service itself.
    pub(crate) proxy: String,
    /// Of credentials that are wrong.
    pub(crate) wrong_secret: String,
    /// Of somebody else's bucket; empty where that was not tried.
    pub(crate) others_bucket: String,
}

/// Has the server looked at in every way that matters.
pub(crate) fn of_store(store: &Store, server: &Server, faults: &mut Faults) -> Said {
    let mut fault = |what: &str, told: &str| {
        faults.add(format!("{}: doctor, {what}: {told}", store.name));
    };
    let (key, secret) = server.admin();
    let ask = |who, access| of_bucket(server, "doctor", who, access);

    let (code, told) = ask((key, secret), "policy");
    let verdict = match (code, store.has_policies) {
        (0, true) => "good".to_owned(),
        (2, false) if told.contains(NO_POLICIES) && told.contains("PutBucketPolicy: ") => {
            let refused = told
                .lines()
                .find_map(|line| line.split("PutBucketPolicy: ").nth(1));
            let refused = refused
                .unwrap_or_default()
                .split(':')
                .next()
                .unwrap_or_default();
            format!("good with `{NO_POLICIES}`; without it, tells `PutBucketPolicy: {refused}`")
        }
        _ => {
            fault("as it is", &told);
            "wrong".to_owned()
        }
    };
    let (code, told) = ask((key, secret), "none");
    let proxy = if code == 0 {
        "works".to_owned()
    } else {
        fault("with public_access none", &told);
        "does not".to_owned()
    };
    let (code, told) = ask((key, "not the secret"), "none");
    let wrong_secret = if code == 2 && told.contains("refuses these credentials") {
        "told as such".to_owned()
    } else {
        fault("with a wrong secret", &told);
        "not told".to_owned()
    };
    let mut others_bucket = String::new();
    if let Some(other) = server.other() {
        let (code, told) = ask(other, "none");
        let calls = [
            "HeadBucket: ",
            "ListObjectsV2: ",
            "CreateBucket: ",
            "PutObject: ",
        ];
        let line = told.lines().find(|line| line.starts_with("wrong"));
        let call = line.and_then(|line| {
            let call = calls.iter().find(|call| line.contains(*call))?;
            let answer = line.split(*call).nth(1)?.split(':').next()?;
            Some(format!("{call}{}", answer.trim()))
        });
        match call {
            Some(call) if code == 2 => others_bucket = format!("tells `{call}`"),
            _ => fault("with the key of somebody else", &told),
        }
    }
    Said {
        verdict,
        proxy,
        wrong_secret,
        others_bucket,
    }
}

/// Has a bucket looked at by whom this key belongs to; gives the doctor's exit code and what it said.
pub(crate) fn of_bucket(
    server: &Server,
    bucket: &str,
    (key, secret): (&str, &str),
    access: &str,
) -> (i32, String) {
    doctor(&[
        ("CAMEO_STORAGE__KIND", "s3"),
        ("CAMEO_STORAGE__S3__BUCKET", bucket),
        ("CAMEO_STORAGE__S3__ENDPOINT", server.endpoint()),
        ("CAMEO_STORAGE__S3__REGION", server.region()),
        ("CAMEO_STORAGE__S3__ACCESS_KEY_ID", key),
        ("CAMEO_STORAGE__S3__SECRET_ACCESS_KEY", secret),
        ("CAMEO_STORAGE__S3__PUBLIC_ACCESS", access),
    ])
}

/// Has a server of this program looked at.
pub(crate) fn of_catalog(program: &str, faults: &mut Faults) -> String {
    let folder = TempDir::new().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let folder_path = folder.path().to_str().unwrap();
    let options = [
        "--bind",
        "127.0.0.1",
        "--dir",
        folder_path,
        "--appendonly",
        "yes",
    ];
    let command: Vec<_> = [program, "--port", &port]
        .into_iter()
        .chain(options)
        .collect();
    let mut server = start_bound(&command);
    let url = format!("redis://127.0.0.1:{port}");
    let begun = Instant::now();
    let (code, told) = loop {
        let (code, told) = doctor(&[
            ("CAMEO_CATALOG__KIND", "redis"),
            ("CAMEO_CATALOG__REDIS__URL", url.as_str()),
        ]);
        let is_up = !told.contains("is not reached");
        if is_up || begun.elapsed() > Duration::from_secs(20) {
            break (code, told);
        }
    };
    end(&mut server);
    if code == 0 && !told.contains("warning") {
        return "good".to_owned();
    }
    faults.add(format!("{program}: doctor: {told}"));
    "wrong".to_owned()
}

/// Runs it with these settings; gives its exit code and what it said.
fn doctor(variables: &[(&str, &str)]) -> (i32, String) {
    let data = TempDir::new().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cameo"))
        .arg("doctor")
        .env("CAMEO_DATA_DIR", data.path())
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    (output.status.code().unwrap_or(-1), said)
}
