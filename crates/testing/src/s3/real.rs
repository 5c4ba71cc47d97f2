//! The real server that the environment names.

use std::path::Path;

use tokio::process::Command;

use super::{BucketAccess, Credentials};

/// A new bucket on the real server, and the operator's credentials. `None` if the environment names no
/// server.
pub(super) async fn bucket() -> Option<(BucketAccess, Credentials)> {
    let variable = |name: &str| std::env::var(format!("TEST_S3_{name}"));
    let given = |name: &str| {
        variable(name).unwrap_or_else(|_| panic!("TEST_S3_ENDPOINT is set, TEST_S3_{name} is not"))
    };
    let endpoint = variable("ENDPOINT").ok()?;
    let mut number = [0; 8];
    getrandom::fill(&mut number).unwrap();
    let bucket = format!("cameo-{:016x}", u64::from_ne_bytes(number));
    let operator = Credentials {
        access_key_id: given("ACCESS_KEY_ID"),
        secret_access_key: given("SECRET_ACCESS_KEY"),
    };
    let credentials = match variable("PREPARED_BY") {
        Ok(script) => prepare(script.as_ref(), &endpoint, &operator, &bucket).await,
        Err(_) => operator.clone(),
    };
    let access = BucketAccess {
        bucket,
        endpoint,
        region: given("REGION"),
        has_policies: match given("PUBLIC_ACCESS").as_str() {
            "policy" => true,
            "none" => false,
            other => panic!("TEST_S3_PUBLIC_ACCESS is {other:?}; give policy or none"),
        },
        credentials,
    };
    Some((access, operator))
}

/// Runs a script that creates a bucket. Returns the credentials that it created for the service.
async fn prepare(
    script: &Path,
    endpoint: &str,
    operator: &Credentials,
    bucket: &str,
) -> Credentials {
    let service = Credentials {
        access_key_id: bucket.to_owned(),
        secret_access_key: format!("{bucket}-secret"),
    };
    let made = Command::new(script)
        .env("MINIO_URL", endpoint)
        .env("MINIO_ROOT_USER", &operator.access_key_id)
        .env("MINIO_ROOT_PASSWORD", &operator.secret_access_key)
        .env("CAMEO_BUCKET", bucket)
        .env("CAMEO_ACCESS_KEY", &service.access_key_id)
        .env("CAMEO_SECRET_KEY", &service.secret_access_key)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{}: {said}", script.display());
    service
}
