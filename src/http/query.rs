//! The query of a request.

use axum::extract::{self, FromRequestParts};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};

/// What the query asks for.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Ok(extract::Query(asked)) = extract::Query::try_from_uri(&parts.uri) else {
            let detail = "the query cannot be read; give each of its parameters once";
            return Err(Problem::new(Code::MalformedRequest, detail));
        };
        Ok(Self(asked))
    }
}
