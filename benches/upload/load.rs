//! The load: multipart uploads of one picture, each for a new user. Each has a connection of its
//! own, so that a service with several processes has no advantage or disadvantage from kept
//! connections.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::header::CONTENT_TYPE;

const BOUNDARY: &str = "boundary-of-the-form";

/// How long an upload may take, including the last one of a flood.
const TIMEOUT: Duration = Duration::from_mins(4);

/// The uploads to send, and their destination.
#[derive(Clone)]
pub(crate) struct Load {
    client: reqwest::Client,
    /// The URL of an upload, with `{}` for the user id.
    url: String,
    token: String,
    body: Bytes,
}

/// The outcome of a number of uploads.
pub(crate) struct Outcome {
    /// The time from the first request to the last answer.
    pub(crate) took: Duration,
    /// For each upload that was answered 200: the time from sending it to the end of the answer.
    pub(crate) latencies: Vec<Duration>,
    /// The number of answers that were not 200.
    pub(crate) refused: usize,
}

impl Load {
    pub(crate) fn new(url: String, token: String, picture: &[u8]) -> Self {
        let client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .build()
            .unwrap();
        Self {
            client,
            url,
            token,
            body: form(picture),
        }
    }

    /// Sends `count` uploads, with `at_once` of them at any time.
    pub(crate) async fn send(&self, count: usize, at_once: usize) -> Outcome {
        let begun = Instant::now();
        let answers: Vec<_> = futures_util::stream::iter(0..count)
            .map(|_| self.upload())
            .buffer_unordered(at_once)
            .collect()
            .await;
        let took = begun.elapsed();
        let latencies: Vec<_> = answers.into_iter().flatten().collect();
        Outcome {
            took,
            refused: count - latencies.len(),
            latencies,
        }
    }

    /// Sends one upload. Returns its time if it was answered 200.
    async fn upload(&self) -> Option<Duration> {
        let mut user = [0; 16];
        getrandom::fill(&mut user).unwrap();
        let user = data_encoding::HEXLOWER.encode(&user);
        let begun = Instant::now();
        let answer = self
            .client
            .post(self.url.replace("{}", &user))
            .bearer_auth(&self.token)
            .header(
                CONTENT_TYPE,
                format!("multipart/form-data; boundary={BOUNDARY}"),
            )
            .body(self.body.clone())
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("an answer's text");
        if status != 200 {
            assert_eq!(status, 503, "{text}");
            eprintln!("refused: {text}");
            return None;
        }
        assert!(text.contains("full.webp"), "{text}");
        Some(begun.elapsed())
    }
}

fn form(picture: &[u8]) -> Bytes {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"picture\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{BOUNDARY}--\r\n");
    [head.as_bytes(), picture, tail.as_bytes()].concat().into()
}
