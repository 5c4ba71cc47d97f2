//! The limit of open files, and the connections that it leaves room for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::telemetry::chain;

/// The files that are kept for the store, the catalog and everything else: a quarter of the limit,
/// within these bounds.
const MIN_OTHER_FILES: u64 = 64;
const MAX_OTHER_FILES: u64 = 1024;
/// The connections that are kept for health checks: an eighth of all, within these bounds.
const MIN_RESERVE: u64 = 4;
const MAX_RESERVE: u64 = 64;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Those that are answered everything.
    pub(super) main: usize,
    /// Those beyond, which are answered health checks alone.
    pub(super) reserve: usize,
}

/// Raises the process's limit of open files as far as the system allows it.
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
            "the limit of open files stays as it is"
        );
    } else {
        info!(from = ?current, to = ?maximum, "the limit of open files was raised");
    }
}

impl Places {
    /// So many connections, or fewer if the process may not open so many files.
    pub(super) fn within_the_file_limit(max_connections: usize) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let places = Self::of(files, max_connections);
        if places.main < max_connections {
            warn!(
                connections = places.main,
                files,
                "fewer connections than http.max_connections are accepted: the process may not \
                 open more files; raise its limit (ulimit -n, LimitNOFILE)"
            );
        }
        places
    }

    fn of(files: u64, max_connections: usize) -> Self {
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
    fn connections_leave_files_to_the_store_and_the_catalog() {
        let places = |files| {
            let Places { main, reserve } = Places::of(files, 4096);
            (main, reserve)
        };
        assert_eq!(places(128), (56, 8));
        assert_eq!(places(1024), (704, 64));
        assert_eq!(places(1 << 20), (4096, 64));
        assert_eq!(places(u64::MAX), (4096, 64));
        // Too few for anything: it is not made worse by accepting nothing.
        assert_eq!(places(10), (1, 4));
        for files in 100..10_000 {
            let (main, reserve) = places(files);
            assert!(main as u64 + reserve as u64 + MIN_OTHER_FILES <= files);
        }
    }
}
