//! Builds the SDK's clients.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Builder, Credentials, ProvideCredentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, SharedCredentialsProvider, SharedHttpClient,
};
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::S3StartError;
use crate::config::S3Settings;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The service's client, and a client without credentials.
pub(super) struct Clients {
    pub(super) service: Client,
    pub(super) anonymous: Client,
}

/// Builds the clients from the settings.
///
/// # Errors
/// If the endpoint, the certificates or the credentials cannot be used.
pub(super) async fn build(settings: &S3Settings) -> Result<Clients, S3StartError> {
    if let Some(endpoint) = &settings.endpoint
        && !(endpoint.starts_with("http://") || endpoint.starts_with("https://"))
    {
        return Err(S3StartError::Endpoint);
    }
    let http = http_client(settings.ca_file.as_deref())?;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .build();
    let base = || {
        let mut config = Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http.clone())
            .region(Region::new(settings.region.clone()))
            .force_path_style(settings.path_style)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.clone());
        if let Some(endpoint) = &settings.endpoint {
            config = config.endpoint_url(endpoint);
        }
        config
    };
    let credentials = credentials(settings, http.clone()).await?;
    Ok(Clients {
        service: Client::from_conf(base().credentials_provider(credentials).build()),
        anonymous: Client::from_conf(base().allow_no_auth().build()),
    })
}

/// The service's credentials: the configured ones, or those of the SDK's chain. The chain is tried
/// once here, so that missing credentials are reported as such. Later the client asks the chain
/// whenever credentials expire.
async fn credentials(
    settings: &S3Settings,
    http: SharedHttpClient,
) -> Result<SharedCredentialsProvider, S3StartError> {
    if let Some(given) = &settings.credentials {
        let key = Credentials::new(
            &given.access_key_id,
            &given.secret_access_key,
            None,
            None,
            "configuration",
        );
        return Ok(SharedCredentialsProvider::new(key));
    }
    let chain = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(settings.region.clone()))
        .load()
        .await;
    let chain = chain.credentials_provider();
    let chain = chain.ok_or(S3StartError::NoCredentials { source: None })?;
    match chain.provide_credentials().await {
        Ok(_) => Ok(chain),
        Err(error) => {
            let source = Some(error.into());
            Err(S3StartError::NoCredentials { source })
        }
    }
}

fn http_client(ca_file: Option<&Path>) -> Result<SharedHttpClient, S3StartError> {
    let mut trusted = TrustStore::default();
    if let Some(path) = ca_file {
        trusted = trusted.with_pem_certificate(certificates(path)?);
    }
    let unusable = |source| S3StartError::Tls { source };
    let context = TlsContext::builder()
        .with_trust_store(trusted)
        .build()
        .map_err(|error| unusable(error.into()))?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .tls_context(context)
        .build_https())
}

/// Reads and checks certificates. The SDK would panic at invalid ones.
fn certificates(path: &Path) -> Result<Vec<u8>, S3StartError> {
    let wrong = |source: Box<dyn std::error::Error + Send + Sync>| S3StartError::CaFile {
        path: path.to_owned(),
        source,
    };
    let pem = fs::read(path).map_err(|error| wrong(error.into()))?;
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string().into()))?;
        store
            .add(certificate)
            .map_err(|error| wrong(error.into()))?;
    }
    if store.is_empty() {
        return Err(wrong("the file has no certificate".into()));
    }
    Ok(pem)
}
