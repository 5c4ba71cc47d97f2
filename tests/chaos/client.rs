//! The HTTP client of the users.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// Longer than any answer may take. A stopped replica answers only after it has been resumed.
const TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// The answer to a request.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// An avatar, as its JSON describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Avatar {
    pub(crate) id: String,
    pub(crate) version: u64,
    /// The dimensions of the original. They identify the upload, because each is used once in a
    /// run.
    pub(crate) dimensions: String,
    /// The lengths of its images, by the keys of their objects.
    pub(crate) images: BTreeMap<String, u64>,
}

impl Client {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        let http = reqwest::Client::builder().timeout(TIMEOUT).build();
        Self {
            http: http.unwrap(),
            url: url.to_owned(),
            token: format!("Bearer {token}"),
        }
    }

    pub(crate) async fn upload(&self, subject: &str, picture: Vec<u8>) -> reqwest::Result<Answer> {
        let form = Form::new().part("file", Part::bytes(picture).file_name("me"));
        let request = self.request(Method::POST, &avatar_of(subject));
        send(request.multipart(form)).await
    }

    pub(crate) async fn delete(&self, subject: &str) -> reqwest::Result<Answer> {
        send(self.request(Method::DELETE, &avatar_of(subject))).await
    }

    /// Reads the avatar as JSON.
    pub(crate) async fn avatar(&self, subject: &str) -> reqwest::Result<Answer> {
        let request = self.request(Method::GET, &avatar_of(subject));
        send(request.header(ACCEPT, "application/json")).await
    }

    /// Reads the avatar as an image.
    pub(crate) async fn image(&self, subject: &str) -> reqwest::Result<Answer> {
        let request = self.request(Method::GET, &avatar_of(subject));
        send(request.header(ACCEPT, "image/*")).await
    }

    /// Reads an image by its own path.
    pub(crate) async fn file(&self, key: &str) -> reqwest::Result<Answer> {
        send(self.request(Method::GET, &format!("/files/{key}"))).await
    }

    /// Reads `/health/avatar`.
    pub(crate) async fn overview(&self) -> reqwest::Result<Answer> {
        send(self.request(Method::GET, "/health/avatar")).await
    }

    /// Reads `/health/ready`.
    pub(crate) async fn readiness(&self) -> reqwest::Result<Answer> {
        send(self.request(Method::GET, "/health/ready")).await
    }

    /// Whether the process is up, which depends on nothing else.
    pub(crate) async fn is_live(&self) -> bool {
        let asked = send(self.request(Method::GET, "/health/live")).await;
        asked.is_ok_and(|answer| answer.status == 200)
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let asked = send(self.request(Method::GET, "/health/ready")).await;
        asked.is_ok_and(|answer| answer.status == 200)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        request.header(AUTHORIZATION, &self.token)
    }
}

fn avatar_of(subject: &str) -> String {
    format!("/api/v1/users/{subject}/avatar")
}

async fn send(request: RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await?.to_vec();
    Ok(Answer {
        status,
        headers,
        body,
    })
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap_or_default())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of a problem, or an empty text if the answer is no problem.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether the replica answered that it is still starting.
    pub(crate) fn is_from_startup(&self) -> bool {
        let body = self.json();
        let detail = body["detail"].as_str().unwrap_or_default();
        detail.starts_with("the service is starting")
    }

    /// The avatar in the answer; `None` if the answer is not an avatar.
    pub(crate) fn avatar(&self) -> Option<Avatar> {
        let body = self.json();
        let mut images = BTreeMap::new();
        for image in body["images"].as_array()? {
            let (_, key) = image["url"].as_str()?.split_once("/files/")?;
            images.insert(key.to_owned(), image["bytes"].as_u64()?);
        }
        Some(Avatar {
            id: body["avatar_id"].as_str()?.to_owned(),
            version: body["version"].as_u64()?,
            dimensions: body["metadata"]["original_dimensions"].as_str()?.to_owned(),
            images,
        })
    }
}
