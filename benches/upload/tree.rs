//! The processor time and memory of a process and its descendants, from `/proc`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The unit of `/proc/PID/stat`: user space sees 100 ticks per second on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The interval between memory samples.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// A process and its descendants at the time when the value was made.
#[derive(Clone)]
pub(crate) struct Tree {
    processes: Vec<PathBuf>,
}

impl Tree {
    pub(crate) fn of(root: u32) -> Self {
        let mut processes = Vec::new();
        let mut found = vec![root];
        while let Some(process) = found.pop() {
            let folder = PathBuf::from(format!("/proc/{process}"));
            let tasks = fs::read_dir(folder.join("task"));
            // An imaging process may end at any moment; its parent then counts its time.
            for task in tasks.into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children"));
                let children = children.unwrap_or_default();
                found.extend(
                    children
                        .split_whitespace()
                        .map(|id| id.parse::<u32>().unwrap()),
                );
            }
            processes.push(folder);
        }
        Self { processes }
    }

    /// The user and system time so far, including threads and child processes that have ended.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.processes
            .iter()
            .map(|process| cpu_seconds(process))
            .sum()
    }

    /// The proportional set size (PSS): resident memory, with each shared page divided between its
    /// users.
    pub(crate) fn pss_kib(&self) -> u64 {
        self.processes.iter().map(|process| pss_kib(process)).sum()
    }
}

fn cpu_seconds(process: &Path) -> f64 {
    // The parent of a process that has ended counts its time.
    let Ok(stat) = fs::read_to_string(process.join("stat")) else {
        return 0.0;
    };
    // The name in parentheses may contain spaces. Fields 14 to 17 are the user and system times of
    // the process, and of its ended children that were waited for.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(4);
    let ticks: f64 = ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum();
    ticks / TICKS_PER_SECOND
}

fn pss_kib(process: &Path) -> u64 {
    let text = fs::read_to_string(process.join("smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .map_or(0, |number| number.parse().unwrap())
}

/// The processor time so far of all threads of a process, and of the threads whose names begin with
/// `name`. Threads that have ended are not counted.
pub(crate) fn thread_cpu_seconds(process: u32, name: &str) -> (f64, f64) {
    let (mut all, mut named) = (0.0, 0.0);
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let task = task.unwrap().path();
        let stat = fs::read_to_string(task.join("schedstat")).unwrap();
        let nanoseconds = stat.split_whitespace().next().unwrap();
        let seconds = nanoseconds.parse::<f64>().unwrap() / 1e9;
        all += seconds;
        if fs::read_to_string(task.join("comm"))
            .unwrap()
            .starts_with(name)
        {
            named += seconds;
        }
    }
    (all, named)
}

/// Samples the memory of a process tree until [`peak_mib`](Self::peak_mib).
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watch {
    pub(crate) fn start(tree: Tree) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut peak = 0;
                loop {
                    peak = peak.max(tree.pss_kib());
                    if stop.load(Ordering::Relaxed) {
                        return peak;
                    }
                    std::thread::sleep(SAMPLE_EVERY);
                }
            }
        });
        Self { stop, thread }
    }

    /// Stops sampling and returns the largest sample.
    pub(crate) fn peak_mib(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap() as f64 / 1024.0
    }
}
