//! Writes access lines on a thread of their own, so that a request does not wait for a slow terminal,
//! pipe or disk.
//!
//! The queue is bounded. If it is full, lines are dropped and counted, and a warning says how many.
//! All other lines are written at once by the thread that logs them.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing::{Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

/// The target of access lines.
pub(crate) const TARGET: &str = "cameo::access";

/// The number of lines that wait for the thread. Each is some 300 bytes.
const MAX_WAITING: usize = 4096;
/// Lines are written together up to this many bytes.
const MAX_WRITE_BYTES: usize = 64 << 10;
/// How long the end of the program waits for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// All lines before this message are written when its sender is dropped.
    Flush(SyncSender<()>),
}

/// Chooses the writer of each line.
pub(super) struct Writers(Queue);

/// The lines that wait for the thread.
#[derive(Clone)]
pub(super) struct Queue {
    messages: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// Writes the last access lines when it is dropped.
pub(crate) struct LastLines(SyncSender<Message>);

/// Writes one line.
pub(super) enum LineWriter {
    Now(io::Stderr),
    Later(Queue),
}

impl Writers {
    /// Starts the thread. It ends with the process.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(super) fn start() -> io::Result<(Self, LastLines)> {
        let (messages, waiting) = sync_channel(MAX_WAITING);
        let queue = Queue {
            messages: messages.clone(),
            dropped: Arc::default(),
        };
        let dropped = Arc::clone(&queue.dropped);
        std::thread::Builder::new()
            .name("access lines".to_owned())
            .spawn(move || write_all(&waiting, &dropped, &mut io::stderr()))?;
        Ok((Self(queue), LastLines(messages)))
    }
}

impl<'a> MakeWriter<'a> for Writers {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter::Now(io::stderr())
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> LineWriter {
        if line.target() == TARGET {
            LineWriter::Later(self.0.clone())
        } else {
            self.make_writer()
        }
    }
}

impl Write for LineWriter {
    // The subscriber writes each line by one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Self::Now(stderr) => stderr.write(line),
            Self::Later(queue) => {
                if let Err(TrySendError::Full(_)) =
                    queue.messages.try_send(Message::Line(line.to_vec()))
                {
                    queue.dropped.fetch_add(1, Ordering::Relaxed);
                }
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Now(stderr) => stderr.flush(),
            Self::Later(_) => Ok(()),
        }
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        let (written, flushed) = sync_channel(1);
        if self.0.try_send(Message::Flush(written)).is_ok() {
            // An error means that the lines are written, or that this takes too long.
            let _ = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// Writes lines until all senders are gone. Lines that wait are written by one call.
fn write_all(waiting: &Receiver<Message>, dropped: &AtomicU64, out: &mut impl Write) {
    let mut lines = Vec::new();
    while let Ok(first) = waiting.recv() {
        let mut next = Some(first);
        while let Some(message) = next.take() {
            match message {
                Message::Line(line) => lines.extend(line),
                Message::Flush(written) => {
                    write_lines(&mut lines, out);
                    drop(written);
                }
            }
            if lines.len() < MAX_WRITE_BYTES {
                next = waiting.try_recv().ok();
            }
        }
        write_lines(&mut lines, out);
        let dropped = dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            warn!(
                dropped,
                "access lines were dropped, because they are written too slowly"
            );
        }
    }
}

fn write_lines(lines: &mut Vec<u8>, out: &mut impl Write) {
    // There is no other place to report that standard error is closed.
    let _ = out.write_all(lines);
    lines.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_written_in_order_and_those_beyond_the_queue_are_dropped_and_counted() {
        let (messages, waiting) = sync_channel(3);
        let queue = Queue {
            messages,
            dropped: Arc::default(),
        };
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n"] {
            let mut writer = LineWriter::Later(queue.clone());
            writer.write_all(line.as_bytes()).unwrap();
        }
        let dropped = Arc::clone(&queue.dropped);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        drop(queue);
        let mut out = Vec::new();
        write_all(&waiting, &dropped, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }

    /// Counts the bytes that it slowly writes.
    struct Count(Arc<AtomicU64>);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(50));
            self.0.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_last_lines_are_written_before_the_guard_is_gone() {
        let (messages, waiting) = sync_channel(3);
        let written = Arc::new(AtomicU64::new(0));
        let mut out = Count(Arc::clone(&written));
        std::thread::spawn(move || write_all(&waiting, &AtomicU64::new(0), &mut out));
        messages.send(Message::Line(b"last\n".to_vec())).unwrap();
        drop(LastLines(messages));
        assert_eq!(written.load(Ordering::SeqCst), 5);
    }
}
