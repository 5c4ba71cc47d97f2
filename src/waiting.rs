//! Waits at startup for a bucket or Redis that does not answer yet.

use std::error::Error;
use std::time::Duration;

use tracing::warn;

use crate::telemetry::chain;

/// The pause after the first failed attempt. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Whether to wait for a bucket or Redis that does not answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    UntilItIsUp,
    Not,
}

/// The pauses between attempts to open a part.
pub(crate) struct Pauses {
    next: Duration,
}

impl Pauses {
    pub(crate) fn new() -> Self {
        Self { next: FIRST_PAUSE }
    }

    /// Logs why the part cannot be opened yet, and pauses.
    pub(crate) async fn pause_after(&mut self, part: &str, error: &(dyn Error + 'static)) {
        let pause = self.next;
        warn!(error = %chain(error), retry_in = ?pause, "the {part} cannot be opened yet");
        self.next = MAX_PAUSE.min(pause * 2);
        tokio::time::sleep(pause).await;
    }
}

/// Opens a part that is on the network. Repeats this after a transient error if the caller wants to
/// wait.
///
/// # Errors
/// The error of the last attempt.
pub(crate) async fn open_when_up<T, E: Error + 'static>(
    part: &str,
    waiting: Waiting,
    open: impl AsyncFn() -> Result<T, E>,
    is_transient: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let mut pauses = Pauses::new();
    loop {
        match open().await {
            Err(error) if waiting == Waiting::UntilItIsUp && is_transient(&error) => {
                pauses.pause_after(part, &error).await;
            }
            opened => return opened,
        }
    }
}
