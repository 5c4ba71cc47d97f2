//! A bucket that an operator has prepared with `minio-init.sh` and the real `mc`. The tests check
//! the rights of the user that the script makes for the service, and the rights of everyone else.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use reqwest::Method;
use tempfile::TempDir;

use crate::doctor;
use crate::features::{self, WORKS, block_on, describe};
use crate::server::Server;
use crate::suites::{Outcome, Suites};
use crate::{Faults, Store, report};

/// The script.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/minio-init.sh");
/// The result of a call that the server denies.
const REFUSED: &str = "fails: 403 AccessDenied";
/// The contract suite of the store works in a prepared bucket. The store's other tests need a missing
/// or differently configured bucket.
const CONTRACT: &str = "storage::s3::tests::contract_suite::";

/// A bucket, and the key and secret of its user.
struct Bucket<'a> {
    name: &'a str,
    user: (&'a str, &'a str),
}

const OURS: Bucket<'static> = Bucket {
    name: "avatars",
    user: ("cameo-service", "secret-of-cameo-service"),
};
/// Another bucket and user on the same server, made by the same script.
const OTHERS: Bucket<'static> = Bucket {
    name: "portraits",
    user: ("another-service", "secret-of-another-service"),
};

/// The results for a prepared bucket.
pub(crate) struct Prepared {
    /// The version of `mc`.
    pub(crate) client: String,
    /// Results of the script, of the doctor, and of the rights, each with its name.
    pub(crate) rows: Vec<(&'static str, String)>,
    /// The store's contract, in a bucket that the script made, as its user.
    pub(crate) contract: Outcome,
    /// The black-box tests, each with such a bucket and user of its own.
    pub(crate) black_box: Outcome,
}

/// Tests prepared buckets on a server whose script installs `mc`. `variables` make the suites use
/// the server.
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
            format!("wrong: {wrong}")
        });
        println!("{:<10}  prepared, {name}: {seen}", store.name);
        rows.push((name, seen));
    };
    row("the script, run twice", operator.make_twice(server));
    let (code, output) = doctor::of_bucket(server, OURS.name, OURS.user, "policy");
    let is_good = code == 0 && !output.contains("warning");
    row(
        "`cameo doctor`, as the new user",
        if is_good {
            Ok("good".to_owned())
        } else {
            Err(output)
        },
    );
    let less = operator.make_with_less(server);
    row("`cameo doctor`, if the user lacks a right", less);
    for (name, seen) in block_on(check_anyone(server)) {
        row(name, seen);
    }
    for (name, seen) in block_on(check_user(server, &operator)) {
        row(name, seen);
    }

    let mut variables = variables.to_vec();
    variables.push(("TEST_S3_PREPARED_BY".to_owned(), SCRIPT.to_owned()));
    variables.push(("PATH".to_owned(), operator.path));
    let name = store.name;
    let log = format!("{name}-prepared");
    let contract = suites.unit(&log, &[CONTRACT], &[], &variables);
    let contract = report(name, "prepared, store", contract, faults);
    let black_box = suites.black_box(&log, &["by_creation::"], &variables);
    let black_box = report(name, "prepared, black-box", black_box, faults);
    Prepared {
        client: operator.client_version,
        rows,
        contract,
        black_box,
    }
}

/// An operator with `mc` and all rights.
struct Operator {
    client: String,
    client_version: String,
    /// The `PATH`, which includes the folder of `mc`.
    path: String,
    /// The environment variables with which the script uses the server.
    server: [(&'static str, String); 3],
}

impl Operator {
    fn of(server: &Server) -> Self {
        let fact = |name| {
            server
                .fact(name)
                .expect("the script of the server installs mc")
                .to_owned()
        };
        let client = fact("MC");
        let (folder, _) = client.rsplit_once('/').expect("an absolute path of mc");
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

    /// Runs the script or a variation of it, which makes a bucket, its policy and its user.
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

    /// Makes our bucket, then another one, then runs the script for ours again, which is in use.
    fn make_twice(&self, server: &Server) -> Result<String, String> {
        let admin = features::client(server, server.admin());
        let service = features::client(server, OURS.user);
        self.make(SCRIPT, &OURS)?;
        let before = block_on(describe_state(&admin, &service))?;
        self.make(SCRIPT, &OTHERS)?;
        self.make(SCRIPT, &OURS)?;
        let after = block_on(describe_state(&admin, &service))?;
        if after != before {
            return Err(format!("{before:?} has become {after:?}"));
        }
        Ok("works; the second run changes nothing".to_owned())
    }

    /// Removes each right of the user from the script in turn. Without it, the doctor must reject
    /// the bucket and name the missing right.
    fn make_with_less(&self, server: &Server) -> Result<String, String> {
        let text = fs::read_to_string(SCRIPT).unwrap();
        let (before, of_the_user) = text
            .split_once("service.json")
            .ok_or("the script has no service.json")?;
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
            let (code, output) = doctor::of_bucket(server, bucket.name, bucket.user, "policy");
            if code != 2 || !output.contains(&format!("grant them {right}")) {
                return Err(format!(
                    "without {right} the doctor answered {code}: {output}"
                ));
            }
        }
        if rights.is_empty() {
            return Err("the script grants nothing".to_owned());
        }
        Ok(format!(
            "each right is needed, and the doctor names it: {}",
            rights.join(", ")
        ))
    }

    /// Whether this user can use the administration of the server.
    fn administration(&self, server: &Server, (key, secret): (&str, &str)) -> String {
        let host = server.endpoint().trim_start_matches("http://");
        let asked = Command::new(&self.client)
            .args(["admin", "user", "list", "here"])
            .env("MC_HOST_here", format!("http://{key}:{secret}@{host}"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&asked.stderr).into_owned();
        match asked.status.success() {
            true => WORKS.to_owned(),
            false if output.contains("Access Denied") => REFUSED.to_owned(),
            false => output,
        }
    }
}

/// Describes what a second run must not change: the policy of the bucket, and two objects that the
/// service can read. Writes the objects if they are missing.
async fn describe_state(admin: &Client, service: &Client) -> Result<Vec<String>, String> {
    let policy = admin.get_bucket_policy().bucket(OURS.name).send().await;
    let policy = policy
        .map_err(|error| describe::<(), _>(Err(error)))?
        .policy;
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
        let object = get.map_err(|error| describe::<(), _>(Err(error)))?;
        kept.push(format!("{key} of {:?}", object.last_modified));
    }
    Ok(kept)
}

async fn put(client: &Client, bucket: &str, key: &str) -> String {
    let put = client.put_object().bucket(bucket).key(key);
    describe(put.body(ByteStream::from_static(b"cameo")).send().await)
}

/// The name of a check, and its result, or what is wrong.
type Checked = (&'static str, Result<String, String>);

/// Checks which calls anyone can make without credentials.
async fn check_anyone(server: &Server) -> Vec<Checked> {
    let http = reqwest::Client::new();
    let ask = async |method: Method, path: &str| {
        let url = format!("{}/{}/{path}", server.endpoint(), OURS.name);
        let answer = http.request(method, url).body("cameo").send().await;
        match answer.unwrap().status().as_u16() {
            200..=299 => WORKS.to_owned(),
            403 => REFUSED.to_owned(),
            status => format!("fails: {status}"),
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
        ("anyone can", expect_all(&may, WORKS)),
        ("anyone cannot", expect_all(&may_not, REFUSED)),
    ]
}

/// Checks which calls the user of the service can make.
async fn check_user(server: &Server, operator: &Operator) -> Vec<Checked> {
    let (ours, theirs) = (OURS.name, OTHERS.name);
    let user = features::client(server, OURS.user);
    let other = features::client(server, OTHERS.user);
    let delete = async |client: &Client, bucket: &str, key: &str| {
        describe(client.delete_object().bucket(bucket).key(key).send().await)
    };
    let get = async |client: &Client, bucket: &str, key: &str| {
        describe(client.get_object().bucket(bucket).key(key).send().await)
    };
    let list = async |client: &Client, bucket: &str| {
        describe(client.list_objects_v2().bucket(bucket).send().await)
    };
    let may = [
        (
            "HeadBucket",
            describe(user.head_bucket().bucket(ours).send().await),
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
        ("GetBucketPolicy", describe(get_policy)),
        ("PutBucketPolicy", describe(put_policy.send().await)),
        ("DeleteBucketPolicy", describe(delete_policy)),
        (
            "DeleteBucket",
            describe(user.delete_bucket().bucket(ours).send().await),
        ),
    ];
    // The object exists, so that reading it can be denied.
    let written = [(
        "PutObject of another's user",
        put(&other, theirs, "private/kept").await,
    )];
    let nor_elsewhere = [
        (
            "CreateBucket",
            describe(user.create_bucket().bucket("new").send().await),
        ),
        ("ListObjectsV2", list(&user, theirs).await),
        ("GetObject", get(&user, theirs, "private/kept").await),
        ("PutObject", put(&user, theirs, "private/new").await),
        ("DeleteObject", delete(&user, theirs, "private/kept").await),
        (
            "administration of the server",
            operator.administration(server, OURS.user),
        ),
    ];
    let elsewhere = expect_all(&written, WORKS).and_then(|_| expect_all(&nor_elsewhere, REFUSED));

    let buckets = user.list_buckets().send().await.map(|answer| {
        let names = answer.buckets.unwrap_or_default().into_iter();
        names.filter_map(|bucket| bucket.name).collect::<Vec<_>>()
    });
    let shown = match buckets {
        Ok(names) if names == [ours] => Ok("only its own".to_owned()),
        Ok(names) => Err(format!("{names:?}")),
        error => Err(describe(error)),
    };
    vec![
        ("the user can, in its bucket", expect_all(&may, WORKS)),
        (
            "the user cannot, in its bucket",
            expect_all(&may_not, REFUSED),
        ),
        ("the user cannot, elsewhere", elsewhere),
        ("ListBuckets shows the user", shown),
    ]
}

/// The names of the calls if each had this result; otherwise the other results.
fn expect_all(calls: &[(&str, String)], wanted: &str) -> Result<String, String> {
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
