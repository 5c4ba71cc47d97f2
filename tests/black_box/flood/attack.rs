//! One hostile request: its bytes, its end, and the answers that are right.

use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the service may take to answer a complete request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A hostile request.
pub(super) struct Attack {
    /// The kind, for messages.
    pub(super) kind: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) ending: Ending,
    pub(super) expected: Expected,
}

/// What the client does after it has sent its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// It reads until the service closes the connection.
    Read,
    /// It closes the connection when it has read nothing for this time.
    HangUp(Duration),
    /// It sends its bytes in this many pieces with pauses, and resets the connection in the end.
    Reset(usize),
}

/// The right answers. A client that hangs up may get none. No request may be answered with a status
/// above 499, except 503.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// A status from 400 to 499.
    Refusal,
    /// Any status below 500. The service may also close the connection without an answer.
    NoFailure,
    /// One of these statuses.
    OneOf(&'static [u16]),
}

/// An answer of the service.
pub(super) struct Answer {
    /// Everything that the client received.
    pub(super) bytes: Vec<u8>,
    /// The status of each answer; empty if the service closed the connection without one.
    pub(super) statuses: Vec<u16>,
}

impl Attack {
    /// A request that the service refuses, and whose answer the client reads.
    pub(super) fn refused(kind: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            bytes: bytes.into(),
            ending: Ending::Read,
            expected: Expected::Refusal,
        }
    }

    /// The same request whose client hangs up if it is not answered soon.
    pub(super) fn impatient(self) -> Self {
        let ending = Ending::HangUp(Duration::from_millis(100));
        Self { ending, ..self }
    }

    pub(super) fn expecting(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }

    /// Sends the request and returns the answer.
    ///
    /// # Errors
    /// If the answer is wrong, or if there is none in time. The text says why.
    pub(super) async fn run(&self, address: &str, rng: &mut Rng) -> Result<Answer, String> {
        let connected = TcpStream::connect(address).await;
        let mut stream = connected.map_err(|error| format!("no connection: {error}"))?;
        let mut received = Vec::new();
        match self.ending {
            Ending::Read => {
                let exchange = async {
                    // The service may refuse the request before it has read all of it.
                    let _ = stream.write_all(&self.bytes).await;
                    let _ = stream.read_to_end(&mut received).await;
                };
                let in_time = timeout(ANSWER_TIMEOUT, exchange).await;
                in_time.map_err(|_| "the service does not answer".to_owned())?;
            }
            Ending::HangUp(pause) => {
                let _ = timeout(ANSWER_TIMEOUT, stream.write_all(&self.bytes)).await;
                let mut buffer = vec![0; 16 << 10];
                while let Ok(Ok(read @ 1..)) = timeout(pause, stream.read(&mut buffer)).await {
                    received.extend_from_slice(&buffer[..read]);
                }
            }
            Ending::Reset(pieces) => {
                let size = self.bytes.len().div_ceil(pieces).max(1);
                for piece in self.bytes.chunks(size) {
                    if stream.write_all(piece).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(rng.u64(..15))).await;
                }
                let _ = stream.set_zero_linger();
            }
        }
        let answer = Answer::of(received);
        self.check(&answer)?;
        Ok(answer)
    }

    fn check(&self, answer: &Answer) -> Result<(), String> {
        for status in &answer.statuses {
            if *status >= 500 && *status != 503 {
                return Err(format!("answered {status}"));
            }
        }
        let text = String::from_utf8_lossy(&answer.bytes);
        let says_when = text.to_ascii_lowercase().contains("retry-after: ");
        if answer.statuses.contains(&503) && !says_when {
            return Err("answered 503 without Retry-After".to_owned());
        }
        if text.contains("application/problem+json") {
            for inside in ["panicked", "/src/", "/tmp/", ".rs:", "os error"] {
                if text.contains(inside) {
                    return Err(format!("the answer reveals {inside:?}"));
                }
            }
        }
        let first = answer.statuses.first().copied();
        let is_right = match (self.expected, first) {
            (_, Some(503)) | (Expected::NoFailure, _) => true,
            (Expected::Refusal, Some(status)) => (400..500).contains(&status),
            // A client that waits gets an answer.
            (_, None) => !matches!(self.ending, Ending::Read),
            (Expected::OneOf(right), Some(status)) => right.contains(&status),
        };
        if is_right {
            Ok(())
        } else {
            Err(format!("answered {first:?}; {:?}", self.expected))
        }
    }
}

impl Answer {
    fn of(bytes: Vec<u8>) -> Self {
        const START: &[u8] = b"HTTP/1.1 ";
        let statuses = bytes
            .windows(START.len() + 3)
            .filter(|window| window.starts_with(START))
            .filter_map(|window| {
                std::str::from_utf8(&window[START.len()..])
                    .ok()?
                    .parse()
                    .ok()
            })
            .collect();
        Self { bytes, statuses }
    }
}

/// One of these.
pub(super) fn pick<T: Clone>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())].clone()
}

/// Random bytes.
pub(super) fn noise(rng: &mut Rng, most: usize) -> Vec<u8> {
    (0..rng.usize(1..=most)).map(|_| rng.u8(..)).collect()
}
