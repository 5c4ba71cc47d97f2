//! The errors and warnings of a bucket at startup.

use std::path::PathBuf;

/// The bucket cannot be used. Each message is one line that says what to change.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages document the cases
pub(crate) enum S3StartError {
    #[error(
        "s3 at {endpoint} is not reached; check that it runs and that storage.s3.endpoint is right"
    )]
    Unreachable {
        endpoint: String,
        #[source]
        source: Source,
    },
    #[error("s3 at {endpoint} is not ready yet")]
    NotReady {
        endpoint: String,
        #[source]
        source: Source,
    },
    #[error("storage.s3.endpoint must begin with http:// or https://")]
    Endpoint,
    #[error("storage.s3.ca_file {} cannot be used", path.display())]
    CaFile {
        path: PathBuf,
        #[source]
        source: Source,
    },
    #[error("tls cannot be set up for s3")]
    Tls {
        #[source]
        source: Source,
    },
    #[error(
        "there are no credentials for s3; set storage.s3.access_key_id and its secret, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
    )]
    NoCredentials {
        #[source]
        source: Option<Source>,
    },
    #[error(
        "s3 at {endpoint} refuses these credentials ({code}); correct storage.s3.access_key_id and its secret, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Credentials {
        endpoint: String,
        code: String,
        #[source]
        source: Source,
    },
    #[error("this machine's clock differs from that of s3 at {endpoint}; set it right")]
    Clock {
        endpoint: String,
        #[source]
        source: Source,
    },
    #[error("bucket {bucket} is in another region; set storage.s3.region = {actual:?}")]
    Region { bucket: String, actual: String },
    #[error(
        "{bucket:?} is not a valid bucket name; set storage.s3.bucket to 3 to 63 of a-z 0-9 . -"
    )]
    BucketName {
        bucket: String,
        #[source]
        source: Source,
    },
    #[error(
        "bucket {bucket} belongs to another account; set storage.s3.bucket to another name, or use its owner's credentials"
    )]
    OtherOwner {
        bucket: String,
        #[source]
        source: Source,
    },
    #[error(
        "bucket {bucket}: these credentials may not {action}; grant them {permission}, or check that storage.s3.bucket is right"
    )]
    Permission {
        bucket: String,
        action: &'static str,
        permission: &'static str,
        #[source]
        source: Source,
    },
    #[error(
        "public/ in bucket {bucket} is not publicly readable; grant these credentials s3:GetBucketPolicy and s3:PutBucketPolicy, or make public/ readable yourself, or set storage.s3.public_access = \"none\" and delivery.mode = \"proxy\""
    )]
    NotPublic {
        bucket: String,
        #[source]
        source: Option<Source>,
    },
    #[error(
        "anybody can read public/ in bucket {bucket}, but delivery.access is not \"public\"; remove the rule that allows it, and grant these credentials s3:GetBucketPolicy, s3:PutBucketPolicy and s3:DeleteBucketPolicy"
    )]
    StillPublic {
        bucket: String,
        #[source]
        source: Option<Source>,
    },
    #[error("anybody can read private/ in bucket {bucket}; allow reads of public/* only")]
    PrivateReadable { bucket: String },
    #[error("bucket {bucket}: s3 at {endpoint} could not {action}")]
    Unsuitable {
        bucket: String,
        endpoint: String,
        action: &'static str,
        #[source]
        source: Source,
    },
}

type Source = Box<dyn std::error::Error + Send + Sync>;

impl S3StartError {
    /// Whether waiting may help. Otherwise an operator has to change something.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotReady { .. })
    }
}

/// A problem of a usable bucket. The operator should fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum S3StartupWarning {
    /// Anybody can list its objects.
    #[error("anybody can list bucket {bucket}, and so find every avatar; allow s3:GetObject only")]
    Listable {
        /// The bucket.
        bucket: String,
    },
    /// Its CORS rules could not be set.
    #[error(
        "the CORS rules of bucket {bucket} could not be set ({reason}); pages of other origins can show avatars, but scripts cannot read them"
    )]
    Cors {
        /// The bucket.
        bucket: String,
        /// The server's answer.
        reason: String,
    },
}
