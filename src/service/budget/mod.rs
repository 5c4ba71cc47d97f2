//! Bounds what uploads use at once: memory, and slots of several kinds.
//!
//! The memory budget has two pools. One half is for bodies (and the renditions on their way to the
//! store), the other half for decoding. They are separate because an upload that holds its body
//! waits for memory to decode it: with a single pool, bodies could fill it, and each would wait for
//! the others for ever.
//!
//! Memory for a body is reserved as the body arrives. How the pool always lets some upload finish,
//! and how accounts share it, is explained in [`pool`].
//!
//! Slots keep waiting uploads cheap. A user has at most [`UPLOADS_PER_USER`] uploads under way. Only
//! as many uploads as keep the workers busy are admitted to wait for a worker with their bodies in
//! memory; the others wait with their bodies unread. A slow body releases its admission slot; only
//! the memory budget limits slow uploads.

mod pool;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::Error;
use crate::avatar::{Account, SubjectId};
pub(super) use pool::Reservation;
use pool::{MemoryPool, Outcome};

/// The minimum reservation for a complete upload, because its renditions may be larger than its body.
const MIN_UPLOAD_BYTES: u64 = 1024 * 1024;
/// The first step of a reservation for a body. Each further step doubles it.
const FIRST_STEP_BYTES: u64 = 64 * 1024;

/// Maximum number of concurrent uploads of one user.
const UPLOADS_PER_USER: usize = 2;
/// Admission slots per worker. They are enough to keep the workers busy while bodies arrive within
/// [`SLOT_TIME`].
const SLOTS_PER_WORKER: usize = 8;
/// How long an upload keeps its admission slot while its body arrives. A body takes milliseconds from
/// a gateway that holds it already, and seconds from a telephone.
pub(super) const SLOT_TIME: Duration = Duration::from_millis(100);
/// How long an upload waits for memory before a slow body is ended, and how often that is repeated.
const REVOKE_AFTER: Duration = Duration::from_secs(1);

/// The resources that uploads share.
pub(super) struct Budget {
    users: Arc<Users>,
    slots: MemoryPool,
    bodies: MemoryPool,
    decoding: MemoryPool,
    workers: MemoryPool,
    waiting: Arc<AtomicUsize>,
    queue_timeout: Duration,
}

/// The resources that uploads use and wait for at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Memory for bodies.
    pub uploads: Share,
    /// Memory for decoding.
    pub pictures: Share,
    /// Number of workers.
    pub workers: usize,
    /// Number of busy workers.
    pub workers_busy: usize,
    /// Uploads that wait for memory or a worker.
    pub waiting: usize,
}

/// The reserved part of a memory pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Reserved bytes.
    pub reserved_bytes: u64,
    /// Bytes that can be reserved in total.
    pub budget_bytes: u64,
}

/// How long an upload may still wait, summed over all its waits. The time in which its body arrives
/// does not count.
pub(super) struct WaitDeadline {
    left: Duration,
    whole: Duration,
    waiting: Arc<AtomicUsize>,
}

impl Budget {
    /// A budget of so many bytes, with one worker slot per worker.
    pub(super) fn new(bytes: u64, workers: usize, queue_timeout: Duration) -> Self {
        Self {
            users: Arc::default(),
            slots: MemoryPool::new((workers * SLOTS_PER_WORKER) as u64),
            bodies: MemoryPool::new(bytes / 2),
            decoding: MemoryPool::new(bytes / 2),
            workers: MemoryPool::new(workers as u64),
            waiting: Arc::default(),
            queue_timeout,
        }
    }

    /// The deadline that a new upload begins with.
    pub(super) fn wait_deadline(&self) -> WaitDeadline {
        WaitDeadline {
            left: self.queue_timeout,
            whole: self.queue_timeout,
            waiting: Arc::clone(&self.waiting),
        }
    }

    /// Waits until the user has fewer than [`UPLOADS_PER_USER`] uploads under way. Services have no
    /// such limit.
    pub(super) async fn user_slot(
        &self,
        account: &Account,
        wait: &mut WaitDeadline,
    ) -> Result<Option<UserSlot>, Error> {
        let Account::User(subject) = account else {
            return Ok(None);
        };
        let mut slot = UserSlot {
            uploads: self.users.semaphore(subject),
            subject: subject.clone(),
            permit: None,
            users: Arc::clone(&self.users),
        };
        let permit = Arc::clone(&slot.uploads).acquire_owned();
        slot.permit = wait.on(permit).await?.ok();
        Ok(Some(slot))
    }

    /// Waits for an admission slot.
    pub(super) async fn admission_slot(
        &self,
        account: &Account,
        wait: &mut WaitDeadline,
    ) -> Result<Reservation, Error> {
        reserve(&self.slots, account, 1, wait).await
    }

    /// Waits for memory for the first bytes of a body of at most `max` bytes.
    pub(super) async fn body(
        &self,
        account: &Account,
        max: u64,
        wait: &mut WaitDeadline,
    ) -> Result<BodyReservation, Error> {
        // The configuration ensures that the largest picture fits, but not the form around it.
        let max = max.max(MIN_UPLOAD_BYTES).min(self.bodies.capacity());
        let mut body = BodyReservation {
            memory: self.bodies.admit(account, max, true),
            max,
        };
        body.hold(FIRST_STEP_BYTES, wait).await?;
        Ok(body)
    }

    /// Waits for memory to decode a picture that needs at most `bytes`.
    pub(super) async fn decode(
        &self,
        account: &Account,
        bytes: u64,
        wait: &mut WaitDeadline,
    ) -> Result<Reservation, Error> {
        expect_capacity(&self.decoding, bytes)?;
        reserve(&self.decoding, account, bytes, wait).await
    }

    /// Waits for a worker. An upload that gives up leaves the queue.
    pub(super) async fn worker(
        &self,
        account: &Account,
        wait: &mut WaitDeadline,
    ) -> Result<Reservation, Error> {
        reserve(&self.workers, account, 1, wait).await
    }

    /// The resources that are used and waited for at this moment.
    pub(super) fn load(&self) -> Load {
        let share = |pool: &MemoryPool| Share {
            reserved_bytes: pool.held(),
            budget_bytes: pool.capacity(),
        };
        Load {
            uploads: share(&self.bodies),
            pictures: share(&self.decoding),
            workers: self.workers.capacity() as usize,
            workers_busy: self.workers.held() as usize,
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }
}

/// Checks that the pool could ever grant so many bytes.
fn expect_capacity(pool: &MemoryPool, bytes: u64) -> Result<(), Error> {
    if bytes <= pool.capacity() {
        return Ok(());
    }
    Err(Error::TooMuchMemory {
        needed_mib: bytes.div_ceil(1 << 20),
        available_mib: pool.capacity() >> 20,
    })
}

/// Waits until all units are reserved in one step.
async fn reserve(
    pool: &MemoryPool,
    account: &Account,
    units: u64,
    wait: &mut WaitDeadline,
) -> Result<Reservation, Error> {
    let mut reservation = pool.admit(account, units, false);
    wait.on_request(&mut reservation, units, || {}).await?;
    Ok(reservation)
}

/// The memory of a body. It grows as the body arrives.
pub(super) struct BodyReservation {
    memory: Reservation,
    max: u64,
}

impl BodyReservation {
    /// Waits until so many bytes are reserved. Takes no lock if they are reserved already.
    ///
    /// While it waits, slow bodies of other uploads are ended, one after another.
    ///
    /// # Errors
    /// [`Error::Overloaded`]
    pub(super) async fn hold(&mut self, bytes: u64, wait: &mut WaitDeadline) -> Result<(), Error> {
        let held = self.memory.held();
        if bytes <= held {
            return Ok(());
        }
        let target = bytes.max(held * 2).min(self.max);
        let pool = self.memory.pool().clone();
        wait.on_request(&mut self.memory, target, || pool.revoke_slowest())
            .await
    }

    /// Waits for the memory of a complete upload with a body of so many bytes. Releases memory that
    /// was reserved ahead.
    ///
    /// # Errors
    /// [`Error::Overloaded`]
    pub(super) async fn complete(
        mut self,
        bytes: u64,
        wait: &mut WaitDeadline,
    ) -> Result<Reservation, Error> {
        let needed = bytes.max(MIN_UPLOAD_BYTES);
        self.hold(needed, wait).await?;
        self.memory.complete(needed);
        Ok(self.memory)
    }

    /// Sets the time at which the body counts as slow unless more of it arrives.
    pub(super) fn set_slow_after(&self, at: Instant) {
        self.memory.set_slow_after(at);
    }

    /// Done when the body has to be ended, because it is slow and other uploads wait for its memory.
    pub(super) async fn revoked(&self) {
        self.memory.revoked().await;
    }
}

impl WaitDeadline {
    /// How long the upload has waited so far.
    pub(super) fn waited(&self) -> Duration {
        self.whole.saturating_sub(self.left)
    }

    /// Waits until the reservation holds `total`. Calls `remind` every [`REVOKE_AFTER`] while it waits.
    async fn on_request(
        &mut self,
        reservation: &mut Reservation,
        total: u64,
        remind: impl Fn(),
    ) -> Result<(), Error> {
        let Outcome::Waits(mut granted) = reservation.request(total) else {
            return Ok(());
        };
        let reminded = async {
            let mut next = Instant::now() + REVOKE_AFTER;
            loop {
                tokio::select! {
                    biased;
                    _ = &mut granted => return,
                    () = sleep_until(next) => {}
                }
                remind();
                next += REVOKE_AFTER;
            }
        };
        let waited = self.on(reminded).await;
        reservation.settle();
        // The pool may have granted the request at the last moment.
        if reservation.held() >= total {
            return Ok(());
        }
        waited
    }

    /// Waits for `future` until the deadline.
    async fn on<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Error> {
        let begun = Instant::now();
        let _counted = Waiting::begin(&self.waiting);
        let waited = timeout(self.left, future).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        waited.map_err(|_| Error::Overloaded {
            retry_after: self.whole,
        })
    }
}

/// Counts one waiting upload until it is dropped.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The users who have an upload under way or waiting.
#[derive(Default)]
struct Users(Mutex<HashMap<SubjectId, Arc<Semaphore>>>);

impl Users {
    /// The semaphore of a user.
    fn semaphore(&self, subject: &SubjectId) -> Arc<Semaphore> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(UPLOADS_PER_USER));
        Arc::clone(users.entry(subject.clone()).or_insert_with(new))
    }
}

/// The slot of one upload among the concurrent uploads of its user. It also exists while the upload
/// waits for the permit.
pub(super) struct UserSlot {
    permit: Option<OwnedSemaphorePermit>,
    uploads: Arc<Semaphore>,
    subject: SubjectId,
    users: Arc<Users>,
}

impl Drop for UserSlot {
    fn drop(&mut self) {
        // A permit holds its semaphore too, so it is dropped before the holders are counted.
        drop(self.permit.take());
        let mut users = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two holders are the map and this slot, so no other upload of the user exists. New holders
        // come only from the map, which is locked.
        if Arc::strong_count(&self.uploads) == 2 {
            users.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests;
