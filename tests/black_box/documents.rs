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
