//! Prepares a bucket at startup, and reports what is wrong with it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CorsConfiguration, CorsRule, CreateBucketConfiguration,
};
use futures_util::future::BoxFuture;

use super::S3Store;
use super::client::{self, Clients};
use super::error::{Failure, sdk_error};
use super::policy::{self, Withdrawn};
use super::recovery::Recovery;
use super::start_error::{S3StartError, S3StartupWarning};
use crate::avatar::AvatarId;
use crate::config::{PublicAccess, S3Settings};
use crate::telemetry::chain;

/// The longest time for the whole preparation. After it the server counts as unreachable.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(30);
/// The pauses between tests of a policy that was just written. It may not apply at once.
const POLICY_WAITS: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// An object that is written, read and deleted to test the bucket.
pub(super) struct Probe {
    pub(super) path: String,
}

/// The name of this process's probes. It differs between replicas, so that their probes do not
/// collide. It stays the same, so that the next check removes the probe of an interrupted check.
/// Checks of other processes remove the probes of a killed process.
static PROBE_NAME: LazyLock<String> = LazyLock::new(|| {
    // If the system gives no random bytes, the probes of replicas collide, which does little harm.
    let id = AvatarId::random().unwrap_or(AvatarId::from_bytes([0; 16]));
    id.to_string()
});

impl Probe {
    /// The content of a probe.
    pub(super) const BODY: &[u8] = b"cameo";

    /// The folders of probes.
    pub(super) const FOLDERS: [&str; 2] = ["public/probe/", "private/probe/"];

    /// The probe that anyone should be able to read.
    pub(super) fn public() -> Self {
        Self::of("public")
    }

    /// The probe that only the service may read.
    pub(super) fn private() -> Self {
        Self::of("private")
    }

    fn of(folder: &str) -> Self {
        let path = format!("{folder}/probe/{}", *PROBE_NAME);
        Self { path }
    }
}

/// Opens the bucket, and creates it if it does not exist. A creation counts as one of `losses`.
pub(super) async fn open(
    settings: &S3Settings,
    losses: Arc<AtomicU64>,
) -> Result<(S3Store, Vec<S3StartupWarning>), S3StartError> {
    let Clients { service, anonymous } = client::build(settings).await?;
    let policy = settings.public_access == PublicAccess::Policy;
    let store = S3Store {
        client: service,
        anonymous: policy.then(|| anonymous.clone()),
        bucket: settings.bucket.clone(),
        last_cleanup: Mutex::default(),
        recovery: Recovery::new(settings.clone(), losses, prepare_again),
    };
    let opening = Opening {
        settings,
        store: &store,
        anonymous,
    };
    let warnings = match tokio::time::timeout(STARTUP_TIMEOUT, opening.run()).await {
        Ok(warnings) => warnings?,
        Err(late) => {
            return Err(S3StartError::Unreachable {
                endpoint: endpoint(settings),
                source: late.into(),
            });
        }
    };
    Ok((store, warnings))
}

/// Prepares the bucket again, for a store that is open.
fn prepare_again(
    settings: S3Settings,
    losses: Arc<AtomicU64>,
) -> BoxFuture<'static, Result<Vec<S3StartupWarning>, S3StartError>> {
    Box::pin(async move {
        let (_, warnings) = open(&settings, losses).await?;
        Ok(warnings)
    })
}

fn endpoint(settings: &S3Settings) -> String {
    let aws = || format!("AWS {}", settings.region);
    settings.endpoint.clone().unwrap_or_else(aws)
}

struct Opening<'a> {
    settings: &'a S3Settings,
    store: &'a S3Store,
    anonymous: Client,
}

impl Opening<'_> {
    async fn run(&self) -> Result<Vec<S3StartupWarning>, S3StartError> {
        if !self.bucket_exists().await? {
            self.create_bucket().await?;
            self.store.recovery.count_loss();
        }
        let mut warnings = Vec::new();
        let probes = [Probe::public(), Probe::private()];
        let seen = self.run_probes(&probes, &mut warnings).await;
        // The probes are deleted in any case. The first error is returned.
        for probe in &probes {
            let deleted = self.store.delete_path(&probe.path).await;
            if seen.is_ok() {
                deleted.map_err(|failure| {
                    self.start_error("delete objects", "s3:DeleteObject", failure)
                })?;
            }
        }
        seen?;
        self.set_cors(&mut warnings).await;
        Ok(warnings)
    }

    async fn bucket_exists(&self) -> Result<bool, S3StartError> {
        let head = self
            .store
            .client
            .head_bucket()
            .bucket(&self.settings.bucket);
        let Err(failure) = head.send().await.map_err(sdk_error("HeadBucket")) else {
            return Ok(true);
        };
        match failure.status() {
            404 => Ok(false),
            // An answer to HEAD has no body with the reason. An answer to GET has.
            400 | 403 => match self.store.list_prefix("private/probe/").await {
                Ok(_) => Ok(true),
                Err(failure) if failure.code() == "NoSuchBucket" => Ok(false),
                Err(failure) => Err(self.start_error("list objects", "s3:ListBucket", failure)),
            },
            _ => Err(self.start_error("look for the bucket", "s3:ListBucket", failure)),
        }
    }

    async fn create_bucket(&self) -> Result<(), S3StartError> {
        let S3Settings { bucket, region, .. } = self.settings;
        // Some servers refuse the default region as a location.
        let location = (!matches!(region.as_str(), "us-east-1" | "auto" | "")).then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region.as_str()))
                .build()
        });
        let create = self
            .store
            .client
            .create_bucket()
            .bucket(bucket)
            .set_create_bucket_configuration(location);
        match create.send().await.map_err(sdk_error("CreateBucket")) {
            Ok(_) => {}
            // Another replica has created it.
            Err(failure) if failure.code() == "BucketAlreadyOwnedByYou" => {}
            Err(failure) => return Err(self.start_error("create it", "s3:CreateBucket", failure)),
        }
        if self.settings.public_access == PublicAccess::Policy && self.is_aws() {
            // AWS blocks public policies of a new bucket by default. If the block cannot be removed,
            // writing the policy fails and reports it. Other servers have no such block. They must
            // not get this request: MinIO would read it as a request to delete the bucket.
            let unblock = self
                .store
                .client
                .delete_public_access_block()
                .bucket(bucket);
            let _ = unblock.send().await;
        }
        Ok(())
    }

    fn is_aws(&self) -> bool {
        let Some(endpoint) = &self.settings.endpoint else {
            return true;
        };
        let host = endpoint.split("://").nth(1).unwrap_or(endpoint);
        let host = host.split(['/', ':']).next().unwrap_or(host);
        host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
    }

    /// Tests with probes that the service can write, read and list, and that anyone can read what is
    /// public and nothing else.
    async fn run_probes(
        &self,
        [public, private]: &[Probe; 2],
        warnings: &mut Vec<S3StartupWarning>,
    ) -> Result<(), S3StartError> {
        let bucket = || self.settings.bucket.clone();
        for probe in [public, private] {
            let written = self.store.write_probe(probe).await;
            written
                .map_err(|failure| self.start_error("write objects", "s3:PutObject", failure))?;
        }
        for probe in [public, private] {
            match self.store.open_path(&probe.path).await {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let lost =
                        Failure::InvalidAnswer("an object that was just written does not exist");
                    return Err(self.start_error("read objects", "s3:GetObject", lost));
                }
                Err(failure) => {
                    return Err(self.start_error("read objects", "s3:GetObject", failure));
                }
            }
        }
        self.store
            .list_prefix("private/probe/")
            .await
            .map_err(|failure| self.start_error("list objects", "s3:ListBucket", failure))?;
        match self.settings.public_access {
            PublicAccess::Policy => self.make_public(public).await?,
            PublicAccess::Forbidden => self.withdraw_policy(public).await?,
            PublicAccess::None => {}
        }
        if self.anonymous_can_read(private).await {
            return Err(S3StartError::PrivateReadable { bucket: bucket() });
        }
        let list = self
            .anonymous
            .list_objects_v2()
            .bucket(bucket())
            .max_keys(1);
        if list.send().await.is_ok() {
            warnings.push(S3StartupWarning::Listable { bucket: bucket() });
        }
        Ok(())
    }

    /// Writes the policy, unless anyone can already read the probe.
    async fn make_public(&self, probe: &Probe) -> Result<(), S3StartError> {
        if self.anonymous_can_read(probe).await {
            return Ok(());
        }
        let S3Settings { bucket, region, .. } = self.settings;
        let client = &self.store.client;
        let get = client.get_bucket_policy().bucket(bucket).send().await;
        let existing = match get.map_err(sdk_error("GetBucketPolicy")) {
            Ok(answer) => answer.policy,
            // The bucket has no policy, or the server has no policies.
            Err(failure) if matches!(failure.status(), 404 | 405 | 501) => None,
            // A policy that cannot be read is not overwritten, because others may rely on it.
            Err(failure) => return Err(self.without_policy(failure)),
        };
        let policy = policy::with_public_read(existing.as_deref(), bucket, region);
        let put = client.put_bucket_policy().bucket(bucket).policy(policy);
        if let Err(failure) = put.send().await.map_err(sdk_error("PutBucketPolicy")) {
            return Err(self.without_policy(failure));
        }
        for wait in POLICY_WAITS {
            if self.anonymous_can_read(probe).await {
                return Ok(());
            }
            tokio::time::sleep(wait).await;
        }
        Err(self.not_public(None))
    }

    /// Removes this program's statement from the bucket policy, and checks that the server refuses
    /// anonymous reads of the probe.
    async fn withdraw_policy(&self, probe: &Probe) -> Result<(), S3StartError> {
        let withdrawn = self.remove_own_statement().await;
        if self.anonymous_is_refused(probe).await? {
            // There is nothing to withdraw, even if the server has no policies or does not show them
            // to these credentials.
            return Ok(());
        }
        withdrawn.map_err(|failure| self.still_public(Some(failure)))?;
        for wait in POLICY_WAITS {
            tokio::time::sleep(wait).await;
            if self.anonymous_is_refused(probe).await? {
                return Ok(());
            }
        }
        Err(self.still_public(None))
    }

    /// Whether the server refuses to show the probe without credentials. A server that does not answer
    /// is an error, because it may show the probe later.
    async fn anonymous_is_refused(&self, probe: &Probe) -> Result<bool, S3StartError> {
        let get = self.anonymous.get_object().bucket(&self.settings.bucket);
        let get = get.key(&probe.path).send().await;
        match get.map_err(sdk_error("GetObject")) {
            Ok(_) => Ok(false),
            Err(failure) if failure.is_transient() => {
                Err(self.start_error("read objects without credentials", "s3:GetObject", failure))
            }
            Err(_) => Ok(true),
        }
    }

    /// Removes this program's statement from the bucket's policy, if it is there.
    async fn remove_own_statement(&self) -> Result<(), Failure> {
        let bucket = &self.settings.bucket;
        let client = &self.store.client;
        let get = client.get_bucket_policy().bucket(bucket).send().await;
        let existing = match get.map_err(sdk_error("GetBucketPolicy")) {
            Ok(answer) => answer.policy,
            Err(failure) if matches!(failure.status(), 404 | 405 | 501) => None,
            Err(failure) => return Err(failure),
        };
        match existing.as_deref().map(policy::without_public_read) {
            None | Some(Withdrawn::Nothing) => Ok(()),
            Some(Withdrawn::Everything) => {
                let delete = client.delete_bucket_policy().bucket(bucket).send().await;
                delete.map(drop).map_err(sdk_error("DeleteBucketPolicy"))
            }
            Some(Withdrawn::Rest(rest)) => {
                let put = client.put_bucket_policy().bucket(bucket).policy(rest);
                let put = put.send().await;
                put.map(drop).map_err(sdk_error("PutBucketPolicy"))
            }
        }
    }

    fn still_public(&self, failure: Option<Failure>) -> S3StartError {
        S3StartError::StillPublic {
            bucket: self.settings.bucket.clone(),
            source: failure.map(Into::into),
        }
    }

    fn without_policy(&self, failure: Failure) -> S3StartError {
        if failure.is_transient() {
            self.start_error("set the bucket's policy", "s3:PutBucketPolicy", failure)
        } else {
            self.not_public(Some(failure))
        }
    }

    fn not_public(&self, failure: Option<Failure>) -> S3StartError {
        S3StartError::NotPublic {
            bucket: self.settings.bucket.clone(),
            source: failure.map(Into::into),
        }
    }

    async fn anonymous_can_read(&self, probe: &Probe) -> bool {
        let get = self.anonymous.get_object().bucket(&self.settings.bucket);
        get.key(&probe.path).send().await.is_ok()
    }

    async fn set_cors(&self, warnings: &mut Vec<S3StartupWarning>) {
        let S3Settings {
            bucket,
            trusted_origins,
            ..
        } = self.settings;
        if trusted_origins.is_empty() {
            return;
        }
        let rule = CorsRule::builder()
            .set_allowed_origins(Some(trusted_origins.clone()))
            .allowed_methods("GET")
            .allowed_methods("HEAD")
            .max_age_seconds(3600)
            .build();
        let rules = rule.and_then(|rule| CorsConfiguration::builder().cors_rules(rule).build());
        let reason = match rules {
            Ok(rules) => {
                let put = self.store.client.put_bucket_cors().bucket(bucket);
                match put.cors_configuration(rules).send().await {
                    Ok(_) => return,
                    Err(error) => chain(&sdk_error("PutBucketCors")(error)).to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        let bucket = bucket.clone();
        warnings.push(S3StartupWarning::Cors { bucket, reason });
    }

    /// Maps an error of S3 to a case that says what to change.
    fn start_error(
        &self,
        action: &'static str,
        permission: &'static str,
        failure: Failure,
    ) -> S3StartError {
        let bucket = self.settings.bucket.clone();
        let endpoint = endpoint(self.settings);
        if let Failure::NoAnswer(_) = failure {
            let source = failure.into();
            return S3StartError::Unreachable { endpoint, source };
        }
        if let Failure::Refused {
            status: 301 | 400,
            region: Some(actual),
            ..
        } = &failure
            && *actual != self.settings.region
        {
            let actual = actual.clone();
            return S3StartError::Region { bucket, actual };
        }
        let code = failure.code().to_owned();
        let is_credentials_error = failure.is_credentials_error();
        let is_bucket_name_error = failure.is_bucket_name_error();
        let (is_transient, status) = (failure.is_transient(), failure.status());
        let source = failure.into();
        match code.as_str() {
            _ if is_credentials_error => S3StartError::Credentials {
                endpoint,
                code,
                source,
            },
            "RequestTimeTooSkewed" => S3StartError::Clock { endpoint, source },
            _ if is_bucket_name_error => S3StartError::BucketName { bucket, source },
            "BucketAlreadyExists" => S3StartError::OtherOwner { bucket, source },
            _ if is_transient => S3StartError::NotReady { endpoint, source },
            _ if status == 403 => S3StartError::Permission {
                bucket,
                action,
                permission,
                source,
            },
            _ => S3StartError::Unsuitable {
                bucket,
                endpoint,
                action,
                source,
            },
        }
    }
}
