//! A full disk: uploads are refused, everything else works, and no restart is needed. The program
//! runs on a small tmpfs in its own mount namespace. `unshare` creates it without root if the
//! system has user namespaces.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::photos::{self, PORTRAIT};
use crate::support::{Backend, Client};

/// Enough for the catalog, its reserve and some avatars.
const DISK_BYTES: u64 = 12 << 20;
/// How long a test waits. The sweep removes leftovers only after the upload deadline.
const DEADLINE: Duration = Duration::from_mins(1);

/// The program with its data on a small disk.
struct OnSmallDisk {
    _child: Child,
    _place: TempDir,
    url: String,
    /// The path of the data folder outside the namespace.
    data: PathBuf,
}

impl OnSmallDisk {
    async fn start(settings: &[(&str, String)]) -> Self {
        let place = TempDir::new().unwrap();
        let mount = format!(
            "mount -t tmpfs -o size={DISK_BYTES},mode=0700 none \"$CAMEO_DATA_DIR\" && exec \"$0\""
        );
        let mut child = Command::new("unshare")
            .args(["-Urm", "sh", "-c", &mount, env!("CARGO_BIN_EXE_cameo")])
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .env("CAMEO_DATA_DIR", place.path())
            .env("CAMEO_HTTP__BIND", "127.0.0.1:0")
            .env("CAMEO_LIMITS__ENABLED", "false")
            .env("CAMEO_LIFECYCLE__UPLOAD_DEADLINE", "8s")
            .env("CAMEO_LIFECYCLE__SWEEP_EVERY", "200ms")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare, which is part of util-linux");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut errors = child.stderr.take().unwrap();
        let url = loop {
            let Some(line) = lines.next_line().await.unwrap() else {
                let mut said = String::new();
                errors.read_to_string(&mut said).await.unwrap();
                panic!(
                    "the program did not start on a tmpfs, which needs user namespaces \
                     (unshare -Urm): {said}"
                );
            };
            if let Some((_, rest)) = line.split_once("Cameo is ready at ") {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
        };
        // The log is read to the end, so that the program never blocks on a full pipe.
        tokio::spawn(async move { tokio::io::copy(&mut errors, &mut tokio::io::sink()).await });
        let root = format!("/proc/{}/root", child.id().unwrap());
        let data = Path::new(&root).join(place.path().strip_prefix("/").unwrap());
        Self {
            _child: child,
            _place: place,
            url,
            data,
        }
    }

    fn owner(&self, user: &str) -> Client {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_cameo"))
            .args(["token", "--sub", user])
            .env("CAMEO_DATA_DIR", &self.data)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let token = String::from_utf8(output.stdout).unwrap();
        Client::new(&self.url, Some(token.trim().to_owned()))
    }

    fn anyone(&self) -> Client {
        Client::new(&self.url, None)
    }

    fn filler(&self) -> PathBuf {
        self.data.join("filler")
    }

    /// Fills the rest of the disk.
    fn fill(&self) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        loop {
            match file.write_all(&[1; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    /// Waits until `/health/ready` answers 200 with this status, and returns the answer.
    async fn wait_for(&self, status: &str) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            let ready = self.anyone().get("/health/ready").await;
            assert_eq!(
                ready.status,
                200,
                "{}",
                String::from_utf8_lossy(&ready.body)
            );
            let ready = ready.json();
            if ready["status"] == status {
                return ready;
            }
            assert!(begun.elapsed() < DEADLINE, "{ready}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Repeats an upload until it succeeds, within a bounded time.
    async fn upload_when_there_is_room(&self, user: &str) {
        let (owner, begun) = (self.owner(user), Instant::now());
        loop {
            let answer = owner.upload(user, PORTRAIT).await;
            if answer.status == 200 {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{:?}", answer.problem());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// All files in a subfolder of the data folder.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files);
                } else {
                    files.push(path);
                }
            }
        }
        let mut files = Vec::new();
        walk(&self.data.join(folder), &mut files);
        files
    }
}

#[tokio::test]
async fn on_a_full_disk_uploads_are_refused_and_reads_and_deletes_succeed() {
    let service = OnSmallDisk::start(&[]).await;
    let (kept, deleted) = (service.owner("kept"), service.owner("deleted"));
    let avatar = kept.upload("kept", PORTRAIT).await.ok();
    deleted.upload("deleted", PORTRAIT).await.ok();

    service.fill();
    for user in ["new", "kept"] {
        let refused = service
            .owner(user)
            .upload(user, photos::png(300, 300))
            .await;
        let (status, code) = refused.problem();
        assert_eq!(status, 503, "{code}");
        assert!(
            code == "storage_unavailable" || code == "catalog_unavailable",
            "{code}"
        );
        assert_eq!(service.files("store/tmp"), [""; 0].map(PathBuf::from));
    }
    let ready = service.wait_for("degraded").await;
    let reasons = ready["reasons"].as_array().unwrap();
    assert!(
        reasons
            .iter()
            .any(|reason| reason.as_str().unwrap().contains("full")),
        "{ready}"
    );

    let read = service.anyone().avatar("kept").await.ok();
    assert_eq!(read["avatar_id"], avatar["avatar_id"]);
    let image = service
        .anyone()
        .get(avatar["avatar_url"].as_str().unwrap())
        .await;
    assert_eq!(image.status, 200);

    service.fill();
    deleted.delete("deleted").await.ok();
    assert_eq!(service.anyone().avatar("deleted").await.problem().0, 404);
    // The sweep removes the files of the refused uploads while the disk stays full.
    let id = avatar["avatar_id"].as_str().unwrap();
    let begun = Instant::now();
    loop {
        service.fill();
        let files = service.files("store");
        let left = files
            .iter()
            .filter(|file| !file.to_str().unwrap().contains(id));
        let left: Vec<_> = left.collect();
        if left.is_empty() {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "files are left: {left:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    service.make_room();
    service.upload_when_there_is_room("new").await;
    service.wait_for("ready").await;
    kept.upload("kept", PORTRAIT).await.ok();
}

#[tokio::test]
async fn a_catalog_on_a_full_disk_refuses_uploads_and_recovers_without_a_restart() {
    let bucket = Backend::fleet().await;
    let mut settings = bucket.variables();
    settings.retain(|(name, _)| name.starts_with("CAMEO_STORAGE__"));
    let service = OnSmallDisk::start(&settings).await;
    let (kept, deleted) = (service.owner("kept"), service.owner("deleted"));
    let avatar = kept.upload("kept", PORTRAIT).await.ok();
    deleted.upload("deleted", PORTRAIT).await.ok();

    service.fill();
    // Uploads succeed until the free space inside the database file is used up.
    let begun = Instant::now();
    let code = loop {
        let answer = service
            .owner("new")
            .upload("new", photos::png(120, 120))
            .await;
        if answer.status != 200 {
            break answer.problem();
        }
        assert!(
            begun.elapsed() < DEADLINE,
            "the catalog does not become full"
        );
    };
    assert_eq!(code, (503, "catalog_unavailable".to_owned()));
    let ready = service.wait_for("degraded").await;
    assert_eq!(ready["catalog"], "degraded", "{ready}");
    assert_eq!(ready["store"], "ok", "{ready}");
    assert_eq!(ready["reasons"][0], "the disk of the catalog is full");
    let read = service.anyone().avatar("kept").await.ok();
    assert_eq!(read["avatar_id"], avatar["avatar_id"]);
    service.fill();
    deleted.delete("deleted").await.ok();
    assert_eq!(service.anyone().avatar("deleted").await.problem().0, 404);
    let refused = service
        .owner("other")
        .upload("other", photos::png(120, 120))
        .await;
    assert_eq!(refused.problem(), (503, "catalog_unavailable".to_owned()));

    service.make_room();
    service.upload_when_there_is_room("other").await;
    service.wait_for("ready").await;
    let read = service.anyone().avatar("kept").await.ok();
    assert_eq!(read["avatar_id"], avatar["avatar_id"]);
    assert_eq!(service.anyone().avatar("deleted").await.problem().0, 404);
}

#[tokio::test]
async fn the_folder_of_a_new_catalog_is_synced_even_if_the_store_is_a_bucket() {
    let bucket = Backend::fleet().await;
    let mut settings = bucket.variables();
    settings.retain(|(name, _)| name.starts_with("CAMEO_STORAGE__"));
    let place = TempDir::new().unwrap();
    let (data, calls) = (place.path().join("data"), place.path().join("calls"));
    let ran = Command::new("strace")
        .args([
            "-f",
            "-y",
            "-qq",
            "-e",
            "trace=rename,renameat,renameat2,fsync",
            "-o",
        ])
        .args([
            calls.as_os_str(),
            env!("CARGO_BIN_EXE_cameo").as_ref(),
            "doctor".as_ref(),
        ])
        .envs(settings)
        .env("CAMEO_DATA_DIR", &data)
        .output()
        .await
        .expect("strace");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let calls = fs::read_to_string(calls).unwrap();
    let data = fs::canonicalize(data).unwrap();
    let renamed = calls.lines().position(|call| {
        call.contains("rename") && call.contains("catalog.redb.new") && call.contains("= 0")
    });
    let renamed = renamed.unwrap_or_else(|| panic!("the catalog was not created: {calls}"));
    let synced = format!("<{}>)", data.display());
    let is_sync = |call: &str| call.contains("fsync(") && call.contains(&synced);
    let later = calls.lines().skip(renamed + 1);
    assert!(
        later.into_iter().any(is_sync),
        "{} is not synced: {calls}",
        data.display()
    );
}
