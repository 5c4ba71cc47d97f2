//! `/api/v1/users/{user_id}/avatar/lock` and `/api/v1/users/{user_id}/avatar/viewers`

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AppState;
use super::avatars::run_to_end;
use super::docs::{LockProblems, LockReadProblems, PolicyProblems, ViewerReadProblems};
use super::json::{SmallJson, fresh};
use super::permit::{
    AddingViewer, LockReader, Locking, Moderation, Moderator, RemovingViewer, Unlocking,
    ViewerReader,
};
use super::problem::{Code, Problem};
use super::target::ViewerInPath;
use crate::avatar::{Lock, SubjectId, Timestamp};
use crate::service;

/// A new lock.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLock {
    /// The reason, for the user: at most 500 characters.
    #[serde(default)]
    #[schema(max_length = 500, example = "violates the terms of use")]
    reason: Option<String>,
    /// The end of the lock: RFC 3339. Without it the lock has no end.
    #[serde(default)]
    #[schema(format = DateTime, example = "2030-01-31T09:30:00Z")]
    until: Option<String>,
    /// Whether the avatar is deleted too.
    #[serde(default)]
    remove: bool,
}

/// A lock.
#[derive(Serialize, ToSchema)]
#[schema(as = Lock)]
pub(super) struct LockDto {
    /// The reason, for the user. It may be empty.
    reason: String,
    /// The end of the lock: RFC 3339, UTC; null if it has no end.
    #[schema(format = DateTime)]
    until: Option<String>,
    /// The time at which the lock was set: RFC 3339, UTC.
    #[schema(format = DateTime)]
    locked_at: String,
}

/// The users who may see an avatar where avatars are private.
#[derive(Serialize, ToSchema)]
pub(super) struct Viewers {
    /// Their ids, in order.
    #[schema(value_type = Vec<super::docs::UserId>)]
    viewers: Vec<String>,
}

impl From<Lock> for LockDto {
    fn from(lock: Lock) -> Self {
        Self {
            reason: lock.reason,
            until: lock.until.map(|until| until.to_string()),
            locked_at: lock.locked_at.to_string(),
        }
    }
}

impl NewLock {
    /// The reason and the end of the lock.
    fn checked(&self) -> Result<(&str, Option<Timestamp>), Problem> {
        let malformed = |detail: String| Problem::new(Code::MalformedRequest, detail);
        let reason = self.reason.as_deref().unwrap_or_default();
        let (length, most) = (reason.chars().count(), Lock::MAX_REASON_CHARS);
        if length > most {
            let detail = format!("the reason has {length} characters; at most {most}");
            return Err(malformed(detail));
        }
        if reason.chars().any(char::is_control) {
            return Err(malformed("the reason has control characters".to_owned()));
        }
        let until = self.until.as_deref().map(|text| {
            text.parse().map_err(|_| {
                malformed(format!(
                    "until is {text:?}; send a time such as 2030-01-31T09:30:00Z"
                ))
            })
        });
        Ok((reason, until.transpose()?))
    }
}

/// Lock an avatar
///
/// Uploads and imports of this user are refused from then on, except an admin's. With `remove` the
/// avatar is deleted as well, after the lock is in force. A second lock replaces the first one.
#[utoipa::path(
    put,
    path = "/api/v1/users/{user_id}/avatar/lock",
    operation_id = "lock_avatar",
    tag = "moderation",
    params(("user_id" = String, Path, description = "A user id, or `me`: the token's subject")),
    request_body = NewLock,
    responses((status = 200, description = "The lock", body = LockDto), LockProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn lock(
    State(app): State<AppState>,
    moderator: Moderator<Locking>,
    SmallJson(new): SmallJson<NewLock>,
) -> Result<Response, Problem> {
    let service = Arc::clone(&app.service);
    let locked = run_to_end(async move {
        let change = async {
            let (reason, until) = new.checked()?;
            let subject = &moderator.subject;
            if new.remove {
                let (lock, removal) = service.lock_and_remove(subject, reason, until).await?;
                return Ok((lock, removal.map(|removal| removal.record.avatar_id)));
            }
            Ok::<_, Problem>((service.set_lock(subject, reason, until).await?, None))
        };
        let action = if new.remove {
            "lock_and_remove"
        } else {
            "lock"
        };
        let locked = change.await;
        let outcome = locked.as_ref().map(|(_, removed)| *removed);
        moderator.context.record_as(action, outcome);
        locked
    });
    let (lock, _) = locked.await?;
    Ok(fresh(Json(LockDto::from(lock))))
}

/// Read the lock of an avatar
#[utoipa::path(
    get,
    path = "/api/v1/users/{user_id}/avatar/lock",
    operation_id = "read_lock",
    tag = "moderation",
    params(("user_id" = String, Path, description = "A user id, or `me`: the token's subject")),
    responses((status = 200, description = "The lock", body = LockDto), LockReadProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn read_lock(
    State(app): State<AppState>,
    LockReader { subject }: LockReader,
) -> Result<Response, Problem> {
    let lock = app.service.lock(&subject).await?;
    Ok(fresh(Json(LockDto::from(lock))))
}

/// Unlock an avatar
///
/// It is no error if there is no lock.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{user_id}/avatar/lock",
    operation_id = "unlock_avatar",
    tag = "moderation",
    params(("user_id" = String, Path, description = "A user id, or `me`: the token's subject")),
    responses((status = 204, description = "There is no lock"), PolicyProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn unlock(
    State(app): State<AppState>,
    moderator: Moderator<Unlocking>,
) -> Result<StatusCode, Problem> {
    let service = Arc::clone(&app.service);
    change(moderator, move |subject| async move {
        service.unlock(&subject).await
    })
    .await
}

/// List the viewers of an avatar
///
/// The users who may see the avatar where avatars are private, besides its owner.
#[utoipa::path(
    get,
    path = "/api/v1/users/{user_id}/avatar/viewers",
    operation_id = "list_viewers",
    tag = "moderation",
    params(("user_id" = String, Path, description = "A user id, or `me`: the token's subject")),
    responses((status = 200, description = "The viewers", body = Viewers), ViewerReadProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn viewers(
    State(app): State<AppState>,
    ViewerReader { subject }: ViewerReader,
) -> Result<Response, Problem> {
    let viewers = app.service.viewers(&subject).await?;
    let viewers = viewers.into_iter().map(String::from).collect();
    Ok(fresh(Json(Viewers { viewers })))
}

/// Add a viewer
///
/// The viewer may see the avatar where avatars are private. A user has at most 10,000 viewers.
#[utoipa::path(
    put,
    path = "/api/v1/users/{user_id}/avatar/viewers/{viewer_id}",
    operation_id = "add_viewer",
    tag = "moderation",
    params(
        ("user_id" = String, Path, description = "A user id, or `me`: the token's subject"),
        ("viewer_id" = String, Path, description = "The id of the viewer"),
    ),
    responses((status = 204, description = "The user is a viewer"), PolicyProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn add_viewer(
    State(app): State<AppState>,
    moderator: Moderator<AddingViewer>,
    ViewerInPath(viewer): ViewerInPath,
) -> Result<StatusCode, Problem> {
    moderator.context.concern_viewer(&viewer);
    let service = Arc::clone(&app.service);
    change(moderator, move |subject| async move {
        service.add_viewer(&subject, &viewer).await
    })
    .await
}

/// Remove a viewer
///
/// It is no error if the user is no viewer.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{user_id}/avatar/viewers/{viewer_id}",
    operation_id = "remove_viewer",
    tag = "moderation",
    params(
        ("user_id" = String, Path, description = "A user id, or `me`: the token's subject"),
        ("viewer_id" = String, Path, description = "The id of the viewer"),
    ),
    responses((status = 204, description = "The user is no viewer"), PolicyProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn remove_viewer(
    State(app): State<AppState>,
    moderator: Moderator<RemovingViewer>,
    ViewerInPath(viewer): ViewerInPath,
) -> Result<StatusCode, Problem> {
    moderator.context.concern_viewer(&viewer);
    let service = Arc::clone(&app.service);
    change(moderator, move |subject| async move {
        service.remove_viewer(&subject, &viewer).await
    })
    .await
}

/// Runs a change of a user's policy to its end, and writes its audit record.
async fn change<A, F>(
    moderator: Moderator<A>,
    change: impl FnOnce(SubjectId) -> F + Send + 'static,
) -> Result<StatusCode, Problem>
where
    A: Moderation + Send + 'static,
    F: Future<Output = Result<(), service::Error>> + Send + 'static,
{
    let changed = run_to_end(async move {
        let changed = change(moderator.subject.clone()).await;
        let changed = changed.map_err(Problem::from);
        let outcome = changed.as_ref().map(|()| None);
        moderator.context.record(outcome);
        changed
    });
    changed.await.map(|()| StatusCode::NO_CONTENT)
}
