//! Settings for the bucket of a test.

use cameo_testing::s3::S3Server;

use crate::config::{PublicAccess, S3Credentials, S3Settings};

/// Settings for the bucket of this server.
pub(crate) fn settings_of(server: &S3Server) -> S3Settings {
    let access = server.access().clone();
    S3Settings {
        bucket: access.bucket,
        endpoint: Some(access.endpoint),
        region: access.region,
        path_style: true,
        public_access: if access.has_policies {
            PublicAccess::Policy
        } else {
            PublicAccess::None
        },
        ca_file: None,
        trusted_origins: Vec::new(),
        credentials: Some(S3Credentials {
            access_key_id: access.credentials.access_key_id,
            secret_access_key: access.credentials.secret_access_key,
        }),
    }
}
