//! The history of a run: every operation with its times and its outcome.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::client::Avatar;

/// The kind of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// An upload of a picture with these dimensions, which no other upload of the run has.
    Upload {
        width: u32,
        height: u32,
    },
    Delete,
    /// A read of the avatar as JSON.
    Read,
}

/// The outcome of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200 to an upload.
    Uploaded(Avatar),
    /// 200 to a delete.
    Deleted,
    /// 200 to a read.
    Seen(Avatar),
    /// 404.
    NotFound,
    /// An answer that states that nothing was changed.
    Refused(String),
    /// The operation may have taken effect, or may still take effect, or not.
    Unknown(String),
}

/// An operation of a user.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) subject: String,
    pub(crate) act: Act,
    /// When the request was sent, since the begin of the run.
    pub(crate) begun: Duration,
    /// When the answer arrived, or the request failed.
    pub(crate) ended: Duration,
    pub(crate) outcome: Outcome,
}

impl Op {
    /// Whether this operation ended before the other began.
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        self.ended < other.begun
    }

    /// Whether this operation overlaps one of these periods.
    pub(crate) fn overlaps(&self, times: &[Range<Duration>]) -> bool {
        let mut times = times.iter();
        times.any(|time| self.begun < time.end && time.start < self.ended)
    }

    /// The dimensions of an uploaded picture, as the avatar's JSON gives them.
    pub(crate) fn dimensions(&self) -> Option<String> {
        match self.act {
            Act::Upload { width, height } => Some(format!("{width}x{height}")),
            Act::Delete | Act::Read => None,
        }
    }

    /// The version in the answer.
    pub(crate) fn version(&self) -> Option<u64> {
        match &self.outcome {
            Outcome::Uploaded(avatar) | Outcome::Seen(avatar) => Some(avatar.version),
            _ => None,
        }
    }
}

/// All operations of a run, and a log with a line for each.
pub(crate) struct History {
    begun: Instant,
    ops: Mutex<Vec<Op>>,
    losses: Mutex<Vec<Range<Duration>>>,
    file: Mutex<BufWriter<File>>,
}

impl History {
    pub(crate) fn new(log: &Path) -> Self {
        Self {
            begun: Instant::now(),
            ops: Mutex::default(),
            losses: Mutex::default(),
            file: Mutex::new(BufWriter::new(File::create(log).unwrap())),
        }
    }

    /// The time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Writes a line to the log.
    pub(crate) fn log(&self, line: impl std::fmt::Display) {
        let now = self.now().as_secs_f64();
        let mut log = self.file.lock().unwrap();
        writeln!(log, "{now:9.3} {line}").unwrap();
        log.flush().unwrap();
    }

    /// Adds an operation, with the numbers of its user and its replica.
    pub(crate) fn add(&self, worker: usize, replica: usize, op: Op) {
        let Op {
            subject,
            act,
            begun,
            outcome,
            ..
        } = &op;
        let begun = begun.as_secs_f64();
        let came = match outcome {
            Outcome::Uploaded(avatar) => format!("uploaded v{} {}", avatar.version, avatar.id),
            Outcome::Seen(avatar) => format!("seen v{} {}", avatar.version, avatar.id),
            other => format!("{other:?}"),
        };
        self.log(format_args!(
            "worker {worker:2} replica {replica} {subject} {act:?} since {begun:.3}: {came}"
        ));
        self.ops.lock().unwrap().push(op);
    }

    /// Begins a period in which the catalog may lack its latest writes, until
    /// [`end_loss`](Self::end_loss).
    pub(crate) fn begin_loss(&self) {
        let since = self.now()..Duration::MAX;
        self.losses.lock().unwrap().push(since);
    }

    /// Ends the period: the catalog is rebuilt.
    pub(crate) fn end_loss(&self) {
        if let Some(last) = self.losses.lock().unwrap().last_mut() {
            last.end = self.now();
        }
    }

    /// The periods in which the catalog may have lacked its latest writes.
    pub(crate) fn losses(&self) -> Vec<Range<Duration>> {
        self.losses.lock().unwrap().clone()
    }

    /// All acknowledged uploads of a subject so far.
    pub(crate) fn uploads_of(&self, subject: &str) -> Vec<(Op, Avatar)> {
        let ops = self.ops.lock().unwrap();
        let uploads = ops.iter().filter(|op| op.subject == subject);
        let uploads = uploads.filter_map(|op| match &op.outcome {
            Outcome::Uploaded(avatar) => Some((op.clone(), avatar.clone())),
            _ => None,
        });
        uploads.collect()
    }

    /// All operations, in the order in which they ended.
    pub(crate) fn ops(&self) -> Vec<Op> {
        self.ops.lock().unwrap().clone()
    }
}
