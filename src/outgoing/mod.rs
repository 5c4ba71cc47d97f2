//! Requests to other services: the HTTP client, and the signatures of what it sends.
//!
//! The client is bounded by its users: they set the time limit and the largest answer. It keeps no
//! connection and follows no redirect.

mod signature;

use std::time::Duration;

use http::Uri;
use hyper::body::Body;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config::PemFile;

pub(crate) use signature::Signer;

/// The value of `User-Agent`.
pub(crate) const USER_AGENT: &str = concat!("cameo/", env!("CARGO_PKG_VERSION"));

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// An HTTP client. Clones share it.
pub(crate) type Client<B> = legacy::Client<HttpsConnector<HttpConnector>, B>;

/// The client cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The file of certificates cannot be used.
    #[error("is {path:?}: {problem}")]
    CaFile {
        /// The path of the file.
        path: String,
        /// The problem.
        problem: String,
    },
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be used")]
    Tls(#[from] rustls::Error),
}

/// A client that trusts the authorities of the system, and those in `ca`.
///
/// # Errors
/// If the file of certificates cannot be used.
pub(crate) fn client<B>(ca: Option<&PemFile>) -> Result<Client<B>, TlsError>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca {
        add_authorities(&mut roots, file)?;
    }
    let provider = rustls::crypto::ring::default_provider();
    let tls = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.enforce_http(false);
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    // Requests are rare, so no connection is kept.
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(https))
}

/// Parses an absolute address without a user name.
pub(crate) fn parse(address: &str) -> Option<Uri> {
    let uri: Uri = address.parse().ok()?;
    let authority = uri.authority()?.as_str();
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    (is_http && !authority.contains('@')).then_some(uri)
}

/// Adds the certificates of a file.
fn add_authorities(roots: &mut RootCertStore, file: &PemFile) -> Result<(), TlsError> {
    let wrong = |problem: String| TlsError::CaFile {
        path: file.path.display().to_string(),
        problem,
    };
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(file.text.as_bytes()) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| wrong(error.to_string()))?;
    }
    if roots.len() == before {
        return Err(wrong("the file has no certificate".to_owned()));
    }
    Ok(())
}
