//! `s3s-fs` in this process, with the features of S3 that it lacks: bucket policies, anonymous reads,
//! and the answers for a bucket that exists or is missing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, S3Result, s3_error};
use tempfile::TempDir;

use super::front::{Answered, refusal};

/// The access key of the only user.
pub(super) const ACCESS_KEY: &str = "test";
pub(super) const SECRET_KEY: &str = "test-secret";

/// A server on a temporary folder.
pub(super) struct InProcess {
    service: S3Service,
    root: TempDir,
    policy: Arc<Mutex<Option<String>>>,
}

impl InProcess {
    /// A server without buckets.
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let policy = Arc::default();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        builder.set_access(ByPolicy(Arc::clone(&policy)));
        let service = builder.build();
        Self {
            service,
            root,
            policy,
        }
    }

    /// The file of an object.
    pub(super) fn file(&self, bucket: &str, key: &str) -> PathBuf {
        self.root.path().join(bucket).join(key)
    }

    /// Answers a request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answered {
        let path = request.uri().path().to_owned();
        let (bucket, key) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let exists = self.root.path().join(bucket).is_dir();
        let query = request.uri().query().unwrap_or_default();
        if query
            .split('&')
            .any(|part| part == "policy" || part == "policy=")
        {
            return self.answer_policy(request).await;
        }
        if key.is_empty() && request.method() == Method::PUT && query.is_empty() && exists {
            return Ok(refusal(StatusCode::CONFLICT, "BucketAlreadyOwnedByYou"));
        }
        if !key.is_empty() && !exists {
            return Ok(refusal(StatusCode::NOT_FOUND, "NoSuchBucket"));
        }
        Ok(self.service.call(request.map(Body::from)).await?)
    }

    async fn answer_policy(&self, request: Request<Incoming>) -> Answered {
        let changed = match *request.method() {
            Method::PUT => {
                let body = request.into_body().collect().await?.to_bytes();
                Some(Some(String::from_utf8(body.to_vec())?))
            }
            Method::DELETE => Some(None),
            _ => None,
        };
        if let Some(policy) = changed {
            *self.policy.lock().unwrap() = policy;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        }
        let policy = self.policy.lock().unwrap().clone();
        Ok(match policy {
            Some(policy) => Response::new(Body::from(policy)),
            None => refusal(StatusCode::NOT_FOUND, "NoSuchBucketPolicy"),
        })
    }
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
