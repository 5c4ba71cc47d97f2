//! Admission of uploads: memory and slots are reserved before a body is read.

use std::pin::pin;

use tokio::time::Instant;

use super::budget::{BodyReservation, Reservation, SLOT_TIME, UserSlot, WaitDeadline};
use super::{Error, Service};
use crate::avatar::Account;

/// Permission to send a body of up to some size. Memory is reserved as the body arrives.
pub struct Admission {
    account: Account,
    user_slot: Option<UserSlot>,
    /// Held until a worker is free, or until the body turns out to be slow.
    slot: Option<Reservation>,
    slot_ends: Instant,
    body: BodyReservation,
    wait: WaitDeadline,
}

/// An admission whose body has arrived.
pub(super) struct Admitted {
    pub(super) account: Account,
    /// Held until the upload ends.
    pub(super) user_slot: Option<UserSlot>,
    /// Held until a worker is free.
    pub(super) slot: Option<Reservation>,
    /// The memory of the body and of its renditions.
    pub(super) body: Reservation,
    /// How long the upload may still wait.
    pub(super) wait: WaitDeadline,
}

/// Why a body is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The body is slow, and other uploads wait for its memory.
    Revoked,
    /// The time that the caller gave has passed.
    TimedOut,
}

impl Service {
    /// Admits an upload of at most `bytes`. Call it before its body is read.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the slots or the memory for it are not free within
    /// `processing.queue_timeout`.
    pub async fn admit(&self, account: Account, bytes: usize) -> Result<Admission, Error> {
        let mut wait = self.budget.wait_deadline();
        let user_slot = self.budget.user_slot(&account, &mut wait).await?;
        let slot = self.budget.admission_slot(&account, &mut wait).await?;
        let body = self.budget.body(&account, bytes as u64, &mut wait).await?;
        Ok(Admission {
            account,
            user_slot,
            slot: Some(slot),
            slot_ends: Instant::now() + SLOT_TIME,
            body,
            wait,
        })
    }
}

impl Admission {
    /// Reserves memory for the first `bytes` of the body. Call it before they are read.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the memory is not free within `processing.queue_timeout`.
    pub async fn hold(&mut self, bytes: usize) -> Result<(), Error> {
        self.body.hold(bytes as u64, &mut self.wait).await
    }

    /// Sets the time at which the body counts as slow unless more of it arrives. A slow body is
    /// ended while other uploads wait for memory.
    pub fn set_slow_after(&self, at: Instant) {
        self.body.set_slow_after(at);
    }

    /// Waits until `deadline` for more of the body. A slow body releases its admission slot; only
    /// the memory budget limits slow uploads.
    ///
    /// # Errors
    /// Why nothing more is read.
    pub async fn wait_for<T>(
        &mut self,
        more: impl Future<Output = T>,
        deadline: Instant,
    ) -> Result<T, Interruption> {
        let mut more = pin!(more);
        loop {
            let until = match self.slot {
                Some(_) => deadline.min(self.slot_ends),
                None => deadline,
            };
            tokio::select! {
                biased;
                more = &mut more => return Ok(more),
                () = self.body.revoked() => return Err(Interruption::Revoked),
                () = tokio::time::sleep_until(until) => {}
            }
            if until == deadline {
                return Err(Interruption::TimedOut);
            }
            self.slot = None;
        }
    }

    /// Reserves the memory that an upload of `bytes` needs beside its body, and releases the rest.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if the memory is not free within `processing.queue_timeout`.
    pub(super) async fn complete(mut self, bytes: usize) -> Result<Admitted, Error> {
        let body = self.body.complete(bytes as u64, &mut self.wait).await?;
        Ok(Admitted {
            account: self.account,
            user_slot: self.user_slot,
            slot: self.slot,
            body,
            wait: self.wait,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::budget::Budget;
    use super::*;
    use crate::avatar::SubjectId;

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_releases_its_admission_slot_and_keeps_its_memory() {
        let budget = Budget::new(64 << 20, 1, Duration::from_secs(10));
        let account = Account::User(SubjectId::new("42").unwrap());
        let mut wait = budget.wait_deadline();
        let mut admission = Admission {
            user_slot: budget.user_slot(&account, &mut wait).await.unwrap(),
            slot: Some(budget.admission_slot(&account, &mut wait).await.unwrap()),
            slot_ends: Instant::now() + SLOT_TIME,
            body: budget.body(&account, 5 << 20, &mut wait).await.unwrap(),
            account,
            wait,
        };
        let deadline = Instant::now() + SLOT_TIME * 3;
        admission.hold(5 << 20).await.unwrap();
        let fast = admission.wait_for(async { 1 }, deadline).await;
        assert!(fast == Ok(1) && admission.slot.is_some());
        let slow = async {
            tokio::time::sleep(SLOT_TIME * 2).await;
            2
        };
        let slow = admission.wait_for(slow, deadline).await;
        assert!(slow == Ok(2) && admission.slot.is_none());
        assert_eq!(budget.load().uploads.reserved_bytes, 5 << 20);
        let never = admission.wait_for(std::future::pending::<()>(), deadline);
        assert_eq!(never.await, Err(Interruption::TimedOut));
    }
}
