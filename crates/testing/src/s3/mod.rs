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

mod front;
mod in_process;
mod real;

use std::time::Duration;

use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use futures_util::stream::{self, StreamExt};

use front::{Behind, Front};
use in_process::InProcess;

/// A fault of a request.
#[derive(Clone, Copy)]
pub enum Fault {
    /// The answer has this status.
    Status(u16),
    /// The connection is closed.
    Drop,
    /// The answer is delayed.
    Delay(Duration),
}

/// The settings that a service needs to use a bucket. URLs name the bucket in the path.
#[derive(Clone)]
pub struct BucketAccess {
    /// The name of the bucket.
    pub bucket: String,
    /// The address of the server.
    pub endpoint: String,
    /// The region in the signatures of requests.
    pub region: String,
    /// Whether the server supports bucket policies.
    pub has_policies: bool,
    /// The access key of the service.
    pub credentials: Credentials,
}

/// An access key.
#[derive(Clone)]
pub struct Credentials {
    /// The id of the key.
    pub access_key_id: String,
    /// The secret of the key.
    pub secret_access_key: String,
}

/// A running server. It stops when the value is dropped.
pub struct S3Server {
    access: BucketAccess,
    /// The credentials of a user with all permissions.
    operator: Credentials,
    front: Option<Front>,
}

impl S3Server {
    /// An empty server, or a bucket on the real server that does not exist yet. A real server has no
    /// front, so there can be no faults.
    pub async fn start() -> Self {
        match real::bucket().await {
            Some((access, operator)) => Self {
                access,
                operator,
                front: None,
            },
            None => Self::start_in_process().await,
        }
    }

    /// Like [`start`](Self::start), always with a front.
    pub async fn start_with_faults() -> Self {
        let Some((access, operator)) = real::bucket().await else {
            return Self::start_in_process().await;
        };
        let behind = Behind::Real {
            http: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            endpoint: access.endpoint.clone(),
        };
        let (front, endpoint) = Front::start(behind).await;
        Self {
            access: BucketAccess { endpoint, ..access },
            operator,
            front: Some(front),
        }
    }

    async fn start_in_process() -> Self {
        let (front, endpoint) = Front::start(Behind::InProcess(InProcess::new())).await;
        let operator = Credentials {
            access_key_id: in_process::ACCESS_KEY.into(),
            secret_access_key: in_process::SECRET_KEY.into(),
        };
        Self {
            access: BucketAccess {
                bucket: "avatars".into(),
                endpoint,
                region: "us-east-1".into(),
                has_policies: true,
                credentials: operator.clone(),
            },
            operator,
            front: Some(front),
        }
    }

    /// The settings of the bucket.
    pub fn access(&self) -> &BucketAccess {
        &self.access
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.access.bucket
    }

    /// Causes this fault for the next `count` requests.
    pub fn fail_next(&self, count: usize, fault: Fault) {
        self.front().fail_next(count, fault);
    }

    /// Later requests have no fault.
    pub fn clear_faults(&self) {
        self.front().clear_faults();
    }

    /// Refuses every request whose method and URI contain this text, such as `PUT /avatars?policy`.
    pub fn deny(&self, what: impl Into<String>) {
        self.front().deny(what.into());
    }

    /// Refuses no requests any more.
    pub fn deny_nothing(&self) {
        self.front().deny_nothing();
    }

    /// The method and URI of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.front().requests()
    }

    fn front(&self) -> &Front {
        self.front
            .as_ref()
            .expect("the server was started with faults")
    }

    /// The bucket's policy.
    pub async fn policy(&self) -> Option<String> {
        let get = self.client().get_bucket_policy().bucket(self.bucket());
        get.send().await.ok()?.policy
    }

    /// Sets the bucket's policy, as an operator would.
    pub async fn set_policy(&self, policy: &str) {
        let put = self.client().put_bucket_policy().bucket(self.bucket());
        put.policy(policy).send().await.unwrap();
    }

    /// Deletes the bucket's policy.
    pub async fn delete_policy(&self) {
        let delete = self.client().delete_bucket_policy().bucket(self.bucket());
        delete.send().await.unwrap();
    }

    /// Creates the bucket, as an operator would.
    pub async fn create_bucket(&self) {
        let create = self.client().create_bucket().bucket(self.bucket());
        create.send().await.unwrap();
    }

    /// The keys of all objects, sorted; none if there is no bucket.
    pub async fn objects(&self) -> Vec<String> {
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
    pub async fn read_object(&self, key: &str) -> Vec<u8> {
        let get = self.client().get_object().bucket(self.bucket()).key(key);
        let body = get.send().await.unwrap().body;
        body.collect().await.unwrap().to_vec()
    }

    /// Writes objects without the service.
    pub async fn put_objects(&self, keys: &[String], body: &'static [u8]) {
        if let Some(server) = self.front.as_ref().and_then(Front::in_process) {
            // This is fast enough for a thousand objects.
            for key in keys {
                let path = server.file(self.bucket(), key);
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
    pub async fn remove_object(&self, key: &str) {
        let delete = self.client().delete_object().bucket(self.bucket());
        delete.key(key).send().await.unwrap();
    }

    /// Deletes the bucket and all its objects.
    pub async fn remove_bucket(&self) {
        for key in self.objects().await {
            self.remove_object(&key).await;
        }
        let delete = self.client().delete_bucket().bucket(self.bucket());
        delete.send().await.unwrap();
    }

    /// A client with the operator's credentials.
    fn client(&self) -> aws_sdk_s3::Client {
        let Credentials {
            access_key_id,
            secret_access_key,
        } = self.operator.clone();
        let credentials = aws_sdk_s3::config::Credentials::new(
            access_key_id,
            secret_access_key,
            None,
            None,
            "test",
        );
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(&self.access.endpoint)
            .region(Region::new(self.access.region.clone()))
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .credentials_provider(credentials)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }
}
