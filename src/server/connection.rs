//! One connection: its requests, and its end.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
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

use super::accept::{Phase, Routes};
use super::write_limit::LimitedWrites;

/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// The most that is held of what a connection has sent and nobody has read: a request's head, or a
/// piece of its body.
const BUFFER_BYTES: usize = 64 * 1024;
/// The most that the system holds of an answer beyond what it has sent. A client's progress is seen
/// in steps of half of it, so it must be read within the time that a write may be blocked.
const UNSENT_BYTES: u32 = 32 * 1024;
/// In a drain: how long a connection may be blocked, or without a request, before it is cut off.
const DRAIN_STALL: Duration = Duration::from_secs(2);
/// In a drain: how often that is checked.
const DRAIN_CHECK: Duration = Duration::from_millis(250);

/// What a connection is accepted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any number of requests.
    Main,
    /// One health check.
    Reserve,
}

/// Answers a connection's requests until it ends. In a drain it ends after the request that is
/// under way, or at once if the client does not read or has sent none.
pub(super) async fn serve(
    stream: TcpStream,
    kind: Kind,
    routes: Arc<Routes>,
    mut phases: watch::Receiver<Phase>,
    activity: Arc<Activity>,
) {
    prepare(&stream);
    let io = TokioIo::new(LimitedWrites::new(stream, Arc::clone(&activity)));
    let service = service_fn(|request| {
        let request_under_way = UnderWay::begin(&activity);
        let routes = Arc::clone(&routes);
        async move {
            let response = routes.answer(request, kind).await;
            Ok::<_, Infallible>(response.map(|body| Answer {
                body,
                _under_way: request_under_way,
            }))
        }
    });
    // HTTP/1.1, which every gateway speaks to what is behind it.
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES)
        .keep_alive(kind == Kind::Main)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return note(ended),
        _ = phases.wait_for(|phase| *phase != Phase::Accepting) => {}
    }
    connection.as_mut().graceful_shutdown();
    let mut idle_since = Instant::now();
    loop {
        tokio::select! {
            ended = connection.as_mut() => return note(ended),
            () = sleep(DRAIN_CHECK) => {}
        }
        if activity.requests.load(Ordering::Relaxed) > 0 {
            idle_since = Instant::now();
        }
        if idle_since.elapsed() >= DRAIN_STALL || activity.blocked_for() >= DRAIN_STALL {
            debug!("a connection that stalls is cut off by the drain");
            return;
        }
    }
}

/// Sets the options of a socket. It works without them.
fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES));
    if let Err(error) = set {
        let error: &dyn std::error::Error = &error;
        debug!(error, "a connection's socket options were not set");
    }
}

fn note(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        let error: &dyn std::error::Error = &error;
        debug!(error, cause = error.source(), "a connection broke");
    }
}

/// What a connection is doing.
pub(super) struct Activity {
    /// Requests that are not answered to their end.
    requests: AtomicUsize,
    /// When there was none any more, in milliseconds since the process began to serve.
    idle_since_ms: AtomicU64,
    /// When a write was blocked that still is, in milliseconds since the process began to serve;
    /// 0 where none is.
    blocked_since_ms: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            requests: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(now_ms()),
            blocked_since_ms: AtomicU64::new(0),
        }
    }
}

impl Activity {
    /// How long it has had nothing to do; `None` where it has.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let is_idle = self.requests.load(Ordering::Relaxed) == 0
            && self.blocked_since_ms.load(Ordering::Relaxed) == 0;
        let since = self.idle_since_ms.load(Ordering::Relaxed);
        is_idle.then(|| Duration::from_millis(now_ms().saturating_sub(since)))
    }

    /// Notes whether a write is blocked, since now.
    pub(super) fn set_blocked(&self, is_blocked: bool) {
        let since = if is_blocked { now_ms() } else { 0 };
        self.blocked_since_ms.store(since, Ordering::Relaxed);
    }

    fn blocked_for(&self) -> Duration {
        match self.blocked_since_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now_ms().saturating_sub(since)),
        }
    }
}

/// Milliseconds on a clock of this process's own, from 1.
fn now_ms() -> u64 {
    static EPOCH: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let epoch = EPOCH.get_or_init(std::time::Instant::now);
    u64::try_from(epoch.elapsed().as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// A request that is not answered to its end.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.idle_since_ms.store(now_ms(), Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body. The request is under way until it has been passed on.
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
