//! Unacceptable uploads: each is answered with its code and a helpful detail, and changes nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use reqwest::Method;
use reqwest::multipart::{Form, Part};

use crate::support::photos::{self, PORTRAIT};
use crate::support::{Answer, TestService, form, form_named, send, shape};

const AVATAR: &str = "/api/v1/users/42/avatar";

fn truncated(picture: &[u8], tenths: usize) -> Vec<u8> {
    picture[..picture.len() * tenths / 10].to_vec()
}

/// An AVIF whose frame data has another type, which only the decoder notices.
fn without_its_frame(picture: &[u8]) -> Vec<u8> {
    let mut bytes = picture.to_vec();
    let data = bytes.windows(4).position(|name| name == b"mdat").unwrap() + 4;
    // The frame follows an empty delimiter and a header with this length.
    assert_eq!(bytes[data..data + 3], *b"\x12\0\x0a");
    let frame = data + 4 + usize::from(bytes[data + 3]);
    bytes[frame] = 0x7a;
    bytes
}

/// Uploads that are refused: a label, the bytes, and the expected status and code.
fn unacceptable() -> [(&'static str, Vec<u8>, u16, &'static str); 11] {
    let svg = b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"/>";
    [
        (
            "a PDF named .jpg",
            b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj".to_vec(),
            400,
            "unsupported_format",
        ),
        (
            "an executable",
            b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0".to_vec(),
            400,
            "unsupported_format",
        ),
        (
            "an ELF executable",
            b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
            400,
            "unsupported_format",
        ),
        ("an SVG", svg.to_vec(), 400, "unsupported_format"),
        (
            "a page",
            b"<!doctype html><script>alert(1)</script>".to_vec(),
            400,
            "unsupported_format",
        ),
        ("a text", b"hello".to_vec(), 400, "unsupported_format"),
        (
            "a bitmap",
            b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0".to_vec(),
            400,
            "unsupported_format",
        ),
        ("nothing", Vec::new(), 400, "missing_file"),
        (
            "too small",
            photos::png(99, 300),
            400,
            "dimensions_too_small",
        ),
        (
            "too wide",
            photos::png_header(5000, 300),
            400,
            "dimensions_too_large",
        ),
        (
            "a bomb's header",
            photos::png_header(60_000, 60_000),
            400,
            "dimensions_too_large",
        ),
    ]
}

/// Files that begin like a picture but are corrupt (422 `corrupt_image`): a label and the bytes.
fn corrupt() -> [(&'static str, Vec<u8>); 9] {
    let mut html_in_a_gif_comment = photos::gif(120, 120);
    html_in_a_gif_comment.truncate(200);
    html_in_a_gif_comment.extend(b"\x21\xfe\x0e<script></script>\0");
    [
        ("half a JPEG", truncated(&photos::jpeg(300, 300), 5)),
        ("most of a photo", truncated(PORTRAIT, 9)),
        ("half a PNG", truncated(&photos::png(300, 300), 5)),
        ("half a WebP", truncated(&photos::webp(300, 300), 5)),
        ("half a GIF", truncated(&photos::gif(300, 300), 5)),
        ("half an AVIF", truncated(photos::AVIF, 5)),
        ("an AVIF without its frame", without_its_frame(photos::AVIF)),
        ("a header alone", photos::png_header(300, 300)),
        ("a page in a GIF", html_in_a_gif_comment),
    ]
}

#[tokio::test]
async fn unacceptable_pictures_are_refused_and_change_nothing() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    owner.upload("42", PORTRAIT).await.ok();
    let before = service.anonymous().avatar("42").await;
    let objects = service.objects().await;

    let mut details = String::new();
    let corrupt = corrupt().map(|(what, bytes)| (what, bytes, 422, "corrupt_image"));
    for (what, bytes, status, code) in unacceptable().into_iter().chain(corrupt) {
        for (name, kind) in [
            ("me.jpg", "image/jpeg"),
            ("../../../etc/cron.d/x.png", "image/png"),
        ] {
            let answer = owner
                .upload_form("42", form_named(bytes.clone(), name, kind))
                .await;
            assert_eq!(answer.problem(), (status, code.to_owned()), "{what}");
            if name == "me.jpg" {
                let detail = answer.json()["detail"].as_str().unwrap().to_owned();
                details.extend([what, ": ", &detail, "\n"]);
            }
        }
        let bare = owner.put_bare("42", "", bytes).await;
        assert_eq!(bare.problem(), (status, code.to_owned()), "{what}");
    }
    insta::assert_snapshot!(details);
    assert_eq!(service.anonymous().avatar("42").await.body, before.body);
    assert_eq!(service.objects().await, objects);
}

#[tokio::test]
async fn html_appended_to_a_picture_is_in_no_rendition() {
    let service = TestService::start().await;
    let mut picture = photos::jpeg(200, 200);
    picture.extend(b"<script>alert(1)</script>");
    let avatar = service.owner("42").upload("42", picture).await.ok();
    for image in avatar["images"].as_array().unwrap() {
        let bytes = service
            .anonymous()
            .get(image["url"].as_str().unwrap())
            .await
            .body;
        assert!(!bytes.windows(7).any(|bytes| bytes == b"<script"));
        photos::assert_no_metadata(&bytes);
    }
}

#[tokio::test]
async fn forms_without_exactly_one_picture_are_refused() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    let part = || Part::bytes(photos::png(100, 100)).file_name("a.png");
    let code = async |form: Form| owner.upload_form("42", form).await.problem();
    assert_eq!(code(Form::new()).await, (400, "missing_file".into()));
    assert_eq!(
        code(Form::new().text("note", "x")).await,
        (400, "missing_file".into())
    );
    assert_eq!(
        code(Form::new().part("photo", part())).await,
        (400, "missing_file".into())
    );
    let two = Form::new().part("file", part()).part("avatar", part());
    assert_eq!(code(two).await, (400, "malformed_request".into()));
    for crop in [
        "",
        "1,2,3",
        "0,0,-5,5",
        "a,b,c,d",
        "0,0,0,10",
        "0,0,101,100",
        "4294967295,0,10,10",
    ] {
        let form = Form::new().text("crop", crop).part("file", part());
        assert_eq!(code(form).await, (400, "invalid_crop".into()), "{crop:?}");
    }
    assert_eq!(service.objects().await, [""; 0]);
}

#[tokio::test]
async fn bodies_that_are_not_uploads_are_refused() {
    let service = TestService::start().await;
    let post = || service.owner("42").request(Method::POST, AVATAR);
    let malformed = (400, "malformed_request".to_owned());
    assert_eq!(
        send(post()).await.problem(),
        (400, "missing_file".to_owned())
    );
    let json = post().header("content-type", "application/json").body("{}");
    let json = send(json).await;
    insta::assert_snapshot!(shape(&json, service.url()));
    let unsupported = (415, "unsupported_media_type".to_owned());
    for kind in [
        "text/plain",
        "multipart/form-database",
        "multipart/mixed; boundary=x",
        "imagex/png",
    ] {
        let request = post().header("content-type", kind).body("x");
        assert_eq!(send(request).await.problem(), unsupported, "{kind}");
    }
    assert_eq!(send(post().body("x")).await.problem(), unsupported);
    let zipped = post()
        .header("content-type", "image/png")
        .header("content-encoding", "gzip");
    assert_eq!(send(zipped.body("x")).await.problem(), unsupported);
    // The type says nothing about the content, so it is accepted.
    let bytes = post().header("content-type", "application/octet-stream");
    send(bytes.body(photos::png(100, 100))).await.ok();
    let upper = post().header("content-type", "IMAGE/PNG; charset=binary");
    send(upper.body(photos::png(100, 100))).await.ok();
    let no_boundary = post()
        .header("content-type", "multipart/form-data")
        .body("x");
    assert_eq!(send(no_boundary).await.problem(), malformed);
    let kind = "multipart/form-data; boundary=x";
    let broken = "--x\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nabc";
    let broken = post().header("content-type", kind).body(broken);
    assert_eq!(send(broken).await.problem(), malformed);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_client_receives_the_answer() {
    let service = TestService::start_with(&[("CAMEO_UPLOAD__MAX_BYTES", "64KiB")]).await;
    let owner = service.owner("42");
    let large = vec![0xff; 8 << 20];
    let too_large = (413, "file_too_large".to_owned());
    let declared = owner.upload("42", large.clone()).await;
    assert_eq!(declared.problem(), too_large);
    assert_eq!(
        owner.put_bare("42", "", large.clone()).await.problem(),
        too_large
    );
    let slightly = owner.upload("42", vec![0xff; (64 << 10) + 1]).await;
    insta::assert_snapshot!(shape(&slightly, service.url()));

    // A chunked body does not declare its length.
    let chunked = |bytes: Vec<u8>| {
        let chunks: Vec<_> = bytes
            .chunks(10_000)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect();
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        let request = owner
            .request(Method::POST, AVATAR)
            .header("content-type", "image/png");
        request.body(body)
    };
    assert_eq!(send(chunked(large)).await.problem(), too_large);
    // A body of exactly the limit is refused for its type, not for its size.
    let exactly = owner.put_bare("42", "", vec![0xff; 64 << 10]).await;
    assert_eq!(exactly.problem().1, "unsupported_format");
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_before_the_body_is_sent() {
    let service = TestService::start().await;
    let token = service.token("42", &[]);
    let address = service.url().trim_start_matches("http://").to_owned();
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        write!(
            stream,
            "POST {AVATAR} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
             content-type: image/jpeg\r\ncontent-length: 99999999999\r\n\r\n"
        )
        .unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer.to_vec()).unwrap()
    });
    assert_eq!(answer.await.unwrap(), "HTTP/1.1 413");
}

#[tokio::test]
async fn details_say_what_was_found_and_what_is_allowed() {
    let service = TestService::start().await;
    let owner = service.owner("42");
    let detail = |answer: Answer| answer.json()["detail"].as_str().unwrap().to_owned();
    let wide = detail(owner.upload("42", photos::png_header(3000, 5000)).await);
    assert_eq!(wide, "3000 × 5000 px; at most 4096 px a side");
    let small = detail(owner.upload("42", photos::png(300, 50)).await);
    assert_eq!(small, "300 × 50 px; at least 100 px a side");
    let crop = detail(
        owner
            .upload_form("42", form(photos::png(100, 100)).text("crop", "5,5,99,99"))
            .await,
    );
    assert!(
        crop.contains("5,5,99,99") && crop.contains("100 × 100 px"),
        "{crop}"
    );
}

#[tokio::test]
async fn uploads_that_wait_longer_than_the_queue_timeout_are_answered_503() {
    let variables = [
        ("CAMEO_PROCESSING__WORKERS", "1"),
        ("CAMEO_PROCESSING__QUEUE_TIMEOUT", "1ms"),
    ];
    let service = TestService::start_with(&variables).await;
    let uploads = (0..6).map(|user| {
        let owner = service.owner(&user.to_string());
        async move {
            owner
                .upload(&user.to_string(), photos::jpeg(1500, 1500))
                .await
        }
    });
    let answers = futures_util::future::join_all(uploads).await;
    let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(!done.is_empty() && !refused.is_empty());
    for answer in refused {
        assert_eq!(answer.problem(), (503, "overloaded".to_owned()));
        assert!(!answer.header("retry-after").is_empty());
    }
}

#[tokio::test]
async fn pictures_with_too_many_frames_or_pixels_are_refused() {
    let variables = [
        ("CAMEO_UPLOAD__MAX_FRAMES", "2"),
        ("CAMEO_IMAGES__ANIMATED", "true"),
    ];
    let service = TestService::start_with(&variables).await;
    let frames = service
        .owner("42")
        .upload("42", photos::animation(120, 3))
        .await;
    assert_eq!(frames.problem(), (422, "too_many_frames".to_owned()));

    let tight = [("CAMEO_PROCESSING__MEMORY_BUDGET", "64MiB")];
    let service = TestService::start_with(&tight).await;
    let pixels = service
        .owner("42")
        .upload("42", photos::png(4096, 4096))
        .await;
    assert_eq!(pixels.problem(), (422, "too_many_pixels".to_owned()));
}
