//! Who may read what: one table of every reading route, every kind of caller, and every
//! `delivery.access`. A route that is not in the table fails the test.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use reqwest::{Method, RequestBuilder};
use ring::hmac;
use serde_json::json;

use crate::support::{Route, TestService, caused_by, comparable, photos, send};

const AVATAR: &str = "/api/v1/users/{user_id}/avatar";
const SHOWN: &str = "/avatars/{user_id}";
const LOCK: &str = "/api/v1/users/{user_id}/avatar/lock";
const VIEWERS: &str = "/api/v1/users/{user_id}/avatar/viewers";
const VIEWER: &str = "/api/v1/users/{user_id}/avatar/viewers/{viewer_id}";
const FILE: &str = "/files/public/avatars/{avatar_id}/{file}";
const HIDDEN_FILE: &str = "/files/private/avatars/{avatar_id}/{file}";

const STATS: &str = "/api/v1/stats";

/// A read whose request has a body. `lookup.rs` tests who sees what by it.
const LOOKUP: (&str, &str) = ("POST", "/api/v1/avatars/lookup");

/// The routes that change something. The table in `permissions.rs` has them.
const CHANGES: [(&str, &str); 7] = [
    ("POST", AVATAR),
    ("PUT", AVATAR),
    ("DELETE", AVATAR),
    ("PUT", LOCK),
    ("DELETE", LOCK),
    ("PUT", VIEWER),
    ("DELETE", VIEWER),
];

/// Who sends a request.
#[derive(Clone, Copy, Debug)]
enum Caller {
    Nobody,
    /// With a text that is no token.
    InvalidToken,
    ExpiredToken,
    /// The user 44, who has nothing to do with the avatar.
    OtherUser,
    /// The user 43, who is a viewer of the avatar.
    Viewer,
    /// The user 42, whose avatar it is.
    Owner,
    Service,
    Admin,
    /// The owner, with a token that permits only changes.
    OwnerWithoutReading,
    /// An admin, with a token that permits only changes.
    AdminWithoutReading,
    /// A user who may read statistics.
    Auditor,
}

use Caller::{
    Admin, AdminWithoutReading, Auditor, ExpiredToken, InvalidToken, Nobody, OtherUser, Owner,
    OwnerWithoutReading, Service, Viewer,
};

/// The columns of the table.
const CALLERS: [Caller; 11] = [
    Nobody,
    InvalidToken,
    ExpiredToken,
    OtherUser,
    Viewer,
    Owner,
    Service,
    Admin,
    OwnerWithoutReading,
    AdminWithoutReading,
    Auditor,
];

type Statuses = [u16; CALLERS.len()];

/// The signature of a request for a file.
#[derive(Clone, Copy, Debug)]
enum Signature {
    Unsigned,
    Valid,
    /// It is right, and the URL has ended.
    Ended,
    /// It belongs to another file.
    OfAnotherFile,
}

use Signature::{Ended, OfAnotherFile, Unsigned, Valid};

/// A read: the route, the path, the header `Accept`, and the statuses with `public`, `signed_in` and
/// `private`.
struct Read {
    route: &'static str,
    path: &'static str,
    accept: &'static str,
    signature: Signature,
    statuses: [Statuses; 3],
}

const fn read(
    route: &'static str,
    path: &'static str,
    accept: &'static str,
    statuses: [Statuses; 3],
) -> Read {
    Read {
        route,
        path,
        accept,
        signature: Unsigned,
        statuses,
    }
}

const fn file(
    route: &'static str,
    path: &'static str,
    signature: Signature,
    statuses: [u16; 3],
) -> Read {
    let [public, signed_in, private] = statuses;
    Read {
        route,
        path,
        accept: "*/*",
        signature,
        // A file is shown by its URL. The caller does not matter.
        statuses: [
            [public; CALLERS.len()],
            [signed_in; CALLERS.len()],
            [private; CALLERS.len()],
        ],
    }
}

/// A read that says nothing about avatars.
const fn open(path: &'static str, status: u16) -> Read {
    read(path, path, "*/*", [[status; CALLERS.len()]; 3])
}

const JSON: &str = "application/json";
const IMAGE: &str = "image/webp";

#[rustfmt::skip]
const TABLE: &[Read] = &[
    //                 nobody            other       owner        admin         admin-without-reading
    //                      invalid           viewer      service      owner-without-reading
    //                           expired                                                  auditor
    read(AVATAR, "/api/v1/users/42/avatar", JSON, [
        /* public    */ [200, 200, 200,  200, 200,  200, 200, 200,  200, 200,  200],
        /* signed_in */ [401, 401, 401,  200, 200,  200, 200, 200,  404, 404,  200],
        /* private   */ [401, 401, 401,  404, 200,  200, 200, 200,  404, 404,  404],
    ]),
    read(AVATAR, "/api/v1/users/42/avatar", IMAGE, [
        /* public    */ [200, 200, 200,  200, 200,  200, 200, 200,  200, 200,  200],
        /* signed_in */ [401, 401, 401,  200, 200,  200, 200, 200,  404, 404,  200],
        /* private   */ [401, 401, 401,  404, 200,  200, 200, 200,  404, 404,  404],
    ]),
    // Only the user 42 has an avatar.
    read(AVATAR, "/api/v1/users/me/avatar", JSON, [
        /* public    */ [401, 401, 401,  404, 404,  200, 404, 404,  200, 404,  404],
        /* signed_in */ [401, 401, 401,  404, 404,  200, 404, 404,  404, 404,  404],
        /* private   */ [401, 401, 401,  404, 404,  200, 404, 404,  404, 404,  404],
    ]),
    read(AVATAR, "/api/v1/users/me/avatar", IMAGE, [
        /* public    */ [401, 401, 401,  404, 404,  200, 404, 404,  200, 404,  404],
        /* signed_in */ [401, 401, 401,  404, 404,  200, 404, 404,  404, 404,  404],
        /* private   */ [401, 401, 401,  404, 404,  200, 404, 404,  404, 404,  404],
    ]),
    // Always an image: the avatar or a default.
    read(SHOWN, "/avatars/42", IMAGE, [[200; CALLERS.len()]; 3]),
    read(SHOWN, "/avatars/me", IMAGE, [[200; CALLERS.len()]; 3]),
    // Without a default a caller gets the avatar or 404, and never 401.
    read(SHOWN, "/avatars/42?default=404", IMAGE, [
        /* public    */ [200, 200, 200,  200, 200,  200, 200, 200,  200, 200,  200],
        /* signed_in */ [404, 404, 404,  200, 200,  200, 200, 200,  404, 404,  200],
        /* private   */ [404, 404, 404,  404, 200,  200, 200, 200,  404, 404,  404],
    ]),
    // The setting does not change who reads locks and viewers.
    read(LOCK, "/api/v1/users/42/avatar/lock", JSON, [
                        [401, 401, 401,  403, 403,  200, 200, 200,  403, 403,  403]; 3]),
    read(VIEWERS, "/api/v1/users/42/avatar/viewers", JSON, [
                        [401, 401, 401,  403, 403,  403, 200, 200,  403, 403,  403]; 3]),

    // Statistics are also for a role of their own.
    read(STATS, "/api/v1/stats", JSON, [
                        [401, 401, 401,  403, 403,  403, 200, 200,  403, 403,  200]; 3]),

    // The image of an avatar that was uploaded while avatars were public.
    file(FILE, "/files/public/avatars/PUBLIC/medium.webp", Unsigned,             [200, 404, 404]),
    file(FILE, "/files/public/avatars/PUBLIC/medium.webp", Valid,                [200, 200, 200]),
    file(FILE, "/files/public/avatars/PUBLIC/medium.webp", Ended,                [200, 403, 403]),
    file(FILE, "/files/public/avatars/PUBLIC/medium.webp", OfAnotherFile,        [200, 404, 404]),
    // The image of an avatar that was uploaded while avatars were private.
    file(HIDDEN_FILE, "/files/private/avatars/HIDDEN/medium.webp", Unsigned,      [200, 404, 404]),
    file(HIDDEN_FILE, "/files/private/avatars/HIDDEN/medium.webp", Valid,         [200, 200, 200]),
    file(HIDDEN_FILE, "/files/private/avatars/HIDDEN/medium.webp", Ended,         [200, 403, 403]),
    file(HIDDEN_FILE, "/files/private/avatars/HIDDEN/medium.webp", OfAnotherFile, [200, 404, 404]),
    // An object that is no image.
    file(HIDDEN_FILE, "/files/private/avatars/HIDDEN/manifest.json", Unsigned,    [404, 404, 404]),
    file(HIDDEN_FILE, "/files/private/avatars/HIDDEN/manifest.json", Valid,       [404, 404, 404]),

    open("/", 307),
    open("/health", 200),
    open("/health/live", 200),
    open("/health/ready", 200),
    // In production its figures are for operators: `operations.rs` tests that.
    open("/health/avatar", 200),
    open("/metrics", 200),
    open("/openapi.json", 200),
    open("/docs", 303),
    open("/docs/", 200),
    read("/docs/{*rest}", "/docs/swagger-initializer.js", "*/*", [[200; CALLERS.len()]; 3]),
];

const URL_SECRET: &str = "signs the URLs of the table";

/// The variables of a service with this `delivery.access`.
fn settings(access: &'static str) -> [(&'static str, &'static str); 4] {
    [
        ("CAMEO_DELIVERY__ACCESS", access),
        ("CAMEO_DELIVERY__URL_SECRET", URL_SECRET),
        ("CAMEO_AUTH__STATS_ROLES", "auditor"),
        // The sweep would call the catalog too.
        ("CAMEO_LIFECYCLE__SWEEP_EVERY", "1h"),
    ]
}

/// The ids of an avatar under `public/`, of one under `private/`, and of none.
struct Ids {
    public: String,
    hidden: String,
}

impl Ids {
    /// Uploads an avatar of the user 45 to `public/` and one of the user 42 to `private/`, and sets the
    /// policy of the user 42.
    async fn make(service: TestService) -> (TestService, Self) {
        let upload = async |service: &TestService, user: &str| {
            let picture = photos::png(100, 100);
            let avatar = service.owner(user).upload(user, picture).await.ok();
            avatar["avatar_id"].as_str().unwrap().to_owned()
        };
        let public = upload(&service, "45").await;
        let service = service.restart_with(&settings("private")).await;
        let hidden = upload(&service, "42").await;
        let put = async |path: &str| {
            let request = service.admin().request(Method::PUT, path);
            let request = request.header("content-type", JSON).body("{}");
            assert!(send(request).await.status.is_success(), "{path}");
        };
        put("/api/v1/users/42/avatar/viewers/43").await;
        put("/api/v1/users/42/avatar/lock").await;
        (service, Self { public, hidden })
    }

    fn in_path(&self, path: &str) -> String {
        path.replace("PUBLIC", &self.public)
            .replace("HIDDEN", &self.hidden)
    }
}

/// The path to something of the same kind that does not exist; `None` if there is nothing of the kind.
fn missing(path: &str) -> Option<String> {
    let no_avatar = "a4dqobyha4dqobyha4dqobyha4";
    let other = path
        .replace("/42/", "/46/")
        .replace("/avatars/42?", "/avatars/46?")
        .replace("PUBLIC", no_avatar)
        .replace("HIDDEN", no_avatar);
    (other != path).then_some(other)
}

/// The path with its signature.
fn signed(path: &str, signature: Signature) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let (signed_path, expires) = match signature {
        Unsigned => return path.to_owned(),
        Valid => (path.to_owned(), now + 600),
        Ended => (path.to_owned(), now - 1),
        OfAnotherFile => (path.replace("medium", "small"), now + 600),
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, URL_SECRET.as_bytes());
    let text = format!("{signed_path}?expires={expires}");
    let signature = BASE64URL_NOPAD.encode(hmac::sign(&key, text.as_bytes()).as_ref());
    format!("{path}?expires={expires}&signature={signature}")
}

fn request(
    service: &TestService,
    caller: Caller,
    method: &Method,
    path: &str,
    accept: &str,
) -> RequestBuilder {
    let never = 4_000_000_000_u64;
    let only_changes = |user: &str, roles: &[&str]| {
        let claims = json!({"sub": user, "roles": roles, "exp": never, "scope": "avatars:write"});
        service.client_with(&service.token_with(&claims))
    };
    let client = match caller {
        Nobody => service.anonymous(),
        InvalidToken => service.client_with("nonsense"),
        ExpiredToken => {
            let claims = json!({"sub": "42", "exp": 1_000_000_000});
            service.client_with(&service.token_with(&claims))
        }
        OtherUser => service.owner("44"),
        Viewer => service.owner("43"),
        Owner => service.owner("42"),
        Service => service.service(),
        Admin => service.admin(),
        OwnerWithoutReading => only_changes("42", &[]),
        AdminWithoutReading => only_changes("root", &["admin"]),
        Auditor => service.client_with(&service.token("47", &["auditor"])),
    };
    client
        .request(method.clone(), path)
        .header("accept", accept)
}

#[tokio::test]
async fn every_reading_route_answers_every_caller_as_the_table_says() {
    let service = TestService::start_with(&settings("public")).await;
    let (mut service, ids) = Ids::make(service).await;
    for (column, access) in ["public", "signed_in", "private"].into_iter().enumerate() {
        service = service.restart_with(&settings(access)).await;
        for read in TABLE {
            let path = signed(&ids.in_path(read.path), read.signature);
            for (caller, status) in CALLERS.into_iter().zip(read.statuses[column]) {
                let place = format!("{access}: {caller:?}: {} {path}", read.accept);
                for method in [Method::GET, Method::HEAD] {
                    let answer = send(request(&service, caller, &method, &path, read.accept)).await;
                    assert_eq!(answer.status, status, "{method}: {place}");
                    let is_empty = answer.body.is_empty();
                    assert!(is_empty || method == Method::GET, "{method}: {place}");
                }
                // The lock of the caller is no secret to the caller.
                let is_own = read.route == LOCK && matches!(caller, OwnerWithoutReading);
                // A request for a file does not read the token, so two callers are enough.
                let is_repetition =
                    read.route.starts_with("/files/") && !matches!(caller, Nobody | Admin);
                if status < 400 || is_own || is_repetition {
                    continue;
                }
                if let Some(missing) = missing(read.path) {
                    let missing = signed(&missing, read.signature);
                    expect_no_difference(&service, caller, read.accept, &path, &missing).await;
                }
            }
        }
    }
    let mut expected: BTreeSet<Route> = CHANGES
        .iter()
        .chain([&LOOKUP])
        .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    for read in TABLE {
        for method in ["GET", "HEAD"] {
            expected.insert((method.to_owned(), read.route.to_owned()));
        }
    }
    assert_eq!(
        expected,
        *service.routes(),
        "the table must have exactly the reading routes of the program"
    );
}

/// Checks that a caller who is refused gets the same answer at both paths, after the same calls of the
/// catalog and without a call of the store. So the caller does not learn what exists.
async fn expect_no_difference(
    service: &TestService,
    caller: Caller,
    accept: &str,
    denied: &str,
    missing: &str,
) {
    for method in [Method::GET, Method::HEAD] {
        let place = format!("{caller:?}: {method} {denied}");
        let read = async |path| {
            let request = request(service, caller, &method, path, accept);
            caused_by(service, request).await
        };
        let (denied, missing) = (read(denied).await, read(missing).await);
        assert_eq!(comparable(&denied.0), comparable(&missing.0), "{place}");
        assert_eq!(denied.1, missing.1, "{place}");
        let has_store = denied.1.keys().any(|name| name.contains("\"store\""));
        assert!(!has_store, "{place}: {:?}", denied.1);
        let (status, calls) = (denied.0.status.as_u16(), denied.1.len());
        // `/avatars/{user_id}` asks for the viewers if the caller has a token, and files are refused
        // without a call.
        let asks_the_catalog = status == 404 && place.contains("/api/");
        let may_ask = asks_the_catalog || place.contains(" /avatars/");
        assert!(calls > 0 || !asks_the_catalog, "{place}: {:?}", denied.1);
        assert!(calls == 0 || may_ask, "{place}: {:?}", denied.1);
    }
}
