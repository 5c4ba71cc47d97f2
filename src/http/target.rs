//! Extractors: whose avatar a request is about, and whether the caller may change it or its policy.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::Deserialize;

use super::AppState;
use super::caller::Caller;
use super::context::RequestContext;
use super::problem::{Code, Problem};
use crate::access::{self, Sight};
use crate::auth::Principal;
use crate::avatar::{InvalidSubjectId, SubjectId};

/// The user whose avatar is read, and whether the caller may see it.
///
/// # Errors
/// 401 if not everybody may see avatars, or if the path says `me`, and there is no valid token; 400 if
/// the path names no valid user id. Whether there is an avatar does not matter.
pub(super) struct ReadTarget {
    /// The user.
    pub(super) subject: SubjectId,
    /// Whether the path says `me`. The answer then depends on the caller.
    pub(super) is_me: bool,
    /// Whether the caller may see the avatar.
    pub(super) sight: Sight,
}

impl FromRequestParts<AppState> for ReadTarget {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let mut principal = None;
        if !app.access.is_public() {
            principal = Some(Caller::from_request_parts(parts, app).await?.0);
        }
        let (subject, is_me) = match UserInPath::of(parts, app).await? {
            UserInPath::Id(subject) => (subject, false),
            UserInPath::Me => {
                let caller = match principal {
                    Some(caller) => caller,
                    None => Caller::from_request_parts(parts, app).await?.0,
                };
                let subject = own_subject(&caller)?;
                principal = Some(caller);
                (subject, true)
            }
        };
        let sight = app.access.sight(principal.as_ref(), &subject);
        Ok(Self {
            subject,
            is_me,
            sight,
        })
    }
}

/// The user whose avatar is shown, on a route that is open to anyone. A token that is not valid, or
/// that cannot be verified now, is ignored.
///
/// # Errors
/// 400 if the path names no valid user id.
pub(super) struct ShownTarget {
    /// The user. If there is none, this is a user id of which nothing is known.
    pub(super) subject: SubjectId,
    /// Whether there is no user: the path says `me`, and the caller has no valid token or no user id.
    pub(super) is_nobody: bool,
    /// Whether the path says `me`. The answer then depends on the caller.
    pub(super) is_me: bool,
    /// Whether the caller may see the avatar.
    pub(super) sight: Sight,
}

impl FromRequestParts<AppState> for ShownTarget {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let user = UserInPath::of(parts, app).await?;
        let is_me = matches!(user, UserInPath::Me);
        let principal = if is_me || !app.access.is_public() {
            let caller = Caller::from_request_parts(parts, app).await.ok();
            caller.map(|Caller(principal)| principal)
        } else {
            None
        };
        let subject = match user {
            UserInPath::Id(subject) => Some(subject),
            UserInPath::Me => principal.as_ref().and_then(|one| one.subject.clone()),
        };
        let is_nobody = subject.is_none();
        let subject = subject.map_or_else(|| SubjectId::new("nobody"), Ok);
        let subject = subject
            .map_err(|error| Problem::new(Code::Internal, "an internal error").caused_by(error))?;
        let sight = if is_nobody {
            Sight::AsViewer(None)
        } else {
            app.access.sight(principal.as_ref(), &subject)
        };
        Ok(Self {
            subject,
            is_nobody,
            is_me,
            sight,
        })
    }
}

/// A caller who may change the avatar of a user.
///
/// # Errors
/// 401 without a valid token; 400 if the path names no valid user id; 403 if the caller may not
/// change this user's avatar.
pub(super) struct Change {
    /// The caller.
    pub(super) principal: Principal,
    /// The user.
    pub(super) subject: SubjectId,
}

impl FromRequestParts<AppState> for Change {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, app).await?;
        let subject = UserInPath::of(parts, app).await?.resolve(&principal)?;
        let context = RequestContext::from_request_parts(parts, app).await?;
        context.identify(&principal, &subject);
        access::may_change(&principal, &subject)?;
        Ok(Self { principal, subject })
    }
}

/// A caller who may change the policy of a user: the lock and the viewers.
///
/// # Errors
/// 401 without a valid token; 400 if the path names no valid user id; 403 if the caller is no service
/// and no admin, or the token only permits reading.
pub(super) struct Managed {
    /// The user.
    pub(super) subject: SubjectId,
}

impl FromRequestParts<AppState> for Managed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, app).await?;
        let subject = UserInPath::of(parts, app).await?.resolve(&principal)?;
        let context = RequestContext::from_request_parts(parts, app).await?;
        context.identify(&principal, &subject);
        access::may_manage(&principal)?;
        Ok(Self { subject })
    }
}

/// The viewer that the path names.
///
/// # Errors
/// 400 if the path names no valid user id.
pub(super) struct ViewerInPath(pub(super) SubjectId);

impl FromRequestParts<AppState> for ViewerInPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Parameters {
            viewer_id: String,
        }
        let path = Path::<Parameters>::from_request_parts(parts, app).await;
        let viewer = path.map_or_else(|_| String::new(), |Path(parameters)| parameters.viewer_id);
        let invalid = |invalid: InvalidSubjectId| {
            Problem::new(Code::InvalidUserId, format!("the viewer: {invalid}"))
        };
        SubjectId::new(viewer).map(Self).map_err(invalid)
    }
}

/// The user that the path names.
pub(super) enum UserInPath {
    /// `me`: the token's subject.
    Me,
    Id(SubjectId),
}

impl UserInPath {
    /// Reads the parameter `user_id` of the route.
    pub(super) async fn of(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Parameters {
            user_id: String,
        }
        let path = Path::<Parameters>::from_request_parts(parts, app).await;
        // A path that is not UTF-8 after decoding names no user id. The empty string is no valid
        // one.
        let user_id = path.map_or_else(|_| String::new(), |Path(parameters)| parameters.user_id);
        if user_id == "me" {
            return Ok(Self::Me);
        }
        SubjectId::new(user_id)
            .map(Self::Id)
            .map_err(|invalid| Problem::new(Code::InvalidUserId, invalid.to_string()))
    }

    /// The user, for this caller.
    pub(super) fn resolve(self, principal: &Principal) -> Result<SubjectId, Problem> {
        match self {
            Self::Id(subject) => Ok(subject),
            Self::Me => own_subject(principal),
        }
    }
}

/// The user id of a caller.
fn own_subject(principal: &Principal) -> Result<SubjectId, Problem> {
    principal.subject.clone().ok_or_else(|| {
        let detail = "the token's subject is not a user id";
        Problem::new(Code::InvalidUserId, detail)
    })
}
