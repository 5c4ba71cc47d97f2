//! Patience with a store on the network, as a decorator round the port: deadlines, a few retries
//! with jitter, and a breaker that stops asking a store which does not answer.

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::{Checkup, Object, RangedObject, Store, StoreError, StoredUpload};
use crate::avatar::{AvatarId, ObjectKey};
use crate::telemetry::Metrics;

/// How patient to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
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
    /// How often it is tried out then, by a [check](Store::check), until it answers.
    pub try_every: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(5),
            deadline: Duration::from_secs(15),
            attempts: 4,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(1),
            failures_to_open: 10,
            try_every: Duration::from_secs(1),
        }
    }
}

/// A store that is asked with patience.
///
/// Every operation of a store may be repeated; what may not help is left alone: only failures that
/// [may pass](StoreError::is_transient) and answers that do not come are tried again. A body that
/// breaks off is not, because part of it has been passed on.
pub struct RetryingStore {
    inner: Arc<dyn Store>,
    patience: RetryPolicy,
    breaker: Arc<Breaker>,
    metrics: Metrics,
}

/// Why an operation was not carried out to its end.
#[derive(Debug, thiserror::Error)]
enum RetryError {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("it has failed too often in a row to be asked")]
    Open,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

impl RetryingStore {
    /// The store, asked with patience; what that takes is counted there.
    pub fn new(inner: Arc<dyn Store>, patience: RetryPolicy, metrics: Metrics) -> Self {
        Self {
            inner,
            patience,
            breaker: Arc::default(),
            metrics,
        }
    }

    async fn ask<'a, T>(
        &'a self,
        operation: &'static str,
        ask: impl Fn(&'a dyn Store) -> Answer<'a, T>,
    ) -> Result<T, StoreError> {
        if self.breaker.is_open() {
            return Err(StoreError::passing(operation, RetryError::Open));
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
                Err(error) if error.is_transient() && attempt < self.patience.attempts => error,
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
            let late = RetryError::Late(self.patience.attempt);
            Err(StoreError::passing(operation, late))
        })
    }

    /// Takes what became of an operation into account.
    fn note<T>(&self, answer: &Result<T, StoreError>) {
        if self.breaker.note(answer, &self.patience, &self.metrics) {
            tokio::spawn(find_again(
                Arc::clone(&self.inner),
                self.patience,
                Arc::downgrade(&self.breaker),
                self.metrics.clone(),
            ));
        }
    }

    /// The object with a deadline for each piece of its body.
    fn read_in_time(&self, object: Object) -> Object {
        let limit = self.patience.attempt;
        Object {
            len: object.len,
            body: Box::pin(stream::unfold(Some(object.body), move |body| {
                next_piece(body, limit)
            })),
        }
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
impl Store for RetryingStore {
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
        Ok(opened.map(|object| self.read_in_time(object)))
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, StoreError> {
        let opened = self
            .ask("open a part of an object", |store| {
                let (key, range) = (key.clone(), range.clone());
                Box::pin(async move { store.get_range(&key, range).await })
            })
            .await?;
        Ok(opened.map(|ranged| match ranged {
            RangedObject::Part { first, total, part } => RangedObject::Part {
                first,
                total,
                part: self.read_in_time(part),
            },
            RangedObject::Unsatisfiable { total } => RangedObject::Unsatisfiable { total },
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

    fn losses(&self) -> u64 {
        self.inner.losses()
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
    let late = StoreError::passing("read an object", RetryError::Late(limit));
    Some((Err(late), None))
}

/// Tries a store out that is left alone, until the breaker is closed by whomever, or gone.
///
/// No request is the one that tries: an upload writes several objects at once, and those that are
/// refused would take the one that tries down with them before it is answered. A try that hangs
/// does not hold up the next one: the store may be back meanwhile.
async fn find_again(
    store: Arc<dyn Store>,
    patience: RetryPolicy,
    breaker: Weak<Breaker>,
    metrics: Metrics,
) {
    let mut tries = FuturesUnordered::new();
    loop {
        let next = tokio::time::sleep(patience.try_every);
        let mut next = pin!(next);
        loop {
            let answer = tokio::select! {
                () = &mut next => break,
                Some(answer) = tries.next() => answer,
            };
            // A check that does not come to its end in time tells nothing new.
            let (Some(breaker), Ok(answer)) = (breaker.upgrade(), answer) else {
                continue;
            };
            breaker.note(&answer, &patience, &metrics);
        }
        if !breaker.upgrade().is_some_and(|breaker| breaker.is_open()) {
            break;
        }
        tries.push(timeout(patience.attempt, store.check()));
    }
    // Their probes are to go, whatever else they have to tell.
    while tries.next().await.is_some() {}
}

/// Counts failed operations in a row. Closed, everything passes; open, nothing does.
#[derive(Default)]
struct Breaker(Mutex<BreakerState>);

#[derive(Default)]
struct BreakerState {
    failures: u32,
    is_open: bool,
}

impl Breaker {
    fn is_open(&self) -> bool {
        self.lock().is_open
    }

    /// Counts an answer, and gives whether it is the one that has opened it.
    fn note<T>(
        &self,
        answer: &Result<T, StoreError>,
        patience: &RetryPolicy,
        metrics: &Metrics,
    ) -> bool {
        let mut state = self.lock();
        let was_open = state.is_open;
        match answer {
            // A refusal is an answer: the store is there.
            Err(error) if error.is_transient() => {
                state.failures = state.failures.saturating_add(1);
                state.is_open = state.failures >= patience.failures_to_open;
                if state.is_open && !was_open {
                    let error = error as &dyn std::error::Error;
                    warn!(error, "the store fails; it is left alone for a while");
                }
            }
            _ => {
                if was_open {
                    info!("the store is back");
                }
                *state = BreakerState::default();
            }
        }
        metrics.set_breaker(state.is_open);
        state.is_open && !was_open
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
    use crate::telemetry::Health;

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

        async fn check(&self) -> Result<Checkup, StoreError> {
            self.answer().await.map(|()| Checkup {
                public_read: PublicRead::Proxy,
                health: Health::Healthy,
            })
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

    async fn put(store: &RetryingStore) -> Result<(), StoreError> {
        store
            .put(&contract::rendition(1), Bytes::from_static(b"x"))
            .await
    }

    #[tokio::test]
    async fn it_keeps_the_contract_of_a_store() {
        let folder = tempfile::tempdir().unwrap();
        let inner = Arc::new(DiskStore::open(folder.path()).unwrap());
        contract::run(&RetryingStore::new(
            inner,
            RetryPolicy::default(),
            Metrics::new(),
        ))
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        let inner = Flaky::new(3, passing);
        put(&RetryingStore::new(
            inner.clone(),
            RetryPolicy::default(),
            Metrics::new(),
        ))
        .await
        .unwrap();
        assert_eq!(inner.asked(), 4);

        let inner = Flaky::new(9, passing);
        let store = RetryingStore::new(inner.clone(), RetryPolicy::default(), Metrics::new());
        put(&store).await.unwrap_err();
        assert_eq!(inner.asked(), 4);

        let inner = Flaky::new(1, lasting);
        let store = RetryingStore::new(inner.clone(), RetryPolicy::default(), Metrics::new());
        put(&store).await.unwrap_err();
        assert_eq!(inner.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_given_up_in_time() {
        let inner = Flaky::new(u32::MAX, never);
        let store = RetryingStore::new(inner.clone(), RetryPolicy::default(), Metrics::new());
        let begun = Instant::now();
        let error = put(&store).await.unwrap_err();
        assert!(error.is_transient());
        assert!(begun.elapsed() <= RetryPolicy::default().deadline + Duration::from_millis(1));
        assert!(inner.asked() >= 2);

        let object =
            RetryingStore::new(Flaky::new(0, never), RetryPolicy::default(), Metrics::new())
                .get(&contract::rendition(1))
                .await
                .unwrap()
                .unwrap();
        let begun = Instant::now();
        object.into_bytes().await.unwrap_err();
        assert_eq!(begun.elapsed(), RetryPolicy::default().attempt);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_keeps_failing_is_left_alone_and_found_again() {
        // Ten operations of four attempts, and two checks.
        let inner = Flaky::new(10 * 4 + 2, passing);
        let store = RetryingStore::new(inner.clone(), RetryPolicy::default(), Metrics::new());
        for _ in 0..10 {
            put(&store).await.unwrap_err();
        }
        for _ in 0..100 {
            put(&store).await.unwrap_err();
        }
        assert_eq!(inner.asked(), 10 * 4, "it is left alone");
        let (every, soon) = (RetryPolicy::default().try_every, Duration::from_millis(1));
        for tries in 1..=2 {
            tokio::time::sleep(every + soon).await;
            put(&store).await.unwrap_err();
            assert_eq!(inner.asked(), 10 * 4 + tries, "it was tried, and failed");
        }
        tokio::time::sleep(every).await;
        put(&store).await.unwrap();
        assert_eq!(inner.asked(), 10 * 4 + 3 + 1);
        tokio::time::sleep(every * 5).await;
        assert_eq!(inner.asked(), 10 * 4 + 3 + 1, "nothing tries it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_is_found_again_though_every_operation_is_given_up_with_the_first_refusal() {
        let inner = Flaky::new(10 * 4, passing);
        let store = RetryingStore::new(inner.clone(), RetryPolicy::default(), Metrics::new());
        for _ in 0..10 {
            put(&store).await.unwrap_err();
        }
        let begun = Instant::now();
        // As an upload writes.
        let upload = || futures_util::future::try_join_all((0..6).map(|_| put(&store)));
        while upload().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(begun.elapsed() < Duration::from_secs(2), "it is never back");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_is_never_answered_does_not_hold_up_the_next() {
        let inner = Flaky::new(10 * 3 + 1, never);
        let store = RetryingStore::new(inner.clone(), RetryPolicy::default(), Metrics::new());
        let fill = (0..10).map(|_| put(&store));
        for given_up in futures_util::future::join_all(fill).await {
            given_up.unwrap_err();
        }
        assert_eq!(inner.asked(), 10 * 3);
        let try_every = RetryPolicy::default().try_every;
        tokio::time::sleep(try_every * 2 + Duration::from_millis(1)).await;
        put(&store).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_hiccup_under_all_the_writes_of_an_upload_is_hidden() {
        let inner = Flaky::new(10, passing);
        let store = RetryingStore::new(inner.clone(), RetryPolicy::default(), Metrics::new());
        for written in futures_util::future::join_all((0..10).map(|_| put(&store))).await {
            written.unwrap();
        }
        assert_eq!(inner.asked(), 20, "each failed once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_asks_in_any_case_and_finds_the_store_again() {
        let inner = Flaky::new(10 * 4, passing);
        let store = RetryingStore::new(inner.clone(), RetryPolicy::default(), Metrics::new());
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
        let patience = RetryPolicy {
            attempt: Duration::from_millis(300),
            ..RetryPolicy::default()
        };
        let store = RetryingStore::new(Arc::new(inner), patience, Metrics::new());
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
