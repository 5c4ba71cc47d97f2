//! Tokens in the shapes of well-known identity providers, with the settings that their users need.

use cameo_testing::identity::IdentityProvider;
use cameo_testing::tokens::Signer;
use serde_json::{Value, json};

use crate::support::photos::PORTRAIT;
use crate::support::{Client, TestService};

/// The claims of one provider's tokens, without the issuer and the times.
struct Shapes {
    /// The settings of a service that accepts them.
    settings: Vec<(&'static str, &'static str)>,
    /// A user's token, and the user id that it stands for.
    user: (Value, &'static str),
    /// Tokens that may act for other users.
    operators: Vec<Value>,
    /// Tokens that name a role, but not as the provider does, so that they may act for nobody else.
    powerless: Vec<Value>,
}

/// The service with these settings, and a client for each token.
async fn service_of(provider: &IdentityProvider, settings: &[(&str, &str)]) -> TestService {
    let issuer = provider.url();
    let mut variables = vec![
        ("CAMEO_AUTH__ALGORITHMS", "RS256"),
        ("CAMEO_AUTH__DISCOVERY", "true"),
        ("CAMEO_AUTH__ISSUER", issuer.as_str()),
    ];
    variables.extend(settings);
    TestService::start_with(&variables).await
}

fn client(service: &TestService, provider: &IdentityProvider, claims: &Value) -> Client {
    let mut claims = claims.clone();
    claims["iss"] = provider.url().into();
    claims["iat"] = 1_700_000_000.into();
    claims["exp"] = 4_000_000_000_u64.into();
    let token = Signer::of("rsa").token_with_id("rsa", &claims);
    Client::new(service.url(), Some(token))
}

async fn check(shapes: Shapes) {
    let provider = IdentityProvider::start().await;
    provider.publish(&["rsa"]);
    let service = service_of(&provider, &shapes.settings).await;
    let (claims, user_id) = shapes.user;
    let user = client(&service, &provider, &claims);
    let avatar = user.upload("me", PORTRAIT).await.ok();
    assert_eq!(avatar["user_id"], user_id);
    let forbidden = (403, "forbidden".to_owned());
    assert_eq!(user.delete("42").await.problem(), forbidden);
    for claims in &shapes.operators {
        let operator = client(&service, &provider, claims);
        let missing = operator.delete("42").await.problem();
        assert_eq!(missing, (404, "avatar_not_found".to_owned()), "{claims}");
    }
    for claims in &shapes.powerless {
        let other = client(&service, &provider, claims);
        assert_eq!(other.delete("42").await.problem(), forbidden, "{claims}");
    }
    // A token for another program of the same provider is not accepted.
    let mut foreign = claims;
    foreign["aud"] = "another program".into();
    let refused = client(&service, &provider, &foreign).avatar("me").await;
    assert_eq!(refused.problem(), (401, "unauthenticated".to_owned()));
}

/// Keycloak lists roles of the realm and of each client, and several audiences.
#[tokio::test]
async fn tokens_of_keycloak_are_read() {
    let user = json!({
        "jti": "onrtac:5a1c7a3e", "typ": "Bearer", "azp": "web", "sid": "b1f7", "acr": "1",
        "sub": "9f6c1c52-0f3c-4a4c-9b70-8f4f6f1f2a11", "aud": ["avatars", "account"],
        "allowed-origins": ["https://app.example.com"],
        "realm_access": {"roles": ["offline_access", "default-roles-main", "uma_authorization"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "scope": "openid email profile", "email_verified": true, "preferred_username": "ada",
        "email": "ada@example.com",
    });
    let mut admin = user.clone();
    admin["realm_access"]["roles"] = json!(["offline_access", "avatar-admin"]);
    // The token of a client's service account.
    let mut service = user.clone();
    service["azp"] = "main-application".into();
    service["client_id"] = "main-application".into();
    service["preferred_username"] = "service-account-main-application".into();
    service["resource_access"]["avatars"] = json!({"roles": ["avatar-service"]});
    let mut role_of_another_client = user.clone();
    role_of_another_client["resource_access"]["account"]["roles"] = json!(["avatar-service"]);
    let mut group = user.clone();
    group["groups"] = json!(["avatar-admin"]);
    Box::pin(check(Shapes {
        settings: vec![
            ("CAMEO_AUTH__AUDIENCE", "avatars"),
            (
                "CAMEO_AUTH__ROLE_CLAIMS",
                "realm_access.roles, resource_access.avatars.roles",
            ),
            ("CAMEO_AUTH__ADMIN_ROLES", "avatar-admin"),
            ("CAMEO_AUTH__SERVICE_ROLES", "avatar-service"),
        ],
        user: (user, "9f6c1c52-0f3c-4a4c-9b70-8f4f6f1f2a11"),
        operators: vec![admin, service],
        powerless: vec![role_of_another_client, group],
    }))
    .await;
}

/// Auth0 gives claims of one's own URLs as names, and user ids a prefix with a bar.
#[tokio::test]
async fn tokens_of_auth0_are_read() {
    let user = json!({
        "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
        "aud": ["https://avatars.example.com", "https://tenant.eu.auth0.com/userinfo"],
        "azp": "my_client_id", "scope": "openid profile email", "permissions": [],
        "https://example.com/roles": [],
    });
    let mut admin = user.clone();
    admin["https://example.com/roles"] = json!(["avatar-admin"]);
    // The token of a machine-to-machine application, to which an action adds its role.
    let service = json!({
        "sub": "my_client_id@clients", "aud": "https://avatars.example.com", "azp": "my_client_id",
        "gty": "client-credentials", "permissions": ["write:avatars"], "scope": "write:avatars",
        "https://example.com/roles": "avatar-service",
    });
    let mut without_namespace = user.clone();
    without_namespace["roles"] = json!(["avatar-admin"]);
    // The path must not be split at the dots of the name.
    let mut nested = user.clone();
    nested["https://example"] = json!({"com/roles": ["nobody"]});
    Box::pin(check(Shapes {
        settings: vec![
            ("CAMEO_AUTH__AUDIENCE", "https://avatars.example.com"),
            ("CAMEO_AUTH__ROLE_CLAIMS", "https://example.com/roles"),
            ("CAMEO_AUTH__ADMIN_ROLES", "avatar-admin"),
            ("CAMEO_AUTH__SERVICE_ROLES", "avatar-service"),
        ],
        user: (user, "auth0|5f7c8ec7c33c6c004bbafe82"),
        operators: vec![admin, service],
        powerless: vec![without_namespace, nested],
    }))
    .await;
}

/// Entra ID names a user by `oid` in every program, lists application roles in `roles`, and scopes
/// in `scp`.
#[tokio::test]
async fn tokens_of_entra_id_are_read() {
    let user = json!({
        "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "ver": "2.0", "azpacr": "0",
        "azp": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47",
        "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "name": "Ada Lovelace",
        "preferred_username": "ada@example.com", "rh": "I", "uti": "1YNVeq",
        "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "scp": "access_as_user User.Read",
    });
    let mut admin = user.clone();
    admin["roles"] = json!(["Avatar.Admin"]);
    // The token of a program without a user has roles and no scopes.
    let service = json!({
        "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "ver": "2.0", "idtyp": "app",
        "azp": "0e1f", "oid": "0f2a", "sub": "0f2a", "tid": "72f9", "roles": ["Avatar.Service"],
    });
    let mut group = user.clone();
    group["groups"] = json!(["Avatar.Admin"]);
    group["wids"] = json!(["Avatar.Admin"]);
    let mut scope = user.clone();
    scope["scp"] = "Avatar.Admin Avatar.Service".into();
    let audience = (
        "CAMEO_AUTH__AUDIENCE",
        "6e74172b-be56-4843-9ff4-e66a39bb12e3",
    );
    let settings = vec![
        audience,
        ("CAMEO_AUTH__SUBJECT_CLAIM", "oid"),
        ("CAMEO_AUTH__ROLE_CLAIMS", "roles"),
        ("CAMEO_AUTH__ADMIN_ROLES", "Avatar.Admin"),
        ("CAMEO_AUTH__SERVICE_ROLES", "Avatar.Service"),
    ];
    Box::pin(check(Shapes {
        settings: settings.clone(),
        user: (user.clone(), "690222be-ff1a-4d56-abd1-7e4f7d38e474"),
        operators: vec![admin, service],
        powerless: vec![group, scope],
    }))
    .await;

    // A scope of Cameo in `scp` restricts the token.
    let provider = IdentityProvider::start().await;
    provider.publish(&["rsa"]);
    let service = service_of(&provider, &settings).await;
    let mut reader = user;
    reader["scp"] = "access_as_user avatars:read".into();
    let reader = client(&service, &provider, &reader);
    let refused = reader.upload("me", PORTRAIT).await;
    assert_eq!(refused.problem(), (403, "forbidden".to_owned()));
    assert!(
        refused
            .header("www-authenticate")
            .contains("insufficient_scope")
    );
    let read = reader.avatar("me").await.problem();
    assert_eq!(read, (404, "avatar_not_found".to_owned()));
}
