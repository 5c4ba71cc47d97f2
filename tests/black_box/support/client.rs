//! HTTP clients, one for each role.

use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::multipart::{Form, Part};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use super::conformance::OPENAPI;

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(url: &str, token: Option<String>) -> Self {
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .build()
            .unwrap();
        Self {
            http,
            url: url.to_owned(),
            token,
        }
    }

    /// Begins a request with the client's token. `path` is a path of the service or a whole URL.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.url)
        };
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn get_with(&self, path: &str, header: &str, value: &str) -> Answer {
        send(self.request(Method::GET, path).header(header, value)).await
    }

    /// Reads the avatar as JSON.
    pub(crate) async fn avatar(&self, user: &str) -> Answer {
        self.get_with(&avatar_of(user), "accept", "application/json")
            .await
    }

    pub(crate) async fn delete(&self, user: &str) -> Answer {
        send(self.request(Method::DELETE, &avatar_of(user))).await
    }

    /// Uploads a picture as a form.
    pub(crate) async fn upload(&self, user: &str, picture: impl Into<Vec<u8>>) -> Answer {
        self.upload_form(user, form(picture)).await
    }

    pub(crate) async fn upload_form(&self, user: &str, form: Form) -> Answer {
        send(self.request(Method::POST, &avatar_of(user)).multipart(form)).await
    }

    /// Uploads the bare bytes of a picture.
    pub(crate) async fn put_bare(
        &self,
        user: &str,
        query: &str,
        picture: impl Into<Vec<u8>>,
    ) -> Answer {
        let path = format!("{}{query}", avatar_of(user));
        let request = self
            .request(Method::PUT, &path)
            .header("content-type", "image/jpeg");
        send(request.body(picture.into())).await
    }

    /// Uploads with one more header.
    pub(crate) async fn upload_with(
        &self,
        user: &str,
        picture: &[u8],
        name: &str,
        value: &str,
    ) -> Answer {
        let request = self
            .request(Method::POST, &avatar_of(user))
            .header(name, value);
        send(request.multipart(form(picture))).await
    }
}

fn avatar_of(user: &str) -> String {
    format!("/api/v1/users/{user}/avatar")
}

/// An upload form with the picture as the part `file`.
pub(crate) fn form(picture: impl Into<Vec<u8>>) -> Form {
    form_named(picture, "me.jpg", "image/jpeg")
}

/// An upload form with the picture as the part `file`, with this file name and declared type.
pub(crate) fn form_named(picture: impl Into<Vec<u8>>, name: &str, kind: &str) -> Form {
    let part = Part::bytes(picture.into()).file_name(name.to_owned());
    Form::new().part("file", part.mime_str(kind).unwrap())
}

/// Sends a request and checks the answer against the OpenAPI document.
pub(crate) async fn send(request: RequestBuilder) -> Answer {
    try_send(request).await.unwrap()
}

/// Like [`send`], but returns an error if the connection fails.
pub(crate) async fn try_send(request: RequestBuilder) -> reqwest::Result<Answer> {
    let (http, request) = request.build_split();
    let request = request.unwrap();
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let response = http.execute(request).await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await?.to_vec();
    let answer = Answer {
        status,
        headers,
        body,
    };
    assert_eq!(
        answer.header("x-content-type-options"),
        "nosniff",
        "{method} {path}"
    );
    assert!(!answer.header("x-request-id").is_empty(), "{method} {path}");
    OPENAPI.check(&method, &path, &answer);
    Ok(answer)
}

impl Answer {
    /// The value of a header, or an empty text if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The JSON body of an answer whose status must be 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// The value of a sample in an answer of `/metrics`.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = String::from_utf8_lossy(&self.body);
        let mut lines = text.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        found.unwrap_or_else(|| panic!("there is no whole number {name}: {text}"))
    }

    /// The status and the code of a problem document, which must be consistent and reveal no
    /// internals.
    #[track_caller]
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["request_id"], self.header("x-request-id"));
        let detail = body["detail"].as_str().unwrap();
        for inside in [
            "/tmp",
            "/src/",
            "catalog.redb",
            "127.0.0.1",
            "os error",
            "panicked",
        ] {
            assert!(!detail.contains(inside), "{detail}");
        }
        (
            self.status.as_u16(),
            body["code"].as_str().unwrap().to_owned(),
        )
    }
}
