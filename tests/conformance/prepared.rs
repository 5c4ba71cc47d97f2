//! A bucket that an operator has made beforehand with `minio-init.sh` and the real `mc`: what
//! the user that it makes for the service can do, and what neither that user nor anybody else can.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use reqwest::Method;
use tempfile::TempDir;

use crate::doctor;
use crate::features::{self, WORKS, block_on, said};
use crate::server::Server;
use crate::suites::{Outcome, Suites};
use crate::{Faults, Store, told};

/// The script, called with the settings that it tells of itself.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/minio-init.sh");
/// How a server refuses what somebody may not do.
const REFUSED: &str = "does not: 403 AccessDenied";
/// The one test of the store that needs no bucket that is missing or set up in another way.
const CONTRACT: &str = "storage::s3::tests::a_bucket_keeps_the_contract_of_a_store";

/// A bucket, and its user's key and secret.
struct Bucket<'a> {
    name: &'a str,
    user: (&'a str, &'a str),
}

const OURS: Bucket<'static> = Bucket {
    name: "avatars",
    user: ("cameo-service", "secret-of-cameo-service"),
};
/// Another's on the same server, made by the same script.
const OTHERS: Bucket<'static> = Bucket {
    name: "portraits",
    user: ("another-service", "secret-of-another-service"),
};

/// What was seen.
pub(crate) struct Prepared {
    /// The version of `mc`.
    pub(crate) client: String,
    /// Of the script, of the doctor, and of who may do what: each with what came of it.
    pub(crate) rows: Vec<(&'static str, String)>,
    /// The store's contract, in a bucket that the script has made and by its user.
    pub(crate) contract: Outcome,
    /// The service, black-box, each test with such a bucket and user.
    pub(crate) black_box: Outcome,
}

/// Tries it on a server whose script brings `mc`; `variables` lead the suites there.
pub(crate) fn of_store(
    store: &Store,
    server: &Server,
    suites: &Suites,
    variables: &[(String, String)],
    faults: &mut Faults,
) -> Prepared {
    let operator = Operator::of(server);
    let mut rows = Vec::new();
    let mut row = |name: &'static str, seen: Result<String, String>| {
        let seen = seen.unwrap_or_else(|wrong| {
            faults.add(format!("{}: minio-init.sh: {name}: {wrong}", store.name));
            format!("not as it should be: {wrong}")
        });
        println!("{:<10}  prepared, {name}: {seen}", store.name);
        rows.push((name, seen));
    };
    row("the script, run twice", operator.make_twice(server));
    let (code, said) = doctor::of_bucket(server, OURS.name, OURS.user, "policy");
    let is_good = code == 0 && !said.contains("warning");
    row(
        "`cameo doctor`, as the user that it made",
        if is_good {
            Ok("good".to_owned())
        } else {
            Err(said)
        },
    );
    let less = operator.make_with_less(server);
    row("`cameo doctor`, where the user lacks a right", less);
    for (name, seen) in block_on(anybody(server)) {
        row(name, seen);
    }
    for (name, seen) in block_on(the_user(server, &operator)) {
        row(name, seen);
    }

    let mut variables = variables.to_vec();
    variables.push(("TEST_S3_PREPARED_BY".to_owned(), SCRIPT.to_owned()));
    variables.push(("PATH".to_owned(), operator.path));
    let name = store.name;
    let log = format!("{name}-prepared");
    let contract = suites.unit(&log, &[CONTRACT], &[], &variables);
    let contract = told(name, "prepared, store", contract, faults);
    let black_box = suites.black_box(&log, &[], &variables);
    let black_box = told(name, "prepared, black-box", black_box, faults);
    Prepared {
        client: operator.client_version,
        rows,
        contract,
        black_box,
    }
}

/// Who has `mc` at hand, and may do everything.
struct Operator {
    client: String,
    client_version: String,
    /// Where programs are looked for, `mc` among them.
    path: String,
    /// The variables that lead the script to the server.
    server: [(&'static str, String); 3],
}

impl Operator {
    fn of(server: &Server) -> Self {
        let fact = |name| server.fact(name).expect("its script brings mc").to_owned();
        let client = fact("MC");
        let (folder, _) = client.rsplit_once('/').expect("mc's path is a whole one");
        let path = std::env::var("PATH").unwrap_or_default();
        let (user, password) = server.admin();
        Self {
            path: format!("{folder}:{path}"),
            client_version: fact("MC_VERSION"),
            server: [
                ("MINIO_URL", server.endpoint().to_owned()),
                ("MINIO_ROOT_USER", user.to_owned()),
                ("MINIO_ROOT_PASSWORD", password.to_owned()),
            ],
            client,
        }
    }

    /// Has the script, or a variation of it, make a bucket, its policy and its user.
    fn make(&self, script: impl AsRef<OsStr>, bucket: &Bucket<'_>) -> Result<(), String> {
        let made = Command::new("sh")
            .arg(script)
            .env("PATH", &self.path)
            .envs(self.server.iter().map(|(name, value)| (name, value)))
            .env("CAMEO_BUCKET", bucket.name)
            .env("CAMEO_ACCESS_KEY", bucket.user.0)
            .env("CAMEO_SECRET_KEY", bucket.user.1)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if made.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&made.stderr).into_owned())
    }

    /// Makes our bucket, then another's, then ours again over what is in use.
    fn make_twice(&self, server: &Server) -> Result<String, String> {
        let admin = features::client(server, server.admin());
        let service = features::client(server, OURS.user);
        self.make(SCRIPT, &OURS)?;
        let before = block_on(kept(&admin, &service))?;
        self.make(SCRIPT, &OTHERS)?;
        self.make(SCRIPT, &OURS)?;
        let after = block_on(kept(&admin, &service))?;
        if after != before {
            return Err(format!("{before:?} has become {after:?}"));
        }
        Ok("works; the second run changes nothing".to_owned())
    }

    /// Takes one right after the other out of what the script gives the user: without any of them
    /// the service must not find its bucket good, and the doctor must name the one that it lacks.
    fn make_with_less(&self, server: &Server) -> Result<String, String> {
        let text = fs::read_to_string(SCRIPT).unwrap();
        let (before, of_the_user) = text
            .split_once("service.json")
            .ok_or("it has no service.json")?;
        let rights = of_the_user.split('"');
        let rights: Vec<_> = rights.filter(|word| word.starts_with("s3:")).collect();
        let folder = TempDir::new().unwrap();
        for right in &rights {
            let (quoted, harmless) = (format!("\"{right}\""), "\"s3:GetBucketTagging\"");
            let of_the_user = of_the_user.replacen(&quoted, harmless, 1);
            let script = folder.path().join(right);
            fs::write(&script, format!("{before}service.json{of_the_user}")).unwrap();
            let name = right.replace("s3:", "no-").to_lowercase();
            let bucket = Bucket {
                name: &name,
                user: (&name, OURS.user.1),
            };
            self.make(&script, &bucket)?;
            let (code, said) = doctor::of_bucket(server, bucket.name, bucket.user, "policy");
            if code != 2 || !said.contains(&format!("grant them {right}")) {
                return Err(format!("without {right} it said {code}: {said}"));
            }
        }
        if rights.is_empty() {
            return Err("the script grants nothing".to_owned());
        }
        Ok(format!("each is needed, and named: {}", rights.join(", ")))
    }

    /// What the server's administration tells this user.
    fn administration(&self, server: &Server, (key, secret): (&str, &str)) -> String {
        let host = server.endpoint().trim_start_matches("http://");
        let asked = Command::new(&self.client)
            .args(["admin", "user", "list", "here"])
            .env("MC_HOST_here", format!("http://{key}:{secret}@{host}"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        match asked.status.success() {
            true => WORKS.to_owned(),
            false if said.contains("Access Denied") => REFUSED.to_owned(),
            false => said,
        }
    }
}

/// What a second run must not change: the bucket's policy and its objects, as the service reads
/// them. What is not there yet it writes.
async fn kept(admin: &Client, service: &Client) -> Result<Vec<String>, String> {
    let policy = admin.get_bucket_policy().bucket(OURS.name).send().await;
    let policy = policy.map_err(|error| said::<(), _>(Err(error)))?.policy;
    let mut kept = vec![policy.unwrap_or_default()];
    for key in ["public/kept", "private/kept"] {
        let head = service.head_object().bucket(OURS.name).key(key);
        if head.send().await.is_err() {
            let put = put(service, OURS.name, key).await;
            if put != WORKS {
                return Err(format!("PutObject: {put}"));
            }
        }
        let get = service.get_object().bucket(OURS.name).key(key).send().await;
        let object = get.map_err(|error| said::<(), _>(Err(error)))?;
        kept.push(format!("{key} of {:?}", object.last_modified));
    }
    Ok(kept)
}

async fn put(client: &Client, bucket: &str, key: &str) -> String {
    let put = client.put_object().bucket(bucket).key(key);
    said(put.body(ByteStream::from_static(b"cameo")).send().await)
}

/// Something to be able to do, or not, with what came of it where that was as it should be, or else
/// with what was wrong.
type Tried = (&'static str, Result<String, String>);

/// Tries what anybody may do, and may not.
async fn anybody(server: &Server) -> Vec<Tried> {
    let http = reqwest::Client::new();
    let ask = async |method: Method, path: &str| {
        let url = format!("{}/{}/{path}", server.endpoint(), OURS.name);
        let answer = http.request(method, url).body("cameo").send().await;
        match answer.unwrap().status().as_u16() {
            200..=299 => WORKS.to_owned(),
            403 => REFUSED.to_owned(),
            status => format!("does not: {status}"),
        }
    };
    let may = [(
        "GetObject in public/",
        ask(Method::GET, "public/kept").await,
    )];
    let may_not = [
        (
            "GetObject in private/",
            ask(Method::GET, "private/kept").await,
        ),
        ("ListObjectsV2", ask(Method::GET, "?list-type=2").await),
        ("PutObject in public/", ask(Method::PUT, "public/new").await),
        (
            "DeleteObject in public/",
            ask(Method::DELETE, "public/kept").await,
        ),
    ];
    vec![
        ("anybody may", all(&may, WORKS)),
        ("anybody may not", all(&may_not, REFUSED)),
    ]
}

/// Tries what the service's user may do, and may not.
async fn the_user(server: &Server, operator: &Operator) -> Vec<Tried> {
    let (ours, theirs) = (OURS.name, OTHERS.name);
    let user = features::client(server, OURS.user);
    let other = features::client(server, OTHERS.user);
    let delete = async |client: &Client, bucket: &str, key: &str| {
        said(client.delete_object().bucket(bucket).key(key).send().await)
    };
    let get = async |client: &Client, bucket: &str, key: &str| {
        said(client.get_object().bucket(bucket).key(key).send().await)
    };
    let list = async |client: &Client, bucket: &str| {
        said(client.list_objects_v2().bucket(bucket).send().await)
    };
    let may = [
        (
            "HeadBucket",
            said(user.head_bucket().bucket(ours).send().await),
        ),
        ("ListObjectsV2", list(&user, ours).await),
        ("PutObject", put(&user, ours, "private/new").await),
        ("GetObject", get(&user, ours, "private/new").await),
        ("DeleteObject", delete(&user, ours, "private/new").await),
    ];
    let get_policy = user.get_bucket_policy().bucket(ours).send().await;
    let put_policy = user.put_bucket_policy().bucket(ours).policy("{}");
    let delete_policy = user.delete_bucket_policy().bucket(ours).send().await;
    let may_not = [
        ("GetBucketPolicy", said(get_policy)),
        ("PutBucketPolicy", said(put_policy.send().await)),
        ("DeleteBucketPolicy", said(delete_policy)),
        (
            "DeleteBucket",
            said(user.delete_bucket().bucket(ours).send().await),
        ),
    ];
    // There is something to be refused: its owner wrote it.
    let written = [(
        "PutObject of another's user",
        put(&other, theirs, "private/kept").await,
    )];
    let nor_elsewhere = [
        (
            "CreateBucket",
            said(user.create_bucket().bucket("new").send().await),
        ),
        ("ListObjectsV2", list(&user, theirs).await),
        ("GetObject", get(&user, theirs, "private/kept").await),
        ("PutObject", put(&user, theirs, "private/new").await),
        ("DeleteObject", delete(&user, theirs, "private/kept").await),
        (
            "the server's administration",
            operator.administration(server, OURS.user),
        ),
    ];
    let elsewhere = all(&written, WORKS).and_then(|_| all(&nor_elsewhere, REFUSED));

    let buckets = user.list_buckets().send().await.map(|answer| {
        let names = answer.buckets.unwrap_or_default().into_iter();
        names.filter_map(|bucket| bucket.name).collect::<Vec<_>>()
    });
    let shown = match buckets {
        Ok(names) if names == [ours] => Ok("its own alone".to_owned()),
        Ok(names) => Err(format!("{names:?}")),
        error => Err(said(error)),
    };
    vec![
        ("the user may, in its bucket", all(&may, WORKS)),
        ("the user may not, in its bucket", all(&may_not, REFUSED)),
        ("the user may not, elsewhere", elsewhere),
        ("ListBuckets shows the user", shown),
    ]
}

/// The names of the calls, where each had this for an answer; else what the others had.
fn all(calls: &[(&str, String)], wanted: &str) -> Result<String, String> {
    let others = calls.iter().filter(|(_, seen)| seen != wanted);
    let others: Vec<_> = others
        .map(|(name, seen)| format!("{name}: {seen}"))
        .collect();
    if others.is_empty() {
        let names: Vec<_> = calls.iter().map(|(name, _)| *name).collect();
        Ok(names.join(", "))
    } else {
        Err(others.join(", "))
    }
}
