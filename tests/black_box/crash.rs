//! `kill -9` at any moment: every acknowledged change survives, and nothing else is left.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::photos::{self, PORTRAIT};
use crate::support::{Backend, Client, try_send, url_when_ready};

const ROUNDS: u64 = 6;
const USERS: usize = 4;

/// The program in a process of its own.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    async fn start(data: &Path, backend: &Backend) -> Self {
        Self::start_with(&[], data, backend).await
    }

    async fn start_with(variables: &[(&str, &str)], data: &Path, backend: &Backend) -> Self {
        let program = env!("CARGO_BIN_EXE_cameo").as_ref();
        Self::start_program(program, variables, data, backend).await
    }

    async fn start_program(
        program: &Path,
        variables: &[(&str, &str)],
        data: &Path,
        backend: &Backend,
    ) -> Self {
        let mut child = Command::new(program)
            .envs(backend.variables())
            .env("CAMEO_DATA_DIR", data)
            .env("CAMEO_HTTP__BIND", "127.0.0.1:0")
            .env("CAMEO_LIMITS__ENABLED", "false")
            .env("CAMEO_LIFECYCLE__RETIRE_AFTER", "0s")
            .env("CAMEO_LIFECYCLE__UPLOAD_DEADLINE", "4s")
            // Complete uploads whose commit is unknown are swept too.
            .env("CAMEO_LIFECYCLE__ORPHAN_GRACE", "0s")
            .env("CAMEO_LIFECYCLE__SWEEP_EVERY", "200ms")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = url_when_ready(&mut child).await;
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

/// Uploads until the connection fails, and records the version of the last answer.
async fn upload_until_disconnected(
    client: Client,
    user: String,
    last: Arc<Mutex<HashMap<String, u64>>>,
) {
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
async fn killing_the_process_loses_no_acknowledged_upload_and_leaves_nothing_else() {
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
                tokio::spawn(upload_until_disconnected(
                    client,
                    user.clone(),
                    Arc::clone(&last),
                ))
            })
            .collect();
        // Each round kills the process at a different moment of the uploads.
        tokio::time::sleep(Duration::from_millis(400 + 137 * round)).await;
        let begun = Instant::now();
        while round + 1 == ROUNDS
            && last.lock().unwrap().is_empty()
            && begun.elapsed() < Duration::from_mins(1)
        {
            // On a busy machine no upload may have finished yet.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        process.kill().await;
        for worker in workers {
            worker.await.unwrap();
        }
        let process = Process::start(data, &backend).await;
        check_acknowledged_avatars(&process, &users, &last).await;
        process.kill().await;
    }
    assert!(!last.lock().unwrap().is_empty(), "no upload succeeded");

    let process = Process::start(data, &backend).await;
    let kept = check_acknowledged_avatars(&process, &users, &last).await;
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
        // After four seconds unfinished uploads count as abandoned, and the claims of a killed
        // sweep expire. The rest of the time is for a busy machine.
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "objects are left: {left:#?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    check_acknowledged_avatars(&process, &users, &last).await;
}

/// A change during which the process is killed. The kill happens when the bucket has received this
/// many requests of the change and has not answered the last one.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Upload { at_request: usize },
    Delete { at_request: usize },
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_between_any_two_steps_of_an_upload_or_a_delete_leaves_the_old_or_the_new_state() {
    // An upload puts ten renditions and the manifest. A delete lists twice and deletes these
    // eleven.
    let uploads = (1..=11).map(|at_request| Cut::Upload { at_request });
    let deletes = (1..=13).map(|at_request| Cut::Delete { at_request });
    let cuts = futures_util::stream::iter(uploads.chain(deletes));
    cuts.for_each_concurrent(6, kill_during).await;
}

async fn kill_during(cut: Cut) {
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
        // The acknowledged avatar is unchanged.
        Cut::Upload { .. } => {
            assert_eq!(current.ok()["avatar_id"], kept["avatar_id"], "{cut:?}");
            11
        }
        // The record is removed first, so no reader sees an avatar with only some of its images.
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
async fn sigterm_ends_the_program_with_exit_code_0() {
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
    assert_eq!(ended.expect("the program ends").unwrap().code(), Some(0));
}

/// Reads every avatar and all of its images, and returns the ids of the current avatars.
async fn check_acknowledged_avatars(
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
        // A version above the acknowledged one was committed, but its answer was lost.
        let avatar = answer.ok();
        let version = avatar["version"].as_u64().unwrap();
        assert!(
            version >= acknowledged,
            "{user}: version {version}, but {acknowledged} was acknowledged"
        );
        kept.push(avatar["avatar_id"].as_str().unwrap().to_owned());
        for image in avatar["images"].as_array().unwrap() {
            // The port changes with each start, so only the path of the URL is used.
            let url = image["url"].as_str().unwrap();
            let path = &url[url.find("/files/").unwrap()..];
            let bytes = anyone.get(path).await;
            assert_eq!(bytes.status, 200, "{user}: {path}");
            assert_eq!(bytes.body.len() as u64, image["bytes"].as_u64().unwrap());
        }
    }
    kept
}

/// The processes whose parent is `parent` and whose name is `name`.
#[cfg(target_os = "linux")]
fn children(parent: u32, name: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let processes = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|process| {
            // A process may end while it is read.
            let status = std::fs::read_to_string(format!("/proc/{process}/status"));
            let status = status.unwrap_or_default();
            let has = |line: &str| status.lines().any(|other| other == line);
            has(&format!("Name:\t{name}"))
                && has(&format!("PPid:\t{parent}"))
                && !status.contains("State:\tZ")
        })
        .collect()
}

#[cfg(target_os = "linux")]
fn sigkill(process: u32) {
    let process = i32::try_from(process).unwrap();
    let process = rustix::process::Pid::from_raw(process).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
}

/// Four uploads are under way at once, each in a process of its own.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn killing_an_imaging_process_costs_its_upload_alone_and_killing_the_zygote_is_survived() {
    const UPLOADS: usize = 4;

    let (folder, backend) = (TempDir::new().unwrap(), Backend::start().await);
    let more = [
        ("CAMEO_PROCESSING__WORKERS", "4"),
        ("CAMEO_PROCESSING__MEMORY_BUDGET", "2GiB"),
        // A busy machine takes long for these pictures.
        ("CAMEO_PROCESSING__DEADLINE", "2m"),
        ("CAMEO_PROCESSING__QUEUE_TIMEOUT", "2m"),
        ("CAMEO_LIFECYCLE__UPLOAD_DEADLINE", "5m"),
    ];
    let process = Process::start_with(&more, folder.path(), &backend).await;
    let program = process.child.id().unwrap();
    let zygote = move || match children(program, "cameo-zygote")[..] {
        [zygote] => Some(zygote),
        _ => None,
    };
    let picture = photos::jpeg(4096, 4096);
    let uploads: Vec<_> = (0..UPLOADS)
        .map(|number| {
            let user = format!("user-{number}");
            let client = Client::new(&process.url, Some(token(folder.path(), &user)));
            let picture = picture.clone();
            tokio::spawn(async move { client.upload(&user, picture).await })
        })
        .collect();
    let first = zygote().expect("a zygote runs");
    let workers = until(|| {
        let workers = children(first, "cameo-imaging");
        (workers.len() == UPLOADS).then_some(workers)
    });
    let workers = workers.await;
    sigkill(workers[0]);

    let mut failed = Vec::new();
    for upload in uploads {
        let answer = upload.await.unwrap();
        if answer.status != 200 {
            failed.push(answer);
        }
    }
    let [failed] = &failed[..] else {
        panic!("{} uploads failed", failed.len());
    };
    assert_eq!(failed.problem(), (503, "overloaded".to_owned()));
    assert!(!failed.header("retry-after").is_empty());
    assert_eq!(zygote(), Some(first), "the zygote goes on");

    sigkill(first);
    let client = Client::new(&process.url, Some(token(folder.path(), "42")));
    until(|| zygote().filter(|zygote| *zygote != first)).await;
    client.upload("42", photos::png(100, 100)).await.ok();
}

/// Polls until there is a value.
#[cfg(target_os = "linux")]
async fn until<T>(mut value: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "it never holds");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// An update replaces the file of the running program. AV1 is still decoded by the running one.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_avif_is_accepted_after_the_programs_file_was_replaced() {
    let (data, backend) = (TempDir::new().unwrap(), Backend::start().await);
    let program = data.path().join("cameo");
    // Another process copies the file. If this process copied it, a child that another test starts
    // meanwhile would inherit the writable descriptor, and a file open for writing cannot be
    // executed.
    let copied = Command::new("cp")
        .args([Path::new(env!("CARGO_BIN_EXE_cameo")), &program])
        .status();
    assert!(copied.await.unwrap().success());
    let process = Process::start_program(&program, &[], data.path(), &backend).await;
    let other = data.path().join("other");
    std::fs::copy("/bin/false", &other).unwrap();
    std::fs::rename(&other, &program).unwrap();
    let client = Client::new(&process.url, Some(token(data.path(), "42")));
    client.upload("42", photos::AVIF).await.ok();
    process.kill().await;
}
