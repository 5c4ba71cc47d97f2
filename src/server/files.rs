//! The limit of open files, and the number of connections that it allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::telemetry::chain;

/// The bounds of the files that are kept for the store, the catalog and everything else. Between
/// them, a quarter of the limit is kept.
const MIN_OTHER_FILES: u64 = 64;
const MAX_OTHER_FILES: u64 = 1024;
/// The bounds of the connections that are kept for health checks. Between them, an eighth of all
/// connections is kept.
const MIN_RESERVE: u64 = 4;
const MAX_RESERVE: u64 = 64;

/// The numbers of connections that may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Connections that may send any request.
    pub(super) main: usize,
    /// Further connections, which may only send health checks.
    pub(super) reserve: usize,
}

/// Raises the limit of open files of the process as far as the system allows.
pub fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(
            error = %chain(&error),
            ?current,
            ?maximum,
            "the limit of open files could not be raised"
        );
    } else {
        info!(from = ?current, to = ?maximum, "the limit of open files was raised");
    }
}

impl Places {
    /// Places for so many connections, or fewer if the process may not open so many files.
    pub(super) fn within_the_file_limit(max_connections: usize) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let places = Self::for_files(files, max_connections);
        if places.main < max_connections {
            warn!(
                connections = places.main,
                files,
                "fewer connections than http.max_connections are accepted, because the process may not \
                 open more files; raise its limit (ulimit -n, LimitNOFILE)"
            );
        }
        places
    }

    fn for_files(files: u64, max_connections: usize) -> Self {
        let others = (files / 4).clamp(MIN_OTHER_FILES, MAX_OTHER_FILES);
        let connections = files.saturating_sub(others);
        let reserve = (connections / 8).clamp(MIN_RESERVE, MAX_RESERVE);
        let main = connections.saturating_sub(reserve).max(1);
        Self {
            main: max_connections.min(usize::try_from(main).unwrap_or(usize::MAX)),
            reserve: reserve as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_store_and_the_catalog() {
        let places = |files| {
            let Places { main, reserve } = Places::for_files(files, 4096);
            (main, reserve)
        };
        assert_eq!(places(128), (56, 8));
        assert_eq!(places(1024), (704, 64));
        assert_eq!(places(1 << 20), (4096, 64));
        assert_eq!(places(u64::MAX), (4096, 64));
        // Even if the limit is too low for everything, one connection is accepted.
        assert_eq!(places(10), (1, 4));
        for files in 100..10_000 {
            let (main, reserve) = places(files);
            assert!(main as u64 + reserve as u64 + MIN_OTHER_FILES <= files);
        }
    }
}
