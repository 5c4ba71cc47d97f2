//! The S3 server, in a process of its own on a folder: by default `s3s-fs` in this test program, with
//! `CHAOS_S3=seaweedfs` a real `SeaweedFS`. Also the direct access of the run to the stored objects.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::ByteStream;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    CreateBucketInput, CreateBucketOutput, DeleteObjectInput, DeleteObjectOutput, GetObjectInput,
    GetObjectOutput, HeadBucketInput, HeadBucketOutput, ListObjectsV2Input, ListObjectsV2Output,
    Object, PutObjectInput, PutObjectOutput, Timestamp,
};
use s3s::service::S3ServiceBuilder;
use s3s::{Body, S3, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::process::Program;

pub(crate) const BUCKET: &str = "avatars";

/// The first argument that makes this program the S3 server. Its address and folder follow.
pub(crate) const SERVE: &str = "serve-a-bucket";

/// The kind of S3 server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    S3sFs,
    SeaweedFs,
}

impl Kind {
    /// The kind that `CHAOS_S3` names.
    pub(crate) fn from_environment() -> Self {
        match std::env::var("CHAOS_S3").as_deref() {
            Err(_) | Ok("" | "s3s-fs") => Self::S3sFs,
            Ok("seaweedfs") => Self::SeaweedFs,
            Ok(other) => panic!("CHAOS_S3 is {other:?}; give s3s-fs or seaweedfs"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::S3sFs => "s3s-fs",
            Self::SeaweedFs => "seaweedfs",
        }
    }

    /// Installs the server if it is missing, before anything is measured.
    pub(crate) fn install(self) {
        if self == Self::SeaweedFs {
            let installed = std::process::Command::new(SEAWEEDFS)
                .arg("install")
                .status();
            assert!(
                installed.unwrap().success(),
                "SeaweedFS could not be installed"
            );
        }
    }

    /// The access key and secret of a user with all rights.
    pub(crate) fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::S3sFs => ("chaos", "chaos-secret"),
            // The script of the server sets these.
            Self::SeaweedFs => ("seaweedfs", "seaweedfs-secret"),
        }
    }

    /// The program that serves at this address, with its data and its log in `folder`. The data
    /// stay when the program ends.
    pub(crate) fn program(self, folder: &Path, address: SocketAddr) -> Program {
        let data = folder.join("bucket");
        std::fs::create_dir_all(&data).unwrap();
        let data = data.display().to_string();
        match self {
            Self::S3sFs => Program::new("bucket", std::env::current_exe().unwrap(), folder)
                .arguments([SERVE, &address.to_string(), &data]),
            Self::SeaweedFs => Program::new("bucket", SEAWEEDFS, folder).arguments([
                &address.port().to_string(),
                &data,
                "exec",
            ]),
        }
    }
}

const SEAWEEDFS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/servers/seaweedfs.sh");

/// Serves S3 until the process is killed.
pub(crate) async fn serve(address: &str, folder: &str) {
    let folder = PathBuf::from(folder);
    let files = s3s_fs::FileSystem::new(&folder).unwrap();
    let mut builder = S3ServiceBuilder::new(FileBucket { files, folder });
    let (key, secret) = Kind::S3sFs.keys();
    builder.set_auth(SimpleAuth::from_single(key, secret));
    let service = builder.build();
    let listener = TcpListener::bind(address).await.unwrap();
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let service = service.clone();
        connections.spawn(async move {
            let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                let service = service.clone();
                async move { service.call(request.map(Body::from)).await }
            });
            let mut http = Builder::new(TokioExecutor::new());
            // Like other servers, this one carries out a request although its client has
            // disconnected.
            http.http1().half_close(true);
            let _ = http.serve_connection(TokioIo::new(socket), answer).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// `s3s-fs` with another listing. The original one walks the whole bucket each time, and fails if an
/// object is removed meanwhile.
struct FileBucket {
    files: s3s_fs::FileSystem,
    folder: PathBuf,
}

#[async_trait::async_trait]
impl S3 for FileBucket {
    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(request).await
    }

    async fn create_bucket(
        &self,
        request: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        let created = self.files.create_bucket(request).await;
        // Another replica created the bucket first, and both use the same account.
        created.map_err(|error| match error.code() {
            S3ErrorCode::BucketAlreadyExists => s3_error!(BucketAlreadyOwnedByYou),
            _ => error,
        })
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        self.files.put_object(request).await
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        self.files.get_object(request).await
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.files.delete_object(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.or(input.start_after);
        let most = usize::try_from(input.max_keys.unwrap_or(1000)).unwrap_or(1000);
        let mut found = walk(&self.folder.join(&input.bucket), &prefix);
        if let Some(after) = after {
            found = found.split_off(&after);
            found.remove(&after);
        }
        let more = found.len() > most;
        let objects: Vec<_> = found
            .into_iter()
            .take(most)
            .map(|(key, (size, written))| Object {
                key: Some(key),
                size: i64::try_from(size).ok(),
                last_modified: Some(Timestamp::from(written)),
                ..Object::default()
            })
            .collect();
        let next = objects.last().and_then(|last| last.key.clone());
        Ok(S3Response::new(ListObjectsV2Output {
            is_truncated: Some(more),
            next_continuation_token: next.filter(|_| more),
            key_count: i32::try_from(objects.len()).ok(),
            contents: Some(objects),
            ..ListObjectsV2Output::default()
        }))
    }
}

/// All objects whose keys begin with the prefix, with their sizes and write times.
fn walk(bucket: &Path, prefix: &str) -> BTreeMap<String, (u64, SystemTime)> {
    let within = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut folders = VecDeque::from([bucket.join(within)]);
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop_front() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let key = path.strip_prefix(bucket).ok().and_then(Path::to_str);
            // An object that is removed meanwhile is skipped.
            let (Some(key), Ok(data)) = (key, entry.metadata()) else {
                continue;
            };
            if data.is_dir() {
                folders.push_back(path);
            } else if key.starts_with(prefix) {
                let written = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.insert(key.to_owned(), (data.len(), written));
            }
        }
    }
    found
}

type PutFailed = SdkError<PutObjectError>;

/// Direct access to the stored objects, without faults.
pub(crate) enum DirectStore {
    /// A bucket. Requests go to the server without a proxy, and listings are repeated until one
    /// succeeds.
    Server(Client),
    /// The folder of a disk store.
    Folder(PathBuf),
}

impl DirectStore {
    /// Accesses the folder of a disk store.
    pub(crate) fn on_folder(folder: PathBuf) -> Self {
        Self::Folder(folder)
    }

    /// Accesses the bucket of a server.
    pub(crate) fn on_server(kind: Kind, server: SocketAddr) -> Self {
        let (key, secret) = kind.keys();
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(Duration::from_secs(3))
            .build();
        let credentials = Credentials::new(key, secret, None, None, "chaos");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("http://{server}"))
            .force_path_style(true)
            .credentials_provider(credentials)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        Self::Server(Client::from_conf(config.build()))
    }

    /// All objects under a prefix, with their lengths.
    pub(crate) async fn objects(&self, prefix: &str) -> BTreeMap<String, u64> {
        let client = match self {
            Self::Server(client) => client,
            Self::Folder(folder) => {
                let found = walk(folder, prefix).into_iter();
                return found.map(|(key, (length, _))| (key, length)).collect();
            }
        };
        'again: loop {
            let mut objects = BTreeMap::new();
            let mut next = None;
            loop {
                let list = client.list_objects_v2().bucket(BUCKET).prefix(prefix);
                let Ok(page) = list.set_continuation_token(next).send().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue 'again;
                };
                for object in page.contents.unwrap_or_default() {
                    let length = object.size.unwrap_or_default().unsigned_abs();
                    objects.insert(object.key.unwrap_or_default(), length);
                }
                next = page.next_continuation_token;
                if next.is_none() {
                    return objects;
                }
            }
        }
    }

    /// Puts an object directly into the bucket.
    pub(crate) async fn put(&self, key: &str, body: &'static [u8]) {
        self.try_put(key, body).await.unwrap();
    }

    /// Tries once to put an object directly into the bucket.
    pub(crate) async fn try_put(&self, key: &str, body: &'static [u8]) -> Result<(), PutFailed> {
        let Self::Server(client) = self else {
            panic!("this is for buckets only");
        };
        let put = client.put_object().bucket(BUCKET).key(key);
        put.body(ByteStream::from_static(body)).send().await?;
        Ok(())
    }

    /// Removes an object directly from the bucket.
    pub(crate) async fn remove(&self, key: &str) {
        let Self::Server(client) = self else {
            panic!("this is for buckets only");
        };
        let delete = client.delete_object().bucket(BUCKET).key(key);
        delete.send().await.unwrap();
    }
}
