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
use crate::avatar::SubjectId;
pub(super) use pool::Reservation;
use pool::{MemoryPool, Outcome};

/// The least that is reserved for a complete upload: its renditions may be larger than itself.
const MIN_UPLOAD_BYTES: u64 = 1024 * 1024;
/// The first step of a reservation for a body. Each further step doubles it.
const FIRST_STEP_BYTES: u64 = 64 * 1024;

/// Uploads of one user that may be under way at once.
const UPLOADS_PER_USER: usize = 2;
/// Admission slots for each worker: enough that none is idle while bodies arrive, each as fast as
/// [`SLOT_TIME`] says.
const SLOTS_PER_WORKER: usize = 8;
/// How long an upload keeps its admission slot while its body arrives. From a gateway that has the
/// body already it takes some milliseconds, from a telephone seconds.
pub(super) const SLOT_TIME: Duration = Duration::from_millis(100);
/// How long an upload waits for memory before slow bodies are ended for it, and how often that is
/// repeated.
const REVOKE_AFTER: Duration = Duration::from_secs(1);

/// The account on which an upload counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// A user's own.
    User(SubjectId),
    /// A service's or an admin's, by the name in its token.
    Service(Arc<str>),
}

/// What uploads may use at once.
pub(super) struct Budget {
    users: Arc<Users>,
    slots: MemoryPool,
    bodies: MemoryPool,
    decoding: MemoryPool,
    workers: MemoryPool,
    waiting: Arc<AtomicUsize>,
    queue_timeout: Duration,
}

/// What uploads use and wait for at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Memory for uploads held.
    pub uploads: Share,
    /// Memory for pictures decoded.
    pub pictures: Share,
    /// Workers that process pictures.
    pub workers: usize,
    /// Of them, those in use.
    pub workers_busy: usize,
    /// Uploads that wait for memory or for a worker.
    pub waiting: usize,
}

/// How much is reserved of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Reserved, in bytes.
    pub reserved_bytes: u64,
    /// To be reserved at most, in bytes.
    pub budget_bytes: u64,
}

/// How long an upload may still wait, all its waits together. The time in which its body arrives
/// does not count.
pub(super) struct WaitDeadline {
    left: Duration,
    whole: Duration,
    waiting: Arc<AtomicUsize>,
}

impl Budget {
    /// Memory of so many bytes, and as many worker slots as the pool has workers.
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
            uploads: self.users.of(subject),
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
        // The configuration sees to it that the largest upload fits; a form around it may not.
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
        expect_room(&self.decoding, bytes)?;
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

    /// What is used and waited for at this moment.
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

fn expect_room(pool: &MemoryPool, bytes: u64) -> Result<(), Error> {
    if bytes <= pool.capacity() {
        return Ok(());
    }
    Err(Error::TooMuchMemory {
        needed_mib: bytes.div_ceil(1 << 20),
        available_mib: pool.capacity() >> 20,
    })
}

/// Reserves everything in one step.
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

/// Memory for a body, which grows as the body arrives.
pub(super) struct BodyReservation {
    memory: Reservation,
    max: u64,
}

impl BodyReservation {
    /// Waits until so many bytes are reserved. Takes no lock where they are already.
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

    /// Waits for what an upload of so many bytes needs beside its body, and releases the rest.
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

    /// Notes when the body counts as slow unless more of it arrives.
    pub(super) fn set_slow_after(&self, at: Instant) {
        self.memory.set_slow_after(at);
    }

    /// Done when the body has to be ended: it is slow, and others wait for its memory.
    pub(super) async fn revoked(&self) {
        self.memory.revoked().await;
    }
}

impl WaitDeadline {
    /// How long it has waited so far.
    pub(super) fn waited(&self) -> Duration {
        self.whole.saturating_sub(self.left)
    }

    /// Waits until the reservation holds `total`. Calls `remind` every [`REVOKE_AFTER`] meanwhile.
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
        // A grant may have come at the last moment.
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

/// Counts one upload that waits, for as long as it does.
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

/// The users that have an upload under way or waiting.
#[derive(Default)]
struct Users(Mutex<HashMap<SubjectId, Arc<Semaphore>>>);

impl Users {
    fn of(&self, subject: &SubjectId) -> Arc<Semaphore> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(UPLOADS_PER_USER));
        Arc::clone(users.entry(subject.clone()).or_insert_with(new))
    }
}

/// Permission for one of a user's uploads to be under way, or to wait for that.
pub(super) struct UserSlot {
    permit: Option<OwnedSemaphorePermit>,
    uploads: Arc<Semaphore>,
    subject: SubjectId,
    users: Arc<Users>,
}

impl Drop for UserSlot {
    fn drop(&mut self) {
        // A permit holds its semaphore too, so it goes before the holders are counted.
        drop(self.permit.take());
        let mut users = self.users.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this one's: nobody else waits. New ones come only through the map.
        if Arc::strong_count(&self.uploads) == 2 {
            users.remove(&self.subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn budget() -> Budget {
        Budget::new(64 * MIB, 1, Duration::from_secs(10))
    }

    fn user(name: &str) -> Account {
        Account::User(SubjectId::new(name).unwrap())
    }

    fn service(name: &str) -> Account {
        Account::Service(name.into())
    }

    async fn decode(budget: &Budget, bytes: u64) -> Result<Reservation, Error> {
        let mut wait = budget.wait_deadline();
        budget.decode(&user("42"), bytes, &mut wait).await
    }

    /// A whole body of so many bytes, which came at once.
    async fn body(budget: &Budget, account: &Account, bytes: u64) -> Result<Reservation, Error> {
        let mut wait = budget.wait_deadline();
        let mut body = budget.body(account, bytes, &mut wait).await?;
        body.hold(bytes, &mut wait).await?;
        body.complete(bytes, &mut wait).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_finds_no_memory_in_time_is_refused() {
        let budget = budget();
        let held = decode(&budget, 30 * MIB).await.unwrap();
        let refused = decode(&budget, 3 * MIB).await;
        assert!(matches!(refused, Err(Error::Overloaded { .. })));
        drop(held);
        decode(&budget, 32 * MIB).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn released_memory_goes_to_the_upload_that_waits() {
        let budget = Arc::new(budget());
        let held = decode(&budget, 30 * MIB).await.unwrap();
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { decode(&budget, 30 * MIB).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(!waiting.is_finished());
        let load = budget.load();
        assert_eq!((load.waiting, load.workers_busy, load.workers), (1, 0, 1));
        // A small one that comes later does not take what the large one waits for.
        let later = decode(&budget, MIB);
        let later = tokio::time::timeout(Duration::from_millis(500), later).await;
        assert!(later.is_err(), "it overtook");
        drop(held);
        waiting.await.unwrap().unwrap();
        assert_eq!(budget.load().waiting, 0);
        assert_eq!(budget.load().pictures.reserved_bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_waits_of_an_upload_count_together() {
        let budget = Arc::new(budget());
        let mut wait = budget.wait_deadline();
        let other = user("other");
        let (worker, memory) = (
            budget.worker(&other, &mut wait).await,
            decode(&budget, 32 * MIB).await,
        );
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(6)).await;
            drop(worker);
            tokio::time::sleep(Duration::from_secs(6)).await;
            drop(memory);
        });
        let begun = Instant::now();
        let _worker = budget.worker(&user("42"), &mut wait).await.unwrap();
        let refused = budget.decode(&user("42"), MIB, &mut wait).await;
        assert!(matches!(refused, Err(Error::Overloaded { .. })));
        assert_eq!(begun.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_gave_up_holds_no_place_in_the_queue() {
        let budget = budget();
        let account = user("42");
        let mut wait = budget.wait_deadline();
        let worker = budget.worker(&account, &mut wait).await.unwrap();
        let mut second = budget.wait_deadline();
        let second = budget.worker(&account, &mut second);
        drop(tokio::time::timeout(Duration::from_secs(1), second).await);
        drop(worker);
        budget.worker(&account, &mut wait).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_waits_outside_and_is_let_in_one_by_one() {
        let budget = budget();
        let account = service("main");
        let mut slots = Vec::new();
        while let Ok(slot) = budget
            .admission_slot(&account, &mut budget.wait_deadline())
            .await
        {
            slots.push(slot);
        }
        assert_eq!(slots.len(), SLOTS_PER_WORKER);
        slots.pop();
        budget
            .admission_slot(&account, &mut budget.wait_deadline())
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_leave_memory_to_decode() {
        let budget = budget();
        let mut bodies = Vec::new();
        while let Ok(one) = body(&budget, &user("42"), 5 * MIB).await {
            bodies.push(one);
        }
        assert_eq!(bodies.len(), 6);
        decode(&budget, 32 * MIB).await.unwrap();
    }

    #[tokio::test]
    async fn a_picture_that_never_fits_is_refused_at_once() {
        let refused = decode(&budget(), 33 * MIB).await;
        let text = refused.err().unwrap().to_string();
        assert_eq!(
            text,
            "decoding the picture takes 33 MiB of memory; at most 32 MiB"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_two_uploads_under_way_and_a_service_more() {
        let budget = budget();
        let slot = async |account: &Account| {
            let mut wait = budget.wait_deadline();
            budget.user_slot(account, &mut wait).await
        };
        let (one, two) = (user("1"), user("2"));
        let first = slot(&one).await.unwrap();
        let second = slot(&one).await.unwrap();
        let begun = Instant::now();
        assert!(matches!(slot(&one).await, Err(Error::Overloaded { .. })));
        assert_eq!(begun.elapsed().as_secs(), 10);
        let _other = slot(&two).await.unwrap();
        drop(first);
        let third = slot(&one).await.unwrap();
        drop((second, third));
        assert_eq!(budget.users.0.lock().unwrap().len(), 1, "only the other's");
        for _ in 0..9 {
            assert!(slot(&service("main")).await.unwrap().is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_for_a_body_is_reserved_as_it_arrives() {
        let budget = budget();
        let mut wait = budget.wait_deadline();
        let mut body = budget.body(&user("42"), 5 * MIB, &mut wait).await.unwrap();
        let reserved = || budget.load().uploads.reserved_bytes;
        assert_eq!(reserved(), 64 << 10);
        body.hold(100 << 10, &mut wait).await.unwrap();
        assert_eq!(reserved(), 128 << 10);
        body.hold(5 * MIB, &mut wait).await.unwrap();
        assert_eq!(reserved(), 5 * MIB);
        // What was reserved ahead is released.
        let whole = body.complete(3 * MIB, &mut wait).await.unwrap();
        assert_eq!(reserved(), 3 * MIB);
        drop(whole);
        assert_eq!(reserved(), 0);
    }

    /// A body that has sent `bytes` and then sends nothing, until it is ended.
    async fn dripping(budget: &Budget, account: Account, bytes: u64) -> &'static str {
        let mut wait = budget.wait_deadline();
        let mut body = budget.body(&account, 5 * MIB, &mut wait).await.unwrap();
        body.hold(bytes, &mut wait).await.unwrap();
        body.set_slow_after(Instant::now() + Duration::from_secs(5));
        tokio::select! {
            () = body.revoked() => "ended",
            () = tokio::time::sleep(Duration::from_mins(1)) => "finished",
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_bodies_hold_no_memory_that_others_wait_for() {
        let budget = Arc::new(budget());
        let slow: Vec<_> = (0..6)
            .map(|number| {
                let budget = Arc::clone(&budget);
                let account = user(&format!("slow-{number}"));
                tokio::spawn(async move { dripping(&budget, account, 5 * MIB).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(budget.load().uploads.reserved_bytes, 30 * MIB);
        let begun = Instant::now();
        let whole = body(&budget, &user("42"), 5 * MIB).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(2));
        drop(whole);
        let mut ended = 0;
        for one in slow {
            ended += usize::from(one.await.unwrap() == "ended");
        }
        assert_eq!(ended, 1, "one was enough");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_is_let_be_while_nobody_waits() {
        let budget = budget();
        assert_eq!(dripping(&budget, user("42"), 5 * MIB).await, "finished");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_gets_no_more_than_half_while_others_wait() {
        let budget = Arc::new(budget());
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(body(&budget, &service("main"), 5 * MIB).await.unwrap());
        }
        // Ten more of the service's wait, and after them one user.
        let order = Arc::new(Mutex::new(Vec::new()));
        let queue = |name: &'static str, account: Account| {
            let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
            tokio::spawn(async move {
                let whole = body(&budget, &account, 5 * MIB).await;
                order.lock().unwrap().push(name);
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(whole);
            })
        };
        let mut tasks: Vec<_> = (0..10).map(|_| queue("service", service("main"))).collect();
        tokio::task::yield_now().await;
        tasks.push(queue("user", user("42")));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(order.lock().unwrap().is_empty());
        // The service's uploads are done one by one: the user's is the first to go on.
        for whole in held {
            drop(whole);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for task in tasks {
            task.await.unwrap();
        }
        let order = order.lock().unwrap();
        assert_eq!(order[0], "user", "{order:?}");
        assert_eq!(order.len(), 11);
    }

    /// Bodies of random sizes, speeds and accounts on a pool that is far too small for all of them
    /// at once: each is finished, and none waits for ever.
    #[tokio::test(start_paused = true)]
    async fn bodies_that_hold_a_part_and_wait_for_the_rest_all_finish() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            // Enough patience that only waiting for ever would be refused.
            let capacity = random.u64(2..=8) * MIB;
            let budget = Arc::new(Budget::new(2 * capacity, 1, Duration::from_secs(1_000_000)));
            let tasks: Vec<_> = (0..random.usize(2..40))
                .map(|_| {
                    let account = match random.u8(0..4) {
                        0 => service("main"),
                        number => user(&number.to_string()),
                    };
                    let most = random.u64(1..=capacity);
                    let bytes = random.u64(1..=most);
                    let steps = random.u64(1..12);
                    let pause = Duration::from_millis(random.u64(0..50));
                    let begin = Duration::from_millis(random.u64(0..100));
                    let gives_up = random.u8(0..8) == 0;
                    let budget = Arc::clone(&budget);
                    tokio::spawn(async move {
                        tokio::time::sleep(begin).await;
                        let mut wait = budget.wait_deadline();
                        let mut body = budget.body(&account, most, &mut wait).await.unwrap();
                        for step in 1..=steps {
                            let hold = body.hold(bytes * step / steps, &mut wait);
                            if gives_up && step * 2 > steps {
                                drop(timeout(pause, hold).await);
                                return;
                            }
                            hold.await.unwrap();
                            tokio::time::sleep(pause).await;
                        }
                        let whole = body.complete(bytes, &mut wait).await.unwrap();
                        assert!(budget.load().uploads.reserved_bytes <= capacity);
                        tokio::time::sleep(pause).await;
                        drop(whole);
                    })
                })
                .collect();
            for task in tasks {
                let ended = timeout(Duration::from_hours(1), task).await;
                assert!(ended.is_ok(), "seed {seed}: a body waits for ever");
                ended.unwrap().unwrap();
            }
            assert_eq!(budget.load().uploads.reserved_bytes, 0, "seed {seed}");
            assert_eq!(budget.load().waiting, 0, "seed {seed}");
        }
    }
}
