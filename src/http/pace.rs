//! How fast a body has to come: it holds room for an upload until it has.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use futures_util::TryStreamExt;
use tokio::time::{Instant, timeout_at};

use super::problem::{Code, Problem};

/// How long a body may take to come. Five mebibytes need 42 s at one megabit per second.
const WHOLE: Duration = Duration::from_mins(1);
/// How long a body may stop coming.
const STALL: Duration = Duration::from_secs(10);
/// What has to come in a second, on the average of all but the first [`STALL`]: half of what the
/// slowest of mobile networks carry. A body that drips in is there to hold room.
const LEAST_BYTES_PER_SECOND: usize = 8 * 1024;

/// What has come of a body, and when.
pub(super) struct Pace(Arc<Mutex<Arrived>>);

#[derive(Clone, Copy)]
struct Arrived {
    begun: Instant,
    last: Instant,
    bytes: usize,
}

impl Pace {
    /// A body that is about to come, and `body` with its arrival noted.
    pub(super) fn of(body: Body) -> (Self, Body) {
        let begun = Instant::now();
        let arrived = Arc::new(Mutex::new(Arrived {
            begun,
            last: begun,
            bytes: 0,
        }));
        let noted = Arc::clone(&arrived);
        let body = body.into_data_stream().inspect_ok(move |piece| {
            let mut arrived = noted.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.last = Instant::now();
            arrived.bytes += piece.len();
        });
        (Self(arrived), Body::from_stream(body))
    }

    /// Waits for what reads the body, as long as the body comes fast enough.
    ///
    /// # Errors
    /// [`Code::RequestTimeout`] where it does not, and those of `read`.
    pub(super) async fn keep<T>(
        &self,
        read: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let mut read = pin!(read);
        loop {
            if let Ok(done) = timeout_at(self.arrived().leave_ends(), &mut read).await {
                return done;
            }
            // What came meanwhile may have put the end off.
            let arrived = self.arrived();
            if arrived.leave_ends() <= Instant::now() {
                return Err(Problem::new(Code::RequestTimeout, arrived.reproach()));
            }
        }
    }

    fn arrived(&self) -> Arrived {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrived {
    /// Until when more of it has to come.
    fn leave_ends(self) -> Instant {
        (self.begun + WHOLE)
            .min(self.last + STALL)
            .min(self.earned())
    }

    /// Until when what came is fast enough.
    fn earned(self) -> Instant {
        let bytes = u32::try_from(self.bytes).unwrap_or(u32::MAX);
        self.begun + STALL + Duration::from_secs(1) * bytes / LEAST_BYTES_PER_SECOND as u32
    }

    fn reproach(self) -> String {
        let ended = self.leave_ends();
        if ended == self.begun + WHOLE {
            format!("the body did not arrive within {} s", WHOLE.as_secs())
        } else if ended == self.last + STALL {
            format!("nothing of the body arrived for {} s", STALL.as_secs())
        } else {
            format!(
                "{} bytes of the body arrived in {} s; at least {LEAST_BYTES_PER_SECOND} a \
                 second have to",
                self.bytes,
                (ended - self.begun).as_secs()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::StreamExt;

    use super::*;

    /// How long a body is read that sends `piece` bytes every `pause` for ever, and what is said in
    /// the end.
    async fn read(piece: usize, pause: Duration) -> (Duration, String) {
        let pieces = futures_util::stream::repeat(Bytes::from(vec![0; piece])).then(
            move |piece| async move {
                tokio::time::sleep(pause).await;
                std::io::Result::Ok(piece)
            },
        );
        let (pace, body) = Pace::of(Body::from_stream(pieces));
        let begun = Instant::now();
        let read = pace.keep(async {
            let mut pieces = body.into_data_stream();
            while pieces.next().await.is_some() {}
            Ok(())
        });
        let problem = read.await.unwrap_err();
        assert_eq!(problem.code, Code::RequestTimeout);
        (begun.elapsed(), problem.detail)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_not_waited_for() {
        let (after, why) = read(1 << 20, Duration::from_secs(11)).await;
        assert_eq!(after.as_secs(), 10);
        assert_eq!(why, "nothing of the body arrived for 10 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_in_is_not_waited_for() {
        let (after, why) = read(1, Duration::from_secs(9)).await;
        assert_eq!(after.as_secs(), 10);
        assert_eq!(
            why,
            "1 bytes of the body arrived in 10 s; at least 8192 a second have to"
        );
        // Half as fast as it has to: 10 s, and a second for each 8192 bytes.
        let (after, _) = read(4096, Duration::from_secs(1)).await;
        assert!((19..=21).contains(&after.as_secs()), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_keeps_coming_has_a_minute() {
        let (after, why) = read(8192, Duration::from_millis(999)).await;
        assert_eq!(after.as_secs(), 60);
        assert_eq!(why, "the body did not arrive within 60 s");
    }
}
