//! `telemetry.audit_file`: every change and every administrative act gives one line.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::photos::{self, PORTRAIT};
use crate::support::{
    Answer, Client, TestService, form_named, run_program, send, try_send, url_when_ready,
};

const LOCK: &str = "/api/v1/users/42/avatar/lock";
const VIEWERS: &str = "/api/v1/users/42/avatar/viewers";

/// The lines of a file. It may not exist yet.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    text.lines().map(parse).collect()
}

/// Waits until the file has this many lines, and returns them.
async fn until_lines(path: &Path, count: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let lines = lines(path);
        if lines.len() >= count {
            return lines;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{lines:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A service whose audit file is in a folder of its own.
async fn audited(variables: &[(&str, &str)]) -> (TestService, TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("audit.log");
    let mut all = vec![("CAMEO_TELEMETRY__AUDIT_FILE", path.to_str().unwrap())];
    all.extend(variables);
    let service = TestService::start_with(&all).await;
    (service, folder, path)
}

async fn put_lock(client: &Client, body: &Value) -> Answer {
    let request = client.request(Method::PUT, LOCK);
    let request = request.header("content-type", "application/json");
    send(request.body(body.to_string())).await
}

#[tokio::test]
async fn every_act_gives_exactly_one_line_with_who_did_what_to_whom_and_the_outcome() {
    let limit = ("CAMEO_LIMITS__ENABLED", "true");
    let uploads = ("CAMEO_LIMITS__UPLOAD", "3/h");
    let (service, _folder, path) = audited(&[limit, uploads]).await;
    let (owner, main, admin) = (service.owner("42"), service.service(), service.admin());
    let mut expected = Vec::new();
    let line = |answer: &Answer, who: [&str; 2], action: &str, avatar: &Value, outcome: &str| {
        json!({
            "actor": who[0], "role": who[1], "subject": "42", "action": action, "avatar_id": avatar,
            "request_id": answer.header("x-request-id"), "outcome": outcome,
        })
    };
    let user = ["42", "user"];
    let by_service = ["main-application", "service"];
    let by_admin = ["root", "admin"];
    let none = Value::Null;

    // Changes.
    let first = owner.upload("42", PORTRAIT).await;
    expected.push(line(
        &first,
        user,
        "upload",
        &first.ok()["avatar_id"],
        "done",
    ));
    let second = main.put_bare("42", "", photos::jpeg(200, 200)).await;
    let id = second.ok()["avatar_id"].clone();
    expected.push(line(&second, by_service, "upload", &id, "done"));
    let deleted = owner.delete("42").await;
    expected.push(line(&deleted, user, "delete", &id, "done"));
    let third = owner.upload("42", PORTRAIT).await;
    let id = third.ok()["avatar_id"].clone();
    expected.push(line(&third, user, "upload", &id, "done"));
    let answer = put_lock(&main, &json!({"reason": "spam"})).await;
    expected.push(line(&answer, by_service, "lock", &none, "done"));
    let answer = owner.upload("42", PORTRAIT).await;
    expected.push(line(&answer, user, "upload", &none, "avatar_locked"));
    let answer = put_lock(&admin, &json!({"remove": true})).await;
    expected.push(line(&answer, by_admin, "lock_and_remove", &id, "done"));
    let answer = send(main.request(Method::DELETE, LOCK)).await;
    expected.push(line(&answer, by_service, "unlock", &none, "done"));

    // Refused attempts.
    let answer = owner.upload("42", b"no picture".to_vec()).await;
    expected.push(line(&answer, user, "upload", &none, "unsupported_format"));
    let answer = owner.upload("42", PORTRAIT).await;
    expected.push(line(&answer, user, "upload", &none, "rate_limited"));
    let answer = owner.delete("42").await;
    expected.push(line(&answer, user, "delete", &none, "avatar_not_found"));
    let answer = main.put_bare("42", "", vec![0; 6 << 20]).await;
    expected.push(line(&answer, by_service, "upload", &none, "file_too_large"));
    let answer = service.owner("43").delete("42").await;
    expected.push(line(&answer, ["43", "user"], "delete", &none, "forbidden"));
    let answer = put_lock(&owner, &json!({})).await;
    expected.push(line(&answer, user, "lock", &none, "forbidden"));
    let answer = put_lock(&main, &json!({"until": "tomorrow"})).await;
    expected.push(line(
        &answer,
        by_service,
        "lock",
        &none,
        "malformed_request",
    ));
    let answer = owner.upload_with("42", PORTRAIT, "if-match", "*").await;
    expected.push(line(&answer, user, "upload", &none, "precondition_failed"));

    // Changes of viewers name the viewer.
    for (client, who, method, action) in [
        (&main, by_service, Method::PUT, "add_viewer"),
        (&admin, by_admin, Method::DELETE, "remove_viewer"),
    ] {
        let answer = send(client.request(method, &format!("{VIEWERS}/auth0%7C7"))).await;
        let mut line = line(&answer, who, action, &none, "done");
        line["viewer"] = json!("auth0|7");
        expected.push(line);
    }
    let answer = send(owner.request(Method::PUT, &format!("{VIEWERS}/43"))).await;
    expected.push(line(&answer, user, "add_viewer", &none, "forbidden"));

    let found = until_lines(&path, expected.len()).await;
    for (mut line, expected) in found.into_iter().zip(&expected) {
        let time = line.as_object_mut().unwrap().remove("time").unwrap();
        let time = time.as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
        assert_eq!(line, *expected);
    }
    let (server, _data) = service.stop();
    server.await.unwrap();
    assert_eq!(lines(&path).len(), expected.len());
}

#[tokio::test]
async fn reads_and_requests_without_a_valid_token_give_no_line() {
    let (service, _folder, path) = audited(&[]).await;
    let (owner, main) = (service.owner("42"), service.service());
    let anyone = service.anonymous();
    assert_eq!(anyone.upload("42", PORTRAIT).await.status, 401);
    assert_eq!(anyone.delete("42").await.status, 401);
    assert_eq!(put_lock(&anyone, &json!({})).await.status, 401);
    let forged = Client::new(service.url(), Some("a.b.c".to_owned()));
    assert_eq!(forged.upload("42", PORTRAIT).await.status, 401);
    assert_eq!(owner.avatar("42").await.status, 404);
    assert_eq!(owner.get(LOCK).await.status, 404);
    main.get(VIEWERS).await.ok();
    assert_eq!(main.upload("a%20b", PORTRAIT).await.status, 400);
    // This line is the first one.
    owner.upload("42", PORTRAIT).await.ok();
    assert_eq!(until_lines(&path, 1).await[0]["outcome"], "done");
    let (server, _data) = service.stop();
    server.await.unwrap();
    assert_eq!(lines(&path).len(), 1);
}

#[tokio::test]
async fn the_file_has_no_token_query_address_or_file_name() {
    let (service, _folder, path) = audited(&[]).await;
    let token = service.token("42", &[]);
    let owner = Client::new(service.url(), Some(token.clone()));
    let url = "/api/v1/users/42/avatar?crop=0,0,100,100&of-the-query=1";
    let request = owner.request(Method::POST, url);
    let request = request.header("x-forwarded-for", "203.0.113.7");
    let form = form_named(PORTRAIT, "name-of-the-file.jpg", "image/jpeg");
    send(request.multipart(form)).await.ok();
    until_lines(&path, 1).await;
    let text = fs::read_to_string(&path).unwrap();
    for secret in [
        &token,
        "of-the-query",
        "203.0.113.7",
        "127.0.0.1",
        "name-of-the-file",
    ] {
        assert!(!text.contains(secret), "{text}");
    }
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_disk_without_space_for_records_refuses_no_upload_and_a_metric_counts_them() {
    let device = ("CAMEO_TELEMETRY__AUDIT_FILE", "/dev/full");
    let service = TestService::start_with(&[device]).await;
    for _ in 0..2 {
        service.owner("42").upload("42", PORTRAIT).await.ok();
    }
    let begun = Instant::now();
    loop {
        let metrics = service.anonymous().get("/metrics").await;
        if metrics.metric("cameo_audit_records_lost_total") == 2 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

/// The name of the file that has the log of a [`Program`].
const LOG: &str = "log";

/// The program in a process of its own, with its audit file at `audit`.
struct Program {
    child: Child,
    url: String,
    folder: TempDir,
    token: String,
}

impl Program {
    /// Starts the program. `shell` is run before it; it may use `$AUDIT`, the folder of the audit file.
    async fn start(shell: &str, audit_file: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let audit = folder.path().join("audit");
        fs::create_dir(&audit).unwrap();
        let data = folder.path().join("data");
        let data = data.to_str().unwrap();
        let file = match audit_file {
            "" => String::new(),
            name => audit.join(name).to_str().unwrap().to_owned(),
        };
        let mut child = Command::new("unshare")
            .args(["-Urm", "sh", "-c"])
            .arg(format!("{shell} exec \"$0\""))
            .arg(env!("CARGO_BIN_EXE_cameo"))
            .env("AUDIT", &audit)
            .env("CAMEO_TELEMETRY__AUDIT_FILE", file)
            .env("CAMEO_DATA_DIR", data)
            .env("CAMEO_HTTP__BIND", "127.0.0.1:0")
            .env("CAMEO_LIMITS__ENABLED", "false")
            .stdout(Stdio::piped())
            .env("RUST_LOG", "info")
            .stderr(fs::File::create(folder.path().join(LOG)).unwrap())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare, which is part of util-linux");
        let url = url_when_ready(&mut child).await;
        let words = ["token", "--sub", "main", "--role", "service"];
        let settings = [("CAMEO_DATA_DIR", data.to_owned())];
        let (code, token) = run_program(&words, settings).await;
        assert_eq!(code, 0, "{token}");
        Self {
            child,
            url,
            folder,
            token: token.trim().to_owned(),
        }
    }

    /// The folder of the audit file, as the program sees it.
    fn audit(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id().unwrap()));
        let folder = self.folder.path().join("audit");
        root.join(folder.strip_prefix("/").unwrap())
    }

    fn client(&self) -> Client {
        Client::new(&self.url, Some(self.token.clone()))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Stops the program in order.
    async fn stop(mut self) -> TempDir {
        self.signal(Signal::TERM);
        let ended = tokio::time::timeout(Duration::from_secs(40), self.child.wait());
        assert!(ended.await.unwrap().unwrap().success());
        self.folder
    }
}

/// Removes locks until `stop` is done. Returns the ids of the requests that were answered 204.
async fn unlock_until(client: Client, mut stop: tokio::sync::watch::Receiver<bool>) -> Vec<String> {
    let mut ids = Vec::new();
    while !*stop.borrow_and_update() {
        let answer = try_send(client.request(Method::DELETE, LOCK))
            .await
            .unwrap();
        assert_eq!(answer.status, 204);
        ids.push(answer.header("x-request-id").to_owned());
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_by_rename_and_sighup_under_load_loses_no_line() {
    const ROTATIONS: usize = 8;
    let program = Program::start("", "audit.log").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..4)
        .map(|_| tokio::spawn(unlock_until(program.client(), stopped.clone())))
        .collect();
    let audit = program.audit();
    let current = audit.join("audit.log");
    for rotation in 0..ROTATIONS {
        until_lines(&current, 5).await;
        fs::rename(&current, audit.join(format!("audit.log.{rotation}"))).unwrap();
        program.signal(Signal::HUP);
    }
    until_lines(&current, 5).await;
    stop.send(true).unwrap();
    let mut answered = BTreeSet::new();
    for client in clients {
        answered.extend(client.await.unwrap());
    }
    let folder = program.stop().await;
    let mut files = 0;
    let mut written = Vec::new();
    for entry in fs::read_dir(folder.path().join("audit")).unwrap() {
        let path = entry.unwrap().path();
        files += 1;
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let of_file = lines(&path);
        assert!(of_file.len() >= 5, "{}", path.display());
        let ids = of_file
            .iter()
            .map(|line| line["request_id"].as_str().unwrap().to_owned());
        written.extend(ids);
    }
    assert_eq!(files, ROTATIONS + 1);
    assert_eq!(
        written.len(),
        answered.len(),
        "each act has exactly one line"
    );
    assert_eq!(BTreeSet::from_iter(written), answered);
    let log = fs::read_to_string(folder.path().join(LOG)).unwrap();
    // The log also says that the file was opened again.
    let is_act = |line: &&str| line.contains("cameo::audit") && line.contains("unlock");
    let logged = log.lines().filter(is_act);
    assert_eq!(logged.count(), answered.len(), "the log has each act too");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_does_not_end_a_service_without_an_audit_file() {
    let program = Program::start("", "").await;
    for _ in 0..3 {
        program.signal(Signal::HUP);
        program.client().get("/health/ready").await.ok();
    }
    program.client().upload("42", PORTRAIT).await.ok();
    let folder = program.stop().await;
    let log = fs::read_to_string(folder.path().join(LOG)).unwrap();
    let logged: Vec<_> = log
        .lines()
        .filter(|line| line.contains("cameo::audit"))
        .collect();
    assert_eq!(logged.len(), 1, "{log}");
    for field in [
        "actor=\"main\"",
        "role=\"service\"",
        "subject=42",
        "action=\"upload\"",
        "outcome=\"done\"",
    ] {
        assert!(logged[0].contains(field), "{}", logged[0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_written_again_on_lines_of_their_own_when_a_full_disk_has_space() {
    let mount = "mount -t tmpfs -o size=64k none \"$AUDIT\" &&";
    let program = Program::start(mount, "audit.log").await;
    let (client, path) = (program.client(), program.audit().join("audit.log"));
    let unlock = async || {
        let answer = send(client.request(Method::DELETE, LOCK)).await;
        assert_eq!(answer.status, 204);
        answer.header("x-request-id").to_owned()
    };
    let lost = async || {
        let metrics = client.get("/metrics").await;
        metrics.metric("cameo_audit_records_lost_total")
    };
    // The next lines fill the rest of a page, and the last of them does not fit.
    unlock().await;
    until_lines(&path, 1).await;
    let filler = program.audit().join("filler");
    let refused = fs::write(&filler, vec![1; 128 << 10]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::StorageFull);
    let mut done = 0;
    while lost().await < 3 {
        unlock().await;
        done += 1;
        assert!(done < 1000);
    }
    client.upload("42", PORTRAIT).await.ok();
    let until = Instant::now() + Duration::from_secs(20);
    // The last line of the file, which is whole again.
    let written = || {
        let text = fs::read_to_string(&path).unwrap();
        let whole = |line: &&str| serde_json::from_str::<Value>(line).is_ok();
        let (whole, torn): (Vec<_>, Vec<_>) = text.lines().partition(whole);
        assert!(torn.len() <= 1, "{torn:?}");
        whole
            .last()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
    };
    fs::remove_file(&filler).unwrap();
    let id = unlock().await;
    while written().is_none_or(|last| last["request_id"] != id) {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_a_fault_of_the_configuration_that_names_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("missing/audit.log");
    let data = folder.path().join("data");
    let settings = || {
        [
            ("CAMEO_DATA_DIR", data.to_str().unwrap().to_owned()),
            ("CAMEO_HTTP__BIND", "127.0.0.1:0".to_owned()),
            (
                "CAMEO_TELEMETRY__AUDIT_FILE",
                path.to_str().unwrap().to_owned(),
            ),
        ]
    };
    for command in ["check-config", "serve", "doctor", "gc"] {
        let (code, said) = run_program(&[command], settings()).await;
        assert_eq!(code, 2, "{command}: {said}");
        for part in [
            path.to_str().unwrap(),
            "AUDIT_FILE",
            "No such file or directory",
        ] {
            let part = part.to_lowercase();
            assert!(said.to_lowercase().contains(&part), "{command}: {said}");
        }
    }
    let (code, said) = run_program(&["gc", "--dry-run"], settings()).await;
    assert_eq!(code, 0, "{said}");
    // A file that can be opened is good, and a check does not create it.
    fs::create_dir(path.parent().unwrap()).unwrap();
    let (code, said) = run_program(&["check-config"], settings()).await;
    assert_eq!((code, path.exists()), (0, false), "{said}");
    let (code, said) = run_program(&["doctor"], settings()).await;
    assert_eq!((code, path.exists()), (0, false), "{said}");
    assert!(
        said.contains("good     audit records are written to"),
        "{said}"
    );
}

#[tokio::test]
async fn maintenance_records_itself_and_every_record_that_it_changes_as_the_system() {
    let service = TestService::start_fleet(&[]).await;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("audit.log");
    let audit = [(
        "CAMEO_TELEMETRY__AUDIT_FILE",
        path.to_str().unwrap().to_owned(),
    )];
    let cameo = async |words: &[&str]| {
        let settings = service.variables().into_iter().chain(audit.clone());
        let (code, said) = run_program(words, settings).await;
        assert_eq!(code, 0, "{said}");
        let found = lines(&path);
        fs::remove_file(&path).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|line| {
                assert_eq!(
                    (&line["actor"], &line["role"]),
                    (&json!("system"), &json!("system"))
                );
                assert_eq!(
                    (&line["request_id"], &line["outcome"]),
                    (&Value::Null, &json!("done"))
                );

                ["action", "subject", "avatar_id"].map(|name| line[name].clone())
            })
            .collect();
        found
    };
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let id = avatar["avatar_id"].clone();
    put_lock(&service.service(), &json!({})).await.ok();
    let run = |action: &str| [json!(action), Value::Null, Value::Null];
    assert_eq!(cameo(&["gc"]).await, [run("gc")]);
    assert_eq!(cameo(&["rebuild"]).await, [run("rebuild")]);
    service.backend().empty_redis();
    let restored = [json!("restore_record"), json!("42"), id.clone()];
    let lock = [json!("restore_policy"), json!("42"), Value::Null];
    assert_eq!(cameo(&["rebuild"]).await, [lock, restored, run("rebuild")]);
    for key in service.objects().await {
        if key.contains(id.as_str().unwrap()) {
            service.remove_object(&key).await;
        }
    }
    let dropped = [json!("drop_record"), json!("42"), id];
    assert_eq!(cameo(&["gc"]).await, [dropped, run("gc")]);
}
