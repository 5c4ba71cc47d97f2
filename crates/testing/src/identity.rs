//! An identity provider: an HTTP server that publishes key sets, and misbehaves on request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::tokens;

/// What a path is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// 200 with this document.
    Json(Value),
    /// 200 with these bytes.
    Bytes(Vec<u8>),
    /// This status, without a body.
    Status(u16),
    /// A redirect to this address.
    Redirect(String),
    /// The other reply, after this time.
    Late(Duration, Box<Reply>),
    /// 200 with a body of spaces that never ends. A space is valid everywhere in JSON.
    Endless,
    /// 200 with these bytes as the begin of a body that never goes on.
    Stalled(Vec<u8>),
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Default)]
struct Shared {
    replies: HashMap<String, Reply>,
    requests: HashMap<String, usize>,
}

/// A running server. Dropping it ends it and its connections.
pub struct IdentityProvider {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Mutex<Shared>>,
    _server: JoinSet<()>,
}

/// The path of the key set that [`IdentityProvider::publish`] sets.
pub const KEYS: &str = "/keys";

impl IdentityProvider {
    /// Starts a server that answers 404.
    pub async fn start() -> Self {
        Self::serve("http", None).await
    }

    /// Starts a server with TLS. Its certificate is for 127.0.0.1; `tls.ca.pem` of
    /// `tests/fixtures/tokens` issued it.
    pub async fn start_with_tls() -> Self {
        let certificate = tokens::text("tls.certificate.pem");
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(tokens::text("tls.key.pem").as_bytes()).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let config = ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::serve("https", Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(scheme: &'static str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Mutex<Shared>>::default();
        let mut server = JoinSet::new();
        server.spawn(accept(listener, tls, Arc::clone(&shared)));
        Self {
            address,
            scheme,
            shared,
            _server: server,
        }
    }

    /// The issuer's URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The address of a path.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url())
    }

    /// Answers a path from now on.
    pub fn set(&self, path: &str, reply: Reply) {
        let mut shared = self.shared.lock().unwrap();
        shared.replies.insert(path.to_owned(), reply);
    }

    /// Publishes the keys with these ids at [`KEYS`], and an `OpenID` Connect configuration that
    /// names it.
    pub fn publish(&self, ids: &[&str]) {
        let configuration = json!({"issuer": self.url(), "jwks_uri": self.at(KEYS)});
        self.set(
            "/.well-known/openid-configuration",
            Reply::Json(configuration),
        );
        self.set(KEYS, Reply::Json(tokens::key_set(ids)));
    }

    /// How many requests a path got.
    pub fn requests(&self, path: &str) -> usize {
        let shared = self.shared.lock().unwrap();
        shared.requests.get(path).copied().unwrap_or_default()
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Mutex<Shared>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
            let server = Builder::new(TokioExecutor::new());
            // An error of one connection does not end the server.
            match tls {
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    }
                }
                None => {
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Mutex<Shared>>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let mut reply = {
        let mut shared = shared.lock().unwrap();
        *shared.requests.entry(path.clone()).or_default() += 1;
        let reply = shared.replies.get(&path).cloned();
        reply.unwrap_or(Reply::Status(404))
    };
    while let Reply::Late(time, then) = reply {
        tokio::time::sleep(time).await;
        reply = *then;
    }
    let whole = |bytes: Vec<u8>| Full::from(bytes).boxed_unsync();
    let frame = |bytes: Vec<u8>| Ok(Frame::data(Bytes::from(bytes)));
    let (status, location, body) = match reply {
        Reply::Json(document) => (200, None, whole(document.to_string().into_bytes())),
        Reply::Bytes(bytes) => (200, None, whole(bytes)),
        Reply::Status(status) => (status, None, whole(Vec::new())),
        Reply::Redirect(location) => (302, Some(location), whole(Vec::new())),
        Reply::Endless => {
            let spaces = stream::repeat_with(move || frame(vec![b' '; 4096]));
            (200, None, StreamBody::new(spaces).boxed_unsync())
        }
        Reply::Stalled(bytes) => {
            let begin = stream::once(async move { frame(bytes) }).chain(stream::pending());
            (200, None, StreamBody::new(begin).boxed_unsync())
        }
        Reply::Late(..) => unreachable!("the loop above ends with another reply"),
    };
    let mut response = Response::builder().status(status);
    if let Some(location) = location {
        response = response.header("location", location);
    }
    Ok(response.body(body).unwrap())
}
