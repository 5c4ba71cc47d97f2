//! Audit records: who changed what, when, and with which outcome.
//!
//! Every change and every administrative act causes one record. The record is a line in the log, with
//! the target `cameo::audit`. With `telemetry.audit_file` it is also a line of JSON in that file.
//!
//! | file | task |
//! | --- | --- |
//! | `file` | appends lines to the file, and opens it again after a rotation |
//! | `queue` | takes lines from the threads that serve requests, and writes them on a thread of its own |
//!
//! A record has ids, names and codes. It has no token, query string, address or file name.

mod file;
mod queue;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;
use tracing::info;

use crate::avatar::{AvatarId, SubjectId};
use crate::telemetry::Metrics;
use file::AuditFile;
use queue::Queue;

pub(crate) use file::probe;

/// The actor and the role of what the program does by itself, such as a command of an operator.
const SYSTEM: &str = "system";

/// One change or administrative act.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuditRecord<'a> {
    /// The subject of the token of the caller.
    pub(crate) actor: &'a str,
    /// The role of the caller.
    pub(crate) role: &'a str,
    /// The user whose avatar, lock or viewers it concerns; `None` if it concerns all users.
    pub(crate) subject: Option<&'a SubjectId>,
    /// Its name, such as `upload`.
    pub(crate) action: &'a str,
    /// The avatar that became current, or that was removed.
    pub(crate) avatar: Option<AvatarId>,
    /// The viewer that was added or removed.
    pub(crate) viewer: Option<&'a SubjectId>,
    /// The id of the request.
    pub(crate) request_id: Option<&'a str>,
    /// `done`, or the code of the problem.
    pub(crate) outcome: &'a str,
}

impl<'a> AuditRecord<'a> {
    /// A record of an act of the program itself.
    pub(crate) fn of_system(action: &'a str, outcome: &'a str) -> Self {
        Self {
            actor: SYSTEM,
            role: SYSTEM,
            subject: None,
            action,
            avatar: None,
            viewer: None,
            request_id: None,
            outcome,
        }
    }

    /// The record as a line of JSON, with the time at which it was made.
    fn to_line(self, at: OffsetDateTime) -> Vec<u8> {
        let format = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        let line = Line {
            // A time in UTC can always be written.
            time: at.format(format).unwrap_or_default(),
            actor: self.actor,
            role: self.role,
            subject: self.subject.map(SubjectId::as_str),
            action: self.action,
            avatar_id: self.avatar.map(|avatar| avatar.to_string()),
            viewer: self.viewer.map(SubjectId::as_str),
            request_id: self.request_id,
            outcome: self.outcome,
        };
        // Strings can always be written as JSON.
        let mut line = serde_json::to_vec(&line).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// The fields of a line of the file, in their order.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    actor: &'a str,
    role: &'a str,
    subject: Option<&'a str>,
    action: &'a str,
    avatar_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    viewer: Option<&'a str>,
    request_id: Option<&'a str>,
    outcome: &'a str,
}

/// The file of audit records cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.audit_file: is \"{}\", which cannot be opened", path.display())]
pub(crate) struct AuditFileError {
    path: PathBuf,
    source: io::Error,
}

impl AuditFileError {
    fn of(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self { path, source }
    }
}

/// Checks that the file can be opened or created. Leaves no new file behind, because it would belong to
/// the user who checks.
///
/// # Errors
/// If the file cannot be opened or created.
pub(crate) fn check(path: &Path) -> Result<(), AuditFileError> {
    probe(path).map_err(|source| AuditFileError::of(path, source))
}

/// Writes audit records to the log, and to the file if there is one. Clones share the file.
#[derive(Clone, Default)]
pub struct AuditLog(Option<Arc<Sink>>);

enum Sink {
    /// For the service. Writing a record never waits.
    Queue(Queue),
    /// For commands. Writing a record waits for the file.
    Direct(Mutex<Direct>),
}

struct Direct {
    file: AuditFile,
    lost: Lost,
}

/// Records that the file does not have.
#[derive(Default)]
pub(crate) struct Lost {
    /// The number of these records.
    pub(crate) records: u64,
    /// Why the last of them was not written.
    pub(crate) cause: Option<io::Error>,
}

impl AuditLog {
    /// Opens the file of a service, if there is one. A thread of its own writes the records. It ends
    /// when the last clone is dropped and all records are written.
    ///
    /// # Errors
    /// If the file cannot be opened or created, or is neither a file nor a character device.
    pub(crate) fn open(path: Option<&Path>, metrics: &Metrics) -> Result<Self, AuditFileError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let queue = AuditFile::open(path).and_then(|file| Queue::start(file, metrics));
        let queue = queue.map_err(|source| AuditFileError::of(path, source));
        Ok(Self(Some(Arc::new(Sink::Queue(queue?)))))
    }

    /// Opens the file of a command, if there is one. Its records are written at once.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub(crate) fn open_direct(path: Option<&Path>) -> Result<Self, AuditFileError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let file = AuditFile::open(path).map_err(|source| AuditFileError::of(path, source));
        let direct = Direct {
            file: file?,
            lost: Lost::default(),
        };
        Ok(Self(Some(Arc::new(Sink::Direct(Mutex::new(direct))))))
    }

    /// Writes a record to the log and to the file. In a service this never waits: a record that does
    /// not fit into the queue is only in the log, and a metric counts it.
    pub(crate) fn record(&self, record: &AuditRecord<'_>) {
        info!(
            target: "cameo::audit",
            actor = record.actor,
            role = record.role,
            subject = record.subject.map(tracing::field::display),
            action = record.action,
            avatar_id = record.avatar.map(tracing::field::display),
            viewer = record.viewer.map(tracing::field::display),
            request_id = record.request_id,
            outcome = record.outcome,
            "change"
        );
        let Some(sink) = &self.0 else {
            return;
        };
        let line = record.to_line(OffsetDateTime::now_utc());
        match &**sink {
            Sink::Queue(queue) => queue.add(line),
            Sink::Direct(direct) => {
                let mut direct = direct.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = direct.file.append(&line) {
                    direct.lost.records += 1;
                    direct.lost.cause = Some(error);
                }
            }
        }
    }

    /// Opens the file again at its path, after a rotation has renamed it. Returns at once. If the path
    /// cannot be opened, the records still go to the renamed file.
    pub(crate) fn reopen(&self) {
        if let Some(Sink::Queue(queue)) = self.0.as_deref() {
            queue.reopen();
        }
    }

    /// Waits until all records so far are written and synced to the disk.
    pub(crate) async fn flush(&self) {
        if let Some(Sink::Queue(queue)) = self.0.as_deref() {
            queue.flush().await;
        }
    }

    /// The records that a command could not write to the file. The next call returns later ones.
    pub(crate) fn take_lost(&self) -> Lost {
        match self.0.as_deref() {
            Some(Sink::Direct(direct)) => {
                let mut direct = direct.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut direct.lost)
            }
            Some(Sink::Queue(_)) | None => Lost::default(),
        }
    }
}

#[cfg(test)]
mod tests;
