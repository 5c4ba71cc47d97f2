//! A decorator for a store on the network. It adds deadlines, a few retries with jitter, and a
//! circuit breaker that stops requests to a store that keeps failing.

mod breaker;

use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::{Checkup, Object, RangedObject, Store, StoreError, StoredUpload};
use crate::avatar::{AvatarId, ObjectKey, SubjectHash};
use crate::telemetry::{Metrics, chain};
use breaker::Breaker;

/// The deadlines and retries of a [`RetryingStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryPolicy {
    /// The longest time for one attempt, and for each next piece of a body.
    pub attempt_timeout: Duration,
    /// The longest time for all attempts of an operation and the pauses between them.
    pub deadline: Duration,
    /// The number of attempts, the first included.
    pub attempts: u32,
    /// The longest pause before the second attempt. This limit doubles for each further attempt.
    pub first_pause: Duration,
    /// The longest pause before any attempt.
    pub max_pause: Duration,
    /// The number of consecutive failed operations that opens the circuit breaker. An operation fails
    /// if all its attempts fail.
    pub failures_to_open: u32,
    /// The interval of probes ([`Store::check`]) while the circuit breaker is open.
    pub probe_interval: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(15),
            attempts: 4,
            first_pause: Duration::from_millis(50),
            max_pause: Duration::from_secs(1),
            failures_to_open: 10,
            probe_interval: Duration::from_secs(1),
        }
    }
}

/// A store with deadlines, retries and a circuit breaker.
///
/// Only [transient](StoreError::is_transient) errors and timeouts are retried. Every operation of a
/// store can be repeated. A body that breaks off is not read again, because the caller already has
/// part of it.
pub(crate) struct RetryingStore {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
    breaker: Arc<Breaker>,
    metrics: Metrics,
}

/// The decorator stopped an operation.
#[derive(Debug, thiserror::Error)]
enum RetryError {
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the circuit breaker is open")]
    Open,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

impl RetryingStore {
    /// Wraps `inner`. Retries and the state of the breaker are reported to `metrics`.
    pub(crate) fn new(inner: Arc<dyn Store>, policy: RetryPolicy, metrics: Metrics) -> Self {
        Self {
            inner,
            policy,
            breaker: Arc::default(),
            metrics,
        }
    }

    async fn run<'a, T>(
        &'a self,
        operation: &'static str,
        start: impl Fn(&'a dyn Store) -> Answer<'a, T>,
    ) -> Result<T, StoreError> {
        if self.breaker.is_open() {
            return Err(StoreError::transient(operation, RetryError::Open));
        }
        // The breaker counts operations, not attempts. An upload writes about ten objects at once,
        // and retries hide a short failure of all of them.
        let answer = self.run_with_retries(operation, start).await;
        self.record_result(&answer);
        answer
    }

    async fn run_with_retries<'a, T>(
        &'a self,
        operation: &'static str,
        start: impl Fn(&'a dyn Store) -> Answer<'a, T>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.policy.deadline;
        let mut attempt = 1;
        loop {
            let answer = self.attempt(operation, deadline, start(&*self.inner)).await;
            let error = match answer {
                Err(error) if error.is_transient() && attempt < self.policy.attempts => error,
                answer => return answer,
            };
            let pause = self.pause(attempt);
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            debug!(
                operation,
                attempt,
                error = %chain(&error),
                "retrying a store operation"
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
        let until = deadline.min(Instant::now() + self.policy.attempt_timeout);
        timeout_at(until, answer).await.unwrap_or_else(|_| {
            let late = RetryError::Late(self.policy.attempt_timeout);
            Err(StoreError::transient(operation, late))
        })
    }

    /// Reports the result of an operation to the breaker. Starts the probes if the breaker opens.
    fn record_result<T>(&self, answer: &Result<T, StoreError>) {
        if self
            .breaker
            .record_result(answer, &self.policy, &self.metrics)
        {
            tokio::spawn(probe_until_closed(
                Arc::clone(&self.inner),
                self.policy,
                Arc::downgrade(&self.breaker),
                self.metrics.clone(),
            ));
        }
    }

    /// Adds a deadline for each piece of the object's body.
    fn with_deadlines(&self, object: Object) -> Object {
        let limit = self.policy.attempt_timeout;
        Object {
            len: object.len,
            body: Box::pin(stream::unfold(Some(object.body), move |body| {
                next_piece(body, limit)
            })),
        }
    }

    /// A random pause after this attempt, up to a limit that doubles with each attempt.
    fn pause(&self, attempt: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX);
        let longest = self.policy.first_pause.saturating_mul(doubled);
        // If the system gives no random number, the pause is the longest, which does no harm.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        longest
            .min(self.policy.max_pause)
            .mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[async_trait]
impl Store for RetryingStore {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError> {
        self.run("write an object", |store| {
            let (key, body) = (key.clone(), body.clone());
            Box::pin(async move { store.put(&key, body).await })
        })
        .await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        let opened = self
            .run("open an object", |store| {
                let key = key.clone();
                Box::pin(async move { store.get(&key).await })
            })
            .await?;
        Ok(opened.map(|object| self.with_deadlines(object)))
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, StoreError> {
        let opened = self
            .run("open a part of an object", |store| {
                let (key, range) = (key.clone(), range.clone());
                Box::pin(async move { store.get_range(&key, range).await })
            })
            .await?;
        Ok(opened.map(|ranged| match ranged {
            RangedObject::Part { first, total, part } => RangedObject::Part {
                first,
                total,
                part: self.with_deadlines(part),
            },
            RangedObject::Unsatisfiable { total } => RangedObject::Unsatisfiable { total },
        }))
    }

    /// Does not retry: no server is asked.
    async fn presign(&self, key: &ObjectKey, ttl: Duration) -> Result<Option<String>, StoreError> {
        self.inner.presign(key, ttl).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.run("delete an object", |store| {
            let key = key.clone();
            Box::pin(async move { store.delete(&key).await })
        })
        .await
    }

    async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
        self.run("list the objects of an avatar", |store| {
            Box::pin(async move { store.list(avatar).await })
        })
        .await
    }

    async fn uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError> {
        self.run("list uploads", |store| {
            Box::pin(async move { store.uploads(after).await })
        })
        .await
    }

    async fn policies(&self, after: Option<SubjectHash>) -> Result<Vec<SubjectHash>, StoreError> {
        self.run("list policies", |store| {
            Box::pin(async move { store.policies(after).await })
        })
        .await
    }

    /// Runs one attempt, even while the breaker is open: a check shows whether the store works again.
    async fn check(&self) -> Result<Checkup, StoreError> {
        let deadline = Instant::now() + self.policy.deadline;
        let answer = self
            .attempt(
                "write, read and delete a probe",
                deadline,
                self.inner.check(),
            )
            .await;
        self.record_result(&answer);
        answer
    }

    fn losses(&self) -> u64 {
        self.inner.losses()
    }
}

type Body = Pin<Box<dyn stream::Stream<Item = Result<Bytes, StoreError>> + Send>>;

/// The next piece of a body. If it does not arrive within `limit`, the body ends with an error.
async fn next_piece(
    body: Option<Body>,
    limit: Duration,
) -> Option<(Result<Bytes, StoreError>, Option<Body>)> {
    let mut body = body?;
    if let Ok(piece) = timeout(limit, body.next()).await {
        return piece.map(|piece| (piece, Some(body)));
    }
    let late = StoreError::transient("read an object", RetryError::Late(limit));
    Some((Err(late), None))
}

/// Probes a store until the breaker is closed or dropped.
///
/// Probes are separate from requests. An upload writes several objects at once, and the first refused
/// write cancels the others, so a request could not serve as a probe. A probe that hangs does not
/// delay the next one, because the store may work again by then.
async fn probe_until_closed(
    store: Arc<dyn Store>,
    policy: RetryPolicy,
    breaker: Weak<Breaker>,
    metrics: Metrics,
) {
    let mut probes = FuturesUnordered::new();
    loop {
        let next = tokio::time::sleep(policy.probe_interval);
        let mut next = pin!(next);
        loop {
            let answer = tokio::select! {
                () = &mut next => break,
                Some(answer) = probes.next() => answer,
            };
            // A check that times out does not change the breaker.
            let (Some(breaker), Ok(answer)) = (breaker.upgrade(), answer) else {
                continue;
            };
            breaker.record_result(&answer, &policy, &metrics);
        }
        if !breaker.upgrade().is_some_and(|breaker| breaker.is_open()) {
            break;
        }
        probes.push(timeout(policy.attempt_timeout, store.check()));
    }
    // The remaining checks run to their end, so that they delete their probe objects.
    while probes.next().await.is_some() {}
}

#[cfg(test)]
mod tests;
