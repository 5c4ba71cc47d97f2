//! The documents that the program carries.

use crate::support::TestService;

#[tokio::test]
async fn the_documents_are_served_by_the_program_alone() {
    let service = TestService::start().await;
    let anyone = service.anonymous();
    let document = anyone.get("/openapi.json").await.ok();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(anyone.get("/docs").await.status, 303);
    let page = anyone.get("/docs/").await;
    let text = String::from_utf8(page.body).unwrap();
    assert!(
        !text.contains("http://") && !text.contains("https://"),
        "no outside address: {text}"
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

/// `cameo openapi > docs/openapi.yaml` mends it.
#[test]
fn the_openapi_document_in_the_repository_is_the_programs() {
    let written = include_str!("../../docs/openapi.yaml");
    let made = cameo::http::openapi().to_yaml().unwrap();
    assert!(
        written == made,
        "docs/openapi.yaml is old: cargo run -- openapi > docs/openapi.yaml"
    );
}

#[test]
fn the_settings_that_the_table_of_servers_names_exist() {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).unwrap();
    let defaults: toml::Table = read("config.toml").parse().unwrap();
    let document = read("docs/object-stores.md");
    let mut found = 0;
    // Between backticks there is code.
    for code in document.split('`').skip(1).step_by(2) {
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
