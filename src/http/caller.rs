//! Extractors: who asks, and from which page.
//!
//! A handler's signature states its policy. `Caller` admits any valid token, `Operator` a service
//! or an admin, `StatisticsReader` also a role for statistics. `Unforged<…>` around one of them is for requests that change something. A handler
//! with none of them admits anyone.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use super::AppState;
use super::problem::{Code, Problem};
use crate::access;
use crate::auth::Principal;

/// The bearer of a valid token.
///
/// # Errors
/// 401 without a token, or with one that is not valid.
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let Some((token, _)) = token_of(&parts.headers, &app.cookie_name) else {
            let detail = "send a token: Authorization: Bearer …";
            return Err(Problem::new(Code::Unauthenticated, detail));
        };
        Ok(Self(app.verifier.verify(token).await?))
    }
}

/// A service or an admin, with a token that permits reading.
///
/// # Errors
/// Those of [`Caller`]; 403 for any other caller. `Option<Operator>` is for routes that are open to anyone:
/// it is `None` in each of these cases.
pub(super) struct Operator;

impl FromRequestParts<AppState> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, app).await?;
        access::may_inspect(&principal)?;
        Ok(Self)
    }
}

impl OptionalFromRequestParts<AppState> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &AppState,
    ) -> Result<Option<Self>, Problem> {
        // A route that is open to anyone ignores a token that is not valid.
        let operator = <Self as FromRequestParts<AppState>>::from_request_parts(parts, app).await;
        Ok(operator.ok())
    }
}

/// A caller who may read statistics: a service, an admin, or a role in `auth.stats_roles`.
///
/// # Errors
/// Those of [`Caller`]; 403 for anyone else.
pub(super) struct StatisticsReader;

impl FromRequestParts<AppState> for StatisticsReader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let Caller(principal) = Caller::from_request_parts(parts, app).await?;
        access::may_read_statistics(&principal)?;
        Ok(Self)
    }
}

/// A request that no page of another site forged. It extracts `T` first, so that the errors of `T`
/// come first.
///
/// A browser sends its cookies with the requests of every page, and names the page in `Origin`,
/// `Sec-Fetch-Site` or both. So a request with a cookie must come from a trusted page. A request
/// without both headers does not come from a browser and is accepted. A page cannot make a browser
/// send an `Authorization` header of the user's, so requests with one are accepted.
///
/// # Errors
/// 403 `csrf_rejected`
pub(super) struct Unforged<T>(pub(super) T);

impl<T> FromRequestParts<AppState> for Unforged<T>
where
    T: FromRequestParts<AppState, Rejection = Problem>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        let inner = T::from_request_parts(parts, app).await?;
        match token_of(&parts.headers, &app.cookie_name) {
            Some((_, TokenSource::Cookie)) => check_csrf(&parts.headers, &app.trusted_origins)?,
            Some((_, TokenSource::Header)) | None => {}
        }
        Ok(Self(inner))
    }
}

/// The place of the token in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenSource {
    /// `Authorization: Bearer`
    Header,
    Cookie,
}

/// The token of a request: the one in `Authorization: Bearer`, or else the one in the cookie.
fn token_of<'a>(headers: &'a HeaderMap, cookie_name: &str) -> Option<(&'a str, TokenSource)> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let cookie = || {
        let lines = headers.get_all(COOKIE).iter();
        lines
            .filter_map(|value| value.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == cookie_name)
            .map(|(_, token)| token)
    };
    match bearer {
        Some(token) => Some((token, TokenSource::Header)),
        None => cookie().map(|token| (token, TokenSource::Cookie)),
    }
}

/// Checks that a request with a cookie comes from a trusted page or from no browser.
fn check_csrf(headers: &HeaderMap, trusted_origins: &[String]) -> Result<(), Problem> {
    const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    // A header whose value is not text still comes from a browser.
    if !headers.contains_key(ORIGIN) && !headers.contains_key(SEC_FETCH_SITE) {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_trusted = match text(ORIGIN) {
        Some(origin) => trusted_origins.iter().any(|trusted| origin == trusted),
        None => false,
    };
    if is_trusted || text(SEC_FETCH_SITE) == Some("same-origin") {
        return Ok(());
    }
    let detail = "a browser's write with a cookie must come from a trusted origin; \
                  or send the token in the Authorization header";
    Err(Problem::new(Code::CsrfRejected, detail))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::super::state::testing::{TRUSTED_ORIGIN, state_on, token};
    use super::*;
    use crate::service::testing;

    /// The status of a request with these headers on a route whose handler has the extractor `T`.
    async fn status<T>(app: &AppState, headers: &[(&str, String)]) -> u16
    where
        T: FromRequestParts<AppState, Rejection = Problem>,
    {
        let mut parts = parts_with(headers);
        match T::from_request_parts(&mut parts, app).await {
            Ok(_) => 200,
            Err(problem) => problem.code.status().as_u16(),
        }
    }

    fn parts_with(headers: &[(&str, String)]) -> Parts {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn bearer(token: &str) -> Vec<(&'static str, String)> {
        vec![("authorization", format!("Bearer {token}"))]
    }

    fn cookie(token: &str, origin: &str) -> Vec<(&'static str, String)> {
        let cookie = format!("theme=dark; access_token={token}");
        vec![("cookie", cookie), ("origin", origin.to_owned())]
    }

    #[tokio::test]
    async fn one_extractor_is_the_policy_of_a_route() {
        let parts = testing::Parts::new();
        let app = state_on(&parts);
        let (user, service, admin) = (
            token("42", &[]),
            token("main", &["service"]),
            token("root", &["admin"]),
        );
        let elsewhere = "https://evil.example.com";
        for (headers, caller, operator, unforged_caller, unforged_operator) in [
            (vec![], 401, 401, 401, 401),
            (bearer("nonsense"), 401, 401, 401, 401),
            (bearer(&user), 200, 403, 200, 403),
            (bearer(&service), 200, 200, 200, 200),
            (bearer(&admin), 200, 200, 200, 200),
            (cookie(&user, TRUSTED_ORIGIN), 200, 403, 200, 403),
            (cookie(&admin, TRUSTED_ORIGIN), 200, 200, 200, 200),
            (cookie(&user, elsewhere), 200, 403, 403, 403),
            (cookie(&admin, elsewhere), 200, 200, 403, 403),
            (cookie("nonsense", elsewhere), 401, 401, 401, 401),
        ] {
            let app = &app;
            assert_eq!(status::<Caller>(app, &headers).await, caller, "{headers:?}");
            let found = status::<Operator>(app, &headers).await;
            assert_eq!(found, operator, "{headers:?}");
            let found = status::<Unforged<Caller>>(app, &headers).await;
            assert_eq!(found, unforged_caller, "{headers:?}");
            let found = status::<Unforged<Operator>>(app, &headers).await;
            assert_eq!(found, unforged_operator, "{headers:?}");
        }
    }

    #[tokio::test]
    async fn an_optional_operator_is_never_refused() {
        let parts = testing::Parts::new();
        let app = state_on(&parts);
        for (headers, is_operator) in [
            (vec![], false),
            (bearer("nonsense"), false),
            (bearer(&token("42", &[])), false),
            (bearer(&token("main", &["service"])), true),
            (bearer(&token("root", &["admin"])), true),
        ] {
            let mut parts = parts_with(&headers);
            let operator = Option::<Operator>::from_request_parts(&mut parts, &app).await;
            assert_eq!(operator.unwrap().is_some(), is_operator, "{headers:?}");
        }
    }
}
