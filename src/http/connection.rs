//! Long-lived answers: how a handler keeps a connection open without holding up a shutdown.
//!
//! The server puts a [`ConnectionHandle`] into the extensions of every request. A handler whose
//! answer has no end of its own (a WebSocket, a stream of events) calls
//! [`ConnectionHandle::listen`] and holds the [`Listener`] for as long as the answer lasts.
//!
//! The server then treats the connection differently in two ways. It is never closed as idle. When
//! the server drains, the listener is asked to go, and has some seconds to say goodbye; the server
//! does not wait for the answer's end as it does for an upload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The connection on which a request came.
#[derive(Clone, Debug, Default)]
pub struct ConnectionHandle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    listeners: AtomicUsize,
    is_asked_to_go: AtomicBool,
    asked_to_go: Notify,
}

impl ConnectionHandle {
    /// Marks the connection as one with a long-lived answer, until the [`Listener`] is dropped.
    #[must_use]
    pub fn listen(&self) -> Listener {
        self.0.listeners.fetch_add(1, Ordering::Relaxed);
        Listener(self.clone())
    }

    /// Whether a long-lived answer is under way.
    pub(crate) fn has_listener(&self) -> bool {
        self.0.listeners.load(Ordering::Relaxed) > 0
    }

    /// Asks the listener to end its answer. A listener that begins later is asked at once.
    pub(crate) fn ask_to_go(&self) {
        self.0.is_asked_to_go.store(true, Ordering::SeqCst);
        self.0.asked_to_go.notify_waiters();
    }
}

/// A long-lived answer. Hold it until the answer has ended.
#[derive(Debug)]
pub struct Listener(ConnectionHandle);

impl Listener {
    /// Done when the server drains. The handler then says goodbye to the client and ends the answer.
    /// The server closes the connection some seconds later.
    pub async fn asked_to_go(&self) {
        let Shared {
            is_asked_to_go,
            asked_to_go,
            ..
        } = &*self.0.0;
        let notified = asked_to_go.notified();
        // `notify_waiters` reaches a `Notified` from its creation on, so no request to go is missed.
        if !is_asked_to_go.load(Ordering::SeqCst) {
            notified.await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}
