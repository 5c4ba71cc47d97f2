//! One connection: its requests, an upgrade, and its end.
//!
//! A task of the acceptor owns the connection. When the task ends or is aborted, the stream ends
//! too, also one that was upgraded and belongs to a handler by then.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::activity::{Activity, DrainClass};
use super::client_stream::ClientStream;
use super::routes::{Kind, Routes};
use crate::telemetry::chain;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The most bytes that a connection buffers: the head of a request, or a piece of its body.
const BUFFER_BYTES: usize = 64 * 1024;
/// The most bytes of an answer that the system holds before it has sent them. The server sees a
/// client's progress in steps of half of this, so a client must read that much within the time that
/// a write may be blocked.
const UNSENT_BYTES: u32 = 32 * 1024;
/// In a drain: how long a connection may be idle, or its client may not read, before it is closed.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(2);
/// In a drain: how long a listener may take to go.
pub(super) const LISTENER_TIMEOUT: Duration = Duration::from_secs(4);
/// In a drain: how often these times are checked.
const DRAIN_CHECK: Duration = Duration::from_millis(250);

/// The phase of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It accepts connections.
    Accepting,
    /// It accepts no connections. It ends the open ones until the given time.
    Draining(Instant),
}

/// Answers the requests of a connection until it ends. If a handler upgrades the connection, waits
/// until the handler has dropped it. A drain ends the connection as its [`DrainClass`] says.
pub(super) async fn serve(
    stream: TcpStream,
    kind: Kind,
    routes: Arc<Routes>,
    phases: watch::Receiver<Phase>,
    activity: Arc<Activity>,
) {
    prepare(&stream);
    let _cut = CutOnDrop(Arc::clone(&activity));
    tokio::select! {
        () = answer(stream, kind, routes, phases.clone(), &activity) => {}
        reason = end_of_drain(phases, &activity) => {
            debug!(reason, "the drain closes a connection");
        }
    }
}

async fn answer(
    stream: TcpStream,
    kind: Kind,
    routes: Arc<Routes>,
    phases: watch::Receiver<Phase>,
    activity: &Arc<Activity>,
) {
    let io = TokioIo::new(ClientStream::new(stream, Arc::clone(activity)));
    let service = service_fn(|request| {
        let request_under_way = UnderWay::begin(activity);
        let (routes, handle) = (Arc::clone(&routes), activity.handle.clone());
        async move {
            let response = routes.answer(request, kind, handle).await;
            Ok::<_, Infallible>(response.map(|body| Answer {
                body,
                _under_way: request_under_way,
            }))
        }
    });
    {
        // HTTP/1.1 only: gateways speak it to the services behind them.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(BUFFER_BYTES)
            .keep_alive(kind == Kind::Main)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = drain_begins(phases) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(error = %chain(&error), "a connection failed");
        }
    }
    // An upgraded stream lives on in its handler; every other one is dropped by now.
    activity.set_upgraded();
    activity.closed().await;
}

async fn drain_begins(mut phases: watch::Receiver<Phase>) {
    let is_draining = phases
        .wait_for(|phase| *phase != Phase::Accepting)
        .await
        .is_ok();
    if !is_draining {
        // The sender is gone: the acceptor is about to abort this task.
        std::future::pending::<()>().await;
    }
}

/// Waits until a drain has to close the connection. Returns the reason.
///
/// Idle connections and those whose clients do not read are closed first, listeners are asked to go
/// and closed next, and requests are answered until the drain ends.
async fn end_of_drain(phases: watch::Receiver<Phase>, activity: &Activity) -> &'static str {
    drain_begins(phases).await;
    activity.handle.ask_to_go();
    let began = Instant::now();
    let mut idle_since = began;
    loop {
        sleep(DRAIN_CHECK).await;
        let class = activity.drain_class();
        if class != DrainClass::Idle {
            idle_since = Instant::now();
        }
        if activity.blocked_for() >= STALL_TIMEOUT {
            return "its client does not read";
        }
        match class {
            DrainClass::Idle if idle_since.elapsed() >= STALL_TIMEOUT => {
                return "it carries no request";
            }
            DrainClass::Listener if began.elapsed() >= LISTENER_TIMEOUT => {
                return "its listener did not go";
            }
            _ => {}
        }
    }
}

/// Sets the options of a socket. If that fails, the connection works all the same.
fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES));
    if let Err(error) = set {
        debug!(error = %chain(&error), "the socket options of a connection could not be set");
    }
}

/// Cuts the stream of a connection, so that a handler that owns it notices the end.
struct CutOnDrop(Arc<Activity>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// A request that is not answered to its end.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begin_request();
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

/// The body of an answer. The request is under way until the last byte is passed on.
struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
