//! The stream of a connection: ends clients that do not read their answers, and can be cut.
//!
//! A connection has a credit of [`MAX_BLOCKED`]. The time in which a write is blocked reduces the
//! credit. Each [`MIN_BYTES_PER_SECOND`] that the client reads, and each second in which no write is
//! blocked, adds one second to it. A blocked write without credit fails. So a write may make no
//! progress for 20 s, and a client that keeps a write blocked must read 1 KiB per second.
//!
//! A write that is not blocked costs one comparison. A timer runs only while a write is blocked.
//!
//! A connection that was upgraded belongs to a handler. The server ends it by cutting the stream:
//! every read and write then fails.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::Activity;

/// How long a write may make no progress.
const MAX_BLOCKED: Duration = Duration::from_secs(20);
/// The bytes per second that a client must read while a write is blocked.
const MIN_BYTES_PER_SECOND: u64 = 1024;

/// A stream to a client.
pub(super) struct ClientStream<S> {
    stream: S,
    activity: Arc<Activity>,
    /// The credit at the time `settled`.
    credit: Duration,
    settled: Instant,
    is_blocked: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> ClientStream<S> {
    /// Limits the blocked writes of a stream, and reports them to `activity`.
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            credit: MAX_BLOCKED,
            settled: Instant::now(),
            is_blocked: false,
            timer: None,
        }
    }

    fn after_write(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending if self.activity.is_cut_for_writer(context) => {
                return Poll::Ready(Err(cut()));
            }
            Poll::Pending => {
                ready!(self.blocked(context));
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client does not read its answer",
                )));
            }
            Poll::Ready(Ok(bytes)) if self.is_blocked || self.credit < MAX_BLOCKED => {
                self.progressed(*bytes);
            }
            Poll::Ready(_) => {}
        }
        written
    }

    /// Notes that a write is blocked. Ready when the credit is used up.
    fn blocked(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_blocked {
            let now = Instant::now();
            self.credit = MAX_BLOCKED.min(self.credit + (now - self.settled));
            self.settled = now;
            self.is_blocked = true;
            self.activity.set_blocked(true);
            let ends = now + self.credit;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(ends),
                None => self.timer = Some(Box::pin(sleep_until(ends))),
            }
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(context),
            None => Poll::Pending,
        }
    }

    /// Notes that the system accepted so many bytes.
    fn progressed(&mut self, bytes: usize) {
        if self.is_blocked {
            let now = Instant::now();
            self.credit = self.credit.saturating_sub(now - self.settled);
            self.settled = now;
            self.is_blocked = false;
            self.activity.set_blocked(false);
        }
        let earned = Duration::from_micros(bytes as u64 * 1_000_000 / MIN_BYTES_PER_SECOND);
        self.credit = MAX_BLOCKED.min(self.credit + earned);
    }
}

impl<S> Drop for ClientStream<S> {
    fn drop(&mut self) {
        self.activity.set_closed();
    }
}

/// The error of a stream that the server has cut.
fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the server has closed the connection",
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.activity.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_pending() && self.activity.is_cut_for_reader(context) {
            return Poll::Ready(Err(cut()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.activity.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.after_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.activity.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.after_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// How long an answer of 64 KiB is written to a client that takes `bytes` every `pause`, and
    /// whether it was written to its end.
    async fn write(bytes: usize, pause: Duration) -> (Duration, bool) {
        let (mut client, server) = duplex(4096);
        let mut server = ClientStream::new(server, Arc::default());
        tokio::spawn(async move {
            let mut taken = vec![0; bytes];
            loop {
                tokio::time::sleep(pause).await;
                if client.read_exact(&mut taken).await.is_err() {
                    return;
                }
            }
        });
        let begun = Instant::now();
        let written = server.write_all(&vec![0; 64 << 10]).await;
        if let Err(error) = &written {
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        (begun.elapsed(), written.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_makes_no_progress_for_20_seconds_fails() {
        let (after, is_whole) = write(1, Duration::from_hours(1)).await;
        assert_eq!((after.as_secs(), is_whole), (20, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_less_than_1_kib_a_second_is_cut_off_in_time() {
        let (after, is_whole) = write(512, Duration::from_secs(1)).await;
        assert!(!is_whole);
        assert!((38..=50).contains(&after.as_secs()), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_1_kib_a_second_gets_all() {
        let (after, is_whole) = write(1024, Duration::from_secs(1)).await;
        assert!(is_whole, "{after:?}");
        let (after, is_whole) = write(16 << 10, Duration::from_secs(15)).await;
        assert!(is_whole, "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_start_buys_no_more_than_20_seconds() {
        let (mut client, server) = duplex(4096);
        let mut server = ClientStream::new(server, Arc::default());
        let reader = tokio::spawn(async move {
            let mut taken = vec![0; 1 << 20];
            client.read_exact(&mut taken).await.unwrap();
            client
        });
        server.write_all(&vec![0; 1 << 20]).await.unwrap();
        let _client = reader.await.unwrap();
        let begun = Instant::now();
        let refused = server.write_all(&vec![0; 64 << 10]).await;
        assert!(refused.is_err());
        assert_eq!(begun.elapsed().as_secs(), 20);
    }
}
