//! Counts requests against the rate limits.

use super::AppState;
use super::context::RequestContext;
use super::problem::{Code, Problem};
use crate::avatar::Account;
use crate::limits::{Action, CountedBy, Decision, Verdict};

/// Counts an attempt against an account, and records the decision for the answer's headers.
///
/// # Errors
/// 429 if the quota is used up.
pub(super) async fn count(
    app: &AppState,
    context: &RequestContext,
    action: Action,
    account: &Account,
) -> Result<(), Problem> {
    let Some(limiter) = &app.limiter else {
        return Ok(());
    };
    let decision = limiter.check(action, account).await;
    context.set_rate(account.clone(), decision);
    let verdict = match decision.verdict {
        Verdict::Allowed { .. } => "allowed",
        Verdict::Denied { .. } => "denied",
    };
    let counted_by = decision.counted_by.name();
    app.metrics.decided(action.name(), counted_by, verdict);
    match decision.verdict {
        Verdict::Allowed { .. } => Ok(()),
        Verdict::Denied { retry_after } => {
            let detail = denial(action, account, &decision);
            Err(Problem::new(Code::RateLimited, detail).retry_after(retry_after))
        }
    }
}

/// The text of an error that names the exhausted quota and how it is restored.
fn denial(action: Action, account: &Account, decision: &Decision) -> String {
    let (action, kind) = (action.name(), account.kind());
    match decision.counted_by {
        // No quota is used up: every request is refused while nothing can count.
        CountedBy::NoCounter => {
            format!("{action} requests cannot be counted at the moment, so all of them are refused")
        }
        CountedBy::Redis | CountedBy::Process => {
            let count = decision.quota.count;
            let interval = decision.quota.interval_in_seconds();
            format!(
                "the {action} quota of this {kind} is used up: {count} at once, then one every \
                 {interval} s"
            )
        }
    }
}
