//! Waits for changes that other processes or tasks make.

use std::time::{Duration, Instant};

/// Waits until a change through another replica or command is seen. Replicas promise a second; a busy
/// machine gets some more.
pub(crate) async fn until_seen(is_seen: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is_seen().await {
        assert!(begun.elapsed() < Duration::from_secs(3), "it is not seen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
