//! Completes the OpenAPI document. The annotations of the handlers describe what differs between
//! routes; this module adds what a rule determines: unique operation ids, response headers, the
//! schema of user ids, examples, and an empty list of security schemes for operations that are open
//! to anyone.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{ObjectBuilder, OpenApi, Ref, RefOr, Schema, Server, Type};

use super::docs::{self, PROBLEM};
use super::problem::Code;
use super::startup::is_health_path;

/// Adds everything that a rule determines to a document that was made from the route table.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    let mut server = Server::new("/");
    server.description = Some("The service that serves this document".to_owned());
    document.servers = Some(vec![server]);
    let mut used = BTreeSet::new();
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            name(method, operation);
            operation.security.get_or_insert_default();
            for parameter in operation.parameters.iter_mut().flatten() {
                if let RefOr::T(parameter) = parameter {
                    refine(parameter);
                }
            }
            add_shared(path, operation);
            add_headers(method, operation);
            add_examples(operation);
            for response in operation.responses.responses.values() {
                if let RefOr::T(response) = response {
                    used.extend(response.headers.keys().cloned());
                }
            }
        }
    }
    let components = document.components.get_or_insert_default();
    for shared in &SHARED {
        let response = shared.response();
        used.extend(response.headers.keys().cloned());
        let name = shared.name.to_owned();
        components.responses.insert(name, RefOr::T(response));
    }
    for (name, header) in HEADERS.iter().filter(|(name, _)| used.contains(*name)) {
        let header = RefOr::T(describe(header));
        components.headers.insert((*name).to_owned(), header);
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("get", &mut item.get),
        ("head", &mut item.head),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("patch", &mut item.patch),
        ("delete", &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Makes the id of an operation unique. A handler of two methods has one id in its annotation, so
/// the second method gets an id of its own.
fn name(method: &str, operation: &mut Operation) {
    let Some(id) = &mut operation.operation_id else {
        return;
    };
    match (method, id.strip_prefix("upload_")) {
        ("put", Some(rest)) => *id = format!("replace_{rest}"),
        ("head", _) => *id = format!("head_{id}"),
        _ => {}
    }
}

fn refine(parameter: &mut Parameter) {
    let is_user = parameter.name == "user_id" || parameter.name == "viewer_id";
    if parameter.parameter_in == ParameterIn::Path && is_user {
        parameter.schema = Some(Ref::from_schema_name("UserId").into());
    }
    // An optional header is absent, never null.
    if let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema
        && let SchemaType::Array(types) = &mut schema.schema_type
    {
        types.retain(|kind| *kind != Type::Null);
        if let [only] = &types[..] {
            schema.schema_type = SchemaType::Type(only.clone());
        }
    }
}

/// A response of the layers around the routes. They can give it to a request for any route.
struct Shared {
    /// The name in the components of the document.
    name: &'static str,
    status: &'static str,
    content: SharedContent,
}

enum SharedContent {
    /// A problem with one of these codes.
    Problem(&'static [Code]),
    /// No body, and no header of this service. The text describes the response.
    Nothing(&'static str),
}

const SHARED: [Shared; 5] = [
    Shared {
        name: "MalformedRequest",
        status: "400",
        content: SharedContent::Problem(&[Code::MalformedRequest]),
    },
    Shared {
        name: "TargetTooLong",
        status: "414",
        content: SharedContent::Nothing("The path and query have more than 64 KiB."),
    },
    Shared {
        name: "HeadTooLarge",
        status: "431",
        content: SharedContent::Nothing("The head of the request has more than 64 KiB."),
    },
    Shared {
        name: "Internal",
        status: "500",
        content: SharedContent::Problem(&[Code::Internal]),
    },
    Shared {
        name: "Unavailable",
        status: UNAVAILABLE,
        content: SharedContent::Problem(&[
            Code::Overloaded,
            Code::StorageUnavailable,
            Code::CatalogUnavailable,
        ]),
    },
];

/// The status while the service is starting and while too many connections are open. Health checks
/// are answered then.
const UNAVAILABLE: &str = "503";

impl Shared {
    fn response(&self) -> Response {
        match self.content {
            SharedContent::Nothing(text) => ResponseBuilder::new().description(text).build(),
            SharedContent::Problem(codes) => {
                let mut response = docs::problem(codes);
                let mut names = BTreeSet::from(EVERYWHERE);
                names.extend(headers_of_problem(self.status));
                refer_to(&names, &mut response);
                response
            }
        }
    }
}

/// Adds the responses of the layers around the routes. A status that the operation lists itself
/// gets their codes; otherwise the operation refers to the shared response.
fn add_shared(path: &str, operation: &mut Operation) {
    let is_health_check = is_health_path(path);
    let responses = &mut operation.responses.responses;
    for shared in &SHARED {
        if is_health_check && shared.status == UNAVAILABLE {
            continue;
        }
        match (responses.get_mut(shared.status), &shared.content) {
            (Some(RefOr::T(own)), SharedContent::Problem(codes)) => docs::add_codes(own, codes),
            (Some(_), _) => {}
            (None, _) => {
                let shared_response = Ref::from_response_name(shared.name);
                responses.insert(shared.status.to_owned(), RefOr::Ref(shared_response));
            }
        }
    }
}

struct HeaderDoc {
    kind: Type,
    description: &'static str,
    example: &'static str,
}

const fn text(description: &'static str, example: &'static str) -> HeaderDoc {
    HeaderDoc {
        kind: Type::String,
        description,
        example,
    }
}

/// The response headers of this service.
const HEADERS: &[(&str, HeaderDoc)] = &[
    (
        "Accept-Ranges",
        text("A range of the image can be requested.", "bytes"),
    ),
    (
        "Access-Control-Allow-Origin",
        text("Pages of every origin may read public images.", "*"),
    ),
    (
        "Cache-Control",
        text(
            "How long a cache may keep the response.",
            "public, max-age=300, stale-while-revalidate=60",
        ),
    ),
    (
        "Content-Range",
        text(
            "The range of the image in this response; with 416, the size of the image.",
            "bytes 0-99/9312",
        ),
    ),
    (
        "Cross-Origin-Resource-Policy",
        text(
            "Pages of every origin may embed public images.",
            "cross-origin",
        ),
    ),
    (
        "ETag",
        text(
            "The entity tag of this representation.",
            "\"c4vwquylsaznpkfz4fijhxgcoq\"",
        ),
    ),
    (
        "Location",
        text(
            "The URL to go to.",
            "https://cdn.example.com/public/avatars/c4vwquylsaznpkfz4fijhxgcoq/medium.webp",
        ),
    ),
    (
        "RateLimit",
        text(
            "The state of the quota that counted this request \
             (draft-ietf-httpapi-ratelimit-headers-10): `r` requests are possible now, and one \
             more in `t` seconds at the latest; `pk` is the owner of the quota, in base64. Absent \
             if the request is refused before it is counted, for instance with 412 because a \
             condition fails before the body is read.",
            "\"upload\";r=4;t=12;pk=:NDI=:",
        ),
    ),
    (
        "RateLimit-Policy",
        text(
            "The quota that counted this request (GCRA): `q` requests are possible at once, and \
             they are restored evenly over `w` seconds, one every `cameo-interval` seconds. Any \
             span of `w` seconds can therefore hold almost twice `q` requests. `upload` and \
             `delete` are the quotas of a user, `service_upload` and `service_delete` those of a \
             service or an admin.",
            "\"upload\";q=5;w=60;pk=:NDI=:;cameo-algorithm=\"gcra\";cameo-interval=12",
        ),
    ),
    (
        "Retry-After",
        HeaderDoc {
            kind: Type::Integer,
            description: "The number of seconds after which the request can succeed.",
            example: "12",
        },
    ),
    (
        "Vary",
        text(
            "The request headers that the response depends on.",
            "Accept",
        ),
    ),
    (
        "WWW-Authenticate",
        text(
            "How to authenticate, and why the token of the request is refused (RFC 6750).",
            "Bearer realm=\"cameo\", error=\"invalid_token\", \
             error_description=\"the token has expired\"",
        ),
    ),
    (
        "X-Content-Type-Options",
        text("A browser must not guess another content type.", "nosniff"),
    ),
    (
        "X-Request-Id",
        text(
            "The id of the request: the one in its `X-Request-Id`, or a new one.",
            "hu2wnwr6uxrqzi7x3ftj5dpjeu",
        ),
    ),
];

/// Headers that every response can have.
const EVERYWHERE: [&str; 4] = [
    "Access-Control-Allow-Origin",
    "Vary",
    "X-Content-Type-Options",
    "X-Request-Id",
];

fn describe(header: &HeaderDoc) -> Header {
    let example = match header.kind {
        Type::Integer => header
            .example
            .parse::<u64>()
            .map_or(Value::Null, Value::from),
        _ => header.example.into(),
    };
    HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(header.kind.clone())))
        .description(Some(header.description))
        .example(Some(example))
        .build()
}

fn add_headers(method: &str, operation: &mut Operation) {
    let tags = operation.tags.clone().unwrap_or_default();
    let cached = matches!(method, "get" | "head")
        && tags.iter().any(|tag| tag == "avatars" || tag == "files");
    let replaces = matches!(method, "post" | "put");
    let is_fresh = matches!(
        operation.operation_id.as_deref(),
        Some("look_up_avatars" | "read_statistics")
    );
    let rated = operation.responses.responses.contains_key("429");
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else {
            continue;
        };
        let mut names = BTreeSet::from(EVERYWHERE);
        let images = response
            .content
            .keys()
            .any(|kind| kind.starts_with("image/"));
        if response.content.contains_key(PROBLEM) {
            names.extend(headers_of_problem(status));
        }
        match status.as_str() {
            "200" if tags.iter().any(|tag| tag == "moderation") || is_fresh => {
                names.insert("Cache-Control");
            }
            "200" if replaces && tags.iter().any(|tag| tag == "avatars") => {
                names.extend(["Cache-Control", "ETag"]);
            }
            _ => {}
        }
        if rated && !matches!(status.as_str(), "401" | "403") {
            names.extend(["RateLimit", "RateLimit-Policy"]);
        }
        match status.as_str() {
            "302" | "307" => {
                names.insert("Location");
            }
            "404" => {
                names.insert("Cache-Control");
            }
            _ => {}
        }
        if cached {
            match status.as_str() {
                "200" | "206" | "304" => names.extend(["Cache-Control", "ETag"]),
                "302" => names.extend(["Cache-Control"]),
                _ => {}
            }
            // Every response to a request for a public image has it, whatever its status.
            names.insert("Cross-Origin-Resource-Policy");
            if matches!(status.as_str(), "206" | "416") {
                names.insert("Content-Range");
            }
            if images || status == "304" {
                names.insert("Accept-Ranges");
            }
        }
        refer_to(&names, response);
    }
}

/// The header that problems with this status have, besides those of every response.
fn headers_of_problem(status: &str) -> Option<&'static str> {
    match status {
        "401" | "403" => Some("WWW-Authenticate"),
        "429" | "503" => Some("Retry-After"),
        _ => None,
    }
}

fn refer_to(names: &BTreeSet<&str>, response: &mut Response) {
    for name in names {
        let header = || RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
        response
            .headers
            .entry((*name).to_owned())
            .or_insert_with(header);
    }
}

/// Gives each JSON response without an example the example of its schema.
fn add_examples(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else {
            continue;
        };
        for content in response.content.values_mut() {
            let RefOr::T(content) = content else {
                continue;
            };
            if content.example.is_none()
                && content.examples.is_empty()
                && let Some(RefOr::Ref(schema)) = &content.schema
            {
                content.example = example_of(&schema.ref_location);
            }
        }
    }
}

fn example_of(schema: &str) -> Option<Value> {
    match schema.rsplit('/').next()? {
        "Avatar" => Some(avatar()),
        "Lock" => Some(json!({
            "reason": "spam",
            "until": "2030-01-31T09:30:00Z",
            "locked_at": "2026-01-31T09:30:00Z",
        })),
        "Viewers" => Some(json!({"viewers": ["43", "44"]})),
        "Avatars" => Some(json!({"avatars": {"42": avatar(), "43": null}})),
        "Statistics" => Some(json!({
            "avatars": 2,
            "objects": 4,
            "bytes": 40_212,
            "renditions": [
                {"variant": "medium", "format": "jpeg", "objects": 2, "bytes": 21_588},
                {"variant": "medium", "format": "webp", "objects": 2, "bytes": 18_624},
            ],
            "pending": 0,
            "retired": 1,
        })),
        "Live" => Some(json!({"status": "ok"})),
        "Ready" => Some(json!({
            "status": "ready",
            "store": "ok",
            "catalog": "ok",
            "public_read": "anyone",
        })),
        "Overview" => Some(json!({
            "status": "healthy",
            "config_valid": true,
            "errors": [],
            "version": env!("CARGO_PKG_VERSION"),
            "storage": {"total_files": 20, "total_size_mb": 0.49},
        })),
        "Deleted" => Some(json!({
            "message": "Avatar deleted successfully",
            "files_deleted": 10,
        })),
        _ => None,
    }
}

fn avatar() -> Value {
    let url = |file: &str| {
        format!("https://cdn.example.com/public/avatars/c4vwquylsaznpkfz4fijhxgcoq/{file}")
    };
    json!({
        "user_id": "42",
        "avatar_id": "c4vwquylsaznpkfz4fijhxgcoq",
        "version": 3,
        "avatar_url": url("medium.webp"),
        "variants": {
            "thumbnail": url("thumbnail.webp"),
            "medium": url("medium.webp"),
        },
        "images": [
            {
                "variant": "medium",
                "format": "webp",
                "width": 256,
                "height": 256,
                "bytes": 9312,
                "url": url("medium.webp"),
            },
        ],
        "placeholder": {"thumbhash": "3OcRJYB4d3h/iIeHeEh3eIhw+j2w", "color": "#7a5c48"},
        "metadata": {
            "original_size": 2_048_576,
            "original_dimensions": "2000x2000",
            "format": "JPEG",
            "animated": false,
            "uploaded_at": "2026-01-31T09:30:00Z",
        },
    })
}
