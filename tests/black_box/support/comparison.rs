//! Compares answers, to show that a refusal reveals nothing.

use std::collections::BTreeMap;

use reqwest::RequestBuilder;

use super::{Answer, TestService, send};

/// The number of calls of each operation of the catalog and the store.
pub(crate) type Calls = BTreeMap<String, u64>;

/// Status, headers and body of an answer, without what differs between any two answers.
pub(crate) fn comparable(answer: &Answer) -> (u16, BTreeMap<String, String>, String) {
    let id = answer.header("x-request-id").to_owned();
    let body = String::from_utf8(answer.body.clone())
        .unwrap()
        .replace(&id, "ID");
    let headers = answer.headers.iter().filter(|(name, _)| *name != "date");
    let headers = headers.map(|(name, value)| {
        let value = value.to_str().unwrap().replace(&id, "ID");
        (name.to_string(), value)
    });
    (answer.status.as_u16(), headers.collect(), body)
}

/// Sends a request. Returns the answer, and the calls of the catalog and the store that it caused. No
/// other request may be under way, and the sweep must be off.
pub(crate) async fn caused_by(service: &TestService, request: RequestBuilder) -> (Answer, Calls) {
    let before = calls(service).await;
    let answer = send(request).await;
    let after = calls(service).await;
    let caused = after.into_iter().filter_map(|(name, count)| {
        let more = count - before.get(&name).copied().unwrap_or_default();
        (more > 0).then_some((name, more))
    });
    (answer, caused.collect())
}

async fn calls(service: &TestService) -> Calls {
    let metrics = service.anonymous().get("/metrics").await;
    let metrics = String::from_utf8(metrics.body).unwrap();
    let lines = metrics.lines().filter_map(|line| {
        let (name, count) = line.rsplit_once(' ')?;
        let counts = name.starts_with("cameo_backend_operations_total{");
        // Tasks in the background do these by themselves.
        let by_tasks = ["\"claim\"", "\"check\""];
        let counts = counts && !by_tasks.iter().any(|task| name.contains(task));
        counts.then(|| (name.to_owned(), count.parse().unwrap()))
    });
    let found: Calls = lines.collect();
    assert!(!found.is_empty(), "{metrics}");
    found
}
