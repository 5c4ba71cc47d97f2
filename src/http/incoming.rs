//! The body of an upload while it arrives: how fast it must be, and what is reserved for it.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::problem::{Code, Problem};
use crate::service::{Admission, Interruption};

/// How long a body of no bytes may take. [`WHOLE_BYTES_PER_SECOND`] adds to it.
const WHOLE: Duration = Duration::from_secs(20);
/// One megabit per second, about: each second that a body may take on top of [`WHOLE`] is good for
/// so many bytes of `upload.max_bytes`. The default of 5 MiB gives one minute in total.
const WHOLE_BYTES_PER_SECOND: u64 = 128 * 1024;
/// How long a body may stop arriving.
const STALL: Duration = Duration::from_secs(10);
/// The lowest average rate of all but the first [`STALL`]: half of what the slowest mobile networks
/// carry. A body that is slower is sent to occupy memory.
const MIN_BYTES_PER_SECOND: usize = 8 * 1024;
/// A body below this rate is slow. It is ended if others wait for its memory.
const SLOW_BYTES_PER_SECOND: usize = 64 * 1024;
/// How long a body may stay below that rate before it counts as slow.
const SLOW_AFTER: Duration = Duration::from_secs(5);
/// The most bytes that one read gives; memory for them is reserved first. The server's buffer for a
/// connection is no larger.
const CHUNK_BYTES: usize = 64 * 1024;

/// A body that is read no faster than memory is reserved for it, and no slower than
/// [`BodyRateLimit`] demands.
pub(super) struct IncomingBody {
    chunks: BodyDataStream,
    rate: BodyRateLimit,
    admission: Admission,
    max_bytes: usize,
    upload_max_bytes: usize,
}

impl IncomingBody {
    /// A body of at most `max_bytes`, which holds an upload of at most `upload_max_bytes`.
    pub(super) fn new(
        body: Body,
        admission: Admission,
        max_bytes: usize,
        upload_max_bytes: usize,
    ) -> Self {
        let rate = BodyRateLimit::new(upload_max_bytes);
        admission.set_slow_after(rate.slow_after);
        Self {
            chunks: body.into_data_stream(),
            rate,
            admission,
            max_bytes,
            upload_max_bytes,
        }
    }

    /// The next bytes; `None` at the end. Nothing is lost where this is cancelled.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let ahead = (self.rate.bytes + CHUNK_BYTES).min(self.max_bytes);
        let waits_since = Instant::now();
        self.admission.hold(ahead).await?;
        self.rate.exclude(waits_since);
        // Without a timer where the next bytes have arrived already.
        let chunk = match self.chunks.next().now_or_never() {
            Some(chunk) => chunk,
            None => self.wait().await?,
        };
        let Some(chunk) = chunk else {
            return Ok(None);
        };
        let chunk =
            chunk.map_err(|_| Problem::new(Code::MalformedRequest, "the body ended early"))?;
        self.rate.arrived(chunk.len());
        if self.rate.bytes > self.max_bytes {
            return Err(too_large(None, self.upload_max_bytes));
        }
        self.admission.set_slow_after(self.rate.slow_after);
        Ok(Some(chunk))
    }

    async fn wait(&mut self) -> Result<Option<Result<Bytes, axum::Error>>, Problem> {
        let deadline = self.rate.deadline();
        let more = self.admission.wait_for(self.chunks.next(), deadline);
        more.await.map_err(|why| {
            let detail = match why {
                Interruption::TimedOut => self.rate.reproach(),
                Interruption::Revoked => format!(
                    "the body arrived at less than {SLOW_BYTES_PER_SECOND} bytes a second while \
                     other uploads waited for memory"
                ),
            };
            Problem::new(Code::RequestTimeout, detail)
        })
    }

    /// The admission, once the body has been read.
    pub(super) fn into_admission(self) -> Admission {
        self.admission
    }
}

/// The problem of an upload that is larger than `max` bytes; `found` where its size is known.
pub(super) fn too_large(found: Option<usize>, max: usize) -> Problem {
    let detail = match found {
        Some(found) => format!("{found} bytes; at most {max}"),
        None => format!("more than {max} bytes; at most {max}"),
    };
    Problem::new(Code::FileTooLarge, detail)
}

/// How fast a body must arrive.
struct BodyRateLimit {
    whole: Duration,
    begun: Instant,
    last: Instant,
    bytes: usize,
    /// When it counts as slow unless more of it arrives.
    slow_after: Instant,
}

impl BodyRateLimit {
    /// The limit for a body that begins now.
    fn new(upload_max_bytes: usize) -> Self {
        let now = Instant::now();
        Self {
            whole: WHOLE + Duration::from_secs(upload_max_bytes as u64 / WHOLE_BYTES_PER_SECOND),
            begun: now,
            last: now,
            bytes: 0,
            slow_after: now + SLOW_AFTER,
        }
    }

    fn arrived(&mut self, bytes: usize) {
        let now = Instant::now();
        // A fast body earns no more than SLOW_AFTER, and a slow one owes no more than that.
        let owes = now.checked_sub(SLOW_AFTER).unwrap_or(now);
        let earned = time_of(bytes, SLOW_BYTES_PER_SECOND);
        self.slow_after = (self.slow_after.max(owes) + earned).min(now + SLOW_AFTER);
        self.last = now;
        self.bytes += bytes;
    }

    /// Does not count the time since `since`: this service did not read the body then.
    fn exclude(&mut self, since: Instant) {
        let excluded = since.elapsed();
        self.begun += excluded;
        self.last += excluded;
        self.slow_after += excluded;
    }

    /// When more of it must have arrived.
    fn deadline(&self) -> Instant {
        (self.begun + self.whole)
            .min(self.last + STALL)
            .min(self.earned())
    }

    /// Until when the bytes that arrived are enough.
    fn earned(&self) -> Instant {
        self.begun + STALL + time_of(self.bytes, MIN_BYTES_PER_SECOND)
    }

    fn reproach(&self) -> String {
        let ended = self.deadline();
        if ended == self.begun + self.whole {
            format!("the body did not arrive within {} s", self.whole.as_secs())
        } else if ended == self.last + STALL {
            format!("nothing of the body arrived for {} s", STALL.as_secs())
        } else {
            format!(
                "{} bytes of the body arrived in {} s; at least {MIN_BYTES_PER_SECOND} a second \
                 have to",
                self.bytes,
                (ended - self.begun).as_secs()
            )
        }
    }
}

fn time_of(bytes: usize, per_second: usize) -> Duration {
    Duration::from_micros(bytes as u64 * 1_000_000 / per_second as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// How long a body may go on that sends `piece` bytes every `pause` for ever, and what is said
    /// in the end.
    async fn read(max: usize, piece: usize, pause: Duration) -> (Duration, String) {
        let mut rate = BodyRateLimit::new(max);
        let begun = Instant::now();
        loop {
            let arrives = Instant::now() + pause;
            if arrives > rate.deadline() {
                return (rate.deadline() - begun, rate.reproach());
            }
            tokio::time::sleep_until(arrives).await;
            rate.arrived(piece);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_ended() {
        let (after, why) = read(5 * MIB, MIB, Duration::from_secs(11)).await;
        assert_eq!(after.as_secs(), 10);
        assert_eq!(why, "nothing of the body arrived for 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_in_is_ended() {
        let (after, why) = read(5 * MIB, 1, Duration::from_secs(9)).await;
        assert_eq!(after.as_secs(), 10);
        assert_eq!(
            why,
            "1 bytes of the body arrived in 10 s; at least 8192 a second have to"
        );
        // Half as fast as it must be: 10 s, and a second for each 8192 bytes.
        let (after, _) = read(5 * MIB, 4096, Duration::from_secs(1)).await;
        assert!((19..=21).contains(&after.as_secs()), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_a_body_grows_with_the_upload_limit() {
        for (max, seconds) in [(MIB, 28), (5 * MIB, 60), (100 * MIB, 820)] {
            let (after, why) = read(max, 8192, Duration::from_millis(999)).await;
            assert_eq!(after.as_secs(), seconds);
            assert_eq!(why, format!("the body did not arrive within {seconds} s"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_a_body_is_not_read_does_not_count() {
        let mut rate = BodyRateLimit::new(5 * MIB);
        let deadline = rate.deadline();
        let since = Instant::now();
        tokio::time::sleep(Duration::from_secs(9)).await;
        rate.exclude(since);
        assert_eq!(rate.deadline() - deadline, Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_slow_five_seconds_after_it_became_slow_whatever_came_before() {
        let mut rate = BodyRateLimit::new(5 * MIB);
        rate.arrived(4 * MIB);
        let since = Instant::now();
        while rate.slow_after > Instant::now() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            rate.arrived(819);
        }
        let after = since.elapsed().as_secs();
        assert!((5..=6).contains(&after), "{after} s");
        let mut rate = BodyRateLimit::new(5 * MIB);
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(rate.slow_after > Instant::now());
            rate.arrived(6600);
        }
    }
}
