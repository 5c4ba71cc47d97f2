//! The data of one request that the envelope and the extractors share.

use std::sync::{Arc, OnceLock};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::audit::RequestAudit;
use super::problem::{Code, Problem};
use crate::audit::AuditLog;
use crate::auth::Principal;
use crate::avatar::{Account, AvatarId, SubjectId};
use crate::limits::{Action, Decision};

/// Facts about one request. The envelope makes it; extractors add to it; the envelope then
/// writes headers, metrics and the log line from it. Clones share it.
#[derive(Clone)]
pub(super) struct RequestContext(Arc<Inner>);

struct Inner {
    request_id: String,
    attempted: OnceLock<Action>,
    rate: OnceLock<(Account, Decision)>,
    audit: RequestAudit,
}

impl RequestContext {
    /// The context of a request with this id, whose audit record goes to `log`.
    pub(super) fn new(request_id: String, log: AuditLog) -> Self {
        Self(Arc::new(Inner {
            request_id,
            attempted: OnceLock::new(),
            rate: OnceLock::new(),
            audit: RequestAudit::new(log),
        }))
    }

    /// The request's id: the one that it came with, or a new one.
    pub(super) fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// The change that the request attempts.
    pub(super) fn attempted(&self) -> Option<Action> {
        self.0.attempted.get().copied()
    }

    /// Records that the request attempts a change, whether or not it may.
    pub(super) fn attempt(&self, action: Action) {
        // A request attempts one change, so the first action stays.
        let _ = self.0.attempted.set(action);
        self.0.audit.attempt(action.name());
    }

    /// Notes for the audit the act that the request attempts.
    pub(super) fn attempt_act(&self, action: &'static str) {
        self.0.audit.attempt(action);
    }

    /// Notes for the audit who makes the request, and the user that it is about.
    pub(super) fn identify(&self, principal: &Principal, subject: &SubjectId) {
        self.0.audit.identify(principal, subject);
    }

    /// Notes for the audit the viewer that the request adds or removes.
    pub(super) fn concern_viewer(&self, viewer: &SubjectId) {
        self.0.audit.concern_viewer(viewer);
    }

    /// Records the outcome of the request's act in the audit. `outcome` has the avatar that became
    /// current or was removed.
    pub(super) fn record(&self, outcome: Result<Option<AvatarId>, &Problem>) {
        self.0.audit.record(&self.0.request_id, outcome);
    }

    /// Like [`record`](Self::record), for an act whose name the body of the request decides.
    pub(super) fn record_as(&self, action: &str, outcome: Result<Option<AvatarId>, &Problem>) {
        self.0.audit.record_as(action, &self.0.request_id, outcome);
    }

    /// Records in the audit that the request was refused, unless its outcome is recorded already.
    pub(super) fn record_refusal(&self, code: &str) {
        self.0.audit.record_refusal(&self.0.request_id, code);
    }

    /// The rate limit that counted the request, and its decision.
    pub(super) fn rate(&self) -> Option<&(Account, Decision)> {
        self.0.rate.get()
    }

    /// Records the decision of a rate limit. If several limits count a request, the first one
    /// stays.
    pub(super) fn set_rate(&self, account: Account, decision: Decision) {
        let _ = self.0.rate.set((account, decision));
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let context = parts.extensions.get::<Self>().cloned();
        // Every route is inside the envelope, which inserts the context.
        context.ok_or_else(|| Problem::new(Code::Internal, "an internal error"))
    }
}
