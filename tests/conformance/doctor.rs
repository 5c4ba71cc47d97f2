//! The verdicts of `cameo doctor`: it must accept a good server, and name what is wrong with
//! another.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::server::{Server, end, start_bound};
use crate::{Faults, Store};

/// The setting for a server without bucket policies.
pub(crate) const NO_POLICIES: &str = "storage.s3.public_access = \"none\"";

/// The verdicts about a store.
pub(crate) struct Verdicts {
    /// About the server: one word, or the setting that it needs.
    pub(crate) verdict: String,
    /// With images that the service itself serves.
    pub(crate) proxy: String,
    /// About wrong credentials.
    pub(crate) wrong_secret: String,
    /// About the bucket of another user; empty if that was not tried.
    pub(crate) others_bucket: String,
}

/// Runs the doctor on a store: as it is, without policies, with wrong credentials, and as another
/// user.
pub(crate) fn of_store(store: &Store, server: &Server, faults: &mut Faults) -> Verdicts {
    let mut fault = |what: &str, output: &str| {
        faults.add(format!("{}: doctor, {what}: {output}", store.name));
    };
    let (key, secret) = server.admin();
    let ask = |who, access| of_bucket(server, "doctor", who, access);

    let (code, output) = ask((key, secret), "policy");
    let verdict = match (code, store.has_policies) {
        (0, true) => "good".to_owned(),
        (2, false) if output.contains(NO_POLICIES) && output.contains("PutBucketPolicy: ") => {
            let refused = output
                .lines()
                .find_map(|line| line.split("PutBucketPolicy: ").nth(1));
            let refused = refused
                .unwrap_or_default()
                .split(':')
                .next()
                .unwrap_or_default();
            format!("good with `{NO_POLICIES}`; without it, reports `PutBucketPolicy: {refused}`")
        }
        _ => {
            fault("with a policy", &output);
            "wrong".to_owned()
        }
    };
    let (code, output) = ask((key, secret), "none");
    let proxy = if code == 0 {
        "works".to_owned()
    } else {
        fault("with public_access none", &output);
        "does not".to_owned()
    };
    let (code, output) = ask((key, "not the secret"), "none");
    let wrong_secret = if code == 2 && output.contains("refuses these credentials") {
        "reported".to_owned()
    } else {
        fault("with a wrong secret", &output);
        "not reported".to_owned()
    };
    let mut others_bucket = String::new();
    if let Some(other) = server.other() {
        let (code, output) = ask(other, "none");
        let calls = [
            "HeadBucket: ",
            "ListObjectsV2: ",
            "CreateBucket: ",
            "PutObject: ",
        ];
        let line = output.lines().find(|line| line.starts_with("wrong"));
        let call = line.and_then(|line| {
            let call = calls.iter().find(|call| line.contains(*call))?;
            let answer = line.split(*call).nth(1)?.split(':').next()?;
            Some(format!("{call}{}", answer.trim()))
        });
        match call {
            Some(call) if code == 2 => others_bucket = format!("reports `{call}`"),
            _ => fault("with the key of another user", &output),
        }
    }
    Verdicts {
        verdict,
        proxy,
        wrong_secret,
        others_bucket,
    }
}

/// Runs the doctor on a bucket with this key. Returns its exit code and its output.
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

/// Starts a catalog server with this program and runs the doctor on it. Returns the verdict.
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
    let (code, output) = loop {
        let (code, output) = doctor(&[
            ("CAMEO_CATALOG__KIND", "redis"),
            ("CAMEO_CATALOG__REDIS__URL", url.as_str()),
        ]);
        let is_up = !output.contains("is not reached");
        if is_up || begun.elapsed() > Duration::from_secs(20) {
            break (code, output);
        }
    };
    end(&mut server);
    if code == 0 && !output.contains("warning") {
        return "good".to_owned();
    }
    faults.add(format!("{program}: doctor: {output}"));
    "wrong".to_owned()
}

/// Runs the doctor with these settings. Returns its exit code and its output.
fn doctor(variables: &[(&str, &str)]) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    // The program creates its folder itself, so that only its owner may read it.
    let data = folder.path().join("data");
    let output = Command::new(env!("CARGO_BIN_EXE_cameo"))
        .arg("doctor")
        .env("CAMEO_DATA_DIR", data)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    (output.status.code().unwrap_or(-1), text)
}
