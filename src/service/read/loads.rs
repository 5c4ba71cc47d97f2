//! Concurrent readers of something that is not in memory share one load of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing::Instrument;

/// The loads that are under way, by key.
///
/// A load is a task of its own, so it ends even if the reader that started it is gone. It ends by
/// itself, because the operations of the store and the catalog have deadlines.
pub(in crate::service) struct Loads<K, T>(Arc<Mutex<UnderWay<K, T>>>);

struct UnderWay<K, T> {
    loads: HashMap<K, Load<T>>,
    next_number: u64,
}

struct Load<T> {
    number: u64,
    /// The generation of the key at the start of the load.
    generation: u64,
    result: watch::Receiver<Option<T>>,
}

/// The task of a load panicked, or the runtime shuts down.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a load from the store or the catalog ended without a result")]
pub(in crate::service) struct LoadEnded;

impl<K, T> Default for Loads<K, T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(UnderWay {
            loads: HashMap::new(),
            next_number: 0,
        })))
    }
}

impl<K, T> Loads<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the load of `key` that is under way, or starts `load`. A load that started in another
    /// generation is not joined, because its result may be out of date.
    ///
    /// If the caller drops the result, the load continues.
    pub(in crate::service) fn join<F>(
        &self,
        key: &K,
        generation: u64,
        load: impl FnOnce() -> F,
    ) -> Joined<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (sender, result) = watch::channel(None);
        let number = {
            let mut under_way = lock(&self.0);
            if let Some(load) = under_way.loads.get(key)
                && load.generation == generation
            {
                return Joined(load.result.clone());
            }
            let number = under_way.next_number;
            under_way.next_number += 1;
            let started = Load {
                number,
                generation,
                result: result.clone(),
            };
            under_way.loads.insert(key.clone(), started);
            number
        };
        let ended = Ended {
            loads: Arc::clone(&self.0),
            key: key.clone(),
            number,
        };
        let load = load();
        let run = async move {
            let loaded = load.await;
            // Later readers find the result in the cache, so they must not join this load.
            drop(ended);
            sender.send_replace(Some(loaded));
        };
        // The lock is free: a runtime that shuts down drops the task at once, which takes the lock.
        tokio::spawn(run.in_current_span());
        Joined(result)
    }
}

/// A load that is under way.
pub(in crate::service) struct Joined<T>(watch::Receiver<Option<T>>);

impl<T: Clone> Joined<T> {
    /// Waits for the result of the load.
    ///
    /// # Errors
    /// [`LoadEnded`]
    pub(in crate::service) async fn result(mut self) -> Result<T, LoadEnded> {
        let loaded = self.0.wait_for(Option::is_some).await;
        let loaded = loaded.ok().and_then(|loaded| loaded.clone());
        loaded.ok_or(LoadEnded)
    }
}

/// Removes a load from those under way when it ends, even by a panic.
struct Ended<K: Eq + Hash, T> {
    loads: Arc<Mutex<UnderWay<K, T>>>,
    key: K,
    number: u64,
}

impl<K: Eq + Hash, T> Drop for Ended<K, T> {
    fn drop(&mut self) {
        let mut under_way = lock(&self.loads);
        let load = under_way.loads.get(&self.key);
        // A load of a later generation may have taken the place.
        if load.is_some_and(|load| load.number == self.number) {
            under_way.loads.remove(&self.key);
        }
    }
}

fn lock<K, T>(loads: &Mutex<UnderWay<K, T>>) -> MutexGuard<'_, UnderWay<K, T>> {
    loads.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readers_share_a_load_of_their_generation_and_of_no_other() {
        let loads = Loads::<&str, u64>::default();
        let started = Arc::new(AtomicUsize::new(0));
        let read = async |generation| {
            let started = Arc::clone(&started);
            let load = || async move {
                started.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
                generation
            };
            loads.join(&"42", generation, load).result().await.unwrap()
        };
        let old = join_all((0..50).map(|_| read(7)));
        let new = join_all((0..50).map(|_| read(8)));
        let (old, new) = tokio::join!(old, new);
        assert!(old.iter().all(|found| *found == 7));
        assert!(new.iter().all(|found| *found == 8));
        assert_eq!(started.load(Ordering::Relaxed), 2);
        // A load that has ended is not joined.
        read(8).await;
        assert_eq!(started.load(Ordering::Relaxed), 3);
        assert!(lock(&loads.0).loads.is_empty());
    }

    #[tokio::test]
    async fn a_load_outlives_its_reader_and_a_panic_ends_it() {
        let loads = Loads::<&str, u64>::default();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        {
            let reader = loads.join(&"42", 1, || async { receiver.await.unwrap() });
            let given_up = tokio::time::timeout(Duration::from_millis(10), reader.result());
            assert!(given_up.await.is_err());
        }
        let second = loads.join(&"42", 1, || async { unreachable!() });
        sender.send(5).unwrap();
        assert_eq!(second.result().await.unwrap(), 5);
        let died = loads.join(&"42", 1, || async { panic!("on purpose") });
        assert!(died.result().await.is_err());
        assert!(lock(&loads.0).loads.is_empty());
    }
}
