//! The front of a server: it records requests and causes faults.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::Body;
use tokio::net::TcpListener;

use super::Fault;
use super::in_process::InProcess;

/// The answer to a request. An error closes the connection.
pub(super) type Answered = Result<Response<Body>, Box<dyn std::error::Error + Send + Sync>>;

/// A front that accepts connections. It stops when the value is dropped.
pub(super) struct Front {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    behind: Behind,
    faults: Mutex<VecDeque<Fault>>,
    /// Parts of request lines that are refused with `AccessDenied`.
    denied: Mutex<Vec<String>>,
    requests: Mutex<Vec<String>>,
}

/// The server behind the front.
pub(super) enum Behind {
    InProcess(InProcess),
    Real {
        http: reqwest::Client,
        endpoint: String,
    },
}

impl Front {
    /// Starts a front before this server. Also returns the front's address.
    pub(super) async fn start(behind: Behind) -> (Self, String) {
        let shared = Arc::new(Shared {
            behind,
            faults: Mutex::default(),
            denied: Mutex::default(),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        (Self { shared, task }, endpoint)
    }

    /// Causes this fault for the next `count` requests.
    pub(super) fn fail_next(&self, count: usize, fault: Fault) {
        let mut faults = self.shared.faults.lock().unwrap();
        faults.extend(std::iter::repeat_n(fault, count));
    }

    /// Later requests have no fault.
    pub(super) fn clear_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Refuses every request whose method and URI contain this text.
    pub(super) fn deny(&self, what: String) {
        self.shared.denied.lock().unwrap().push(what);
    }

    /// Refuses no requests any more.
    pub(super) fn deny_nothing(&self) {
        self.shared.denied.lock().unwrap().clear();
    }

    /// The method and URI of every request so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The server behind the front, if it runs in this process.
    pub(super) fn in_process(&self) -> Option<&InProcess> {
        match &self.shared.behind {
            Behind::InProcess(server) => Some(server),
            Behind::Real { .. } => None,
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service =
                hyper::service::service_fn(move |request| answer(Arc::clone(&shared), request));
            let http = Builder::new(TokioExecutor::new());
            let _ = http.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answered {
    let line = format!("{} {}", request.method(), request.uri());
    shared.requests.lock().unwrap().push(line.clone());
    let fault = shared.faults.lock().unwrap().pop_front();
    match fault {
        Some(Fault::Status(status)) => {
            let code = if status == 403 {
                "AccessDenied"
            } else {
                "SlowDown"
            };
            return Ok(refusal(StatusCode::from_u16(status)?, code));
        }
        Some(Fault::Drop) => return Err("dropped on purpose".into()),
        Some(Fault::Delay(by)) => tokio::time::sleep(by).await,
        None => {}
    }
    if shared
        .denied
        .lock()
        .unwrap()
        .iter()
        .any(|what| line.contains(what.as_str()))
    {
        return Ok(refusal(StatusCode::FORBIDDEN, "AccessDenied"));
    }
    match &shared.behind {
        Behind::InProcess(server) => server.answer(request).await,
        Behind::Real { http, endpoint } => pass_on(http, endpoint, request).await,
    }
}

/// Sends a request unchanged to the real server, because its signature covers the front's host name.
async fn pass_on(http: &reqwest::Client, endpoint: &str, request: Request<Incoming>) -> Answered {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let url = format!("{endpoint}{}", parts.uri);
    let sent = http.request(parts.method, url).headers(parts.headers);
    let answer = sent.body(body).send().await?;
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    // The body here is complete, so it is not chunked.
    headers.remove("transfer-encoding");
    let mut response = Response::new(Body::from(answer.bytes().await?));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// An S3 error with this status and code.
pub(super) fn refusal(status: StatusCode, code: &str) -> Response<Body> {
    let body = format!("<Error><Code>{code}</Code><Message>on purpose</Message></Error>");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
}
