//! The S3 features of a server, tested call by call.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{
    BucketLocationConstraint, CorsConfiguration, CorsRule, CreateBucketConfiguration, Delete,
    ObjectIdentifier,
};
use http_body_util::StreamBody;

use crate::server::Server;

/// The features and their results, in the order of the document.
pub(crate) type Features = Vec<(&'static str, String)>;

pub(crate) const WORKS: &str = "works";

/// Tests all features in a bucket of its own.
pub(crate) fn test(server: &Server) -> Features {
    block_on(test_all(server))
}

/// Runs a future to its end.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

async fn test_all(server: &Server) -> Features {
    let client = client(server, server.admin());
    let bucket = "features";
    let mut features = Features::new();

    let create = || {
        let region = server.region();
        let location = (region != "us-east-1").then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region))
                .build()
        });
        let create = client.create_bucket().bucket(bucket);
        create.set_create_bucket_configuration(location).send()
    };
    features.push(("CreateBucket", describe(create().await)));
    features.push((
        "CreateBucket, repeated by the owner",
        describe(create().await),
    ));

    let put = |key: &str| {
        let body = ByteStream::from_static(b"cameo");
        client.put_object().bucket(bucket).key(key).body(body)
    };
    features.push((
        "PutObject from bytes",
        describe(put("public/a").send().await),
    ));
    put("private/a").send().await.unwrap();
    let policy = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":["*"]}},"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::{bucket}/public/*"]}}]}}"#
    );
    let policy = client.put_bucket_policy().bucket(bucket).policy(policy);
    features.push(("PutBucketPolicy", describe(policy.send().await)));
    let anonymous = async |path: &str| {
        let url = format!("{}/{bucket}/{path}", server.endpoint());
        reqwest::get(url).await.unwrap().status().as_u16()
    };
    let seen = [
        anonymous("public/a").await,
        anonymous("private/a").await,
        anonymous("?list-type=2").await,
    ];
    let by_policy = match seen {
        [200, 401 | 403, 401 | 403] => WORKS.to_owned(),
        [public, private, list] => {
            format!("fails: public/ {public}, private/ {private}, list {list}")
        }
    };
    features.push(("anyone can read public/ and nothing else", by_policy));

    let rule = CorsRule::builder()
        .allowed_origins("https://app.example.com")
        .allowed_methods("GET")
        .build()
        .unwrap();
    let rules = CorsConfiguration::builder()
        .cors_rules(rule)
        .build()
        .unwrap();
    let cors = client.put_bucket_cors().bucket(bucket);
    features.push((
        "PutBucketCors",
        describe(cors.cors_configuration(rules).send().await),
    ));

    let conditional = match put("public/a").if_none_match("*").send().await {
        Ok(_) => "ignored: the object is overwritten".to_owned(),
        Err(error)
            if error
                .raw_response()
                .is_some_and(|answer| answer.status().as_u16() == 412) =>
        {
            WORKS.to_owned()
        }
        error => describe(error),
    };
    features.push(("PutObject with `If-None-Match: *`", conditional));

    for (name, checksums) in [
        (
            "PutObject, streamed, SDK defaults",
            RequestChecksumCalculation::WhenSupported,
        ),
        (
            "PutObject, streamed, checksums when required",
            RequestChecksumCalculation::WhenRequired,
        ),
    ] {
        let client = client_with_checksums(server, server.admin(), checksums);
        let put = client.put_object().bucket(bucket).key("public/streamed");
        let put = put.content_length(5).body(streamed(b"cameo"));
        features.push((name, describe(put.send().await)));
    }

    let one = ObjectIdentifier::builder().key("public/a").build().unwrap();
    let all = Delete::builder().objects(one).build().unwrap();
    let delete = client.delete_objects().bucket(bucket).delete(all).send();
    features.push(("DeleteObjects", describe(delete.await)));
    features
}

/// A streamed body, whose bytes the SDK cannot read before it sends them.
fn streamed(bytes: &'static [u8]) -> ByteStream {
    let frame = http_body::Frame::data(bytes::Bytes::from_static(bytes));
    let frames = futures_util::stream::iter([Ok::<_, std::io::Error>(frame)]);
    ByteStream::new(SdkBody::from_body_1_x(StreamBody::new(frames)))
}

/// Describes the result of a call.
pub(crate) fn describe<T, E: ProvideErrorMetadata>(
    answer: Result<T, SdkError<E, HttpResponse>>,
) -> String {
    let Err(error) = answer else {
        return WORKS.to_owned();
    };
    let Some(response) = error.raw_response() else {
        return "fails: no answer".to_owned();
    };
    let code = error
        .as_service_error()
        .and_then(ProvideErrorMetadata::code);
    let code = code.unwrap_or_default();
    let answer = format!("{} {code}", response.status().as_u16());
    match code {
        "BucketAlreadyOwnedByYou" => answer,
        _ => format!("fails: {}", answer.trim()),
    }
}

/// A client with the settings of the service, with an access key and its secret.
pub(crate) fn client(server: &Server, keys: (&str, &str)) -> Client {
    client_with_checksums(server, keys, RequestChecksumCalculation::WhenRequired)
}

fn client_with_checksums(
    server: &Server,
    (key, secret): (&str, &str),
    checksums: RequestChecksumCalculation,
) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(server.endpoint())
        .region(Region::new(server.region().to_owned()))
        .force_path_style(true)
        .request_checksum_calculation(checksums)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .credentials_provider(Credentials::new(key, secret, None, None, "conformance"))
        .build();
    Client::from_conf(config)
}
