//! Reads the settings of stores and catalogs. The settings of an adapter that is not chosen are
//! checked too, so that their faults show before it is chosen.

use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::reader::{Reader, url};
use super::{
    Catalog, Partitions, PublicAccess, RedisConfirmation, RedisSettings, S3Credentials, S3Settings,
    Storage, Visibility,
};

pub(super) fn storage(
    read: &mut Reader<'_>,
    trusted_origins: &[String],
    visibility: Visibility,
) -> Storage {
    let bucket = read.text("storage.s3.bucket");
    let legal =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(legal) {
        let problem = format!("is {bucket:?}; give 3 to 63 of a-z 0-9 . -");
        read.fault("storage.s3.bucket", problem);
    }
    let settings = S3Settings {
        bucket,
        endpoint: optional_url(read, "storage.s3.endpoint"),
        region: read.filled("storage.s3.region"),
        path_style: read.flag("storage.s3.path_style"),
        public_access: public_access(read, visibility),
        ca_file: read.optional("storage.s3.ca_file").map(PathBuf::from),
        trusted_origins: trusted_origins.to_vec(),
        credentials: credentials(read),
    };
    let public_base_url = optional_url(read, "storage.s3.public_base_url");
    let s3 = Storage::S3(Box::new(settings), public_base_url);
    read.choice("storage.kind", &[("disk", Storage::Disk), ("s3", s3)])
}

/// How anonymous readers get access to objects under `public/`. Unless everybody may see avatars, they
/// get none, whatever `storage.s3.public_access` says.
fn public_access(read: &mut Reader<'_>, visibility: Visibility) -> PublicAccess {
    let choices = [
        ("policy", PublicAccess::Policy),
        ("none", PublicAccess::None),
    ];
    let chosen = read.choice("storage.s3.public_access", &choices);
    match visibility {
        Visibility::Public => chosen,
        Visibility::SignedIn | Visibility::Private => PublicAccess::Forbidden,
    }
}

fn credentials(read: &mut Reader<'_>) -> Option<S3Credentials> {
    let id = read.optional("storage.s3.access_key_id");
    let secret = read.secret("storage.s3.secret_access_key");
    match (id, secret) {
        (Some(access_key_id), Some(secret)) => Some(S3Credentials {
            access_key_id,
            secret_access_key: secret.expose_secret().to_owned(),
        }),
        (Some(_), None) => {
            let problem = "is not set, but storage.s3.access_key_id is; give both, or neither to \
                           let the AWS chain find them";
            read.fault("storage.s3.secret_access_key", problem);
            None
        }
        (None, Some(_)) => {
            let problem = "is not set, but storage.s3.secret_access_key is; give both, or neither \
                           to let the AWS chain find them";
            read.fault("storage.s3.access_key_id", problem);
            None
        }
        (None, None) => None,
    }
}

pub(super) fn catalog(read: &mut Reader<'_>) -> Option<Catalog> {
    // The address may hold a password, so a file may hold it. The file then replaces the default.
    let from_file = read.optional("catalog.redis.url_file").is_some();
    let url = if from_file && read.layers.is_default("catalog.redis.url") {
        read.secret_file("catalog.redis.url_file")
    } else {
        read.secret("catalog.redis.url")
    };
    let address = url.and_then(|url| match url.expose_secret().parse() {
        Ok(address) => Some(address),
        Err(invalid) => {
            read.fault(
                "catalog.redis.url",
                format!("is no address of Redis: {invalid}"),
            );
            None
        }
    });
    let events_kept = read.number("catalog.events_kept", 1, 10_000_000) as u32;
    let partitions = read.number("catalog.redis.partitions", 1, 1024);
    let partitions = Partitions::new(partitions as u16).ok()?;
    let wait = read.choice(
        "catalog.redis.wait",
        &[
            ("none", None),
            ("aof", Some(RedisConfirmation::Aof)),
            ("replica", Some(RedisConfirmation::Replica)),
        ],
    );
    let wait_timeout = read.time("catalog.redis.wait_timeout", 1, 60);
    let redis = address.map(|address| {
        Catalog::Redis(Box::new(RedisSettings {
            address,
            partitions,
            events_kept,
            wait,
            wait_timeout,
        }))
    });
    let choices = [
        ("embedded", Some(Catalog::Embedded { events_kept })),
        ("redis", redis),
    ];
    read.choice("catalog.kind", &choices)
}

fn optional_url(read: &mut Reader<'_>, path: &str) -> Option<String> {
    let text = read.optional(path)?;
    let example = "give a URL such as \"https://minio.internal:9000\", or nothing";
    read.parsed(path, |_| url(&text, example))
}
