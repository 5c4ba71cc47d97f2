//! kill -9, and what is left: everything that was acknowledged, and nothing else.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::photos::{self, PORTRAIT};
use crate::support::{Backend, Client, try_send};

const ROUNDS: u64 = 6;
const USERS: usize = 4;

/// The program itself, in a process of its own.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    async fn start(data: &Path, backend: &Backend) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_cameo").as_ref(), data, backend).await
    }

    async fn start_program(program: &Path, data: &Path, backend: &Backend) -> Self {
        let mut child = Command::new(program)
            .envs(backend.variables())
            .env("CAMEO_DATA_DIR", data)
            .env("CAMEO_HTTP__BIND", "127.0.0.1:0")
            .env("CAMEO_LIMITS__ENABLED", "false")
            .env("CAMEO_LIFECYCLE__RETIRE_AFTER", "0s")
            .env("CAMEO_LIFECYCLE__UPLOAD_DEADLINE", "4s")
            // A complete upload whose commit is unknown is swept as well.
            .env("CAMEO_LIFECYCLE__ORPHAN_GRACE", "0s")
            .env("CAMEO_LIFECYCLE__SWEEP_EVERY", "200ms")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = loop {
            let line = lines
                .next_line()
                .await
                .unwrap()
                .expect("it says where it listens");
            if let Some((_, rest)) = line.split_once("Cameo is ready at ") {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
        };
        Self { child, url }
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

fn token(data: &Path, user: &str) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_cameo"))
        .args(["token", "--sub", user])
        .env("CAMEO_DATA_DIR", data)
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Uploads until the line breaks, and remembers the version that was answered last.
async fn work(client: Client, user: String, last: Arc<Mutex<HashMap<String, u64>>>) {
    let pictures = [
        PORTRAIT.to_vec(),
        photos::png(300, 200),
        photos::jpeg(640, 480),
    ];
    for number in 0.. {
        let picture = pictures[number % pictures.len()].clone();
        let request = client.request(
            reqwest::Method::POST,
            &format!("/api/v1/users/{user}/avatar"),
        );
        let request = request.multipart(crate::support::form(picture));
        let Ok(answer) = try_send(request).await else {
            return;
        };
        if answer.status != 200 {
            continue;
        }
        let body = answer.json();
        last.lock()
            .unwrap()
            .insert(user.clone(), body["version"].as_u64().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_process_loses_nothing_acknowledged_and_leaves_nothing_else() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    let backend = Backend::start().await;
    let last = Arc::new(Mutex::new(HashMap::new()));
    let users: Vec<_> = (0..USERS).map(|number| format!("user-{number}")).collect();
    for round in 0..ROUNDS {
        let process = Process::start(data, &backend).await;
        let workers: Vec<_> = users
            .iter()
            .map(|user| {
                let client = Client::new(&process.url, Some(token(data, user)));
                tokio::spawn(work(client, user.clone(), Arc::clone(&last)))
            })
            .collect();
        // At another moment of an upload's life each time.
        tokio::time::sleep(Duration::from_millis(400 + 137 * round)).await;
        let begun = Instant::now();
        while round + 1 == ROUNDS
            && last.lock().unwrap().is_empty()
            && begun.elapsed() < Duration::from_mins(1)
        {
            // A busy machine may not have come to the end of any upload yet.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        process.kill().await;
        for worker in workers {
            worker.await.unwrap();
        }
        let process = Process::start(data, &backend).await;
        every_acknowledged_avatar_is_whole(&process, &users, &last).await;
        process.kill().await;
    }
    assert!(
        !last.lock().unwrap().is_empty(),
        "nothing was ever uploaded"
    );

    let process = Process::start(data, &backend).await;
    let kept = every_acknowledged_avatar_is_whole(&process, &users, &last).await;
    let begun = Instant::now();
    loop {
        let left: Vec<_> = backend
            .objects(data)
            .await
            .into_iter()
            .filter(|key| !kept.iter().any(|id| key.contains(id.as_str())))
            .collect();
        if left.is_empty() {
            break;
        }
        // Four seconds until what was under way is given up, or what a dead sweep had claimed comes
        // due again; the rest is leave for a busy machine.
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "left behind: {left:#?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    every_acknowledged_avatar_is_whole(&process, &users, &last).await;
}

/// A change that the process does not live to finish: it is killed when the bucket has got so many
/// of the change's requests, with the last of them unanswered.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Upload { at_request: usize },
    Delete { at_request: usize },
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_between_any_two_steps_of_an_upload_or_a_delete_keeps_every_promise() {
    // Ten renditions and the manifest; two listings, and each of those again.
    let uploads = (1..=11).map(|at_request| Cut::Upload { at_request });
    let deletes = (1..=13).map(|at_request| Cut::Delete { at_request });
    let cuts = futures_util::stream::iter(uploads.chain(deletes));
    cuts.for_each_concurrent(6, cut_off).await;
}

async fn cut_off(cut: Cut) {
    let (folder, backend) = (TempDir::new().unwrap(), Backend::fleet_with_faults().await);
    let process = Process::start(folder.path(), &backend).await;
    let owner = Client::new(&process.url, Some(token(folder.path(), "42")));
    let kept = owner.upload("42", photos::png(200, 200)).await.ok();

    let (method, at_request) = match cut {
        Cut::Upload { at_request } => (reqwest::Method::POST, at_request),
        Cut::Delete { at_request } => (reqwest::Method::DELETE, at_request),
    };
    let wanted = backend.requests() + at_request;
    backend.hold_after(at_request - 1);
    let request = owner.request(method, "/api/v1/users/42/avatar");
    let request = match cut {
        Cut::Upload { .. } => request.multipart(crate::support::form(photos::png(120, 120))),
        Cut::Delete { .. } => request,
    };
    let change = tokio::spawn(request.send());
    let reached = tokio::time::timeout(Duration::from_secs(30), async {
        while backend.requests() < wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(
        reached.await.is_ok(),
        "{cut:?}: {} of {wanted} requests",
        backend.requests()
    );
    process.kill().await;
    let answer = change.await.unwrap();
    assert!(answer.is_err(), "{cut:?} was answered: {answer:?}");
    backend.release();

    let process = Process::start(folder.path(), &backend).await;
    let current = Client::new(&process.url, None).avatar("42").await;
    let objects = match cut {
        // What was acknowledged is there as it was.
        Cut::Upload { .. } => {
            assert_eq!(current.ok()["avatar_id"], kept["avatar_id"], "{cut:?}");
            11
        }
        // The record goes first, so nobody ever sees an avatar with half of its images.
        Cut::Delete { .. } => {
            assert_eq!(current.problem().0, 404, "{cut:?}");
            0
        }
    };
    let id = kept["avatar_id"].as_str().unwrap();
    let swept = tokio::time::timeout(Duration::from_mins(1), async {
        while backend.objects(folder.path()).await.len() != objects {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let swept = swept.await;
    let left = backend.objects(folder.path()).await;
    assert!(swept.is_ok(), "{cut:?} left {left:#?}");
    assert!(
        left.iter().all(|key| key.contains(id)),
        "{cut:?} left {left:#?}"
    );
    process.kill().await;
}

#[tokio::test]
async fn sigterm_ends_the_program_in_order() {
    let folder = TempDir::new().unwrap();
    let backend = Backend::start().await;
    let mut process = Process::start(folder.path(), &backend).await;
    let client = Client::new(&process.url, Some(token(folder.path(), "42")));
    client.upload("42", PORTRAIT).await.ok();
    let pid = process.child.id().unwrap().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let ended = tokio::time::timeout(Duration::from_secs(10), process.child.wait()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(0));
}

/// Reads every avatar and every image of it, and gives the current avatar ids.
async fn every_acknowledged_avatar_is_whole(
    process: &Process,
    users: &[String],
    last: &Mutex<HashMap<String, u64>>,
) -> Vec<String> {
    let anyone = Client::new(&process.url, None);
    let last = last.lock().unwrap().clone();
    let mut kept = Vec::new();
    for user in users {
        let answer = anyone.avatar(user).await;
        let acknowledged = last.get(user).copied().unwrap_or(0);
        if answer.status == 404 && acknowledged == 0 {
            continue;
        }
        // It may have been committed, and its answer cut off.
        let avatar = answer.ok();
        let version = avatar["version"].as_u64().unwrap();
        assert!(
            version >= acknowledged,
            "{user}: {version} after {acknowledged} was answered"
        );
        kept.push(avatar["avatar_id"].as_str().unwrap().to_owned());
        for image in avatar["images"].as_array().unwrap() {
            // The port is another one after each start; the path is what counts.
            let url = image["url"].as_str().unwrap();
            let path = &url[url.find("/files/").unwrap()..];
            let bytes = anyone.get(path).await;
            assert_eq!(bytes.status, 200, "{user}: {path}");
            assert_eq!(bytes.body.len() as u64, image["bytes"].as_u64().unwrap());
        }
    }
    kept
}

/// The file of a running program is replaced, as an update does: AV1 is decoded by the one that runs.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_avif_is_taken_after_the_programs_file_has_been_replaced() {
    let (data, backend) = (TempDir::new().unwrap(), Backend::start().await);
    let program = data.path().join("cameo");
    // By another process: one that is started meanwhile, by another test, would hold the file open
    // to write for a moment, and no such program can be started.
    let copied = Command::new("cp")
        .args([Path::new(env!("CARGO_BIN_EXE_cameo")), &program])
        .status();
    assert!(copied.await.unwrap().success());
    let process = Process::start_program(&program, data.path(), &backend).await;
    let other = data.path().join("other");
    std::fs::copy("/bin/false", &other).unwrap();
    std::fs::rename(&other, &program).unwrap();
    let client = Client::new(&process.url, Some(token(data.path(), "42")));
    client.upload("42", photos::AVIF).await.ok();
    process.kill().await;
}
