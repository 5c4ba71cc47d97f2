//! The settings of a bucket.

use std::path::PathBuf;

/// A bucket, its server, and the access to it.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// The name of the bucket. The service creates the bucket if it does not exist.
    pub bucket: String,
    /// The address of the server, such as `https://minio.internal:9000`; `None` means AWS.
    pub endpoint: Option<String>,
    /// The region in the signatures of requests.
    pub region: String,
    /// Whether URLs name the bucket in the path (`https://host/bucket/…`) instead of the host name.
    pub path_style: bool,
    /// How anonymous readers get access to objects under `public/`.
    pub public_access: PublicAccess,
    /// A PEM file of certificate authorities to trust in addition to those of the system.
    pub ca_file: Option<PathBuf>,
    /// Origins whose scripts may read objects. The bucket's CORS rules allow them.
    pub trusted_origins: Vec<String>,
    /// The access key of the service; `None` means that the AWS credential chain provides it.
    pub credentials: Option<S3Credentials>,
}

/// How anonymous readers get access to objects under `public/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicAccess {
    /// By a bucket policy. The service writes it unless the objects are readable already.
    Policy,
    /// They get none: the service itself delivers the objects, or a server in front of it does.
    None,
    /// They must get none, because not everybody may see avatars. The service withdraws a bucket policy
    /// that it has made before.
    Forbidden,
}

/// An access key. `Debug` hides it.
#[derive(Clone)]
pub struct S3Credentials {
    /// The id of the key.
    pub access_key_id: String,
    /// The secret of the key.
    pub secret_access_key: String,
}

impl std::fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("S3Credentials(…)")
    }
}

impl S3Settings {
    /// The base URL of the bucket's objects, without a trailing slash. Public URLs begin with it
    /// if there is no CDN.
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
    fn the_base_url_names_the_bucket_in_the_path_or_in_the_host() {
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
