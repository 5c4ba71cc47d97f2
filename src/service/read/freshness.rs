//! Decides whether an entry of a cache is up to date.
//!
//! Two mechanisms work together:
//! - A **generation** counts the changes of a key. An entry has the generation that its key had when
//!   its load began. A change advances the generation, so it also ends entries whose load was under
//!   way.
//! - The **epoch** advances when events may have been missed. Entries of an earlier epoch are read
//!   again from the catalog before they are used.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The number of counters. Keys share them: a change of one key also ends the entries of the few
/// others that share its counter.
const COUNTERS: usize = 1 << 14;

/// Counts the changes of keys. Readers share no lock.
pub(super) struct Generations {
    counters: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for Generations {
    fn default() -> Self {
        Self {
            counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Generations {
    fn counter(&self, key: &impl Hash) -> &AtomicU64 {
        let place = self.hasher.hash_one(key) as usize % COUNTERS;
        &self.counters[place]
    }

    /// The present generation of a key.
    pub(super) fn of(&self, key: &impl Hash) -> u64 {
        self.counter(key).load(Ordering::SeqCst)
    }

    /// Ends all entries of a key, and those whose load is under way.
    pub(super) fn advance(&self, key: &impl Hash) {
        self.counter(key).fetch_add(1, Ordering::SeqCst);
    }
}

/// How far the catalog's events have been followed.
pub(super) struct Following {
    started: Instant,
    epoch: AtomicU64,
    /// Every event before this time has been seen.
    seen_until: AtomicU64,
}

/// A moment, in milliseconds since [`Following`] was made. It is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) u64);

impl Default for Following {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            epoch: AtomicU64::new(0),
            seen_until: AtomicU64::new(0),
        }
    }
}

impl Following {
    /// The present moment.
    pub(super) fn now(&self) -> Moment {
        let elapsed = self.started.elapsed().as_millis();
        Moment(u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_add(1))
    }

    /// The present epoch.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Begins a new epoch: from now on every event is seen, but earlier ones may have been missed.
    pub(super) fn restart(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Records that all events before `moment` have been seen.
    pub(super) fn saw_everything_before(&self, moment: Moment) {
        self.seen_until.store(moment.0, Ordering::SeqCst);
    }

    /// The time since a moment.
    pub(super) fn since(&self, moment: Moment) -> Duration {
        Duration::from_millis(self.now().0.saturating_sub(moment.0))
    }

    /// Whether an entry that was loaded at `loaded` in `epoch` is up to date, to `max_stale`.
    pub(super) fn is_current(&self, epoch: u64, loaded: Moment, max_stale: Duration) -> bool {
        let seen_until = Moment(self.seen_until.load(Ordering::SeqCst));
        epoch == self.epoch() && self.since(loaded.max(seen_until)) <= max_stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_ends_the_entries_of_its_key_alone() {
        let generations = Generations::default();
        let before: Vec<_> = (0..100_usize).map(|key| generations.of(&key)).collect();
        generations.advance(&7_usize);
        let changed = (0..100).filter(|key| generations.of(key) != before[*key]);
        let changed: Vec<_> = changed.collect();
        // Others share the counter by chance only.
        assert!(changed.contains(&7) && changed.len() < 10, "{changed:?}");
    }

    #[test]
    fn followed_events_keep_an_entry_current_until_some_may_have_been_missed() {
        let following = Following::default();
        let (epoch, loaded) = (following.epoch(), following.now());
        let max_stale = Duration::from_millis(20);
        let is_current = || following.is_current(epoch, loaded, max_stale);
        std::thread::sleep(max_stale * 2);
        assert!(!is_current());
        following.saw_everything_before(following.now());
        assert!(is_current());
        following.restart();
        following.saw_everything_before(following.now());
        assert!(!is_current());
    }
}
