//! Audit lines: who changed what, and with which outcome.

use tracing::info;

use super::context::RequestContext;
use super::problem::Problem;
use crate::auth::Principal;
use crate::avatar::{AvatarId, SubjectId};

/// A permitted change or administrative act.
pub(super) struct Act<'a> {
    /// The caller.
    pub(super) principal: &'a Principal,
    /// The user whose avatar or policy it concerns.
    pub(super) subject: &'a SubjectId,
    /// Its name, such as `upload`.
    pub(super) action: &'static str,
    /// The request's context.
    pub(super) context: &'a RequestContext,
}

impl Act<'_> {
    /// Logs the act and its outcome. `avatar` is the avatar that was changed.
    pub(super) fn record(&self, outcome: Result<Option<AvatarId>, &Problem>) {
        let (avatar_id, outcome) = match outcome {
            Ok(avatar) => (avatar, "done"),
            Err(problem) => (None, problem.code.name()),
        };
        info!(
            target: "cameo::audit",
            actor = self.principal.name,
            role = ?self.principal.role,
            subject = %self.subject,
            action = self.action,
            avatar_id = avatar_id.map(tracing::field::display),
            request_id = self.context.request_id(),
            outcome,
            "change"
        );
    }
}
