//! Looking after the catalog while the service runs.

use std::sync::{Mutex, PoisonError};

use tracing::{debug, info, warn};

use super::Service;
use crate::telemetry::chain;

/// The problems of the catalog that were logged and have not ended.
#[derive(Default)]
pub(super) struct StartupWarnings(Mutex<Vec<String>>);

impl StartupWarnings {
    /// Takes the present problems for known; gives the new ones and those that ended.
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
    /// Has the catalog do its regular work, and logs the problems that it found. The server calls
    /// this every few seconds.
    pub async fn watch_catalog(&self) {
        match self.catalog.watch().await {
            Ok(watched) => {
                if let Some(seconds) = watched.clock_skew {
                    self.metrics.set_clock_skew(seconds);
                }
                self.report_startup_warnings(watched.warnings);
            }
            // Whoever needs the catalog meanwhile logs that it fails.
            Err(error) => {
                debug!(error = %chain(&error), "the catalog was not watched");
            }
        }
    }

    /// Logs the problems of the catalog that are new, and those that ended. Each is logged once.
    pub fn report_startup_warnings(&self, warnings: Vec<String>) {
        let (new, ended) = self.warnings.change(warnings);
        for warning in new {
            warn!("{warning}");
        }
        for warning in ended {
            info!(warning, "this problem of the catalog has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_new_once_and_ends_once() {
        let warnings = StartupWarnings::default();
        let one = || vec!["one".to_owned()];
        assert_eq!(warnings.change(one()), (one(), vec![]));
        assert_eq!(warnings.change(one()), (vec![], vec![]));
        assert_eq!(warnings.change(vec![]), (vec![], one()));
        assert_eq!(warnings.change(vec![]), (vec![], vec![]));
    }
}
