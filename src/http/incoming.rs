//! The body of an upload while it arrives: its minimum rate, and the memory that is reserved for
//! it.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::problem::{Code, Problem};
use crate::service::{Admission, Interruption};

/// The time limit of a whole body, without the part that [`BASE_BYTES_PER_SECOND`] adds.
const BASE_TIME: Duration = Duration::from_secs(20);
/// Adds one second to the time limit of a whole body for so many bytes of `upload.max_bytes`, which
/// is about one megabit per second. The default of 5 MiB gives one minute in total.
const BASE_BYTES_PER_SECOND: u64 = 128 * 1024;
/// The longest pause of a body.
const STALL: Duration = Duration::from_secs(10);
/// The minimum average rate of a body after the first [`STALL`]: half of the rate of the slowest
/// mobile networks. A slower body would only occupy memory.
const MIN_BYTES_PER_SECOND: usize = 8 * 1024;
/// A body below this rate is slow. It is ended if other uploads wait for its memory.
const SLOW_BYTES_PER_SECOND: usize = 64 * 1024;
/// How long a body can stay below that rate before it counts as slow.
const SLOW_AFTER: Duration = Duration::from_secs(5);
/// The most bytes of one read. Memory for them is reserved before the read. The server's buffer for
/// a connection is not larger.
const CHUNK_BYTES: usize = 64 * 1024;

/// The body of an upload. It is read only as fast as memory is reserved for it, and it is ended if
/// it arrives more slowly than [`BodyRateLimit`] allows.
pub(super) struct IncomingBody {
    chunks: BodyDataStream,
    rate: BodyRateLimit,
    admission: Admission,
    max_bytes: usize,
    upload_max_bytes: usize,
}

impl IncomingBody {
    /// A body of at most `max_bytes`, with a picture of at most `upload_max_bytes`.
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

    /// The next bytes; `None` at the end. Cancelling it loses no bytes.
    ///
    /// # Errors
    /// 400 if the body ends early, 408 if it is too slow, 413 if it is too large, 503 if there is
    /// no memory for it in time.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let ahead = (self.rate.bytes + CHUNK_BYTES).min(self.max_bytes);
        let waits_since = Instant::now();
        self.admission.hold(ahead).await?;
        self.rate.exclude(waits_since);
        // Bytes that have already arrived need no timer.
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
                Interruption::TimedOut => self.rate.timeout_detail(),
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

/// The problem of an upload that is larger than `max` bytes. `found` is its size, if it is known.
pub(super) fn too_large(found: Option<usize>, max: usize) -> Problem {
    let detail = match found {
        Some(found) => format!("{found} bytes; at most {max}"),
        None => format!("more than {max} bytes; at most {max}"),
    };
    Problem::new(Code::FileTooLarge, detail)
}

/// The minimum rate of a body.
struct BodyRateLimit {
    /// The time limit of the whole body.
    time_limit: Duration,
    started: Instant,
    /// When the last bytes arrived.
    last: Instant,
    /// How many bytes have arrived.
    bytes: usize,
    /// When the body counts as slow unless more of it arrives.
    slow_after: Instant,
}

impl BodyRateLimit {
    /// The limit of a body that starts now.
    fn new(upload_max_bytes: usize) -> Self {
        let now = Instant::now();
        Self {
            time_limit: BASE_TIME
                + Duration::from_secs(upload_max_bytes as u64 / BASE_BYTES_PER_SECOND),
            started: now,
            last: now,
            bytes: 0,
            slow_after: now + SLOW_AFTER,
        }
    }

    /// Records that so many bytes have arrived.
    fn arrived(&mut self, bytes: usize) {
        let now = Instant::now();
        // Bytes move `slow_after` by the time that they take at the slow rate. It stays within
        // SLOW_AFTER of now, so that neither a fast nor a slow start counts for long.
        let earliest = now.checked_sub(SLOW_AFTER).unwrap_or(now);
        let earned = time_of(bytes, SLOW_BYTES_PER_SECOND);
        self.slow_after = (self.slow_after.max(earliest) + earned).min(now + SLOW_AFTER);
        self.last = now;
        self.bytes += bytes;
    }

    /// Excludes the time since `since`, in which this service did not read the body.
    fn exclude(&mut self, since: Instant) {
        let excluded = since.elapsed();
        self.started += excluded;
        self.last += excluded;
        self.slow_after += excluded;
    }

    /// When more bytes must have arrived.
    fn deadline(&self) -> Instant {
        (self.started + self.time_limit)
            .min(self.last + STALL)
            .min(self.earned())
    }

    /// When the average rate falls below the minimum unless more bytes arrive.
    fn earned(&self) -> Instant {
        self.started + STALL + time_of(self.bytes, MIN_BYTES_PER_SECOND)
    }

    /// Says which of the limits the body exceeded at its deadline.
    fn timeout_detail(&self) -> String {
        let ended = self.deadline();
        if ended == self.started + self.time_limit {
            let seconds = self.time_limit.as_secs();
            format!("the body did not arrive within {seconds} s")
        } else if ended == self.last + STALL {
            format!("no byte of the body arrived for {} s", STALL.as_secs())
        } else {
            format!(
                "{} bytes of the body arrived in {} s; at least {MIN_BYTES_PER_SECOND} bytes a \
                 second",
                self.bytes,
                (ended - self.started).as_secs()
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

    /// The time after which a body is ended that sends `piece` bytes every `pause`, and the detail
    /// of its problem.
    async fn read(max: usize, piece: usize, pause: Duration) -> (Duration, String) {
        let mut rate = BodyRateLimit::new(max);
        let begun = Instant::now();
        loop {
            let arrives = Instant::now() + pause;
            if arrives > rate.deadline() {
                return (rate.deadline() - begun, rate.timeout_detail());
            }
            tokio::time::sleep_until(arrives).await;
            rate.arrived(piece);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_ended() {
        let (after, why) = read(5 * MIB, MIB, Duration::from_secs(11)).await;
        assert_eq!(after.as_secs(), 10);
        assert_eq!(why, "no byte of the body arrived for 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_in_is_ended() {
        let (after, why) = read(5 * MIB, 1, Duration::from_secs(9)).await;
        assert_eq!(after.as_secs(), 10);
        assert_eq!(
            why,
            "1 bytes of the body arrived in 10 s; at least 8192 bytes a second"
        );
        // At half the minimum rate: 10 s, and one more second for each 8192 bytes.
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
    async fn a_body_counts_as_slow_after_five_slow_seconds_even_after_a_fast_start() {
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
