//! Watches the catalog while the service runs, and logs its problems.

use std::sync::{Mutex, PoisonError};

use tracing::{debug, info, warn};

use super::Service;
use crate::telemetry::chain;

/// The problems of the catalog that were logged and still exist.
#[derive(Default)]
pub(super) struct StartupWarnings(Mutex<Vec<String>>);

impl StartupWarnings {
    /// Replaces the known problems with the present ones. Returns the new problems and those that have
    /// ended.
    fn change(&self, now: Vec<String>) -> (Vec<String>, Vec<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = now.iter().filter(|one| !known.contains(one));
        let new = new.cloned().collect();
        let ended = known.iter().filter(|one| !now.contains(one));
        let ended = ended.cloned().collect();
        *known = now;
        (new, ended)
    }
}

impl Service {
    /// Lets the catalog do its regular work, and logs the problems that it reports. The server calls
    /// this every few seconds.
    pub async fn watch_catalog(&self) {
        match self.catalog.watch().await {
            Ok(watched) => {
                if let Some(seconds) = watched.clock_skew {
                    self.metrics.set_clock_skew(seconds);
                }
                self.report_startup_warnings(watched.warnings);
            }
            // Requests that need the catalog log its failures.
            Err(error) => {
                debug!(error = %chain(&error), "the catalog could not be watched");
            }
        }
    }

    /// Logs new problems of the catalog, and problems that have ended. Each is logged once.
    pub fn report_startup_warnings(&self, warnings: Vec<String>) {
        let (new, ended) = self.warnings.change(warnings);
        for warning in new {
            warn!("{warning}");
        }
        for warning in ended {
            info!(warning, "a problem of the catalog has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_reported_once_and_its_end_once() {
        let warnings = StartupWarnings::default();
        let one = || vec!["one".to_owned()];
        assert_eq!(warnings.change(one()), (one(), vec![]));
        assert_eq!(warnings.change(one()), (vec![], vec![]));
        assert_eq!(warnings.change(vec![]), (vec![], one()));
        assert_eq!(warnings.change(vec![]), (vec![], vec![]));
    }
}
