//! Stolen data: Redis, the bucket and the data folder have no secret, no token and no e-mail address.

use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL_NOPAD, HEXLOWER};
use reqwest::Method;
use serde_json::json;

use crate::support::{Backend, Client, TestService, form_named, photos, run_program, send};

const URL_SECRET: &str = "signs the URLs of the stolen installation";
const PREVIOUS_URL_SECRET: &str = "signed its URLs before";
const ADDRESS: &str = "jane.doe@example.com";
const FILE_NAME: &str = "jane on holiday.png";

const SETTINGS: [(&str, &str); 8] = [
    ("CAMEO_DELIVERY__ACCESS", "private"),
    ("CAMEO_DELIVERY__URL_SECRET", URL_SECRET),
    ("CAMEO_DELIVERY__PREVIOUS_URL_SECRETS", PREVIOUS_URL_SECRET),
    ("CAMEO_IMAGES__ORIGINAL", "private"),
    ("CAMEO_AUTH__EMAIL_CLAIM", "email"),
    ("CAMEO_LIMITS__ENABLED", "true"),
    ("CAMEO_LIMITS__UPLOAD", "100/min"),
    ("CAMEO_AUTH__PREVIOUS_JWT_SECRETS", PREVIOUS_JWT_SECRET),
];
const PREVIOUS_JWT_SECRET: &str = "an earlier secret that only the tests know";

/// Texts and a picture that a service received, and that a thief must not find.
struct Hidden {
    texts: Vec<String>,
    upload: Vec<u8>,
}

/// Makes all kinds of data: avatars, a replaced and a deleted one, viewers, locks, limits, events, an
/// upload that is refused.
async fn use_everything(service: &TestService) -> Hidden {
    let claims = json!({
        "sub": "42", "exp": 4_000_000_000_u64, "email": ADDRESS, "email_verified": true,
    });
    let tokens = [
        service.token_with(&claims),
        service.token("main-application", &["service"]),
        service.token("root", &["admin"]),
    ];
    let [owner, main, admin] = tokens.each_ref().map(|token| service.client_with(token));
    let upload = photos::png(300, 300);
    let mut avatar = json!(null);
    for client in [&owner, &main, &owner] {
        let form = form_named(upload.clone(), FILE_NAME, "image/png");
        avatar = client.upload_form("42", form).await.ok();
    }
    main.upload("43", upload.clone()).await.ok();
    main.delete("43").await.ok();
    assert_eq!(owner.upload("42", b"no picture".to_vec()).await.status, 400);
    let change = async |client: &Client, path: &str| {
        let request = client.request(Method::PUT, &format!("/api/v1/users/42/avatar/{path}"));
        let request = request.header("content-type", "application/json");
        let body = json!({"reason": "a reason for the owner"}).to_string();
        assert!(send(request.body(body)).await.status.is_success(), "{path}");
    };
    change(&main, "viewers/44").await;
    change(&admin, "lock").await;
    let url = avatar["avatar_url"].as_str().unwrap();
    assert_eq!(service.anonymous().get(url).await.status, 200);
    let (_, link_signature) = url.split_once("&signature=").unwrap();

    let mut texts = service.secrets();
    texts.extend(
        [
            URL_SECRET,
            PREVIOUS_URL_SECRET,
            PREVIOUS_JWT_SECRET,
            ADDRESS,
            FILE_NAME,
            link_signature,
        ]
        .map(str::to_owned),
    );
    for token in &tokens {
        texts.push(token.clone());
        texts.extend(token.split('.').skip(1).map(str::to_owned));
    }
    assert!(texts.len() > 12, "{texts:?}");
    Hidden { texts, upload }
}

fn contains(content: &[u8], part: &[u8]) -> bool {
    content.windows(part.len()).any(|window| window == part)
}

/// Checks that the content holds none of the hidden texts: neither plain nor encoded.
fn expect_none_of(hidden: &Hidden, place: &str, content: &[u8]) {
    for text in &hidden.texts {
        let bytes = text.as_bytes();
        // Without the last letters, which depend on what follows.
        let base64 = BASE64.encode(&bytes[..bytes.len() / 3 * 3]);
        let base64_url = BASE64URL_NOPAD.encode(&bytes[..bytes.len() / 3 * 3]);
        for form in [text.clone(), base64, base64_url, HEXLOWER.encode(bytes)] {
            assert!(!contains(content, form.as_bytes()), "{place} has {form:?}");
        }
    }
}

/// A part from the middle of a picture. No two pictures share it.
fn middle(picture: &[u8]) -> &[u8] {
    let middle = picture.len() / 2;
    &picture[middle..(middle + 24).min(picture.len())]
}

#[tokio::test]
async fn a_stolen_redis_has_no_secret_no_token_no_address_and_no_picture() {
    let service = TestService::start_fleet(&SETTINGS).await;
    let hidden = use_everything(&service).await;
    let avatar = service.owner("42").avatar("42").await.ok();
    let avatar_id = avatar["avatar_id"].as_str().unwrap().to_uppercase();
    let avatar_id = BASE32_NOPAD.decode(avatar_id.as_bytes()).unwrap();
    let contents = service.backend().redis_contents();
    assert!(contents.len() > 5, "{}", contents.len());
    let mut pictures = vec![hidden.upload.clone()];
    for key in service.objects().await {
        if !key.ends_with("manifest.json") && !key.starts_with("private/subjects/") {
            pictures.push(service.read_object(&key).await);
        }
    }
    assert!(pictures.len() > 10);
    let (mut has_user, mut has_avatar, mut has_reason) = (false, false, false);
    for (key, content) in &contents {
        expect_none_of(&hidden, key, key.as_bytes());
        expect_none_of(&hidden, key, content);
        for picture in &pictures {
            assert!(!contains(content, middle(picture)), "{key} has a picture");
        }
        // A URL of a record or of an event is made, and signed, when it is sent.
        assert!(!contains(content, b"signature="), "{key} has a signed URL");
        assert!(!contains(content, b"http"), "{key} has a URL");
        // It does hold who has which avatar, and why it is locked.
        has_user |= key.ends_with(":subjects") && contains(content, b"42\n");
        has_avatar |= contains(content, &avatar_id);
        has_reason |= contains(content, b"a reason for the owner");
    }
    assert!(has_user && has_avatar && has_reason);
}

#[tokio::test]
async fn a_stolen_bucket_has_no_secret_no_token_and_no_address() {
    let service = TestService::start_fleet(&SETTINGS).await;
    let hidden = use_everything(&service).await;
    let objects = service.objects().await;
    assert!(objects.len() > 10, "{objects:?}");
    let mut has_user = false;
    for key in &objects {
        let content = service.read_object(key).await;
        expect_none_of(&hidden, key, key.as_bytes());
        expect_none_of(&hidden, key, &content);
        assert_ne!(content, hidden.upload, "{key} is the upload");
        // Manifests and policies say whose they are.
        has_user |= contains(&content, b"\"subject\":\"42\"");
    }
    assert!(has_user, "{objects:?}");
}

#[tokio::test]
async fn a_stolen_data_folder_has_no_configured_secret_no_token_and_no_address() {
    let service = TestService::start_on(Backend::Alone, &SETTINGS).await;
    let hidden = use_everything(&service).await;
    let files = service.files();
    assert!(files.len() > 10, "{}", files.len());
    let mut has_user = false;
    for (path, content) in &files {
        let place = path.display().to_string();
        expect_none_of(&hidden, &place, content);
        has_user |= contains(content, b"main-application") || contains(content, b"\"42\"");
    }
    assert!(has_user, "the files have no user at all");
}

#[tokio::test]
async fn a_redis_that_a_thief_changed_is_emptied_and_restored_with_its_locks() {
    let service = TestService::start_fleet(&[]).await;
    let owner = service.owner("42");
    let avatar = owner.upload("42", photos::png(100, 100)).await.ok();
    let path = "/api/v1/users/42/avatar/lock";
    let lock = service.admin().request(Method::PUT, path);
    let lock = lock.header("content-type", "application/json");
    assert_eq!(send(lock.body("{}")).await.status, 200);
    let upload = async || owner.upload("42", photos::png(100, 100)).await;
    assert_eq!(upload().await.problem().1, "avatar_locked");
    // A writer to Redis can end the lock.
    for partition in 0..16 {
        let key = format!("cameo:{{p{partition:02}}}:policies");
        service.backend().ask_redis(&format!("DEL {key}"));
    }
    assert_eq!(owner.get(path).await.status, 404);
    service.backend().empty_redis();
    let variables = service.variables().into_iter();
    let (code, said) = run_program(&["rebuild"], variables).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(upload().await.problem().1, "avatar_locked");
    let restored = owner.avatar("42").await.ok();
    assert_eq!(restored["avatar_id"], avatar["avatar_id"]);
}
