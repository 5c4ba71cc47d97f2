//! The circuit breaker.

use std::sync::{Mutex, PoisonError};

use tracing::{info, warn};

use super::RetryPolicy;
use crate::storage::StoreError;
use crate::telemetry::{Metrics, chain};

/// A circuit breaker. It counts consecutive failed operations. While it is open, operations are
/// refused.
#[derive(Default)]
pub(super) struct Breaker(Mutex<BreakerState>);

#[derive(Default)]
struct BreakerState {
    failures: u32,
    is_open: bool,
}

impl Breaker {
    pub(super) fn is_open(&self) -> bool {
        self.lock().is_open
    }

    /// Counts the result of an operation. Returns whether this result opened the breaker.
    pub(super) fn record_result<T>(
        &self,
        answer: &Result<T, StoreError>,
        policy: &RetryPolicy,
        metrics: &Metrics,
    ) -> bool {
        let mut state = self.lock();
        let was_open = state.is_open;
        match answer {
            // A permanent error is an answer too, so the store works.
            Err(error) if error.is_transient() => {
                state.failures = state.failures.saturating_add(1);
                state.is_open = state.failures >= policy.failures_to_open;
                if state.is_open && !was_open {
                    warn!(error = %chain(error), "circuit breaker opened for the object store");
                }
            }
            _ => {
                if was_open {
                    info!("circuit breaker closed for the object store");
                }
                *state = BreakerState::default();
            }
        }
        metrics.set_breaker(state.is_open);
        state.is_open && !was_open
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BreakerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
