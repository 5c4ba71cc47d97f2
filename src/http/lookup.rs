//! `/api/v1/avatars/lookup`

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, Type};

use super::AppState;
use super::caller::Caller;
use super::docs::LookupProblems;
use super::dto::Avatar;
use super::json::{SmallJson, fresh};
use super::problem::{Code, Problem};
use crate::avatar::{InvalidSubjectId, SubjectId};

/// The largest number of users in a lookup.
const MAX_USERS: usize = 100;

/// The users whose avatars are looked up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Lookup {
    /// Their ids. An id may occur several times.
    #[schema(value_type = Vec<super::docs::UserId>, min_items = 1, max_items = 100, example = json!(["42", "43"]))]
    user_ids: Vec<Value>,
}

/// The avatars of several users.
#[derive(Serialize, ToSchema)]
pub(super) struct Avatars {
    /// The avatar of each user, by user id.
    #[schema(schema_with = avatars_or_null)]
    avatars: BTreeMap<String, Option<Avatar>>,
}

/// The schema of a map from user ids to avatars or null.
fn avatars_or_null() -> Schema {
    let avatar = OneOfBuilder::new()
        .item(Ref::from_schema_name("Avatar"))
        .item(ObjectBuilder::new().schema_type(Type::Null));
    ObjectBuilder::new()
        .description(Some(
            "The avatar of each user, by user id. It is null if the user has none, if the caller may \
             not see it, or if its record is damaged.",
        ))
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(avatar.into()))))
        .into()
}

impl Lookup {
    /// The users, each once.
    ///
    /// # Errors
    /// 400 if there are none or too many, or if one of them is no valid user id.
    fn subjects(self) -> Result<BTreeSet<SubjectId>, Problem> {
        let count = self.user_ids.len();
        if !(1..=MAX_USERS).contains(&count) {
            let detail = format!("user_ids has {count} ids; send 1 to {MAX_USERS}");
            return Err(Problem::new(Code::MalformedRequest, detail));
        }
        let subject = |(index, id): (usize, Value)| {
            let Value::String(id) = id else {
                let detail = format!("user_ids[{index}] is no text");
                return Err(Problem::new(Code::MalformedRequest, detail));
            };
            SubjectId::new(id).map_err(|invalid: InvalidSubjectId| {
                Problem::new(Code::InvalidUserId, format!("user_ids[{index}]: {invalid}"))
            })
        };
        self.user_ids.into_iter().enumerate().map(subject).collect()
    }
}

/// Look up the avatars of several users
///
/// Up to 100 users at once. An avatar that the caller may not see is null, like a missing one.
#[utoipa::path(
    post,
    path = "/api/v1/avatars/lookup",
    operation_id = "look_up_avatars",
    tag = "avatars",
    request_body = Lookup,
    responses((status = 200, description = "The avatars", body = Avatars), LookupProblems),
    security(("bearer" = []), ("cookie" = [])),
)]
pub(super) async fn look_up(
    State(app): State<AppState>,
    Caller(principal): Caller,
    SmallJson(lookup): SmallJson<Lookup>,
) -> Result<Response, Problem> {
    let wanted: Vec<_> = (lookup.subjects()?.into_iter())
        .map(|subject| {
            let sight = app.access.sight(Some(&principal), &subject);
            (subject, sight)
        })
        .collect();
    let records = app.service.current_many(&wanted).await?;
    let size = app.primary_size();
    let mut avatars = BTreeMap::new();
    for ((subject, _), record) in wanted.iter().zip(records) {
        let avatar = match &record {
            Some(record) => {
                let links = app.access.links_of(record).await?;
                Some(Avatar::of(&links, subject, record, &size))
            }
            None => None,
        };
        avatars.insert(subject.to_string(), avatar);
    }
    Ok(fresh(Json(Avatars { avatars })))
}
