//! A server that tests share.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// A server that tests share, one test at a time. It starts with the first test that needs it, and
/// ends with the last test that holds it or waits for it.
pub struct SharedServer<T> {
    start: fn() -> T,
    running: Mutex<Weak<AsyncMutex<T>>>,
}

/// The right to use a [`SharedServer`].
pub type SharedServerGuard<T> = OwnedMutexGuard<T>;

impl<T> SharedServer<T> {
    /// A server that `start` starts.
    pub const fn new(start: fn() -> T) -> Self {
        Self {
            start,
            running: Mutex::new(Weak::new()),
        }
    }

    /// Waits until no other test uses the server. The server has the data of the test before.
    pub async fn lock(&self) -> SharedServerGuard<T> {
        self.running().lock_owned().await
    }

    fn running(&self) -> Arc<AsyncMutex<T>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let started = Arc::new(AsyncMutex::new((self.start)()));
            *running = Arc::downgrade(&started);
            started
        })
    }
}
