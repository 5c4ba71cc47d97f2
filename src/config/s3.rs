//! The settings of a bucket.

use std::path::PathBuf;

/// Which bucket, where, and who may read from it.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// The bucket. It is made where it is not there.
    pub bucket: String,
    /// The server's address, such as `https://minio.internal:9000`; AWS itself where there is
    /// none.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the bucket is named in the path (`https://host/bucket/…`) instead of the host name.
    pub path_style: bool,
    /// How objects under `public/` come to be readable by anyone.
    pub public_access: PublicAccess,
    /// Certificates in PEM that the server's may be signed by, beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Origins whose pages may read objects by script; the bucket's CORS rules are set for them.
    pub trusted_origins: Vec<String>,
    /// Who the service is; by the AWS chain where it is not said.
    pub credentials: Option<S3Credentials>,
}

/// How objects under `public/` come to be readable by anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicAccess {
    /// By a bucket policy, which is written unless they already are.
    Policy,
    /// Not at all: the service hands them out itself, or a server in front does.
    None,
}

/// An access key. It is not shown.
#[derive(Clone)]
pub struct S3Credentials {
    /// Its name.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

impl std::fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("S3Credentials(…)")
    }
}

impl S3Settings {
    /// Where anyone finds the bucket's objects, without a slash at its end: what a public URL
    /// begins with where no CDN is in front.
    pub fn public_base(&self) -> String {
        let Self { bucket, region, .. } = self;
        match &self.endpoint {
            Some(endpoint) => {
                let endpoint = endpoint.trim_end_matches('/');
                match endpoint.split_once("://") {
                    Some((scheme, host)) if !self.path_style => {
                        format!("{scheme}://{bucket}.{host}")
                    }
                    _ => format!("{endpoint}/{bucket}"),
                }
            }
            None if self.path_style => format!("https://s3.{region}.amazonaws.com/{bucket}"),
            None => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_begins_where_the_bucket_is() {
        let mut settings = S3Settings {
            bucket: "avatars".into(),
            endpoint: Some("https://minio:9000/".into()),
            region: "eu-central-1".into(),
            path_style: true,
            public_access: PublicAccess::Policy,
            ca_file: None,
            trusted_origins: Vec::new(),
            credentials: None,
        };
        assert_eq!(settings.public_base(), "https://minio:9000/avatars");
        settings.path_style = false;
        assert_eq!(settings.public_base(), "https://avatars.minio:9000");
        settings.endpoint = None;
        let aws = "https://avatars.s3.eu-central-1.amazonaws.com";
        assert_eq!(settings.public_base(), aws);
    }
}
