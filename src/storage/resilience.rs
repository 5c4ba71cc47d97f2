//! Patience with a store on the network, as a decorator round the port: deadlines, a few retries
//! with jitter, and a breaker that stops asking a store which does not answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::{Checkup, Object, Store, StoreError, StoredUpload};
use crate::avatar::{AvatarId, ObjectKey};
use crate::telemetry::Metrics;

/// How patient to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long one attempt may take, and the wait for each next piece of a body.
    pub attempt: Duration,
    /// How long all attempts and the pauses between them may take.
    pub deadline: Duration,
    /// How many attempts are made, the first included.
    pub attempts: u32,
    /// The longest pause before the second attempt; the one before each further is twice as long.
    pub first_pause: Duration,
    /// The longest pause of all.
    pub longest_pause: Duration,
    /// After how many operations in a row that failed, for all their attempts, nothing is asked any
    /// more.
    pub failures_to_open: u32,
    /// For how long nothing is asked then; after it one operation tries.
    pub open_for: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(5),
            deadline: Duration::from_secs(15),
            attempts: 4,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(1),
            failures_to_open: 10,
            open_for: Duration::from_secs(1),
        }
    }
}

/// A store that is asked with patience.
///
/// Every operation of a store may be repeated; what may not help is left alone: only failures that
/// [may pass](StoreError::may_pass) and answers that do not come are tried again. A body that
/// breaks off is not, because part of it has been passed on.
pub struct PatientStore {
    inner: Arc<dyn Store>,
    patience: Patience,
    breaker: Breaker,
    metrics: Metrics,
}

/// Why an operation was not carried out to its end.
#[derive(Debug, thiserror::Error)]
enum Impatience {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("it has failed too often in a row to be asked")]
    Open,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

impl PatientStore {
    /// The store, asked with patience; what that takes is counted there.
    pub fn new(inner: Arc<dyn Store>, patience: Patience, metrics: Metrics) -> Self {
        Self {
            inner,
            patience,
            breaker: Breaker::default(),
            metrics,
        }
    }

    async fn ask<'a, T>(
        &'a self,
        operation: &'static str,
        ask: impl Fn(&'a dyn Store) -> Answer<'a, T>,
    ) -> Result<T, StoreError> {
        if !self.breaker.lets_through(&self.patience) {
            return Err(StoreError::passing(operation, Impatience::Open));
        }
        // What becomes of the operation counts, not of each attempt: an upload writes some ten
        // objects at once, and one hiccup that fails them all is what attempts are for.
        let answer = self.keep_asking(operation, ask).await;
        self.note(&answer);
        answer
    }

    async fn keep_asking<'a, T>(
        &'a self,
        operation: &'static str,
        ask: impl Fn(&'a dyn Store) -> Answer<'a, T>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.patience.deadline;
        let mut attempt = 1;
        loop {
            let answer = self.attempt(operation, deadline, ask(&*self.inner)).await;
            let error = match answer {
                Err(error) if error.may_pass() && attempt < self.patience.attempts => error,
                answer => return answer,
            };
            let pause = self.pause(attempt);
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            debug!(
                operation,
                attempt,
                error = &error as &dyn std::error::Error,
                "trying again"
            );
            tokio::time::sleep(pause).await;
            attempt += 1;
            self.metrics.retried();
        }
    }

    async fn attempt<T>(
        &self,
        operation: &'static str,
        deadline: Instant,
        answer: Answer<'_, T>,
    ) -> Result<T, StoreError> {
        let until = deadline.min(Instant::now() + self.patience.attempt);
        timeout_at(until, answer).await.unwrap_or_else(|_| {
            let late = Impatience::Late(self.patience.attempt);
            Err(StoreError::passing(operation, late))
        })
    }

    /// Takes what became of an operation into account.
    fn note<T>(&self, answer: &Result<T, StoreError>) {
        let is_open = self.breaker.note(answer, &self.patience);
        self.metrics.set_breaker(is_open);
    }

    /// A random pause after this attempt, up to a bound that doubles.
    fn pause(&self, attempt: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX);
        let longest = self.patience.first_pause.saturating_mul(doubled);
        // Without randomness the pause is the longest, which is no harm worth failing for.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        longest
            .min(self.patience.longest_pause)
            .mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[async_trait]
impl Store for PatientStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError> {
        self.ask("write an object", |store| {
            let (key, body) = (key.clone(), body.clone());
            Box::pin(async move { store.put(&key, body).await })
        })
        .await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        let opened = self
            .ask("open an object", |store| {
                let key = key.clone();
                Box::pin(async move { store.get(&key).await })
            })
            .await?;
        let limit = self.patience.attempt;
        Ok(opened.map(|object| Object {
            len: object.len,
            body: Box::pin(stream::unfold(Some(object.body), move |body| {
                next_piece(body, limit)
            })),
        }))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.ask("delete an object", |store| {
            let key = key.clone();
            Box::pin(async move { store.delete(&key).await })
        })
        .await
    }

    async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
        self.ask("list the objects of an avatar", |store| {
            Box::pin(async move { store.list(avatar).await })
        })
        .await
    }

    async fn uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError> {
        self.ask("list its uploads", |store| {
            Box::pin(async move { store.uploads(after).await })
        })
        .await
    }

    /// Asked once and whatever the breaker says: it is how one finds out.
    async fn check(&self) -> Result<Checkup, StoreError> {
        let deadline = Instant::now() + self.patience.deadline;
        let answer = self
            .attempt(
                "write, read and delete a probe",
                deadline,
                self.inner.check(),
            )
            .await;
        self.note(&answer);
        answer
    }
}

type Body = Pin<Box<dyn stream::Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// The next piece of a body, which ends with an error where it does not come in time.
async fn next_piece(
    body: Option<Body>,
    limit: Duration,
) -> Option<(Result<Bytes, StoreError>, Option<Body>)> {
    let mut body = body?;
    if let Ok(piece) = timeout(limit, body.next()).await {
        return piece.map(|piece| (piece, Some(body)));
    }
    let late = StoreError::passing("read an object", Impatience::Late(limit));
    Some((Err(late), None))
}

/// Counts failed operations in a row. Closed, everything passes; open, nothing does; after a while one
/// operation tries, and what becomes of it decides.
#[derive(Default)]
struct Breaker(Mutex<BreakerState>);

#[derive(Default)]
struct BreakerState {
    failures: u32,
    /// Until when nothing passes.
    open_until: Option<Instant>,
}

impl Breaker {
    fn lets_through(&self, patience: &Patience) -> bool {
        let mut state = self.lock();
        match state.open_until {
            None => true,
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                // This one tries; the others wait for what becomes of it.
                state.open_until = Some(Instant::now() + patience.open_for);
                true
            }
        }
    }

    /// Counts an answer, and gives whether it is open now.
    fn note<T>(&self, answer: &Result<T, StoreError>, patience: &Patience) -> bool {
        let mut state = self.lock();
        match answer {
            // A refusal is an answer: the store is there.
            Err(error) if error.may_pass() => {
                state.failures = state.failures.saturating_add(1);
                if state.failures >= patience.failures_to_open {
                    if state.open_until.is_none() {
                        let error = error as &dyn std::error::Error;
                        warn!(error, "the store fails; it is left alone for a while");
                    }
                    state.open_until = Some(Instant::now() + patience.open_for);
                }
            }
            _ => {
                if state.open_until.take().is_some() {
                    info!("the store is back");
                }
                state.failures = 0;
            }
        }
        state.open_until.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BreakerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::storage::s3::testing::{Fault, S3Server};
    use crate::storage::{DiskStore, PublicRead, S3Store, contract};

    /// Fails the first so many times, or never answers.
    struct Flaky {
        failures: u32,
        failure: fn() -> Option<StoreError>,
        asked: AtomicU32,
    }

    impl Flaky {
        fn new(failures: u32, failure: fn() -> Option<StoreError>) -> Arc<Self> {
            Arc::new(Self {
                failures,
                failure,
                asked: AtomicU32::new(0),
            })
        }

        fn asked(&self) -> u32 {
            self.asked.load(Ordering::Relaxed)
        }

        async fn answer(&self) -> Result<(), StoreError> {
            if self.asked.fetch_add(1, Ordering::Relaxed) >= self.failures {
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

        async fn delete(&self, _: &ObjectKey) -> Result<(), StoreError> {
            self.answer().await
        }

        async fn list(&self, _: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
            self.answer().await.map(|()| Vec::new())
        }

        async fn uploads(&self, _: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError> {
            self.answer().await.map(|()| Vec::new())
        }

        async fn check(&self) -> Result<Checkup, StoreError> {
            let public_read = PublicRead::Proxy;
            self.answer().await.map(|()| Checkup { public_read })
        }
    }

    // Reduces the noise below.
    #[allow(clippy::unnecessary_wraps)]
    fn passing() -> Option<StoreError> {
        Some(StoreError::passing("write an object", "try again"))
    }

    #[allow(clippy::unnecessary_wraps)]
    fn lasting() -> Option<StoreError> {
        Some(StoreError::new("write an object", "never"))
    }

    fn never() -> Option<StoreError> {
        None
    }

    async fn put(store: &PatientStore) -> Result<(), StoreError> {
        store
            .put(&contract::rendition(1), Bytes::from_static(b"x"))
            .await
    }

    #[tokio::test]
    async fn it_keeps_the_contract_of_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let inner = Arc::new(DiskStore::open(folder.path()).unwrap());
        contract::run(&PatientStore::new(
            inner,
            Patience::default(),
            Metrics::new(),
        ))
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        let inner = Flaky::new(3, passing);
        put(&PatientStore::new(
            inner.clone(),
            Patience::default(),
            Metrics::new(),
        ))
        .await
        .unwrap();
        assert_eq!(inner.asked(), 4);

        let inner = Flaky::new(9, passing);
        let store = PatientStore::new(inner.clone(), Patience::default(), Metrics::new());
        put(&store).await.unwrap_err();
        assert_eq!(inner.asked(), 4);

        let inner = Flaky::new(1, lasting);
        let store = PatientStore::new(inner.clone(), Patience::default(), Metrics::new());
        put(&store).await.unwrap_err();
        assert_eq!(inner.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_given_up_in_time() {
        let inner = Flaky::new(u32::MAX, never);
        let store = PatientStore::new(inner.clone(), Patience::default(), Metrics::new());
        let begun = Instant::now();
        let error = put(&store).await.unwrap_err();
        assert!(error.may_pass());
        assert!(begun.elapsed() <= Patience::default().deadline + Duration::from_millis(1));
        assert!(inner.asked() >= 2);

        let object = PatientStore::new(Flaky::new(0, never), Patience::default(), Metrics::new())
            .get(&contract::rendition(1))
            .await
            .unwrap()
            .unwrap();
        let begun = Instant::now();
        object.into_bytes().await.unwrap_err();
        assert_eq!(begun.elapsed(), Patience::default().attempt);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_keeps_failing_is_left_alone_and_found_again() {
        let inner = Flaky::new(11 * 4, passing);
        let store = PatientStore::new(inner.clone(), Patience::default(), Metrics::new());
        for _ in 0..10 {
            put(&store).await.unwrap_err();
        }
        for _ in 0..100 {
            put(&store).await.unwrap_err();
        }
        assert_eq!(inner.asked(), 10 * 4, "it is left alone");
        tokio::time::advance(Patience::default().open_for).await;
        put(&store).await.unwrap_err();
        assert_eq!(inner.asked(), 11 * 4, "one tried, and failed");
        tokio::time::advance(Patience::default().open_for).await;
        put(&store).await.unwrap();
        put(&store).await.unwrap();
        assert_eq!(inner.asked(), 11 * 4 + 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_hiccup_under_all_the_writes_of_an_upload_is_hidden() {
        let inner = Flaky::new(10, passing);
        let store = PatientStore::new(inner.clone(), Patience::default(), Metrics::new());
        for written in futures_util::future::join_all((0..10).map(|_| put(&store))).await {
            written.unwrap();
        }
        assert_eq!(inner.asked(), 20, "each failed once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_asks_in_any_case_and_finds_the_store_again() {
        let inner = Flaky::new(10 * 4, passing);
        let store = PatientStore::new(inner.clone(), Patience::default(), Metrics::new());
        for _ in 0..10 {
            put(&store).await.unwrap_err();
        }
        store.check().await.unwrap();
        put(&store).await.unwrap();
    }

    #[tokio::test]
    async fn a_bucket_that_stumbles_is_hidden_from_its_users() {
        let server = S3Server::start_with_faults().await;
        let (inner, _) = S3Store::open(&server.settings()).await.unwrap();
        let patience = Patience {
            attempt: Duration::from_millis(300),
            ..Patience::default()
        };
        let store = PatientStore::new(Arc::new(inner), patience, Metrics::new());
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
}
