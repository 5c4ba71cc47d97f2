//! The audit of one request: who attempts which change, and with which outcome.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::problem::Problem;
use crate::audit::{AuditLog, AuditRecord};
use crate::auth::{Principal, Role};
use crate::avatar::{AvatarId, SubjectId};

/// The audit of one request. A request causes at most one record.
///
/// Extractors say what the request attempts, and who makes it. The handler records the outcome of a
/// change that began. The envelope records every other refusal. A request without a valid token has
/// no actor, so it causes no record; its line in the log has the code of the problem.
pub(super) struct RequestAudit {
    log: AuditLog,
    action: OnceLock<&'static str>,
    caller: OnceLock<Caller>,
    viewer: OnceLock<SubjectId>,
    is_recorded: AtomicBool,
}

/// The caller, and the user whose avatar, lock or viewers the request is about.
struct Caller {
    name: String,
    role: Role,
    subject: SubjectId,
}

impl RequestAudit {
    /// The audit of a request whose records go to `log`.
    pub(super) fn new(log: AuditLog) -> Self {
        Self {
            log,
            action: OnceLock::new(),
            caller: OnceLock::new(),
            viewer: OnceLock::new(),
            is_recorded: AtomicBool::new(false),
        }
    }

    /// Notes the act that the request attempts. If it is called again, the first act stays.
    pub(super) fn attempt(&self, action: &'static str) {
        let _ = self.action.set(action);
    }

    /// Notes who makes the request, and the user that it is about.
    pub(super) fn identify(&self, principal: &Principal, subject: &SubjectId) {
        let _ = self.caller.set(Caller {
            name: principal.name.clone(),
            role: principal.role,
            subject: subject.clone(),
        });
    }

    /// Notes the viewer that the request adds or removes.
    pub(super) fn concern_viewer(&self, viewer: &SubjectId) {
        let _ = self.viewer.set(viewer.clone());
    }

    /// Records the outcome of the act. `avatar` is the avatar that became current or was removed.
    pub(super) fn record(&self, request_id: &str, outcome: Result<Option<AvatarId>, &Problem>) {
        if let Some(action) = self.action.get() {
            self.record_as(action, request_id, outcome);
        }
    }

    /// Records the outcome of an act whose name the body of the request decides.
    pub(super) fn record_as(
        &self,
        action: &str,
        request_id: &str,
        outcome: Result<Option<AvatarId>, &Problem>,
    ) {
        match outcome {
            Ok(avatar) => self.write(action, request_id, avatar, "done"),
            Err(problem) => self.write(action, request_id, None, problem.code.name()),
        }
    }

    /// Records that the request was refused, unless its outcome is recorded already.
    pub(super) fn record_refusal(&self, request_id: &str, code: &str) {
        if let Some(action) = self.action.get() {
            self.write(action, request_id, None, code);
        }
    }

    fn write(&self, action: &str, request_id: &str, avatar: Option<AvatarId>, outcome: &str) {
        let Some(caller) = self.caller.get() else {
            return;
        };
        if self.is_recorded.swap(true, Ordering::Relaxed) {
            return;
        }
        self.log.record(&AuditRecord {
            actor: &caller.name,
            role: caller.role.name(),
            subject: Some(&caller.subject),
            action,
            avatar,
            viewer: self.viewer.get(),
            request_id: Some(request_id),
            outcome,
        });
    }
}
