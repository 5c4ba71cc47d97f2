//! The state of one connection: whether it carries a request, whether its client reads, and whether
//! it has to end.
//!
//! The connection's task, its stream and the acceptor share it. All of it is atomic, because every
//! request and every blocked write changes it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use crate::http::ConnectionHandle;

/// The activity of one connection.
pub(super) struct Activity {
    /// For the handlers of its requests.
    pub(super) handle: ConnectionHandle,
    /// Requests that are not answered to their end.
    requests: AtomicUsize,
    /// The time at which the last request ended, in milliseconds of [`now_ms`].
    idle_since_ms: AtomicU64,
    /// The time since which a write is blocked, in milliseconds of [`now_ms`]; 0 if none is.
    blocked_since_ms: AtomicU64,
    /// Whether the stream was handed over to a handler (a WebSocket, for example).
    is_upgraded: AtomicBool,
    /// Whether every read and write of the stream fails from now on.
    is_cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
    /// Notified once, when the stream is dropped.
    closed: Notify,
}

/// How a drain treats a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DrainClass {
    /// It carries no request. It is closed first.
    Idle,
    /// It carries a long-lived answer, or it is upgraded. It is asked to go.
    Listener,
    /// It carries a request, such as an upload. It is answered to the end.
    Request,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            handle: ConnectionHandle::default(),
            requests: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(now_ms()),
            blocked_since_ms: AtomicU64::new(0),
            is_upgraded: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            closed: Notify::new(),
        }
    }
}

impl Activity {
    /// How a drain treats the connection at this moment.
    pub(super) fn drain_class(&self) -> DrainClass {
        if self.is_upgraded.load(Ordering::Relaxed) || self.handle.has_listener() {
            DrainClass::Listener
        } else if self.requests.load(Ordering::Relaxed) > 0 {
            DrainClass::Request
        } else {
            DrainClass::Idle
        }
    }

    /// How long the connection has been idle; `None` if it is not.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let is_idle = self.drain_class() == DrainClass::Idle
            && self.blocked_since_ms.load(Ordering::Relaxed) == 0;
        let since = self.idle_since_ms.load(Ordering::Relaxed);
        is_idle.then(|| Duration::from_millis(now_ms().saturating_sub(since)))
    }

    /// How long a write has been blocked.
    pub(super) fn blocked_for(&self) -> Duration {
        match self.blocked_since_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(now_ms().saturating_sub(since)),
        }
    }

    /// Notes that a request begins.
    pub(super) fn begin_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a request is answered to its end, or was given up.
    pub(super) fn end_request(&self) {
        self.idle_since_ms.store(now_ms(), Ordering::Relaxed);
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    /// Notes that a write is blocked from now on, or is not blocked any more.
    pub(super) fn set_blocked(&self, is_blocked: bool) {
        let since = if is_blocked { now_ms() } else { 0 };
        self.blocked_since_ms.store(since, Ordering::Relaxed);
    }

    /// Notes that a handler owns the stream.
    pub(super) fn set_upgraded(&self) {
        self.is_upgraded.store(true, Ordering::Relaxed);
    }

    /// Makes every read and write of the stream fail, also those that wait now.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.reader.wake();
        self.writer.wake();
    }

    /// Whether the stream is cut. The task is woken for its read if that happens later.
    pub(super) fn is_cut_for_reader(&self, context: &Context<'_>) -> bool {
        self.reader.register(context.waker());
        self.is_cut()
    }

    /// Whether the stream is cut. The task is woken for its write if that happens later.
    pub(super) fn is_cut_for_writer(&self, context: &Context<'_>) -> bool {
        self.writer.register(context.waker());
        self.is_cut()
    }

    /// Whether the stream is cut.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    /// Notes that the stream was dropped.
    pub(super) fn set_closed(&self) {
        self.closed.notify_one();
    }

    /// Done when the stream has been dropped. Only one task may wait for this.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }
}

/// Milliseconds on a clock of this process. They begin at 1.
fn now_ms() -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    let epoch = EPOCH.get_or_init(Instant::now);
    u64::try_from(epoch.elapsed().as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}
