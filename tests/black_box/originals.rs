//! Originals: the whole pictures that are kept beside the renditions.

use cameo_testing::moderation::{Judgement, ModerationServer};
use serde_json::{Value, json};

use crate::support::photos::{self, PORTRAIT};
use crate::support::{TestService, form};

const PUBLIC: (&str, &str) = ("CAMEO_IMAGES__ORIGINAL", "public");
const PRIVATE: (&str, &str) = ("CAMEO_IMAGES__ORIGINAL", "private");

/// The entry of the original among the images of an avatar.
fn original_of(avatar: &Value) -> Option<Value> {
    let images = avatar["images"].as_array().unwrap();
    let mut originals = images.iter().filter(|image| image["variant"] == "original");
    let original = originals.next().cloned();
    assert!(originals.next().is_none(), "{avatar}");
    original
}

/// Checks that this is the whole portrait, upright and without metadata.
fn assert_whole_portrait(bytes: &[u8]) {
    photos::assert_no_metadata(bytes);
    let found = photos::decoded(bytes).to_rgb8();
    // A decoder of its own, which knows nothing of the orientation in the file.
    let expected = photos::decoded(PORTRAIT).rotate90().to_rgb8();
    let difference = photos::difference(&found, &expected);
    assert!(difference < 3.0, "{difference}");
}

#[tokio::test]
async fn a_public_original_is_the_whole_picture_and_has_a_url_until_the_avatar_is_deleted() {
    let service = TestService::start_with(&[PUBLIC]).await;
    let owner = service.owner("42");
    // A crop changes the renditions and not the original.
    let uploads = [form(PORTRAIT), form(PORTRAIT).text("crop", "10,20,200,200")];
    for upload in uploads {
        let avatar = owner.upload_form("42", upload).await.ok();
        let original = original_of(&avatar).expect("an original");
        assert_eq!(original["url"], avatar["variants"]["original"]);
        let url = original["url"].as_str().unwrap();
        let id = avatar["avatar_id"].as_str().unwrap();
        assert!(
            url.ends_with(&format!("/public/avatars/{id}/original.jpg")),
            "{url}"
        );
        let answer = service.anonymous().get(url).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "image/jpeg");
        let described = json!({
            "variant": "original",
            "format": "jpeg",
            "width": 496,
            "height": 512,
            "bytes": answer.body.len(),
            "url": url,
        });
        assert_eq!(original, described);
        assert_whole_portrait(&answer.body);
        let read = service.anonymous().avatar("42").await.ok();
        assert_eq!(original_of(&read), Some(original));
        // It is no size that a number of pixels chooses.
        let large = "/api/v1/users/42/avatar?size=1024";
        let large = service
            .anonymous()
            .get_with(large, "accept", "application/json")
            .await;
        let large = large.ok();
        let url = large["avatar_url"].as_str().unwrap();
        assert_eq!(url.rsplit('.').next(), Some("webp"), "{url}");
    }
    let stats = service.admin().get("/api/v1/stats").await.ok();
    let rows = stats["renditions"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["variant"] == "original")
        .unwrap();
    assert_eq!(
        (&row["format"], &row["objects"]),
        (&json!("jpeg"), &json!(1))
    );
    assert_eq!(stats["objects"], 11);
    // The files of the replaced avatar are removed too.
    assert_eq!(owner.delete("42").await.ok()["files_deleted"], 22);
    assert_eq!(service.objects().await, [""; 0]);
}

#[tokio::test]
async fn a_private_original_is_kept_without_a_url_and_removed_with_its_avatar() {
    let service = TestService::start_with(&[PRIVATE]).await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    assert_eq!(original_of(&avatar), None);
    assert_eq!(avatar["variants"]["original"], Value::Null);
    let id = avatar["avatar_id"].as_str().unwrap();
    let folder = format!("private/avatars/{id}/");
    let objects = service.objects().await;
    let private = objects.iter().filter(|key| key.starts_with(&folder));
    let private: Vec<_> = private
        .filter(|key| !key.ends_with("/manifest.json"))
        .collect();
    let [original] = private[..] else {
        panic!("{private:?}")
    };
    assert_whole_portrait(&service.read_object(original).await);
    for root in ["private", "public"] {
        for name in ["master", "original"] {
            let path = format!("/files/{root}/avatars/{id}/{name}.jpg");
            let hidden = service.anonymous().get(&path).await;
            assert_eq!(hidden.problem(), (404, "not_found".to_owned()), "{path}");
        }
    }
    // It counts as an object all the same.
    let stats = service.admin().get("/api/v1/stats").await.ok();
    assert_eq!(stats["objects"], 11);
    assert_eq!(
        service.owner("42").delete("42").await.ok()["files_deleted"],
        10
    );
    assert_eq!(service.objects().await, [""; 0]);
}

#[tokio::test]
async fn an_original_of_a_private_avatar_has_a_signed_url() {
    let access = ("CAMEO_DELIVERY__ACCESS", "private");
    let service = TestService::start_with(&[PUBLIC, access]).await;
    let avatar = service
        .owner("42")
        .upload("42", photos::disc(300))
        .await
        .ok();
    let url = avatar["variants"]["original"].as_str().unwrap();
    let id = avatar["avatar_id"].as_str().unwrap();
    let key = format!("private/avatars/{id}/original.webp");
    assert!(url.contains(&key) && url.contains("signature="), "{url}");
    let answer = service.anonymous().get(url).await;
    assert_eq!(answer.status, 200);
    let picture = photos::decoded(&answer.body).to_rgba8();
    assert_eq!(picture.dimensions(), (300, 300));
    assert_eq!(picture.get_pixel(2, 2).0[3], 0, "alpha is kept");
    let (unsigned, _) = url.split_once('?').unwrap();
    assert_eq!(service.anonymous().get(unsigned).await.status, 404);
    service.owner("42").delete("42").await.ok();
    assert_eq!(service.objects().await, [""; 0]);
}

#[tokio::test]
async fn a_public_original_is_submitted_to_the_moderator_and_a_private_one_is_not() {
    for (setting, is_public) in [(PUBLIC, true), (PRIVATE, false)] {
        let server = ModerationServer::start().await;
        let url = server.url();
        let moderation = [
            setting,
            ("CAMEO_MODERATION__URL", url.as_str()),
            (
                "CAMEO_MODERATION__SECRETS",
                "[\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]",
            ),
        ];
        let service = TestService::start_with(&moderation).await;
        let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
        let asked = server.take();
        let of_original = asked
            .iter()
            .find(|request| request.headers["webhook-id"].ends_with("-original"));
        assert_eq!(of_original.is_some(), is_public, "{setting:?}");
        assert_eq!(asked.len(), 1 + usize::from(is_public));
        if let Some(request) = of_original {
            assert_eq!(request.headers["content-type"], "image/jpeg");
            let url = avatar["variants"]["original"].as_str().unwrap();
            assert_eq!(service.anonymous().get(url).await.body, request.body);
        }
        let objects = service.objects().await;
        server.set(Judgement::Reject("no"));
        let refused = service.owner("43").upload("43", PORTRAIT).await;
        assert_eq!(refused.problem(), (422, "rejected".to_owned()));
        assert_eq!(service.objects().await, objects);
    }
}

#[tokio::test]
async fn the_largest_picture_fits_the_default_memory_budget_with_its_original() {
    // This test is about memory. The long deadline allows for a busy machine.
    let service = TestService::start_with(&[PUBLIC, ("CAMEO_PROCESSING__DEADLINE", "2m")]).await;
    for (picture, format) in [
        (photos::jpeg(4096, 3072), "jpeg"),
        (photos::png(4096, 4096), "jpeg"),
    ] {
        let avatar = service.owner("42").upload("42", picture).await.ok();
        let original = original_of(&avatar).unwrap();
        assert_eq!(
            (&original["width"], &original["format"]),
            (&json!(2048), &json!(format))
        );
    }
}
