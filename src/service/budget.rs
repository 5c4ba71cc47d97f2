//! Memory for uploads, reserved before it is used.
//!
//! Half of the budget is for what is held (bodies, and renditions on their way to the store), half
//! for what decoding takes. They are apart because an upload that holds its body waits for room
//! to decode: were there one pot, bodies could fill it, and each would wait for the others for
//! ever.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Error;

/// What one permit stands for.
const UNIT_BYTES: u64 = 1024;
/// The least that holding an upload takes: its renditions may be larger than itself.
const LEAST_HELD_BYTES: u64 = 1024 * 1024;

/// The process's memory for uploads.
pub(super) struct Budget {
    holding: Pot,
    decoding: Pot,
    queue_timeout: Duration,
}

/// Room that was reserved; given back when dropped.
pub(super) struct Room {
    _permit: OwnedSemaphorePermit,
}

impl Budget {
    pub(super) fn new(bytes: u64, queue_timeout: Duration) -> Self {
        let half = || Pot::new(bytes / 2);
        Self {
            holding: half(),
            decoding: half(),
            queue_timeout,
        }
    }

    /// Waits for room to hold an upload of at most `bytes`.
    pub(super) async fn hold(&self, bytes: u64) -> Result<Room, Error> {
        self.reserve(&self.holding, bytes.max(LEAST_HELD_BYTES))
            .await
    }

    /// Waits for room to decode a picture that takes at most `bytes`.
    pub(super) async fn decode(&self, bytes: u64) -> Result<Room, Error> {
        self.reserve(&self.decoding, bytes).await
    }

    async fn reserve(&self, pot: &Pot, bytes: u64) -> Result<Room, Error> {
        let units = bytes.div_ceil(UNIT_BYTES);
        if units > u64::from(pot.units) {
            return Err(Error::TooMuchMemory {
                needed_mib: bytes.div_ceil(1 << 20),
                available_mib: (u64::from(pot.units) * UNIT_BYTES) >> 20,
            });
        }
        // The semaphore is fair: a large picture is not starved by small ones behind it.
        let permits = Arc::clone(&pot.free).acquire_many_owned(units as u32);
        match timeout(self.queue_timeout, permits).await {
            Ok(Ok(permit)) => Ok(Room { _permit: permit }),
            Ok(Err(closed)) => Err(Error::Internal(Box::new(closed))),
            Err(_) => Err(Error::Overloaded {
                retry_after: self.queue_timeout,
            }),
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn budget() -> Budget {
        Budget::new(64 * MIB, Duration::from_secs(10))
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_finds_no_room_in_time_is_refused() {
        let budget = budget();
        let held = budget.decode(30 * MIB).await.unwrap();
        let refused = budget.decode(3 * MIB).await;
        assert!(matches!(refused, Err(Error::Overloaded { .. })));
        drop(held);
        budget.decode(32 * MIB).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn room_that_is_given_back_goes_to_whoever_waits() {
        let budget = Arc::new(budget());
        let held = budget.decode(30 * MIB).await.unwrap();
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.decode(30 * MIB).await.map(drop) }
        });
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_leave_room_to_decode() {
        let budget = budget();
        let mut bodies = Vec::new();
        while let Ok(room) = budget.hold(5 * MIB).await {
            bodies.push(room);
        }
        assert_eq!(bodies.len(), 6);
        budget.decode(32 * MIB).await.unwrap();
    }

    #[tokio::test]
    async fn what_never_fits_is_refused_at_once() {
        let refused = budget().decode(33 * MIB).await;
        let text = refused.err().unwrap().to_string();
        assert_eq!(
            text,
            "decoding the picture takes 33 MiB of memory; at most 32 MiB"
        );
    }
}
