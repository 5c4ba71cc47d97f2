//! Permits: extractors whose value proves that a request is allowed.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::AppState;
use super::caller::{Caller, Unforged};
use super::conditions;
use super::context::RequestContext;
use super::problem::Problem;
use super::rate;
use super::target::{Change, Managed, UserInPath};
use crate::access;
use crate::auth::Principal;
use crate::avatar::SubjectId;
use crate::limits::Action;
use crate::service::{self, Precondition, Uploader};

/// Permission to change one user's avatar in one way, of kind `A`.
///
/// The checks run in this order, each in an extractor or a function of its own: the caller is known
/// and may change this avatar ([`Change`]), no other site forged the request ([`Unforged`]), the
/// request's conditions hold, no lock stops the upload, and the caller is within the rate limit
/// ([`rate::count`]). So a
/// request that is refused for another reason does not count against a limit, and no body is read
/// before all checks.
pub(super) struct Permit<A> {
    /// The user whose avatar changes.
    pub(super) subject: SubjectId,
    /// The caller.
    pub(super) principal: Principal,
    /// The condition of the request on the current avatar. It held when the permit was made; the
    /// change checks it again.
    pub(super) precondition: Precondition,
    /// The request's context.
    pub(super) context: RequestContext,
    kind: PhantomData<A>,
}

/// A kind of change that needs a permit.
pub(super) trait Permitted {
    /// The action that the change counts as.
    const ACTION: Action;
}

/// Uploading or replacing an avatar.
pub(super) struct Uploading;
/// Deleting an avatar.
pub(super) struct Deleting;

impl Permitted for Uploading {
    const ACTION: Action = Action::Upload;
}

impl Permitted for Deleting {
    const ACTION: Action = Action::Delete;
}

impl<A: Permitted> FromRequestParts<AppState> for Permit<A> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let context = RequestContext::from_request_parts(parts, app).await?;
        context.attempt(A::ACTION);
        let Unforged(change) = Unforged::<Change>::from_request_parts(parts, app).await?;
        let Change { principal, subject } = change;
        let precondition = check_conditions::<A>(&parts.headers, app, &subject).await?;
        if A::ACTION == Action::Upload && access::uploader(&principal) == Uploader::Ordinary {
            // If the catalog does not answer, the upload fails later: its commit checks the lock too.
            if let Err(locked @ service::Error::Locked(_)) = app.service.check_lock(&subject).await
            {
                return Err(locked.into());
            }
        }
        let account = access::account(&principal, &subject);
        rate::count(app, &context, A::ACTION, &account).await?;
        // The extractor of the body reserves memory for this account.
        parts.extensions.insert(account);
        Ok(Self {
            subject,
            principal,
            precondition,
            context,
            kind: PhantomData,
        })
    }
}

/// Permission to change the policy of a user, in the way `A`: the lock or the viewers. The caller is a
/// service or an admin, and no other site forged the request.
pub(super) struct Moderator<A> {
    /// The user.
    pub(super) subject: SubjectId,
    /// The request's context.
    pub(super) context: RequestContext,
    kind: PhantomData<A>,
}

/// A way to change the policy of a user.
pub(super) trait Moderation {
    /// Its name in audit records.
    const ACTION: &'static str;
}

/// Setting a lock.
pub(super) struct Locking;
/// Removing a lock.
pub(super) struct Unlocking;
/// Adding a viewer.
pub(super) struct AddingViewer;
/// Removing a viewer.
pub(super) struct RemovingViewer;

impl Moderation for Locking {
    const ACTION: &'static str = "lock";
}

impl Moderation for Unlocking {
    const ACTION: &'static str = "unlock";
}

impl Moderation for AddingViewer {
    const ACTION: &'static str = "add_viewer";
}

impl Moderation for RemovingViewer {
    const ACTION: &'static str = "remove_viewer";
}

impl<A: Moderation> FromRequestParts<AppState> for Moderator<A> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let context = RequestContext::from_request_parts(parts, app).await?;
        context.attempt_act(A::ACTION);
        let Unforged(managed) = Unforged::<Managed>::from_request_parts(parts, app).await?;
        Ok(Self {
            subject: managed.subject,
            context,
            kind: PhantomData,
        })
    }
}

/// Permission to read the viewers of a user: the caller is a service or an admin, and the token
/// permits reading.
pub(super) struct ViewerReader {
    /// The user.
    pub(super) subject: SubjectId,
}

impl FromRequestParts<AppState> for ViewerReader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, app).await?;
        let subject = UserInPath::of(parts, app).await?.resolve(&principal)?;
        access::may_inspect(&principal)?;
        Ok(Self { subject })
    }
}

/// Permission to read the lock of a user: the caller is the user, a service or an admin, and the token
/// permits reading.
pub(super) struct LockReader {
    /// The user.
    pub(super) subject: SubjectId,
}

impl FromRequestParts<AppState> for LockReader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, app).await?;
        let subject = UserInPath::of(parts, app).await?.resolve(&principal)?;
        access::may_read_lock(&principal, &subject)?;
        Ok(Self { subject })
    }
}

/// Reads the request's conditions and checks them against the current avatar.
async fn check_conditions<A: Permitted>(
    headers: &HeaderMap,
    app: &AppState,
    subject: &SubjectId,
) -> Result<Precondition, Problem> {
    let precondition = conditions::precondition(headers)?;
    if precondition == Precondition::Anything {
        return Ok(precondition);
    }
    let current = app.service.current_id(subject).await?;
    // Without an avatar a delete is answered 404, whatever its conditions are (RFC 9110, section
    // 13.2.1).
    let is_moot = A::ACTION == Action::Delete && current.is_none();
    if is_moot || precondition.holds(current) {
        Ok(precondition)
    } else {
        Err(service::Error::PreconditionFailed.into())
    }
}
