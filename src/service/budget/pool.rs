//! A pool of units that reservations share: bytes of memory, or worker slots.
//!
//! # Order and fairness
//!
//! Reservations that wait are served in the order in which they were admitted. While other accounts
//! wait, an account that holds more than half of the pool gets nothing more, except what its only
//! reservation needs. The oldest growing reservation of all gets more nevertheless if nothing else
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

use super::Account;

/// The shortest time between two revocations: a revoked reservation needs a moment to be released.
const REVOKE_INTERVAL: Duration = Duration::from_millis(100);

/// A pool of units.
#[derive(Clone)]
pub(super) struct MemoryPool(Arc<Inner>);

struct Inner {
    capacity: u64,
    /// The moment that [`Progress::slow_after_ms`] counts from.
    epoch: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: u64,
    /// What growing reservations hold, in total.
    growing: u64,
    next_ticket: u64,
    /// Every reservation by its ticket, so in the order of admission.
    holders: BTreeMap<u64, Holder>,
    /// What each account holds; without entries of zero.
    accounts: HashMap<Account, u64>,
    /// How many reservations wait.
    waiting: usize,
    last_revoked: Option<Instant>,
}

struct Holder {
    account: Account,
    held: u64,
    /// The most that it may hold; it grows until it is completed.
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
    /// When its body counts as slow unless more of it arrives, in milliseconds since the epoch.
    slow_after_ms: AtomicU64,
    revoked: Notify,
}

/// Units of a pool; released when dropped.
pub(in crate::service) struct Reservation {
    pool: MemoryPool,
    ticket: u64,
    held: u64,
    progress: Arc<Progress>,
}

/// Whether a reservation holds what was asked for.
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

    /// What is reserved at this moment.
    pub(super) fn held(&self) -> u64 {
        self.state().held
    }

    /// Admits a reservation that holds nothing yet. One that is `growing` may hold up to `max` and
    /// grows in steps until [`Reservation::complete`]; the others get all that they hold at once.
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

    /// Ends the largest reservation whose body is slow, if one is; at most one in
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
    /// What it holds.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// The pool that it is of.
    pub(super) fn pool(&self) -> &MemoryPool {
        &self.pool
    }

    /// Asks for so much in total. What it holds already is kept while it waits.
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

    /// Takes note of what was granted, and asks for no more.
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

    /// Marks it as one that grows no more, and releases what it holds beyond `total`.
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

    /// Notes when the body that it is for counts as slow. Takes no lock.
    pub(super) fn set_slow_after(&self, at: Instant) {
        let at = self.pool.millis(at);
        self.progress.slow_after_ms.store(at, Ordering::Relaxed);
    }

    /// Done when the pool wants it back, because its body is slow and others wait.
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
    /// Grants what can be granted, in the order of admission.
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
        // Of the growing reservations up to here: what they hold, and the largest sum that the
        // condition of the module's documentation speaks of.
        let mut older = 0;
        let mut worst = 0;
        let mut is_oldest = true;
        for holder in holders.values_mut() {
            let mut granted = 0;
            if let Some(wanted) = &holder.wanted {
                let more = wanted.total - holder.held;
                let of_account = accounts.get(&holder.account).copied().unwrap_or(0);
                // Completed reservations are released by themselves; then this runs again.
                let is_last_hope = holder.is_growing && is_oldest && *held == *growing;
                let is_over_half = contended
                    && of_account > holder.held
                    && of_account + more > capacity / 2
                    && !is_last_hope;
                let is_safe = !holder.is_growing || worst + more <= capacity;
                if is_over_half {
                    // Others go first.
                } else if *held + more <= capacity && is_safe {
                    granted = more;
                } else {
                    // Nobody admitted later takes what this one waits for.
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
                // Where nobody waits any more, the reservation is about to be dropped.
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
