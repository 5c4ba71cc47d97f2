use std::future::{Ready, ready};
use std::sync::atomic::{AtomicU32, Ordering};

use cameo_testing::s3::{Fault, S3Server};

use super::*;
use crate::storage::contract::{self, Fixture};
use crate::storage::s3::testing::settings_of;
use crate::storage::{DiskStore, PublicRead, S3Store};
use crate::telemetry::Health;

/// A store that fails the first `failures` requests, or never answers them.
struct Flaky {
    failures: u32,
    failure: fn() -> Option<StoreError>,
    requests: AtomicU32,
}

impl Flaky {
    fn new(failures: u32, failure: fn() -> Option<StoreError>) -> Arc<Self> {
        Arc::new(Self {
            failures,
            failure,
            requests: AtomicU32::new(0),
        })
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    async fn answer(&self) -> Result<(), StoreError> {
        if self.requests.fetch_add(1, Ordering::Relaxed) >= self.failures {
            return Ok(());
        }
        match (self.failure)() {
            Some(error) => Err(error),
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Store for Flaky {
    async fn put(&self, _: &ObjectKey, _: Bytes) -> Result<(), StoreError> {
        self.answer().await
    }

    async fn get(&self, _: &ObjectKey) -> Result<Option<Object>, StoreError> {
        self.answer().await?;
        let body = stream::iter([Ok(Bytes::from_static(b"half"))]).chain(stream::pending());
        Ok(Some(Object {
            len: 8,
            body: Box::pin(body),
        }))
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        _: RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, StoreError> {
        let part = self.get(key).await?;
        let of = |part| RangedObject::Part {
            first: 0,
            total: 16,
            part,
        };
        Ok(part.map(of))
    }

    async fn delete(&self, _: &ObjectKey) -> Result<(), StoreError> {
        self.answer().await
    }

    async fn list(&self, _: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
        self.answer().await.map(|()| Vec::new())
    }

    async fn uploads(&self, _: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError> {
        self.answer().await.map(|()| Vec::new())
    }

    async fn policies(&self, _: Option<SubjectHash>) -> Result<Vec<SubjectHash>, StoreError> {
        self.answer().await.map(|()| Vec::new())
    }

    async fn check(&self) -> Result<Checkup, StoreError> {
        self.answer().await.map(|()| Checkup {
            public_read: PublicRead::Proxy,
            health: Health::Healthy,
        })
    }
}

// `Flaky::new` takes functions of this type.
#[allow(clippy::unnecessary_wraps)]
fn transient() -> Option<StoreError> {
    Some(StoreError::transient("write an object", "try again"))
}

#[allow(clippy::unnecessary_wraps)]
fn permanent() -> Option<StoreError> {
    Some(StoreError::new("write an object", "never"))
}

fn never() -> Option<StoreError> {
    None
}

/// A store with the default policy.
fn retrying(inner: Arc<dyn Store>) -> RetryingStore {
    RetryingStore::new(inner, RetryPolicy::default(), Metrics::new())
}

fn fixture() -> Ready<Fixture> {
    let folder = tempfile::tempdir().unwrap();
    let inner = DiskStore::open(folder.path()).unwrap();
    ready(Fixture::new(retrying(Arc::new(inner)), folder))
}

mod contract_suite {
    crate::storage::contract::contract_tests!(crate::storage::resilience::tests::fixture);
}

async fn put(store: &RetryingStore) -> Result<(), StoreError> {
    store
        .put(&contract::rendition(1), Bytes::from_static(b"x"))
        .await
}

#[tokio::test(start_paused = true)]
async fn transient_errors_are_retried_and_permanent_errors_are_not() {
    let inner = Flaky::new(3, transient);
    put(&retrying(inner.clone())).await.unwrap();
    assert_eq!(inner.requests(), 4);

    let inner = Flaky::new(9, transient);
    let store = retrying(inner.clone());
    put(&store).await.unwrap_err();
    assert_eq!(inner.requests(), 4);

    let inner = Flaky::new(1, permanent);
    let store = retrying(inner.clone());
    put(&store).await.unwrap_err();
    assert_eq!(inner.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_operation_without_an_answer_ends_at_its_deadline() {
    let inner = Flaky::new(u32::MAX, never);
    let store = retrying(inner.clone());
    let begun = Instant::now();
    let error = put(&store).await.unwrap_err();
    assert!(error.is_transient());
    assert!(begun.elapsed() <= RetryPolicy::default().deadline + Duration::from_millis(1));
    assert!(inner.requests() >= 2);

    let object = retrying(Flaky::new(0, never))
        .get(&contract::rendition(1))
        .await
        .unwrap()
        .unwrap();
    let begun = Instant::now();
    object.into_bytes().await.unwrap_err();
    assert_eq!(begun.elapsed(), RetryPolicy::default().attempt_timeout);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_refuses_operations_until_a_probe_succeeds() {
    // Ten operations of four attempts, and two checks.
    let inner = Flaky::new(10 * 4 + 2, transient);
    let store = retrying(inner.clone());
    for _ in 0..10 {
        put(&store).await.unwrap_err();
    }
    for _ in 0..100 {
        put(&store).await.unwrap_err();
    }
    assert_eq!(inner.requests(), 10 * 4, "operations are refused");
    let (every, soon) = (
        RetryPolicy::default().probe_interval,
        Duration::from_millis(1),
    );
    for tries in 1..=2 {
        tokio::time::sleep(every + soon).await;
        put(&store).await.unwrap_err();
        assert_eq!(inner.requests(), 10 * 4 + tries, "a probe failed");
    }
    tokio::time::sleep(every).await;
    put(&store).await.unwrap();
    assert_eq!(inner.requests(), 10 * 4 + 3 + 1);
    tokio::time::sleep(every * 5).await;
    assert_eq!(inner.requests(), 10 * 4 + 3 + 1, "the probes have ended");
}

#[tokio::test(start_paused = true)]
async fn the_breaker_closes_even_if_every_upload_ends_at_its_first_refused_write() {
    let inner = Flaky::new(10 * 4, transient);
    let store = retrying(inner.clone());
    for _ in 0..10 {
        put(&store).await.unwrap_err();
    }
    let begun = Instant::now();
    // As an upload writes.
    let upload = || futures_util::future::try_join_all((0..6).map(|_| put(&store)));
    while upload().await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "the breaker stays open"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_without_an_answer_does_not_delay_the_next() {
    let inner = Flaky::new(10 * 3 + 1, never);
    let store = retrying(inner.clone());
    let fill = (0..10).map(|_| put(&store));
    for given_up in futures_util::future::join_all(fill).await {
        given_up.unwrap_err();
    }
    assert_eq!(inner.requests(), 10 * 3);
    let probe_interval = RetryPolicy::default().probe_interval;
    tokio::time::sleep(probe_interval * 2 + Duration::from_millis(1)).await;
    put(&store).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_short_failure_of_all_writes_of_an_upload_is_hidden() {
    let inner = Flaky::new(10, transient);
    let store = retrying(inner.clone());
    for written in futures_util::future::join_all((0..10).map(|_| put(&store))).await {
        written.unwrap();
    }
    assert_eq!(inner.requests(), 20, "each failed once");
}

#[tokio::test(start_paused = true)]
async fn a_check_runs_while_the_breaker_is_open_and_closes_it() {
    let inner = Flaky::new(10 * 4, transient);
    let store = retrying(inner.clone());
    for _ in 0..10 {
        put(&store).await.unwrap_err();
    }
    store.check().await.unwrap();
    put(&store).await.unwrap();
}

#[tokio::test]
async fn short_failures_of_a_bucket_are_hidden() {
    let server = S3Server::start_with_faults().await;
    let (inner, _) = S3Store::open(&settings_of(&server)).await.unwrap();
    let policy = RetryPolicy {
        attempt_timeout: Duration::from_millis(300),
        ..RetryPolicy::default()
    };
    let store = RetryingStore::new(Arc::new(inner), policy, Metrics::new());
    for fault in [
        Fault::Status(503),
        Fault::Drop,
        Fault::Delay(Duration::from_secs(5)),
    ] {
        server.fail_next(2, fault);
        put(&store).await.unwrap();
        server.clear_faults();
        let object = store.get(&contract::rendition(1)).await.unwrap().unwrap();
        assert_eq!(object.into_bytes().await.unwrap(), "x");
    }
}
