//! The query of a request.

use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};

/// The parameters of a query.
///
/// # Errors
/// 400 if a parameter occurs twice or is malformed.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Ok(extract::Query(parameters)) = extract::Query::try_from_uri(&parts.uri) else {
            let detail = "the query is malformed; send each of its parameters once";
            return Err(Problem::new(Code::MalformedRequest, detail));
        };
        Ok(Self(parameters))
    }
}
