//! What uploads may take at once, reserved before it is used: memory, and a turn on the pool.
//!
//! Half of the memory is for what is held (bodies, and renditions on their way to the store), half
//! for what decoding takes. They are apart because an upload that holds its body waits for room
//! to decode: were there one pot, bodies could fill it, and each would wait for the others for
//! ever.
//!
//! A flood does not fill that half for nothing: only so many uploads as keep the workers busy are
//! let in to wait for one with their bodies in memory, and the others wait with theirs unread. Whose
//! body is slow to come gives its seat up; the memory alone bounds how many of those there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::Error;

/// What one permit of memory stands for.
const UNIT_BYTES: u64 = 1024;
/// The least that holding an upload takes: its renditions may be larger than itself.
const LEAST_HELD_BYTES: u64 = 1024 * 1024;

/// Uploads let in for each worker: enough that none is idle while bodies come, each as fast as
/// [`SEATED`] says.
const SEATS_PER_WORKER: usize = 8;
/// How long a body may be on its way while its upload keeps a seat. From a gateway that has it
/// already it takes some milliseconds, from a telephone seconds.
pub(super) const SEATED: Duration = Duration::from_millis(100);

/// What uploads may take at once.
pub(super) struct Budget {
    seats: Arc<Semaphore>,
    holding: Pot,
    decoding: Pot,
    turns: Arc<Semaphore>,
    workers: usize,
    waiting: Arc<AtomicUsize>,
    queue_timeout: Duration,
}

/// What uploads take and wait for at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Memory for uploads held.
    pub uploads: Share,
    /// Memory for pictures decoded.
    pub pictures: Share,
    /// Workers that process pictures.
    pub workers: usize,
    /// Of them, those taken.
    pub workers_busy: usize,
    /// Uploads that wait for memory or for a worker.
    pub waiting: usize,
}

/// How much is reserved of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Reserved, or set aside for whoever is next, in bytes.
    pub reserved_bytes: u64,
    /// To be reserved at most, in bytes.
    pub budget_bytes: u64,
}

/// Something that was reserved; given back when dropped.
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
}

/// How long an upload still waits, all its waits together.
pub(super) struct Patience {
    left: Duration,
    whole: Duration,
    waiting: Arc<AtomicUsize>,
}

impl Budget {
    /// Memory of so many bytes, and as many turns at once as the pool has workers.
    pub(super) fn new(bytes: u64, workers: usize, queue_timeout: Duration) -> Self {
        let half = || Pot::new(bytes / 2);
        let turns = Arc::new(Semaphore::new(workers));
        Self {
            seats: Arc::new(Semaphore::new(workers * SEATS_PER_WORKER)),
            holding: half(),
            decoding: half(),
            turns,
            workers,
            waiting: Arc::default(),
            queue_timeout,
        }
    }

    /// The patience that an upload begins with.
    pub(super) fn patience(&self) -> Patience {
        Patience {
            left: self.queue_timeout,
            whole: self.queue_timeout,
            waiting: Arc::clone(&self.waiting),
        }
    }

    /// Waits to be let in.
    pub(super) async fn seat(&self, patience: &mut Patience) -> Result<Room, Error> {
        patience.wait(&self.seats, 1).await
    }

    /// Waits for room to hold an upload of at most `bytes`.
    pub(super) async fn hold(&self, bytes: u64, patience: &mut Patience) -> Result<Room, Error> {
        self.holding
            .reserve(bytes.max(LEAST_HELD_BYTES), patience)
            .await
    }

    /// Waits for room to decode a picture that takes at most `bytes`.
    pub(super) async fn decode(&self, bytes: u64, patience: &mut Patience) -> Result<Room, Error> {
        self.decoding.reserve(bytes, patience).await
    }

    /// Waits for a worker of the pool. Whoever gives up leaves the queue.
    pub(super) async fn turn(&self, patience: &mut Patience) -> Result<Room, Error> {
        patience.wait(&self.turns, 1).await
    }

    /// What is taken and waited for at this moment.
    pub(super) fn load(&self) -> Load {
        Load {
            uploads: self.holding.share(),
            pictures: self.decoding.share(),
            workers: self.workers,
            workers_busy: self.workers.saturating_sub(self.turns.available_permits()),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }
}

impl Patience {
    /// How long it has waited so far.
    pub(super) fn waited(&self) -> Duration {
        self.whole.saturating_sub(self.left)
    }

    /// Waits for so many permits, as long as there is patience. The semaphore is fair: a large
    /// picture is not starved by small ones behind it.
    async fn wait(&mut self, semaphore: &Arc<Semaphore>, permits: u32) -> Result<Room, Error> {
        let begun = Instant::now();
        let _counted = Waiting::begin(&self.waiting);
        let permits = Arc::clone(semaphore).acquire_many_owned(permits);
        let waited = timeout(self.left, permits).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        match waited {
            Ok(Ok(permit)) => Ok(Room { _permit: permit }),
            Ok(Err(closed)) => Err(Error::Internal(Box::new(closed))),
            Err(_) => Err(Error::Overloaded {
                retry_after: self.whole,
            }),
        }
    }
}

/// Counts one that waits, for as long as it does.
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

struct Pot {
    units: u32,
    free: Arc<Semaphore>,
}

impl Pot {
    fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        let units = units.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self {
            units,
            free: Arc::new(Semaphore::new(units as usize)),
        }
    }

    fn share(&self) -> Share {
        let free = self.free.available_permits() as u64;
        let units = u64::from(self.units);
        Share {
            reserved_bytes: units.saturating_sub(free) * UNIT_BYTES,
            budget_bytes: units * UNIT_BYTES,
        }
    }

    async fn reserve(&self, bytes: u64, patience: &mut Patience) -> Result<Room, Error> {
        let units = bytes.div_ceil(UNIT_BYTES);
        if units > u64::from(self.units) {
            return Err(Error::TooMuchMemory {
                needed_mib: bytes.div_ceil(1 << 20),
                available_mib: (u64::from(self.units) * UNIT_BYTES) >> 20,
            });
        }
        patience.wait(&self.free, units as u32).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn budget() -> Budget {
        Budget::new(64 * MIB, 1, Duration::from_secs(10))
    }

    async fn decode(budget: &Budget, bytes: u64) -> Result<Room, Error> {
        budget.decode(bytes, &mut budget.patience()).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_finds_no_room_in_time_is_refused() {
        let budget = budget();
        let held = decode(&budget, 30 * MIB).await.unwrap();
        let refused = decode(&budget, 3 * MIB).await;
        assert!(matches!(refused, Err(Error::Overloaded { .. })));
        drop(held);
        decode(&budget, 32 * MIB).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_is_given_back_goes_to_whoever_waits() {
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
        // The rest is set aside for whoever waits.
        let share = Share {
            reserved_bytes: 32 * MIB,
            budget_bytes: 32 * MIB,
        };
        assert_eq!(load.pictures, share);
        assert_eq!(load.uploads.reserved_bytes, 0);
        drop(held);
        waiting.await.unwrap().unwrap();
        assert_eq!(budget.load().waiting, 0);
        assert_eq!(budget.load().pictures.reserved_bytes, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_waits_of_an_upload_count_together() {
        let budget = Arc::new(budget());
        let mut patience = budget.patience();
        let (worker, room) = (
            budget.turn(&mut patience).await,
            decode(&budget, 32 * MIB).await,
        );
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(6)).await;
            drop(worker);
            tokio::time::sleep(Duration::from_secs(6)).await;
            drop(room);
        });
        let begun = Instant::now();
        let _turn = budget.turn(&mut patience).await.unwrap();
        let refused = budget.decode(MIB, &mut patience).await;
        assert!(matches!(refused, Err(Error::Overloaded { .. })));
        assert_eq!(begun.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gave_up_holds_no_place_in_the_queue() {
        let budget = budget();
        let turn = budget.turn(&mut budget.patience()).await.unwrap();
        drop(
            tokio::time::timeout(Duration::from_secs(1), budget.turn(&mut budget.patience())).await,
        );
        drop(turn);
        budget.turn(&mut budget.patience()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_waits_outside_and_is_let_in_one_by_one() {
        let budget = budget();
        let mut seats = Vec::new();
        while let Ok(seat) = budget.seat(&mut budget.patience()).await {
            seats.push(seat);
        }
        assert_eq!(seats.len(), SEATS_PER_WORKER);
        seats.pop();
        budget.seat(&mut budget.patience()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_leave_room_to_decode() {
        let budget = budget();
        let mut bodies = Vec::new();
        while let Ok(room) = budget.hold(5 * MIB, &mut budget.patience()).await {
            bodies.push(room);
        }
        assert_eq!(bodies.len(), 6);
        decode(&budget, 32 * MIB).await.unwrap();
    }

    #[tokio::test]
    async fn what_never_fits_is_refused_at_once() {
        let refused = decode(&budget(), 33 * MIB).await;
        let text = refused.err().unwrap().to_string();
        assert_eq!(
            text,
            "decoding the picture takes 33 MiB of memory; at most 32 MiB"
        );
    }
}
