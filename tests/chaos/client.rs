//! What users do, and what they are told.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

/// Longer than anything may take; a stopped replica answers when it goes on.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// An avatar as its JSON tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Avatar {
    pub(crate) id: String,
    pub(crate) version: u64,
    /// Which upload it came from: no two pictures of a run have the same.
    pub(crate) dimensions: String,
    /// Its images, by the keys of their objects, with their lengths.
    pub(crate) images: BTreeMap<String, u64>,
}

impl Client {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        let http = reqwest::Client::builder().timeout(PATIENCE).build();
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

    /// The avatar as JSON.
    pub(crate) async fn avatar(&self, subject: &str) -> reqwest::Result<Answer> {
        let request = self.request(Method::GET, &avatar_of(subject));
        send(request.header(ACCEPT, "application/json")).await
    }

    /// The avatar as an image.
    pub(crate) async fn image(&self, subject: &str) -> reqwest::Result<Answer> {
        let request = self.request(Method::GET, &avatar_of(subject));
        send(request.header(ACCEPT, "image/*")).await
    }

    /// An image by its own address.
    pub(crate) async fn file(&self, key: &str) -> reqwest::Result<Answer> {
        send(self.request(Method::GET, &format!("/files/{key}"))).await
    }

    /// How the service is set up, and what it holds.
    pub(crate) async fn overview(&self) -> reqwest::Result<Answer> {
        send(self.request(Method::GET, "/health/avatar")).await
    }

    /// What the service tells of its readiness.
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

    /// A problem's code; empty where it is none.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Whether a replica that cannot serve yet says so.
    pub(crate) fn is_of_a_start(&self) -> bool {
        let body = self.json();
        let detail = body["detail"].as_str().unwrap_or_default();
        detail.starts_with("the service is starting")
    }

    /// The avatar; `None` where this is something else.
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
