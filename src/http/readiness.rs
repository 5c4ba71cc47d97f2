//! The program's own state that health checks report: what it waits for during startup, and whether
//! it is shutting down.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The dependency that the program waits for during startup.
#[derive(Debug, Default)]
pub struct Startup(AtomicU8);

/// A dependency that the program needs before it can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// The catalog of records.
    Catalog,
    /// The store of images.
    Store,
}

impl Startup {
    /// Records that the program now waits for this.
    pub fn waits_for(&self, needed: Needed) {
        self.0.store(needed as u8, Ordering::Relaxed);
    }

    /// The dependency that the program waits for at the moment.
    pub(super) fn waiting(&self) -> Needed {
        if self.0.load(Ordering::Relaxed) == Needed::Store as u8 {
            Needed::Store
        } else {
            Needed::Catalog
        }
    }
}

/// Whether the program is shutting down, and when its readiness was last probed.
#[derive(Debug, Default)]
pub struct Readiness {
    is_draining: AtomicBool,
    last_probe: Mutex<Option<Instant>>,
}

impl Readiness {
    /// Makes `/health/ready` answer 503 from now on.
    pub fn begin_drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether `/health/ready` was requested within this time.
    pub fn was_probed_within(&self, time: Duration) -> bool {
        let last = self.last_probe.lock();
        let last = *last.unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|at| at.elapsed() <= time)
    }

    /// Records a request for `/health/ready`. Returns whether the program is shutting down.
    pub(super) fn probe(&self) -> bool {
        let mut last = self
            .last_probe
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = Some(Instant::now());
        self.is_draining.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_remembered_for_the_given_time() {
        let readiness = Readiness::default();
        assert!(!readiness.was_probed_within(Duration::from_mins(1)));
        assert!(!readiness.probe());
        readiness.begin_drain();
        assert!(readiness.probe());
        assert!(readiness.was_probed_within(Duration::from_mins(1)));
        assert!(!readiness.was_probed_within(Duration::ZERO));
    }
}
