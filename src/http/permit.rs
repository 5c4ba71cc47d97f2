//! Who asks, and whether they may: extractors whose values prove it.

use std::marker::PhantomData;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::AppState;
use super::conditions;
use super::envelope::RequestContext;
use super::problem::{Code, Problem};
use crate::auth::{Principal, Role};
use crate::avatar::SubjectId;
use crate::limits::{Action, Caller, CountedBy, Decision, Verdict};
use crate::service::{Account, Precondition};

/// Leave to do one thing to one subject's avatar: its bearer is known, may do it, and is within
/// its rate.
pub(super) struct Permit<A> {
    /// Whose avatar.
    pub(super) subject: SubjectId,
    /// Who does it.
    pub(super) principal: Principal,
    /// What the request expects of the current avatar. It held when the permit was given; the
    /// change itself has to check it again.
    pub(super) precondition: Precondition,
    /// The request that it was given in.
    pub(super) context: RequestContext,
    action: PhantomData<A>,
}

/// Something that needs leave.
pub(super) trait Permitted {
    /// What it counts as.
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
        let context = context(parts)?;
        context.attempt(A::ACTION);
        let (principal, source) = authenticate(&parts.headers, app)?.ok_or_else(unauthenticated)?;
        let subject = named_subject(parts, app).await?.resolve(Some(&principal))?;
        if !principal.may_change(&subject) {
            return Err(forbidden(&principal));
        }
        if source == TokenSource::Cookie {
            check_csrf(&parts.headers, app)?;
        }
        let precondition = expected::<A>(&parts.headers, app, &subject).await?;
        parts.extensions.insert(account(&principal, &subject));
        if let Some(limiter) = &app.limiter {
            let caller = caller(&principal, &subject);
            let decision = limiter.check(A::ACTION, &caller).await;
            context.tell_rate(caller.clone(), decision);
            let verdict = match decision.verdict {
                Verdict::Allowed { .. } => "allowed",
                Verdict::Denied { .. } => "denied",
            };
            let counted_by = decision.counted_by.name();
            app.metrics.decided(A::ACTION.name(), counted_by, verdict);
            if let Verdict::Denied { retry_after } = decision.verdict {
                let detail = rate_limited(A::ACTION, &caller, &decision);
                return Err(Problem::new(Code::RateLimited, detail).retry_after(retry_after));
            }
        }
        Ok(Self {
            subject,
            principal,
            precondition,
            context,
            action: PhantomData,
        })
    }
}

/// Reads the request's conditions and checks them against the current avatar, before a rate is
/// spent or a body is read.
async fn expected<A: Permitted>(
    headers: &HeaderMap,
    app: &AppState,
    subject: &SubjectId,
) -> Result<Precondition, Problem> {
    let precondition = conditions::precondition(headers)?;
    if precondition == Precondition::Anything {
        return Ok(precondition);
    }
    let current = app.service.current_id(subject).await?;
    // A delete of nothing is 404 whatever it expects (RFC 9110, section 13.2.1).
    let is_moot = A::ACTION == Action::Delete && current.is_none();
    if is_moot || precondition.holds(current) {
        Ok(precondition)
    } else {
        Err(crate::service::Error::PreconditionFailed.into())
    }
}

/// Whose quota counts: a user's calls count against the user, those of a service or an admin
/// against its own.
fn caller(principal: &Principal, subject: &SubjectId) -> Caller {
    match principal.role {
        Role::User => Caller::User(subject.clone()),
        Role::Service | Role::Admin => Caller::Service(principal.name.clone()),
    }
}

/// Says which quota is used up, and how it comes back.
fn rate_limited(action: Action, caller: &Caller, decision: &Decision) -> String {
    let (action, kind) = (action.name(), caller.kind());
    match decision.counted_by {
        // The first of them is refused too.
        CountedBy::Nobody => {
            format!("{action} requests cannot be counted now, so none is let through")
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

/// Whose avatar is asked for; anyone may ask.
pub(super) struct ReadTarget {
    /// The subject.
    pub(super) subject: SubjectId,
    /// Whether it was called `me`, so that the answer depends on who asks.
    pub(super) is_me: bool,
}

impl FromRequestParts<AppState> for ReadTarget {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        match named_subject(parts, app).await? {
            Named::Me => {
                let (principal, _) =
                    authenticate(&parts.headers, app)?.ok_or_else(unauthenticated)?;
                let subject = Named::Me.resolve(Some(&principal))?;
                Ok(Self {
                    subject,
                    is_me: true,
                })
            }
            named @ Named::Id(_) => Ok(Self {
                subject: named.resolve(None)?,
                is_me: false,
            }),
        }
    }
}

#[derive(Deserialize)]
struct UserPath {
    user_id: String,
}

enum Named {
    Me,
    Id(String),
}

impl Named {
    fn resolve(self, principal: Option<&Principal>) -> Result<SubjectId, Problem> {
        match self {
            Self::Me => {
                let principal = principal.ok_or_else(unauthenticated)?;
                principal.subject.clone().ok_or_else(|| {
                    Problem::new(Code::InvalidUserId, "the token's subject is not a user id")
                })
            }
            Self::Id(text) => SubjectId::new(text)
                .map_err(|invalid| Problem::new(Code::InvalidUserId, invalid.to_string())),
        }
    }
}

async fn named_subject(parts: &mut Parts, app: &AppState) -> Result<Named, Problem> {
    let path: Result<Path<UserPath>, PathRejection> = Path::from_request_parts(parts, app).await;
    match path {
        Ok(Path(UserPath { user_id })) if user_id == "me" => Ok(Named::Me),
        Ok(Path(UserPath { user_id })) => Ok(Named::Id(user_id)),
        // Percent-encoded bytes that are no text.
        Err(_) => Ok(Named::Id(String::new())),
    }
}

/// Whether the request carries a valid token of a service or an admin.
pub(super) fn is_from_operator(headers: &HeaderMap, app: &AppState) -> bool {
    let asks = authenticate(headers, app).ok().flatten();
    asks.is_some_and(|(principal, _)| principal.role > Role::User)
}

/// How a token came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenSource {
    Header,
    Cookie,
}

/// Who asks: by `Authorization: Bearer`, or else by the cookie. `None` where there is no token.
fn authenticate(
    headers: &HeaderMap,
    app: &AppState,
) -> Result<Option<(Principal, TokenSource)>, Problem> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let cookie = || {
        cookies
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == app.cookie_name)
            .map(|(_, token)| token)
    };
    let (token, source) = match bearer {
        Some(token) => (token, TokenSource::Header),
        None => match cookie() {
            Some(token) => (token, TokenSource::Cookie),
            None => return Ok(None),
        },
    };
    Ok(Some((app.verifier.verify(token)?, source)))
}

/// Checks that a browser sends a write with a cookie from a trusted page, because a browser sends
/// its cookies with the requests of every page. Each browser names the page in at least one of two
/// headers. A request without both does not come from a browser and is accepted.
fn check_csrf(headers: &HeaderMap, app: &AppState) -> Result<(), Problem> {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    // A header whose value is not text still comes from a browser.
    if !headers.contains_key(ORIGIN) && !headers.contains_key(SEC_FETCH_SITE) {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let trusted = match text(ORIGIN) {
        Some(origin) => app.trusted_origins.iter().any(|trusted| origin == trusted),
        None => false,
    };
    if trusted || text(SEC_FETCH_SITE) == Some("same-origin") {
        return Ok(());
    }
    let detail = "a browser's write with a cookie must come from a trusted origin; \
                  or send the token in the Authorization header";
    Err(Problem::new(Code::CsrfRejected, detail))
}

fn context(parts: &Parts) -> Result<RequestContext, Problem> {
    let context = parts.extensions.get::<RequestContext>().cloned();
    context.ok_or_else(|| Problem::new(Code::Internal, "an internal error"))
}

/// The account on which an upload by this principal counts.
fn account(principal: &Principal, subject: &SubjectId) -> Account {
    match principal.role {
        Role::User => Account::User(subject.clone()),
        Role::Service | Role::Admin => Account::Service(principal.name.as_str().into()),
    }
}

fn unauthenticated() -> Problem {
    let detail = "send a token: Authorization: Bearer …";
    Problem::new(Code::Unauthenticated, detail)
}

fn forbidden(principal: &Principal) -> Problem {
    if principal.may_write {
        let detail = "only the owner, a service or an admin may change an avatar";
        return Problem::new(Code::Forbidden, detail);
    }
    let challenge = "Bearer realm=\"cameo\", error=\"insufficient_scope\", scope=\"avatars:write\"";
    Problem::new(Code::Forbidden, "the token lacks the scope avatars:write").challenge(challenge)
}
