//! Who did what, when, and what came of it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::client::Avatar;

/// What a user did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Uploaded the picture of these dimensions, which no other upload of the run has.
    Upload {
        width: u32,
        height: u32,
    },
    Delete,
    /// Asked for the avatar's JSON.
    Read,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200 to an upload.
    Uploaded(Avatar),
    /// 200 to a delete.
    Deleted,
    /// 200 to a read.
    Seen(Avatar),
    /// 404.
    Nothing,
    /// An answer that promises that nothing was changed.
    Refused(String),
    /// It happened, or will yet, or not.
    Unknown(String),
}

/// One thing that one user did.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) subject: String,
    pub(crate) act: Act,
    /// When it was asked, since the run began.
    pub(crate) begun: Duration,
    /// When the answer was there, or would come no more.
    pub(crate) ended: Duration,
    pub(crate) outcome: Outcome,
}

impl Op {
    /// Whether it was over before the other began.
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        self.ended < other.begun
    }

    /// Whether some of it fell into one of these times.
    pub(crate) fn overlaps(&self, times: &[Range<Duration>]) -> bool {
        let mut times = times.iter();
        times.any(|time| self.begun < time.end && time.start < self.ended)
    }

    /// What an upload's avatar tells where its picture came from.
    pub(crate) fn dimensions(&self) -> Option<String> {
        match self.act {
            Act::Upload { width, height } => Some(format!("{width}x{height}")),
            Act::Delete | Act::Read => None,
        }
    }

    /// The version that was answered or read.
    pub(crate) fn version(&self) -> Option<u64> {
        match &self.outcome {
            Outcome::Uploaded(avatar) | Outcome::Seen(avatar) => Some(avatar.version),
            _ => None,
        }
    }
}

/// Everything that was done, and a line of the log for each.
pub(crate) struct History {
    begun: Instant,
    ops: Mutex<Vec<Op>>,
    losses: Mutex<Vec<Range<Duration>>>,
    log: Mutex<BufWriter<File>>,
}

impl History {
    pub(crate) fn new(log: &Path) -> Self {
        Self {
            begun: Instant::now(),
            ops: Mutex::default(),
            losses: Mutex::default(),
            log: Mutex::new(BufWriter::new(File::create(log).unwrap())),
        }
    }

    /// The time since the run began.
    pub(crate) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Tells the log something.
    pub(crate) fn tell(&self, line: impl std::fmt::Display) {
        let now = self.now().as_secs_f64();
        let mut log = self.log.lock().unwrap();
        writeln!(log, "{now:9.3} {line}").unwrap();
        log.flush().unwrap();
    }

    /// Remembers what was done, by whom and by way of which replica.
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
        self.tell(format_args!(
            "worker {worker:2} replica {replica} {subject} {act:?} since {begun:.3}: {came}"
        ));
        self.ops.lock().unwrap().push(op);
    }

    /// From now on the catalog may have lost its latest writes, until [`end_loss`](Self::end_loss).
    pub(crate) fn begin_loss(&self) {
        let since = self.now()..Duration::MAX;
        self.losses.lock().unwrap().push(since);
    }

    /// The catalog is rebuilt.
    pub(crate) fn end_loss(&self) {
        if let Some(last) = self.losses.lock().unwrap().last_mut() {
            last.end = self.now();
        }
    }

    /// When the catalog may have lacked its latest writes.
    pub(crate) fn losses(&self) -> Vec<Range<Duration>> {
        self.losses.lock().unwrap().clone()
    }

    /// Every acknowledged upload of a subject, so far.
    pub(crate) fn uploads_of(&self, subject: &str) -> Vec<(Op, Avatar)> {
        let ops = self.ops.lock().unwrap();
        let uploads = ops.iter().filter(|op| op.subject == subject);
        let uploads = uploads.filter_map(|op| match &op.outcome {
            Outcome::Uploaded(avatar) => Some((op.clone(), avatar.clone())),
            _ => None,
        });
        uploads.collect()
    }

    /// Everything that was done, in the order in which it ended.
    pub(crate) fn ops(&self) -> Vec<Op> {
        self.ops.lock().unwrap().clone()
    }
}
