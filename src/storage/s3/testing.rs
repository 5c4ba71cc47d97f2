//! An S3 server for tests: `s3s-fs` in this process, over real HTTP on the loopback.
//!
//! What `s3s-fs` lacks of S3 stands in front of it: bucket policies, anonymous reading by them, a
//! bucket that is there already, a bucket that is missing. So do faults: the next requests can be
//! answered 503, dropped or held up.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Result, s3_error};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{PublicAccess, S3Credentials, S3Settings};

const ACCESS_KEY: &str = "test";
const SECRET_KEY: &str = "test-secret";

/// What happens to a request instead of an answer.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// It is answered with this status.
    Status(u16),
    /// Its connection is closed.
    Drop,
    /// It is answered, this much later.
    Delay(Duration),
}

/// A running server; it ends with the value.
pub(crate) struct S3Server {
    shared: Arc<Shared>,
    address: String,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    service: S3Service,
    root: TempDir,
    policy: Arc<Mutex<Option<String>>>,
    faults: Mutex<VecDeque<Fault>>,
    /// What is refused with `AccessDenied`, by the query or method that tells it.
    denied: Mutex<Vec<&'static str>>,
    requests: Mutex<Vec<String>>,
}

impl S3Server {
    /// An empty server.
    pub(crate) async fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let policy = Arc::default();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        builder.set_access(ByPolicy(Arc::clone(&policy)));
        let shared = Arc::new(Shared {
            service: builder.build(),
            root,
            policy,
            faults: Mutex::default(),
            denied: Mutex::default(),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self {
            shared,
            address,
            task,
        }
    }

    /// Settings for a bucket on this server.
    pub(crate) fn settings(&self) -> S3Settings {
        S3Settings {
            bucket: "avatars".into(),
            endpoint: Some(self.address.clone()),
            region: "us-east-1".into(),
            path_style: true,
            public_access: PublicAccess::Policy,
            ca_file: None,
            trusted_origins: Vec::new(),
            credentials: Some(S3Credentials {
                access_key_id: ACCESS_KEY.into(),
                secret_access_key: SECRET_KEY.into(),
            }),
        }
    }

    /// Lets this happen to the next `count` requests.
    pub(crate) fn fail_next(&self, count: usize, fault: Fault) {
        let mut faults = self.shared.faults.lock().unwrap();
        faults.extend(std::iter::repeat_n(fault, count));
    }

    /// Nothing happens to later requests.
    pub(crate) fn clear_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Refuses every request whose method and address contain this, such as `PUT /avatars?policy`.
    pub(crate) fn deny(&self, what: &'static str) {
        self.shared.denied.lock().unwrap().push(what);
    }

    /// The bucket's policy.
    pub(crate) fn policy(&self) -> Option<String> {
        self.shared.policy.lock().unwrap().clone()
    }

    /// Puts a policy there, as an operator would.
    pub(crate) fn set_policy(&self, policy: &str) {
        *self.shared.policy.lock().unwrap() = Some(policy.to_owned());
    }

    /// Method and address of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The folder that holds the bucket's objects, by their paths.
    pub(crate) fn bucket_folder(&self) -> PathBuf {
        self.shared.root.path().join("avatars")
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service =
                hyper::service::service_fn(move |request| answer(Arc::clone(&shared), request));
            let http = Builder::new(TokioExecutor::new());
            let _ = http.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    let line = format!("{} {}", request.method(), request.uri());
    shared.requests.lock().unwrap().push(line.clone());
    let fault = shared.faults.lock().unwrap().pop_front();
    match fault {
        Some(Fault::Status(status)) => {
            let code = if status == 403 {
                "AccessDenied"
            } else {
                "SlowDown"
            };
            return Ok(refusal(StatusCode::from_u16(status)?, code));
        }
        Some(Fault::Drop) => return Err("dropped on purpose".into()),
        Some(Fault::Delay(by)) => tokio::time::sleep(by).await,
        None => {}
    }
    if shared
        .denied
        .lock()
        .unwrap()
        .iter()
        .any(|what| line.contains(what))
    {
        return Ok(refusal(StatusCode::FORBIDDEN, "AccessDenied"));
    }
    let path = request.uri().path().to_owned();
    let (bucket, key) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let exists = shared.root.path().join(bucket).is_dir();
    let query = request.uri().query().unwrap_or_default();
    if query
        .split('&')
        .any(|part| part == "policy" || part == "policy=")
    {
        return policy(&shared, request).await;
    }
    if key.is_empty() && request.method() == Method::PUT && query.is_empty() && exists {
        return Ok(refusal(StatusCode::CONFLICT, "BucketAlreadyOwnedByYou"));
    }
    if !key.is_empty() && !exists {
        return Ok(refusal(StatusCode::NOT_FOUND, "NoSuchBucket"));
    }
    Ok(shared.service.call(request.map(Body::from)).await?)
}

async fn policy(
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>> {
    if request.method() == Method::PUT {
        let body = axum::body::to_bytes(axum::body::Body::new(request.into_body()), 20_000).await?;
        *shared.policy.lock().unwrap() = Some(String::from_utf8(body.to_vec())?);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let policy = shared.policy.lock().unwrap().clone();
    Ok(match policy {
        Some(policy) => Response::new(Body::from(policy)),
        None => refusal(StatusCode::NOT_FOUND, "NoSuchBucketPolicy"),
    })
}

fn refusal(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>on purpose</Message></Error>");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}

/// Lets in whoever signed, and by the policy anybody.
struct ByPolicy(Arc<Mutex<Option<String>>>);

#[async_trait::async_trait]
impl S3Access for ByPolicy {
    async fn check(&self, request: &mut S3AccessContext<'_>) -> S3Result<()> {
        if request.credentials().is_some() {
            return Ok(());
        }
        let policy = self.0.lock().unwrap().clone().unwrap_or_default();
        let grants = |action: &str, resource: &str| {
            policy.contains(action) && policy.contains(&format!("{resource}\""))
        };
        let operation = request.s3_op().name();
        let allowed = match request.s3_path().as_object() {
            Some((_, key)) if operation == "GetObject" => {
                grants("s3:GetObject", "/*") && !grants("s3:GetObject", "public/*")
                    || grants("s3:GetObject", "public/*") && key.starts_with("public/")
            }
            _ => operation == "ListObjectsV2" && grants("s3:ListBucket", "avatars"),
        };
        if allowed {
            Ok(())
        } else {
            Err(s3_error!(AccessDenied))
        }
    }
}
