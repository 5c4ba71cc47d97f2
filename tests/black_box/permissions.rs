//! The permissions of every route: one table with every kind of caller. A route that is not in the
//! table fails the test.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use cameo::app::Bounds;
use cameo::http::{Startup, starting_router};
use cameo::server;
use reqwest::{Method, RequestBuilder};
use tokio::net::TcpListener;

use crate::support::{Answer, Route, TestService, photos, routes_of, send};

const AVATAR: &str = "/api/v1/users/{user_id}/avatar";
const SHOWN: &str = "/avatars/{user_id}";
const LOCK: &str = "/api/v1/users/{user_id}/avatar/lock";
const VIEWERS: &str = "/api/v1/users/{user_id}/avatar/viewers";
const VIEWER: &str = "/api/v1/users/{user_id}/avatar/viewers/{viewer_id}";
const PRIVATE_FILE: &str = "/files/private/avatars/{avatar_id}/{file}";
const LOOKUP: &str = "/api/v1/avatars/lookup";
const STATS: &str = "/api/v1/stats";
const FILE: &str = "/files/public/avatars/{avatar_id}/{file}";

/// Who sends a request.
#[derive(Clone, Copy, Debug)]
enum Caller {
    /// Without a token.
    Anonymous,
    /// The user 42, whose avatar it is.
    Owner,
    OtherUser,
    Service,
    Admin,
    /// The browser of the user 42, which sends the user's cookie with a request of another site.
    ForeignPage,
}

const CALLERS: [Caller; 6] = [
    Caller::Anonymous,
    Caller::Owner,
    Caller::OtherUser,
    Caller::Service,
    Caller::Admin,
    Caller::ForeignPage,
];

/// The status of an answer, and the code of its problem.
type Outcome = (u16, &'static str);

const OK: Outcome = (200, "");
const UNAUTHENTICATED: Outcome = (401, "unauthenticated");
const FORBIDDEN: Outcome = (403, "forbidden");
const CSRF: Outcome = (403, "csrf_rejected");
const NONE: Outcome = (404, "avatar_not_found");
const NO_LOCK: Outcome = (404, "not_locked");
const DONE: Outcome = (204, "");
const TO_DOCS: Outcome = (307, "");
const TO_SLASH: Outcome = (303, "");

/// The outcome for each of [`CALLERS`].
type Outcomes = [Outcome; 6];

const OPEN: Outcomes = [OK; 6];
/// A change of a policy that is answered 204.
const MANAGE: Outcomes = [UNAUTHENTICATED, FORBIDDEN, FORBIDDEN, DONE, DONE, FORBIDDEN];
const CHANGE: Outcomes = [UNAUTHENTICATED, OK, FORBIDDEN, OK, OK, CSRF];

/// Every route with its methods, the user in its path, and the outcomes. `me` has rows of its own.
const TABLE: [(&str, &[&str], &str, Outcomes); 27] = [
    (AVATAR, &["GET", "HEAD"], "42", OPEN),
    (SHOWN, &["GET", "HEAD"], "42", OPEN),
    (SHOWN, &["GET", "HEAD"], "me", OPEN),
    (AVATAR, &["POST", "PUT", "DELETE"], "42", CHANGE),
    (
        AVATAR,
        &["GET", "HEAD"],
        "me",
        [UNAUTHENTICATED, OK, NONE, NONE, NONE, OK],
    ),
    (
        AVATAR,
        &["DELETE"],
        "me",
        [UNAUTHENTICATED, OK, NONE, NONE, NONE, CSRF],
    ),
    (
        AVATAR,
        &["POST", "PUT"],
        "me",
        [UNAUTHENTICATED, OK, OK, OK, OK, CSRF],
    ),
    (
        LOCK,
        &["PUT"],
        "43",
        [UNAUTHENTICATED, FORBIDDEN, FORBIDDEN, OK, OK, FORBIDDEN],
    ),
    (
        LOCK,
        &["GET", "HEAD"],
        "43",
        [UNAUTHENTICATED, FORBIDDEN, OK, OK, OK, FORBIDDEN],
    ),
    (LOCK, &["DELETE"], "43", MANAGE),
    (
        LOCK,
        &["GET", "HEAD"],
        "42",
        [
            UNAUTHENTICATED,
            NO_LOCK,
            FORBIDDEN,
            NO_LOCK,
            NO_LOCK,
            NO_LOCK,
        ],
    ),
    (
        VIEWERS,
        &["GET", "HEAD"],
        "42",
        [UNAUTHENTICATED, FORBIDDEN, FORBIDDEN, OK, OK, FORBIDDEN],
    ),
    (VIEWER, &["PUT", "DELETE"], "42", MANAGE),
    // It changes nothing, so a page of another site may cause it, but not read its answer.
    (LOOKUP, &["POST"], "", [UNAUTHENTICATED, OK, OK, OK, OK, OK]),
    (
        STATS,
        &["GET", "HEAD"],
        "",
        [UNAUTHENTICATED, FORBIDDEN, FORBIDDEN, OK, OK, FORBIDDEN],
    ),
    (FILE, &["GET", "HEAD"], "42", OPEN),
    // The image of a public avatar lies elsewhere.
    (
        PRIVATE_FILE,
        &["GET", "HEAD"],
        "42",
        [(404, "not_found"); 6],
    ),
    ("/", &["GET", "HEAD"], "", [TO_DOCS; 6]),
    ("/health", &["GET", "HEAD"], "", OPEN),
    ("/health/live", &["GET", "HEAD"], "", OPEN),
    ("/health/ready", &["GET", "HEAD"], "", OPEN),
    ("/health/avatar", &["GET", "HEAD"], "", OPEN),
    ("/metrics", &["GET", "HEAD"], "", OPEN),
    ("/openapi.json", &["GET", "HEAD"], "", OPEN),
    ("/docs", &["GET", "HEAD"], "", [TO_SLASH; 6]),
    ("/docs/", &["GET", "HEAD"], "", OPEN),
    ("/docs/{*rest}", &["GET", "HEAD"], "", OPEN),
];

#[tokio::test]
async fn every_route_admits_the_callers_in_the_table_and_no_others() {
    let origin = ("CAMEO_HTTP__TRUSTED_ORIGINS", "https://app.example.com");
    let service = TestService::start_with(&[origin]).await;
    let mut in_table = BTreeSet::<Route>::new();
    for (template, methods, user, outcomes) in TABLE {
        for method in methods {
            in_table.insert(((*method).to_owned(), template.to_owned()));
            let method: Method = method.parse().unwrap();
            for (caller, expected) in CALLERS.into_iter().zip(outcomes) {
                let avatar_id = make_avatar(&service).await;
                let path = template
                    .replace("{user_id}", user)
                    .replace("{viewer_id}", "44")
                    .replace("{avatar_id}", &avatar_id)
                    .replace("{file}", "medium.webp")
                    .replace("{*rest}", "swagger-ui.css");
                let answer = send(request(&service, caller, &method, &path)).await;
                let outcome = (answer.status.as_u16(), code_of(&method, &answer));
                let expected = match method {
                    // An answer to HEAD has no body and therefore no code.
                    Method::HEAD => (expected.0, String::new()),
                    _ => (expected.0, expected.1.to_owned()),
                };
                assert_eq!(outcome, expected, "{caller:?}: {method} {path}");
            }
        }
    }
    assert_eq!(
        in_table,
        *service.routes(),
        "the table must have exactly the routes of the program"
    );
}

/// The operators' address, which only operators reach, needs no token.
#[tokio::test]
async fn the_operators_address_has_two_routes_that_are_open() {
    let bind = ("CAMEO_HTTP__METRICS_BIND", "127.0.0.1:0");
    let service = TestService::start_with(&[bind]).await;
    let mut expected = BTreeSet::<Route>::new();
    let address = service.metrics_address().unwrap();
    for path in ["/metrics", "/health/avatar"] {
        for method in [Method::GET, Method::HEAD] {
            expected.insert((method.to_string(), path.to_owned()));
            for caller in CALLERS {
                let url = format!("http://{address}{path}");
                let answer = send(request(&service, caller, &method, &url)).await;
                assert_eq!(answer.status, 200, "{caller:?}: {method} {path}");
            }
        }
    }
    assert_eq!(expected, *service.operator_routes());
    let here = ("GET".to_owned(), "/metrics".to_owned());
    assert!(
        !service.routes().contains(&here),
        "metrics at both addresses"
    );
}

/// While the program starts, its tokens cannot be verified. So all callers are answered alike.
#[tokio::test]
async fn a_starting_program_answers_health_checks_and_refuses_all_others() {
    let startup = Arc::new(Startup::default());
    let answered: [(&str, Outcome); 4] = [
        ("/health/live", OK),
        ("/health/ready", (503, "")),
        ("/health", (503, "")),
        ("/health/avatar", (503, "")),
    ];
    let methods = [Method::GET, Method::HEAD];
    let expected: BTreeSet<Route> = answered
        .iter()
        .flat_map(|(path, _)| methods.each_ref().map(|method| (method, *path)))
        .map(|(method, path)| (method.to_string(), path.to_owned()))
        .collect();
    assert_eq!(routes_of(&starting_router(&startup)), expected);

    let mut requests: Vec<(Method, &str, Outcome)> = Vec::new();
    for (path, outcome) in answered {
        requests.extend(
            methods
                .each_ref()
                .map(|method| (method.clone(), path, outcome)),
        );
    }
    for (path, methods, ..) in TABLE {
        for method in methods
            .iter()
            .filter(|_| answered.iter().all(|(other, _)| *other != path))
        {
            let refused = (503, "catalog_unavailable");
            requests.push((method.parse().unwrap(), path, refused));
        }
    }

    // Its tokens are valid for the program that starts.
    let service = TestService::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bounds = Bounds {
        max_connections: 100,
        drain: Duration::from_secs(1),
    };
    let never_open = pending::<Result<_, Infallible>>();
    let serve = server::serve(listener, bounds, startup, never_open, || Ok(()), pending());
    let starting = tokio::spawn(serve);
    for (method, path, (status, code)) in requests {
        let path = path
            .replace("{user_id}", "42")
            .replace("{avatar_id}", "a")
            .replace("{file}", "medium.webp")
            .replace("{*rest}", "swagger-ui.css");
        let code = if method == Method::HEAD { "" } else { code };
        for caller in CALLERS {
            let url = format!("http://{address}{path}");
            let answer = send(request(&service, caller, &method, &url)).await;
            let problem = serde_json::from_slice::<serde_json::Value>(&answer.body);
            let found_code = problem
                .ok()
                .and_then(|body| Some(body["code"].as_str()?.to_owned()));
            let outcome = (answer.status.as_u16(), found_code.unwrap_or_default());
            let expected = (status, code.to_owned());
            assert_eq!(outcome, expected, "{caller:?}: {method} {path}");
        }
    }
    // A method that a health check does not support is refused like every other request.
    let url = format!("http://{address}/health/live");
    let other = service.anonymous().request(Method::POST, &url).send();
    assert_eq!(other.await.unwrap().status(), 503);
    starting.abort();
}

#[tokio::test]
async fn every_documented_operation_is_a_route() {
    let service = TestService::start().await;
    let document = serde_json::to_value(cameo::http::openapi()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let route = (method.to_uppercase(), path.clone());
            assert!(service.routes().contains(&route), "{route:?}");
        }
    }
}

/// Makes sure that the user 42 has an avatar, and returns its id.
async fn make_avatar(service: &TestService) -> String {
    let current = service.anonymous().avatar("42").await;
    let avatar = match current.status.as_u16() {
        200 => current.json(),
        _ => service.owner("42").upload("42", picture()).await.ok(),
    };
    avatar["avatar_id"].as_str().unwrap().to_owned()
}

fn picture() -> Vec<u8> {
    photos::png(100, 100)
}

fn request(service: &TestService, caller: Caller, method: &Method, path: &str) -> RequestBuilder {
    let client = match caller {
        Caller::Anonymous | Caller::ForeignPage => service.anonymous(),
        Caller::Owner => service.owner("42"),
        Caller::OtherUser => service.owner("43"),
        Caller::Service => service.service(),
        Caller::Admin => service.admin(),
    };
    let mut request = client.request(method.clone(), path);
    if matches!(caller, Caller::ForeignPage) {
        let cookie = format!("access_token={}", service.token("42", &[]));
        request = request
            .header("cookie", cookie)
            .header("origin", "https://evil.example.com")
            .header("sec-fetch-site", "cross-site");
    }
    match *method {
        Method::PUT if path.ends_with("/lock") => request
            .header("content-type", "application/json")
            .body("{}"),
        Method::POST if path.ends_with("/lookup") => request
            .header("content-type", "application/json")
            .body(r#"{"user_ids": ["42"]}"#),
        Method::POST | Method::PUT => request.header("content-type", "image/png").body(picture()),
        _ => request.header("accept", "application/json"),
    }
}

/// The code of a problem; empty for an answer that is none.
fn code_of(method: &Method, answer: &Answer) -> String {
    let is_problem = answer.header("content-type") == "application/problem+json";
    if *method != Method::HEAD && is_problem {
        answer.problem().1
    } else {
        String::new()
    }
}
