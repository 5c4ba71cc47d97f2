//! The API documentation: the OpenAPI document, Swagger UI, and the documents that name settings.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use crate::support::{TestService, resolve};

#[tokio::test]
async fn the_documentation_needs_no_other_server() {
    let service = TestService::start().await;
    let anyone = service.anonymous();
    let document = anyone.get("/openapi.json").await.ok();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(anyone.get("/docs").await.status, 303);
    let page = anyone.get("/docs/").await;
    assert_eq!(page.header("x-frame-options"), "DENY");
    let policy = page.header("content-security-policy");
    for directive in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "script-src 'self';",
    ] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert_eq!(page.header("content-encoding"), "gzip");
    let mut text = String::new();
    let mut unpacked = flate2::read::GzDecoder::new(page.body.as_slice());
    unpacked.read_to_string(&mut text).unwrap();
    assert!(
        !text.contains("http://") && !text.contains("https://"),
        "the page refers to another server: {text}"
    );
    for file in [
        "swagger-ui.css",
        "swagger-ui-bundle.js",
        "swagger-initializer.js",
    ] {
        assert_eq!(
            anyone.get(&format!("/docs/{file}")).await.status,
            200,
            "{file}"
        );
    }
    let start = anyone.get("/docs/swagger-initializer.js").await;
    let start = String::from_utf8(start.body).unwrap();
    assert!(start.contains("\"validatorUrl\": \"none\""), "{start}");
}

/// If this fails, run `cargo run -- openapi > docs/openapi.yaml`.
#[test]
fn the_openapi_document_in_the_repository_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.yaml");
    let written = std::fs::read_to_string(path).unwrap();
    let made = cameo::http::openapi().to_yaml().unwrap();
    assert!(
        written == made,
        "docs/openapi.yaml is out of date: cargo run -- openapi > docs/openapi.yaml"
    );
}

#[tokio::test]
async fn the_served_openapi_document_is_the_one_in_the_repository() {
    let service = TestService::start().await;
    let served = service.anonymous().get("/openapi.json").await.ok();
    assert_eq!(
        served,
        serde_json::to_value(cameo::http::openapi()).unwrap()
    );
}

#[test]
fn every_operation_has_what_a_client_generator_needs() {
    let document = serde_json::to_value(cameo::http::openapi()).unwrap();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{place}: the id {id} is used twice");
            assert!(operation["security"].is_array(), "{place}: no security");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = &parameter["schema"];
                assert!(!schema["type"].is_array(), "{place}: {parameter}");
                if parameter["name"] == "user_id" {
                    assert_eq!(schema["$ref"], "#/components/schemas/UserId", "{place}");
                }
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                let response = resolve(&document, response);
                // The server refuses such a head before the request has an id.
                if status != "414" && status != "431" {
                    let headers = response["headers"].as_object().unwrap();
                    assert!(headers.contains_key("X-Request-Id"), "{place}: {status}");
                }
                for (kind, content) in response["content"].as_object().into_iter().flatten() {
                    let example = !content["example"].is_null() || content["examples"].is_object();
                    let is_json = kind.ends_with("json");
                    assert!(example || !is_json, "{place}: {status} has no example");
                }
            }
        }
    }
    let protected = &document["paths"]["/api/v1/users/{user_id}/avatar"];
    assert_eq!(protected["post"]["operationId"], "upload_avatar");
    assert_eq!(protected["put"]["operationId"], "replace_avatar");
    assert_eq!(
        document["paths"]["/health/live"]["get"]["security"],
        serde_json::json!([])
    );
}

#[test]
fn the_documented_pattern_of_user_ids_matches_exactly_the_valid_ids() {
    let document = serde_json::to_value(cameo::http::openapi()).unwrap();
    let schema = jsonschema::validator_for(&document["components"]["schemas"]["UserId"]).unwrap();
    let longest = "x".repeat(128);
    for good in ["42", "auth0|5f7c", "a.b", "..a", "A-Z_~@:+|-", &longest] {
        assert!(schema.is_valid(&good.into()), "{good}");
    }
    let too_long = "x".repeat(129);
    for bad in ["", ".", "...", "a b", "a/b", "é", "a\n", &too_long] {
        assert!(!schema.is_valid(&bad.into()), "{bad:?}");
    }
}

#[test]
fn the_settings_named_in_the_document_on_object_stores_exist() {
    let defaults: toml::Table = read("config.toml").parse().unwrap();
    let document = read("docs/object-stores.md");
    let mut found = 0;
    for code in code_in(&document) {
        let (path, value) = code.split_once(" = ").unwrap_or((code, ""));
        let names: Vec<_> = path.split('.').collect();
        if names.len() < 2 || !defaults.contains_key(names[0]) {
            continue;
        }
        let (last, tables) = names.split_last().unwrap();
        let table = tables
            .iter()
            .try_fold(&defaults, |table, name| table.get(*name)?.as_table());
        let default = table.and_then(|table| table.get(*last));
        let default = default.unwrap_or_else(|| panic!("there is no setting {path}"));
        if !value.is_empty() {
            let given: toml::Table = format!("it = {value}").parse().unwrap();
            assert!(given["it"].same_type(default), "{code}");
        }
        found += 1;
    }
    assert!(found > 5, "the document names settings");
}

#[test]
fn every_make_target_that_a_document_or_a_workflow_names_exists() {
    let makefile = read("Makefile");
    let targets: BTreeSet<_> = makefile
        .lines()
        .filter_map(|line| Some(line.split_once(':')?.0))
        .collect();
    let mut named = BTreeSet::new();
    for file in [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "deploy/README.md",
    ] {
        named.extend(code_in(&read(file)).flat_map(targets_in));
    }
    for file in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "md") {
            let text = std::fs::read_to_string(path).unwrap();
            named.extend(code_in(&text).flat_map(targets_in));
        }
    }
    named.extend(targets_in(&read(".ci/run")));
    for file in std::fs::read_dir(root().join(".github/workflows")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        named.extend(targets_in(&text.replace("- run: ", "")));
    }
    for target in ["test", "lint", "advisories", "sbom", "conformance"] {
        assert!(named.contains(target), "{target} is not found: {named:?}");
    }
    for target in &named {
        assert!(targets.contains(target.as_str()), "make {target}");
    }
}

/// The targets in the lines that begin with `make`.
fn targets_in(text: &str) -> Vec<String> {
    let is_target = |word: &&str| {
        word.chars()
            .all(|one| one.is_ascii_lowercase() || one == '-')
    };
    let lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("make "));
    lines
        .flat_map(|line| line.split_whitespace().take_while(is_target))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_row_of_the_threat_model_names_tests_that_exist() {
    let document = read("SECURITY.md");
    let mut rows = 0;
    for line in document.lines() {
        let is_row = line.starts_with("| can | ") || line.starts_with("| cannot | ");
        let tests: Vec<_> = code_in(line).filter(|code| code.contains("::")).collect();
        assert!(!is_row || !tests.is_empty(), "no test shows: {line}");
        for test in tests {
            assert!(is_test(test), "there is no test {test}");
        }
        rows += usize::from(is_row);
    }
    assert!(rows > 30, "the threat model has {rows} rows");
    for missing in [
        "access::no_such_test",
        "no_such_file::a_test",
        "visibility::fill",
        "fleet::no_such_module::anyone_can_read_images_from_the_bucket_and_nothing_else",
    ] {
        assert!(!is_test(missing), "{missing}");
    }
}

/// Every second part of a text is code, because backticks enclose it.
fn code_in(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether there is a test with this path, as `cargo test` prints it.
fn is_test(path: &str) -> bool {
    let (modules, name) = path.rsplit_once("::").unwrap();
    let modules: Vec<_> = modules.split("::").collect();
    (1..=modules.len()).any(|depth| {
        let (of_file, inside) = modules.split_at(depth);
        let file = of_file.join("/");
        [
            format!("tests/black_box/{file}.rs"),
            format!("tests/black_box/{file}/mod.rs"),
            format!("src/{file}.rs"),
            format!("src/{file}/mod.rs"),
        ]
        .iter()
        .filter_map(|file| std::fs::read_to_string(root().join(file)).ok())
        .any(|text| {
            let has_modules = inside
                .iter()
                .all(|module| text.contains(&format!("mod {module} {{")));
            let before = text.split_once(&format!("fn {name}("));
            let attributes = before.and_then(|(before, _)| before.rsplit("\n\n").next());
            let is_test = attributes
                .is_some_and(|lines| lines.contains("#[test]") || lines.contains("#[tokio::test"));
            has_modules && is_test
        })
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the repository.
fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}
