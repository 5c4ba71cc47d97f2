//! Connections and their end, on a real listener with a router of the test's own.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::accept::Accepting;
use super::connection::{LISTENER_TIMEOUT, STALL_TIMEOUT};
use super::files::Places;
use super::routes::Routes;
use crate::http::ConnectionHandle;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// Starts a server of these many places. Handlers of upgraded connections report their end to the
/// receiver.
async fn start(main: usize) -> (Accepting, std::net::SocketAddr, mpsc::Receiver<String>) {
    let (report, reports) = mpsc::channel(8);
    let router = Router::new()
        .route("/health", get(async || Json("up")))
        .route(
            "/upload",
            post(async |body: Bytes| format!("{} bytes", body.len())),
        )
        .route("/events", get(events))
        .route("/stubborn", get(stubborn))
        .route("/upgrade", get(upgrade))
        .with_state(report);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let places = Places { main, reserve: 2 };
    let accepting = Accepting::start(listener, Routes::new(router), places);
    (accepting, address, reports)
}

/// Sends one piece at once and another one when it is asked to go.
async fn events(Extension(connection): Extension<ConnectionHandle>) -> Body {
    let steps = stream::unfold((0, connection.listen()), async |(step, listener)| {
        let piece = match step {
            0 => "hello\n",
            1 => {
                listener.asked_to_go().await;
                "goodbye\n"
            }
            _ => return None,
        };
        Some((Ok::<_, std::io::Error>(piece), (step + 1, listener)))
    });
    Body::from_stream(steps)
}

/// Sends one piece and never ends.
async fn stubborn(Extension(connection): Extension<ConnectionHandle>) -> Body {
    let steps = stream::unfold((0, connection.listen()), async |(step, listener)| {
        if step > 0 {
            std::future::pending::<()>().await;
        }
        Some((Ok::<_, std::io::Error>("hello\n"), (step + 1, listener)))
    });
    Body::from_stream(steps)
}

/// Upgrades the connection. Says goodbye when it is asked to go, and reports why the connection ends.
async fn upgrade(
    State(report): State<mpsc::Sender<String>>,
    Extension(connection): Extension<ConnectionHandle>,
    mut request: Request,
) -> Response {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let listener = connection.listen();
        let mut stream = TokioIo::new(upgraded.await.unwrap());
        let mut byte = [0];
        let reason = tokio::select! {
            () = listener.asked_to_go() => {
                stream.write_all(b"goodbye\n").await.unwrap();
                "asked to go".to_owned()
            }
            read = stream.read(&mut byte) => format!("{:?}", read.map_err(|error| error.kind())),
        };
        report.send(reason).await.unwrap();
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, "test")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

struct Client(TcpStream);

impl Client {
    async fn send(address: std::net::SocketAddr, request: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(stream)
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        Self::send(address, &request).await
    }

    async fn upgrade(address: std::net::SocketAddr) -> Self {
        let head =
            "GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n";
        let mut client = Self::send(address, head).await;
        client.until("101 Switching").await;
        client
    }

    /// Reads until a text has come.
    async fn until(&mut self, wanted: &str) {
        let mut text = String::new();
        while !text.contains(wanted) {
            let mut piece = [0; 1024];
            let read = timeout(LONG, self.0.read(&mut piece)).await.unwrap();
            let read = read.unwrap();
            assert!(read > 0, "the connection ended after {text:?}");
            text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        }
    }

    /// Reads to the end of the connection. Returns what came, and when the end came.
    async fn read_all(mut self) -> (String, Instant) {
        let mut text = Vec::new();
        // A connection that is cut ends with an error.
        let _ = timeout(LONG, self.0.read_to_end(&mut text)).await.unwrap();
        (String::from_utf8(text).unwrap(), Instant::now())
    }
}

#[tokio::test]
async fn a_drain_closes_idle_connections_asks_listeners_to_go_and_finishes_uploads() {
    let (accepting, address, _reports) = start(16).await;
    let mut idle = Client::get(address, "/health").await;
    idle.until("\"up\"").await;
    let silent = Client::send(address, "").await;
    let mut polite = Client::get(address, "/events").await;
    polite.until("hello").await;
    let mut upgraded = Client::upgrade(address).await;
    let mut stubborn = Client::get(address, "/stubborn").await;
    stubborn.until("hello").await;
    let head = "POST /upload HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nfirst";
    let mut upload = Client::send(address, head).await;
    sleep(Duration::from_millis(100)).await;

    let begun = Instant::now();
    let drain = tokio::spawn(accepting.drain(begun + LONG));
    let polite = tokio::spawn(polite.read_all());
    let idle = tokio::spawn(idle.read_all());
    let silent = tokio::spawn(silent.read_all());
    let stubborn = tokio::spawn(stubborn.read_all());
    upgraded.until("goodbye").await;
    let (rest, ended) = polite.await.unwrap();
    assert!(rest.contains("goodbye"), "{rest:?}");
    assert!(ended - begun < STALL_TIMEOUT, "{:?}", ended - begun);
    let (_, ended) = idle.await.unwrap();
    assert!(ended - begun < STALL_TIMEOUT, "{:?}", ended - begun);
    let (_, ended) = silent.await.unwrap();
    assert!(ended - begun < LISTENER_TIMEOUT, "{:?}", ended - begun);
    let (_, ended) = stubborn.await.unwrap();
    assert!(ended - begun >= LISTENER_TIMEOUT, "{:?}", ended - begun);
    assert!(!drain.is_finished(), "the upload is under way");
    assert!(TcpStream::connect(address).await.is_err());
    upload.0.write_all(b"other").await.unwrap();
    let (answer, _) = upload.read_all().await;
    assert!(answer.contains("10 bytes"), "{answer:?}");
    timeout(LONG / 2, drain).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_place_and_ends_with_its_server() {
    let (accepting, address, mut reports) = start(1).await;
    let upgraded = Client::upgrade(address).await;
    // Longer than a connection must be idle to be replaced.
    sleep(Duration::from_millis(1500)).await;
    let mut health = Client::get(address, "/health").await;
    health.until("\"up\"").await;
    let mut other = Client::get(address, "/events").await;
    other.until("503 Service Unavailable").await;
    assert!(reports.try_recv().is_err(), "the connection ended");

    drop(accepting);
    let (rest, _) = upgraded.read_all().await;
    assert_eq!(rest, "");
    let reason = timeout(LONG, reports.recv()).await.unwrap();
    assert_eq!(reason.as_deref(), Some("Err(ConnectionAborted)"));
}

#[tokio::test]
async fn a_place_is_free_again_when_a_handler_drops_its_upgraded_connection() {
    let (_accepting, address, mut reports) = start(1).await;
    let upgraded = Client::upgrade(address).await;
    drop(upgraded);
    let reason = timeout(LONG, reports.recv()).await.unwrap();
    assert_eq!(reason.as_deref(), Some("Ok(0)"));
    let has_place = async {
        loop {
            let events = Client::get(address, "/events").await;
            let mut head = [0; 12];
            let mut stream = events.0;
            stream.read_exact(&mut head).await.unwrap();
            if &head == b"HTTP/1.1 200" {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, has_place).await.unwrap();
}
