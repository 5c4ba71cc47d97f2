//! Uploads and the renditions that they produce.

use image::ImageFormat;
use reqwest::Method;
use reqwest::multipart::Form;
use serde_json::Value;

use crate::support::photos::{self, PORTRAIT};
use crate::support::{Answer, TestService, form, send, shape};

/// Reads all images of an avatar. Returns the description and the bytes of each.
async fn images(service: &TestService, avatar: &Value) -> Vec<(Value, Vec<u8>)> {
    let mut images = Vec::new();
    for image in avatar["images"].as_array().unwrap() {
        let answer = service
            .anonymous()
            .get(image["url"].as_str().unwrap())
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body.len() as u64, image["bytes"].as_u64().unwrap());
        images.push((image.clone(), answer.body));
    }
    images
}

#[tokio::test]
async fn an_upload_is_answered_with_the_avatar() {
    let service = TestService::start().await;
    let answer = service.owner("42").upload("42", PORTRAIT).await;
    insta::assert_snapshot!(shape(&answer, service.url()));
    let read = service.anonymous().avatar("42").await;
    let (mut uploaded, read) = (answer.ok(), read.ok());
    assert!(
        uploaded
            .as_object_mut()
            .unwrap()
            .remove("message")
            .is_some()
    );
    assert_eq!(
        uploaded, read,
        "a read returns the same, except for the message"
    );
}

#[tokio::test]
async fn every_rendition_of_a_phones_photo_is_upright_and_without_metadata() {
    assert!(
        PORTRAIT.windows(4).any(|bytes| bytes == b"Exif"),
        "the photo has metadata"
    );
    let service = TestService::start().await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    assert_eq!(avatar["metadata"]["original_dimensions"], "496x512");
    let images = images(&service, &avatar).await;
    assert_eq!(images.len(), 10);
    for (described, bytes) in images {
        photos::assert_no_metadata(&bytes);
        let picture = photos::decoded(&bytes).to_rgb8();
        let edge = u64::from(picture.width());
        assert_eq!(
            (described["width"].as_u64(), described["height"].as_u64()),
            (Some(edge), Some(edge))
        );
        let upright = photos::difference(&picture, &photos::portrait_upright(edge as u32));
        let sideways = photos::difference(&picture, &photos::portrait_sideways(edge as u32));
        assert!(upright < 10.0, "{described}: {upright}");
        assert!(sideways > 30.0, "{described}: {sideways}");
    }
}

#[tokio::test]
async fn a_small_picture_is_never_enlarged() {
    let service = TestService::start().await;
    let avatar = service
        .owner("42")
        .upload("42", photos::png(200, 150))
        .await
        .ok();
    for (described, bytes) in images(&service, &avatar).await {
        let wanted = match described["variant"].as_str().unwrap() {
            "thumbnail" => 64,
            "small" => 128,
            _ => 150,
        };
        let picture = photos::decoded(&bytes);
        assert_eq!(
            (picture.width(), picture.height()),
            (wanted, wanted),
            "{described}"
        );
        assert_eq!(described["width"], wanted);
    }
}

#[tokio::test]
async fn the_largest_picture_of_every_format_fits_the_default_memory_budget() {
    // This test is about memory. The long deadline allows for a busy machine.
    let service = TestService::start_with(&[("CAMEO_PROCESSING__DEADLINE", "2m")]).await;
    let owner = service.owner("42");
    for picture in [
        photos::jpeg(4096, 4096),
        photos::png(4096, 4096),
        photos::webp(4096, 4096),
    ] {
        owner.upload("42", picture).await.ok();
    }
}

#[tokio::test]
async fn every_format_is_accepted_whatever_its_name_and_declared_type() {
    let service = TestService::start().await;
    let pictures = [
        ("JPEG", photos::jpeg(300, 300)),
        ("PNG", photos::png(300, 300)),
        ("WEBP", photos::webp(300, 300)),
        ("GIF", photos::gif(300, 300)),
    ];
    for (format, picture) in pictures {
        let form = crate::support::form_named(picture.clone(), "../../etc/passwd.pdf", "text/html");
        let avatar = service.owner("42").upload_form("42", form).await.ok();
        assert_eq!(avatar["metadata"]["format"], format);
        assert_eq!(avatar["metadata"]["original_size"], picture.len());
        let medium = service
            .anonymous()
            .get(avatar["avatar_url"].as_str().unwrap())
            .await;
        let expected = photos::quarters(256, 256);
        let difference = photos::difference(&photos::decoded(&medium.body).to_rgb8(), &expected);
        assert!(difference < 6.0, "{format}: {difference}");
    }
    assert!(
        service
            .objects()
            .await
            .iter()
            .all(|key| !key.contains("passwd"))
    );
}

#[tokio::test]
async fn bmp_and_tiff_are_accepted_only_where_they_are_configured() {
    let pictures = [
        ("BMP", "image/bmp", photos::bmp(300, 300)),
        ("TIFF", "image/tiff", photos::tiff(300, 300)),
    ];
    let service = TestService::start().await;
    for (format, _, picture) in &pictures {
        let refused = service.owner("42").upload("42", picture.clone()).await;
        assert_eq!(refused.problem(), (400, "unsupported_format".to_owned()));
        let detail = refused.json()["detail"].to_string();
        assert!(
            detail.contains(&format!("a {format} picture is not accepted")),
            "{detail}"
        );
    }
    let formats = r#"["jpeg", "bmp", "tiff"]"#;
    let service = TestService::start_with(&[("CAMEO_UPLOAD__FORMATS", formats)]).await;
    for (format, content_type, picture) in pictures {
        let path = "/api/v1/users/42/avatar";
        let bare = service.owner("42").request(Method::PUT, path);
        let bare = bare
            .header("content-type", content_type)
            .body(picture.clone());
        for avatar in [
            service.owner("42").upload("42", picture).await.ok(),
            send(bare).await.ok(),
        ] {
            assert_eq!(avatar["metadata"]["format"], format);
            let url = avatar["avatar_url"].as_str().unwrap();
            let medium = service.anonymous().get(url).await;
            let expected = photos::quarters(256, 256);
            let difference =
                photos::difference(&photos::decoded(&medium.body).to_rgb8(), &expected);
            assert!(difference < 6.0, "{format}: {difference}");
        }
    }
}

#[tokio::test]
async fn an_avif_gives_the_same_images_as_the_same_picture_in_jpeg() {
    let service = TestService::start().await;
    let medium = async |user: &str, picture: &'static [u8], format: &str| {
        let avatar = service.owner(user).upload(user, picture).await.ok();
        assert_eq!(avatar["metadata"]["format"], format);
        assert_eq!(avatar["metadata"]["original_dimensions"], "167x221");
        let url = avatar["avatar_url"].as_str().unwrap();
        photos::decoded(&service.anonymous().get(url).await.body).to_rgb8()
    };
    let as_avif = medium("42", photos::AVIF, "AVIF").await;
    let as_jpeg = medium("43", photos::AVIF_AS_JPEG, "JPEG").await;
    let difference = photos::difference(&as_avif, &as_jpeg);
    // Both encodings are lossy. A wrong orientation would give a difference of 80.
    assert!(difference < 5.0, "{difference}");
}

#[tokio::test]
async fn the_part_can_have_one_of_three_names_and_the_body_can_be_bare() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    for name in ["file", "image", "avatar"] {
        let part = reqwest::multipart::Part::bytes(photos::png(100, 100));
        let form = Form::new().text("comment", "look").part(name, part);
        owner.upload_form("42", form).await.ok();
    }
    owner.put_bare("42", "", photos::png(100, 100)).await.ok();
    let answer = owner.put_bare("me", "", photos::png(100, 100)).await.ok();
    assert_eq!(
        (&answer["user_id"], &answer["version"]),
        (&"42".into(), &5.into())
    );
}

#[tokio::test]
async fn a_crop_applies_to_the_upright_picture() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    let colour = async |answer: Answer| {
        let medium = service
            .anonymous()
            .get(answer.ok()["avatar_url"].as_str().unwrap())
            .await;
        let picture = photos::decoded(&medium.body).to_rgb8();
        (
            picture.dimensions(),
            picture.get_pixel(10, 10).0.map(|level| level / 64),
        )
    };
    let picture = photos::png(400, 200);
    let blue = owner
        .put_bare("42", "?crop=20,110,80,80", picture.clone())
        .await;
    assert_eq!(colour(blue).await, ((80, 80), [0, 0, 3]));
    let green = owner
        .upload_form("42", form(picture).text("crop", "300,0,100,100"))
        .await;
    assert_eq!(colour(green).await, ((100, 100), [0, 3, 0]));
    // The upright photo is 496 pixels wide and 512 pixels high.
    owner
        .put_bare("42", "?crop=0,0,496,512", PORTRAIT)
        .await
        .ok();
    let beyond = owner.put_bare("42", "?crop=0,0,512,496", PORTRAIT).await;
    assert_eq!(beyond.problem(), (400, "invalid_crop".to_owned()));
}

#[tokio::test]
async fn transparent_pixels_stay_transparent_in_webp_and_have_the_background_colour_in_jpeg() {
    let service = TestService::start_with(&[("CAMEO_IMAGES__BACKGROUND", "#00ff00")]).await;
    let avatar = service
        .owner("42")
        .upload("42", photos::disc(256))
        .await
        .ok();
    for (described, bytes) in images(&service, &avatar).await {
        let corner = photos::decoded(&bytes).to_rgba8().get_pixel(2, 2).0;
        match described["format"].as_str().unwrap() {
            "webp" => assert_eq!(corner[3], 0, "{described}"),
            _ => assert!(
                corner[0] < 16 && corner[1] > 240 && corner[2] < 16,
                "{corner:?}"
            ),
        }
    }
}

#[tokio::test]
async fn sizes_and_formats_can_be_configured() {
    let variables = [
        ("CAMEO_IMAGES__VARIANTS", "{ tiny = 16, big = 300 }"),
        ("CAMEO_IMAGES__PRIMARY_VARIANT", "big"),
        ("CAMEO_IMAGES__FORMATS", "png"),
    ];
    let service = TestService::start_with(&variables).await;
    let avatar = service.owner("42").upload("42", PORTRAIT).await.ok();
    let images = images(&service, &avatar).await;
    let edges: Vec<_> = images
        .iter()
        .map(|(image, _)| image["width"].as_u64().unwrap())
        .collect();
    assert_eq!(edges, [300, 16]);
    for (_, bytes) in &images {
        assert_eq!(image::guess_format(bytes).unwrap(), ImageFormat::Png);
        photos::assert_no_metadata(bytes);
    }
    assert!(avatar["avatar_url"].as_str().unwrap().ends_with("/big.png"));
}

#[tokio::test]
async fn an_upload_can_have_a_precondition() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    let picture = photos::png(100, 100);
    let failed = (412, "precondition_failed".to_owned());
    let no = owner.upload_with("42", &picture, "if-match", "*").await;
    assert_eq!(no.problem(), failed);
    let first = owner
        .upload_with("42", &picture, "if-none-match", "*")
        .await;
    first.ok();
    assert_eq!(
        owner
            .upload_with("42", &picture, "if-none-match", "*")
            .await
            .problem(),
        failed
    );
    let image = service.anonymous().get("/api/v1/users/42/avatar").await;
    let second = owner
        .upload_with("42", &picture, "if-match", image.header("etag"))
        .await;
    second.ok();
    let stale = owner
        .upload_with("42", &picture, "if-match", first.header("etag"))
        .await;
    assert_eq!(stale.problem(), failed);
    assert_eq!(
        service.anonymous().avatar("42").await.header("etag"),
        second.header("etag")
    );
    let both = service
        .owner("42")
        .request(Method::POST, "/api/v1/users/42/avatar");
    let both = both
        .header("if-match", "*")
        .header("if-none-match", "*")
        .multipart(form(picture));
    let both = send(both).await;
    assert_eq!(both.problem(), (400, "malformed_request".to_owned()));
}

#[tokio::test]
async fn a_delete_can_have_a_precondition() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    let delete = async |header: &'static str, value: &str| {
        let path = "/api/v1/users/42/avatar";
        let request = owner.request(Method::DELETE, path).header(header, value);
        send(request).await
    };
    let failed = (412, "precondition_failed".to_owned());
    let picture = photos::png(100, 100);
    let first = owner.upload("42", picture.clone()).await;
    let first = first.header("etag").to_owned();
    let second = owner.upload("42", picture).await;
    let second = second.header("etag").to_owned();
    for (header, value) in [
        ("if-match", first.clone()),
        ("if-match", "\"other\"".to_owned()),
        ("if-match", format!("W/{second}")),
        ("if-none-match", "*".to_owned()),
    ] {
        assert_eq!(delete(header, &value).await.problem(), failed, "{value}");
    }
    let malformed = (400, "malformed_request".to_owned());
    assert_eq!(delete("if-match", "unquoted").await.problem(), malformed);
    assert_eq!(
        service.anonymous().avatar("42").await.header("etag"),
        second
    );

    let image = service.anonymous().get("/api/v1/users/42/avatar").await;
    let list = format!("{first}, {}", image.header("etag"));
    delete("if-match", &list).await.ok();
    // Without an avatar the answer is 404, with or without a condition.
    assert_eq!(delete("if-match", "*").await.problem().0, 404);
}

#[tokio::test]
async fn object_keys_and_urls_do_not_contain_the_user_id() {
    let service = TestService::start().await;
    let avatar = service
        .owner("alice@example.com")
        .upload("alice@example.com", PORTRAIT)
        .await
        .ok();
    for key in service.objects().await {
        assert!(!key.contains("alice"), "{key}");
    }
    assert!(!avatar["avatar_url"].as_str().unwrap().contains("alice"));
}

#[tokio::test]
async fn an_animation_gives_stills_and_if_configured_animated_renditions() {
    let still = TestService::start().await;
    let avatar = still
        .owner("42")
        .upload("42", photos::animation(200, 3))
        .await
        .ok();
    assert_eq!(avatar["metadata"]["animated"], true);
    assert_eq!(avatar["images"].as_array().unwrap().len(), 10);

    let moving = TestService::start_with(&[("CAMEO_IMAGES__ANIMATED", "true")]).await;
    let avatar = moving
        .owner("42")
        .upload("42", photos::animation(200, 3))
        .await
        .ok();
    let images = images(&moving, &avatar).await;
    let animated: Vec<_> = images
        .iter()
        .filter(|(image, _)| image["animated"] == true)
        .collect();
    assert_eq!((images.len(), animated.len()), (15, 5));
    for (described, bytes) in animated {
        photos::assert_no_metadata(bytes);
        assert_eq!(photos::frames(bytes), 3, "{described}");
    }
    let main = avatar["avatar_url"].as_str().unwrap();
    assert!(main.ends_with("/medium.webp"), "{main}");
    moving.owner("42").delete("42").await.ok();
    assert_eq!(moving.objects().await, [""; 0]);
}
