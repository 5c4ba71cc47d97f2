//! An S3 server for tests: `s3s-fs` in this process over HTTP on the loopback, or the real server
//! that `TEST_S3_ENDPOINT` names.
//!
//! A front adds the features of S3 that `s3s-fs` lacks: bucket policies, anonymous reads, and the
//! answers for a bucket that exists or is missing. The front can also cause faults, before a real
//! server too: it can answer the next requests with 503, drop them or delay them.
//!
//! The variables for a real server are `TEST_S3_ENDPOINT`, `TEST_S3_ACCESS_KEY_ID`,
//! `TEST_S3_SECRET_ACCESS_KEY`, `TEST_S3_REGION` and `TEST_S3_PUBLIC_ACCESS` (`policy` or `none`).
//! Every [`S3Server`] is then a bucket of its own on that server. The service creates the bucket. If
//! `TEST_S3_PREPARED_BY` names a script (called like `minio-init.sh`), the script creates it, and a
//! user who may use only this bucket; the service gets that user's credentials.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use futures_util::stream::{self, StreamExt};
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
use tokio::process::Command;

use super::{PublicAccess, S3Credentials, S3Settings};

const ACCESS_KEY: &str = "test";
const SECRET_KEY: &str = "test-secret";

/// A fault of a request.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    /// The answer has this status.
    Status(u16),
    /// The connection is closed.
    Drop,
    /// The answer is delayed.
    Delay(Duration),
}

/// A running server. It stops when the value is dropped.
pub(crate) struct S3Server {
    settings: S3Settings,
    /// The credentials of a user with all permissions.
    operator: S3Credentials,
    front: Option<Front>,
}

/// The front of a server. It records requests and causes faults.
struct Front {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    behind: Behind,
    faults: Mutex<VecDeque<Fault>>,
    /// Parts of request lines that are refused with `AccessDenied`.
    denied: Mutex<Vec<String>>,
    requests: Mutex<Vec<String>>,
}

/// The server behind the front.
enum Behind {
    InProcess(InProcess),
    Real {
        http: reqwest::Client,
        endpoint: String,
    },
}

struct InProcess {
    service: S3Service,
    root: TempDir,
    policy: Arc<Mutex<Option<String>>>,
}

impl S3Server {
    /// An empty server, or a bucket on the real server that does not exist yet. A real server has no
    /// front, so there can be no faults.
    pub(crate) async fn start() -> Self {
        match real().await {
            Some((settings, operator)) => Self {
                settings,
                operator,
                front: None,
            },
            None => Self::start_in_process().await,
        }
    }

    /// Like [`start`](Self::start), always with a front.
    pub(crate) async fn start_with_faults() -> Self {
        let Some((settings, operator)) = real().await else {
            return Self::start_in_process().await;
        };
        let behind = Behind::Real {
            http: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            endpoint: settings.endpoint.clone().unwrap(),
        };
        Self::start_front(settings, operator, behind).await
    }

    async fn start_in_process() -> Self {
        let root = tempfile::tempdir().unwrap();
        let policy = Arc::default();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        builder.set_access(ByPolicy(Arc::clone(&policy)));
        let service = builder.build();
        let operator = S3Credentials {
            access_key_id: ACCESS_KEY.into(),
            secret_access_key: SECRET_KEY.into(),
        };
        let settings = S3Settings {
            bucket: "avatars".into(),
            endpoint: None,
            region: "us-east-1".into(),
            path_style: true,
            public_access: PublicAccess::Policy,
            ca_file: None,
            trusted_origins: Vec::new(),
            credentials: Some(operator.clone()),
        };
        let behind = Behind::InProcess(InProcess {
            service,
            root,
            policy,
        });
        Self::start_front(settings, operator, behind).await
    }

    async fn start_front(
        mut settings: S3Settings,
        operator: S3Credentials,
        behind: Behind,
    ) -> Self {
        let shared = Arc::new(Shared {
            behind,
            faults: Mutex::default(),
            denied: Mutex::default(),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        settings.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        let front = Some(Front { shared, task });
        Self {
            settings,
            operator,
            front,
        }
    }

    /// Settings for a bucket on this server.
    pub(crate) fn settings(&self) -> S3Settings {
        self.settings.clone()
    }

    /// The bucket's name.
    pub(crate) fn bucket(&self) -> &str {
        &self.settings.bucket
    }

    /// Causes this fault for the next `count` requests.
    pub(crate) fn fail_next(&self, count: usize, fault: Fault) {
        let mut faults = self.front().faults.lock().unwrap();
        faults.extend(std::iter::repeat_n(fault, count));
    }

    /// Later requests have no fault.
    pub(crate) fn clear_faults(&self) {
        self.front().faults.lock().unwrap().clear();
    }

    /// Refuses every request whose method and URI contain this text, such as `PUT /avatars?policy`.
    pub(crate) fn deny(&self, what: impl Into<String>) {
        self.front().denied.lock().unwrap().push(what.into());
    }

    /// Refuses no requests any more.
    pub(crate) fn deny_nothing(&self) {
        self.front().denied.lock().unwrap().clear();
    }

    /// The method and URI of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.front().requests.lock().unwrap().clone()
    }

    fn front(&self) -> &Shared {
        let front = self.front.as_ref();
        &front.expect("it was started with faults").shared
    }

    /// The bucket's policy.
    pub(crate) async fn policy(&self) -> Option<String> {
        let get = self.client().get_bucket_policy().bucket(self.bucket());
        get.send().await.ok()?.policy
    }

    /// Sets the bucket's policy, as an operator would.
    pub(crate) async fn set_policy(&self, policy: &str) {
        let put = self.client().put_bucket_policy().bucket(self.bucket());
        put.policy(policy).send().await.unwrap();
    }

    /// Deletes the bucket's policy.
    pub(crate) async fn delete_policy(&self) {
        let delete = self.client().delete_bucket_policy().bucket(self.bucket());
        delete.send().await.unwrap();
    }

    /// Creates the bucket, as an operator would.
    pub(crate) async fn create_bucket(&self) {
        let create = self.client().create_bucket().bucket(self.bucket());
        create.send().await.unwrap();
    }

    /// The keys of all objects, sorted; none if there is no bucket.
    pub(crate) async fn objects(&self) -> Vec<String> {
        let client = self.client();
        let list = client.list_objects_v2().bucket(self.bucket());
        let mut pages = list.into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            match page {
                Ok(page) => keys.extend(page.contents.into_iter().flatten()),
                Err(error) => {
                    let status = error.raw_response().map(|answer| answer.status().as_u16());
                    assert_eq!(status, Some(404), "{error:?}");
                }
            }
        }
        let mut keys: Vec<_> = keys.into_iter().filter_map(|object| object.key).collect();
        keys.sort();
        keys
    }

    /// The bytes of an object.
    pub(crate) async fn read_object(&self, key: &str) -> Vec<u8> {
        let get = self.client().get_object().bucket(self.bucket()).key(key);
        let body = get.send().await.unwrap().body;
        body.collect().await.unwrap().to_vec()
    }

    /// Writes objects without the service.
    pub(crate) async fn put_objects(&self, keys: &[String], body: &'static [u8]) {
        if let Some(front) = &self.front
            && let Behind::InProcess(server) = &front.shared.behind
        {
            // This is fast enough for a thousand objects.
            for key in keys {
                let path = server.root.path().join(self.bucket()).join(key);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, body).unwrap();
            }
            return;
        }
        let client = self.client();
        let puts = stream::iter(keys).map(|key| {
            let put = client.put_object().bucket(self.bucket()).key(key);
            put.body(body.to_vec().into()).send()
        });
        let mut puts = puts.buffer_unordered(16);
        while let Some(put) = puts.next().await {
            put.unwrap();
        }
    }

    /// Deletes an object.
    pub(crate) async fn remove_object(&self, key: &str) {
        let delete = self.client().delete_object().bucket(self.bucket());
        delete.key(key).send().await.unwrap();
    }

    /// Deletes the bucket and all its objects.
    pub(crate) async fn remove_bucket(&self) {
        for key in self.objects().await {
            self.remove_object(&key).await;
        }
        let delete = self.client().delete_bucket().bucket(self.bucket());
        delete.send().await.unwrap();
    }

    /// A client with the operator's credentials.
    fn client(&self) -> aws_sdk_s3::Client {
        let S3Settings {
            endpoint, region, ..
        } = self.settings();
        let operator = self.operator.clone();
        let (key, secret) = (operator.access_key_id, operator.secret_access_key);
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(endpoint.unwrap())
            .region(Region::new(region))
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .credentials_provider(Credentials::new(key, secret, None, None, "test"))
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }
}

/// A new bucket on the real server that the environment names, and the operator's credentials. `None`
/// if it names no server.
async fn real() -> Option<(S3Settings, S3Credentials)> {
    let variable = |name: &str| std::env::var(format!("TEST_S3_{name}"));
    let given = |name: &str| {
        variable(name).unwrap_or_else(|_| panic!("TEST_S3_ENDPOINT is set, TEST_S3_{name} is not"))
    };
    let endpoint = variable("ENDPOINT").ok()?;
    let mut number = [0; 8];
    getrandom::fill(&mut number).unwrap();
    let bucket = format!("cameo-{:016x}", u64::from_ne_bytes(number));
    let operator = S3Credentials {
        access_key_id: given("ACCESS_KEY_ID"),
        secret_access_key: given("SECRET_ACCESS_KEY"),
    };
    let service = match variable("PREPARED_BY") {
        Ok(script) => prepare(&script, &endpoint, &operator, &bucket).await,
        Err(_) => operator.clone(),
    };
    let settings = S3Settings {
        bucket,
        endpoint: Some(endpoint),
        region: given("REGION"),
        path_style: true,
        public_access: match given("PUBLIC_ACCESS").as_str() {
            "policy" => PublicAccess::Policy,
            "none" => PublicAccess::None,
            other => panic!("TEST_S3_PUBLIC_ACCESS is {other:?}; give policy or none"),
        },
        ca_file: None,
        trusted_origins: Vec::new(),
        credentials: Some(service),
    };
    Some((settings, operator))
}

/// Runs a script that creates a bucket. Returns the credentials that it created for the service.
async fn prepare(
    script: &str,
    endpoint: &str,
    operator: &S3Credentials,
    bucket: &str,
) -> S3Credentials {
    let service = S3Credentials {
        access_key_id: bucket.to_owned(),
        secret_access_key: format!("{bucket}-secret"),
    };
    let made = Command::new(script)
        .env("MINIO_URL", endpoint)
        .env("MINIO_ROOT_USER", &operator.access_key_id)
        .env("MINIO_ROOT_PASSWORD", &operator.secret_access_key)
        .env("CAMEO_BUCKET", bucket)
        .env("CAMEO_ACCESS_KEY", &service.access_key_id)
        .env("CAMEO_SECRET_KEY", &service.secret_access_key)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{script}: {said}");
    service
}

impl Drop for Front {
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

type Answered = Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>>;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answered {
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
        .any(|what| line.contains(what.as_str()))
    {
        return Ok(refusal(StatusCode::FORBIDDEN, "AccessDenied"));
    }
    match &shared.behind {
        Behind::InProcess(server) => answer_in_process(server, request).await,
        Behind::Real { http, endpoint } => pass_on(http, endpoint, request).await,
    }
}

async fn answer_in_process(server: &InProcess, request: Request<Incoming>) -> Answered {
    let path = request.uri().path().to_owned();
    let (bucket, key) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let exists = server.root.path().join(bucket).is_dir();
    let query = request.uri().query().unwrap_or_default();
    if query
        .split('&')
        .any(|part| part == "policy" || part == "policy=")
    {
        return policy(server, request).await;
    }
    if key.is_empty() && request.method() == Method::PUT && query.is_empty() && exists {
        return Ok(refusal(StatusCode::CONFLICT, "BucketAlreadyOwnedByYou"));
    }
    if !key.is_empty() && !exists {
        return Ok(refusal(StatusCode::NOT_FOUND, "NoSuchBucket"));
    }
    Ok(server.service.call(request.map(Body::from)).await?)
}

async fn policy(server: &InProcess, request: Request<Incoming>) -> Answered {
    let changed = match *request.method() {
        Method::PUT => {
            let body = axum::body::Body::new(request.into_body());
            let body = axum::body::to_bytes(body, 20_000).await?;
            Some(Some(String::from_utf8(body.to_vec())?))
        }
        Method::DELETE => Some(None),
        _ => None,
    };
    if let Some(policy) = changed {
        *server.policy.lock().unwrap() = policy;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let policy = server.policy.lock().unwrap().clone();
    Ok(match policy {
        Some(policy) => Response::new(Body::from(policy)),
        None => refusal(StatusCode::NOT_FOUND, "NoSuchBucketPolicy"),
    })
}

/// Sends a request unchanged to the real server, because its signature covers the front's host name.
async fn pass_on(http: &reqwest::Client, endpoint: &str, request: Request<Incoming>) -> Answered {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(axum::body::Body::new(body), usize::MAX).await?;
    let url = format!("{endpoint}{}", parts.uri);
    let sent = http.request(parts.method, url).headers(parts.headers);
    let answer = sent.body(body).send().await?;
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    // The body here is complete, so it is not chunked.
    headers.remove("transfer-encoding");
    let mut response = Response::new(Body::from(answer.bytes().await?));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

fn refusal(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>on purpose</Message></Error>");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}

/// Allows every signed request, and anonymous requests that the policy allows.
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
