//! A pool of units that reservations share: bytes of memory, worker slots or admission slots.
//!
//! # Order and fairness
//!
//! Waiting reservations are served in the order of their admission. While other accounts wait, an
//! account that would hold more than half of the pool gets nothing more, except for its only
//! reservation. The oldest growing reservation is an exception: it gets more if otherwise nothing
//! would be released.
//!
//! # Why growing reservations never wait for each other for ever
//!
//! A reservation for a body grows as the body arrives, so several bodies can hold a part of what
//! they need and wait for the rest. The pool grants more only if the following holds afterwards for
//! every growing reservation `k`, where *younger* means admitted later:
//!
//! > the most that `k` may need + all that younger growing reservations hold ≤ capacity
//!
//! The oldest growing reservation can therefore always be completed: no growing one is older, so
//! when the reservations that no longer grow are released, enough is free for it. Those are always
//! released, because processing a picture has a deadline and needs nothing more from this pool.
//! When the oldest one is complete, the same argument applies to the next one. A completed or
//! released reservation only makes the sums smaller, so the condition keeps holding.
//!
//! The oldest one could still be slow, because its client is. [`MemoryPool::revoke_slowest`] ends
//! such a reservation while others wait.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::avatar::Account;

/// The shortest time between two revocations: a revoked reservation needs a moment to be released.
const REVOKE_INTERVAL: Duration = Duration::from_millis(100);

/// A pool of units. Clones share it.
#[derive(Clone)]
pub(super) struct MemoryPool(Arc<Inner>);

struct Inner {
    capacity: u64,
    /// The time zero of [`Progress::slow_after_ms`].
    epoch: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: u64,
    /// The units that growing reservations hold in total.
    growing: u64,
    next_ticket: u64,
    /// Every reservation by its ticket, which is the order of admission.
    holders: BTreeMap<u64, Holder>,
    /// The units that each account holds. Accounts that hold none have no entry.
    accounts: HashMap<Account, u64>,
    /// How many reservations wait.
    waiting: usize,
    last_revoked: Option<Instant>,
}

struct Holder {
    account: Account,
    held: u64,
    /// The maximum that it may hold.
    max: u64,
    is_growing: bool,
    wanted: Option<Wanted>,
    progress: Arc<Progress>,
}

struct Wanted {
    total: u64,
    granted: oneshot::Sender<()>,
}

#[derive(Default)]
struct Progress {
    /// The time at which its body counts as slow unless more of it arrives, in milliseconds since the
    /// epoch.
    slow_after_ms: AtomicU64,
    revoked: Notify,
}

/// Units of a pool. Dropping this releases them.
pub(in crate::service) struct Reservation {
    pool: MemoryPool,
    ticket: u64,
    held: u64,
    progress: Arc<Progress>,
}

/// The outcome of a request for units.
pub(super) enum Outcome {
    Granted,
    Waits(oneshot::Receiver<()>),
}

impl MemoryPool {
    pub(super) fn new(capacity: u64) -> Self {
        Self(Arc::new(Inner {
            capacity,
            epoch: Instant::now(),
            state: Mutex::default(),
        }))
    }

    pub(super) fn capacity(&self) -> u64 {
        self.0.capacity
    }

    /// The units that are reserved at this moment.
    pub(super) fn held(&self) -> u64 {
        self.state().held
    }

    /// Admits a reservation without units. A growing reservation grows in steps up to `max` until
    /// [`Reservation::complete`]. Any other reservation gets all its units in one step.
    pub(super) fn admit(&self, account: &Account, max: u64, growing: bool) -> Reservation {
        let mut state = self.state();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let progress = Arc::new(Progress::default());
        progress.slow_after_ms.store(u64::MAX, Ordering::Relaxed);
        let holder = Holder {
            account: account.clone(),
            held: 0,
            max,
            is_growing: growing,
            wanted: None,
            progress: Arc::clone(&progress),
        };
        state.holders.insert(ticket, holder);
        drop(state);
        Reservation {
            pool: self.clone(),
            ticket,
            held: 0,
            progress,
        }
    }

    /// Revokes the largest reservation whose body is slow, if there is one. Revokes at most one per
    /// [`REVOKE_INTERVAL`].
    pub(super) fn revoke_slowest(&self) {
        let now = Instant::now();
        let now_ms = self.millis(now);
        let mut state = self.state();
        let recent = |at: Instant| now.saturating_duration_since(at) < REVOKE_INTERVAL;
        if state.last_revoked.is_some_and(recent) {
            return;
        }
        let slow = |holder: &&Holder| {
            holder.is_growing
                && holder.wanted.is_none()
                && holder.held > 0
                && holder.progress.slow_after_ms.load(Ordering::Relaxed) < now_ms
        };
        let largest = state.holders.values().filter(slow);
        let Some(progress) = largest
            .max_by_key(|holder| holder.held)
            .map(|holder| Arc::clone(&holder.progress))
        else {
            return;
        };
        state.last_revoked = Some(now);
        drop(state);
        progress.revoked.notify_one();
    }

    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.0.epoch).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The units that it holds.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// Its pool.
    pub(super) fn pool(&self) -> &MemoryPool {
        &self.pool
    }

    /// Requests so many units in total. The reservation keeps its units while it waits.
    pub(super) fn request(&mut self, total: u64) -> Outcome {
        let (granted, waits) = oneshot::channel();
        let mut state = self.pool.state();
        let Some(holder) = state.holders.get_mut(&self.ticket) else {
            return Outcome::Waits(waits);
        };
        if holder.held >= total {
            return Outcome::Granted;
        }
        holder.wanted = Some(Wanted { total, granted });
        state.waiting += 1;
        state.dispatch(self.pool.0.capacity);
        match state.holders.get(&self.ticket) {
            Some(holder) if holder.wanted.is_none() => {
                self.held = holder.held;
                Outcome::Granted
            }
            _ => Outcome::Waits(waits),
        }
    }

    /// Ends a request: takes over the granted units, and withdraws the request if it was not granted.
    pub(super) fn settle(&mut self) {
        let mut state = self.pool.state();
        let Some(holder) = state.holders.get_mut(&self.ticket) else {
            return;
        };
        self.held = holder.held;
        if holder.wanted.take().is_some() {
            state.waiting -= 1;
            state.dispatch(self.pool.0.capacity);
        }
    }

    /// Ends the growth of the reservation, and releases the units above `total`.
    pub(super) fn complete(&mut self, total: u64) {
        let mut guard = self.pool.state();
        let state = &mut *guard;
        let Some(holder) = state.holders.get_mut(&self.ticket) else {
            return;
        };
        if std::mem::take(&mut holder.is_growing) {
            state.growing -= holder.held;
        }
        let unused = holder.held.saturating_sub(total);
        holder.held -= unused;
        self.held = holder.held;
        state.held -= unused;
        if let Some(held) = state.accounts.get_mut(&holder.account) {
            *held -= unused;
        }
        state.dispatch(self.pool.0.capacity);
    }

    /// Sets the time at which its body counts as slow. Takes no lock.
    pub(super) fn set_slow_after(&self, at: Instant) {
        let at = self.pool.millis(at);
        self.progress.slow_after_ms.store(at, Ordering::Relaxed);
    }

    /// Done when the reservation is revoked, because its body is slow and others wait.
    pub(super) async fn revoked(&self) {
        self.progress.revoked.notified().await;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        let Some(holder) = state.holders.remove(&self.ticket) else {
            return;
        };
        state.held -= holder.held;
        if holder.is_growing {
            state.growing -= holder.held;
        }
        if holder.wanted.is_some() {
            state.waiting -= 1;
        }
        if let Some(held) = state.accounts.get_mut(&holder.account) {
            *held -= holder.held;
            if *held == 0 {
                state.accounts.remove(&holder.account);
            }
        }
        state.dispatch(self.pool.0.capacity);
    }
}

impl State {
    /// Grants the requests that can be granted, in the order of admission.
    fn dispatch(&mut self, capacity: u64) {
        if self.waiting == 0 {
            return;
        }
        let contended = self.is_contended();
        let Self {
            held,
            growing,
            holders,
            accounts,
            waiting,
            ..
        } = self;
        // For the growing reservations so far: the units that they hold (`older`), and the largest
        // sum of the condition in the module documentation (`worst`).
        let mut older = 0;
        let mut worst = 0;
        let mut is_oldest = true;
        for holder in holders.values_mut() {
            let mut granted = 0;
            if let Some(wanted) = &holder.wanted {
                let more = wanted.total - holder.held;
                let of_account = accounts.get(&holder.account).copied().unwrap_or(0);
                // If only growing reservations hold units, none of them may ever be released. So the
                // oldest one may exceed half of the pool.
                let may_exceed_half = holder.is_growing && is_oldest && *held == *growing;
                let is_over_half = contended
                    && of_account > holder.held
                    && of_account + more > capacity / 2
                    && !may_exceed_half;
                let is_safe = !holder.is_growing || worst + more <= capacity;
                if is_over_half {
                    // Reservations of other accounts come first.
                } else if *held + more <= capacity && is_safe {
                    granted = more;
                } else {
                    // Reservations that were admitted later must not take the units that this one
                    // waits for.
                    return;
                }
            }
            if granted > 0
                && let Some(wanted) = holder.wanted.take()
            {
                *waiting -= 1;
                *held += granted;
                holder.held += granted;
                *accounts.entry(holder.account.clone()).or_default() += granted;
                if holder.is_growing {
                    *growing += granted;
                    worst += granted;
                }
                // If the receiver is gone, the reservation is about to be dropped.
                let _ = wanted.granted.send(());
                if *waiting == 0 {
                    return;
                }
            }
            if holder.is_growing {
                is_oldest = false;
                older += holder.held;
                worst = worst.max(holder.max + (*growing - older));
            }
        }
    }

    /// Whether reservations of more than one account wait.
    fn is_contended(&self) -> bool {
        let mut waiting = self.holders.values().filter(|one| one.wanted.is_some());
        let first = waiting.next();
        first.is_some_and(|first| waiting.any(|other| other.account != first.account))
    }
}
