//! Checks every answer that a test receives against the OpenAPI document.

use std::sync::LazyLock;

use reqwest::Method;
use serde_json::{Value, json};

use super::Answer;

pub(crate) static OPENAPI: LazyLock<Document> = LazyLock::new(|| {
    let document = serde_json::to_value(cameo::http::openapi()).unwrap();
    Document { document }
});

pub(crate) struct Document {
    document: Value,
}

impl Document {
    /// Panics if the document does not allow this answer.
    #[track_caller]
    pub(crate) fn check(&self, method: &Method, path: &str, answer: &Answer) {
        if answer.status == 404 {
            let cache = answer.header("cache-control");
            assert!(
                !cache.is_empty(),
                "{method} {path}: 404 does not say how long caches may keep it"
            );
        }
        let Some(operation) = self.operation(method, path) else {
            // Unknown routes answer 404 or 405. The document does not describe its own routes.
            let known = path.starts_with("/docs") || path == "/openapi.json";
            let status = answer.status.as_u16();
            assert!(
                known || [404, 405].contains(&status),
                "{method} {path}: {status}"
            );
            return;
        };
        let status = answer.status.as_str();
        let response = resolve(&self.document, &operation["responses"][status]);
        let body = String::from_utf8_lossy(&answer.body);
        assert!(
            response.is_object(),
            "{method} {path}: {status} is not documented: {body}"
        );
        // Every documented header must be documented for each answer that has it.
        for name in document_headers(&self.document) {
            let documented = response["headers"].get(name).is_some();
            assert!(
                documented || !answer.headers.contains_key(name),
                "{method} {path}: {status} has {name}, which is not documented"
            );
        }
        let Some(content) = response["content"].as_object() else {
            assert!(
                answer.body.is_empty(),
                "{method} {path}: {status} has a body"
            );
            return;
        };
        if *method == Method::HEAD {
            return;
        }
        let kind = answer.header("content-type");
        let media = content.get(kind);
        let media = media.unwrap_or_else(|| panic!("{method} {path}: {status} as {kind:?}"));
        if kind.ends_with("json") {
            self.check_schema(
                &media["schema"],
                &answer.json(),
                &format!("{method} {path}: {status}"),
            );
            if kind == "application/problem+json" {
                let code = answer.json()["code"].as_str().unwrap().to_owned();
                let listed = response["description"].as_str().unwrap();
                assert!(
                    listed.contains(&format!("`{code}`")),
                    "{method} {path}: {code}"
                );
            }
        }
    }

    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let paths = self.document["paths"].as_object().unwrap();
        let (_, item) = paths.iter().find(|(template, _)| fits(template, path))?;
        let method = if *method == Method::HEAD {
            "get"
        } else {
            &method.as_str().to_lowercase()
        };
        item.get(method)
    }

    #[track_caller]
    fn check_schema(&self, schema: &Value, body: &Value, place: &str) {
        // A body must not have undocumented fields.
        let mut root = json!({ "allOf": [schema], "unevaluatedProperties": false });
        root["components"] = self.document["components"].clone();
        root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        let validator = jsonschema::validator_for(&root).unwrap();
        let faults: Vec<_> = validator
            .iter_errors(body)
            .map(|fault| fault.to_string())
            .collect();
        assert!(faults.is_empty(), "{place}: {faults:?}\n{body:#}");
    }
}

/// The value that a reference names, or the value itself.
pub(crate) fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
    match pointer {
        Some(pointer) => document.pointer(pointer).unwrap(),
        None => value,
    }
}

fn document_headers(document: &Value) -> impl Iterator<Item = &String> {
    document["components"]["headers"]
        .as_object()
        .unwrap()
        .keys()
}

fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == given || wanted.starts_with('{') => {}
            _ => return false,
        }
    }
}
