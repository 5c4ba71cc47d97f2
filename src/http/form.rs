//! Multipart forms, parsed in time that is linear in their size.
//!
//! While the parser looks for the end of a preamble or of a part's head, it searches its whole
//! buffer again for each chunk that it gets. Small chunks and a long head would make this
//! quadratic. So the parser gets at most [`MAX_HEAD_BYTES`] while it looks for such an end, and
//! small chunks are joined before it gets them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use multer::{Field, Multipart};
use tokio::time::{Instant, timeout_at};

use super::incoming::IncomingBody;
use super::problem::{Code, Problem};

/// The most bytes before a part's data: the preamble and the part's head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// How long small chunks of a head are joined.
const JOIN_TIME: Duration = Duration::from_millis(10);
/// The value of `head_left` while the parser reads a part's data.
const NOT_IN_HEAD: usize = usize::MAX;

/// A form, read part by part.
pub(super) struct Form<'a> {
    parts: Multipart<'a>,
    /// How many more bytes the parser gets until it has found the end of a head.
    head_left: Arc<AtomicUsize>,
}

impl<'a> Form<'a> {
    /// The form in `body`.
    pub(super) fn new(body: &'a mut impl Chunks, boundary: String) -> Self {
        let head_left = Arc::new(AtomicUsize::new(NOT_IN_HEAD));
        let pieces = Pieces {
            body,
            head_left: Arc::clone(&head_left),
            rest: Bytes::new(),
        };
        Self {
            parts: Multipart::new(pieces.into_stream(), boundary),
            head_left,
        }
    }

    /// The next part; `None` at the end. The part before must have been read to its end.
    pub(super) async fn next(&mut self) -> Result<Option<Part<'a>>, Problem> {
        self.head_left.store(MAX_HEAD_BYTES, Ordering::Relaxed);
        let field = self.parts.next_field().await;
        self.head_left.store(NOT_IN_HEAD, Ordering::Relaxed);
        Ok(field.map_err(problem)?.map(Part))
    }
}

/// A part of a form.
pub(super) struct Part<'a>(Field<'a>);

impl Part<'_> {
    /// The name of the part.
    pub(super) fn name(&self) -> Option<&str> {
        self.0.name()
    }

    /// Whether the part is a file.
    pub(super) fn is_file(&self) -> bool {
        self.0.file_name().is_some()
    }

    /// The next bytes of the part's data; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Problem> {
        self.0.chunk().await.map_err(problem)
    }

    /// Reads the part to its end and discards it.
    pub(super) async fn skip(mut self) -> Result<(), Problem> {
        while self.chunk().await?.is_some() {}
        Ok(())
    }
}

/// A body, chunk by chunk.
pub(super) trait Chunks: Send {
    /// The next bytes; `None` at the end. Cancelling it loses no bytes.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Problem>> + Send;
}

impl Chunks for IncomingBody {
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Problem>> + Send {
        self.next()
    }
}

/// The chunks of a body as the parser gets them.
struct Pieces<'a, B> {
    body: &'a mut B,
    head_left: Arc<AtomicUsize>,
    /// Bytes of the body that the parser has not got yet.
    rest: Bytes,
}

impl<'a, B: Chunks> Pieces<'a, B> {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Refused>> + Send + 'a {
        stream::unfold(self, async |mut pieces| {
            let piece = pieces.next().await.map_err(Refused).transpose();
            piece.map(|piece| (piece, pieces))
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        // The parser takes chunks for as long as they are ready, and searches only then. So this
        // function is not ready at first.
        tokio::task::yield_now().await;
        // While the parser looks for its first boundary, it asks twice before it searches.
        for _ in 0..2 {
            if self.head_left() == Some(0) {
                tokio::task::yield_now().await;
            }
        }
        if self.head_left() == Some(0) {
            let detail = format!(
                "the form's preamble or a part's head has more than {} KiB",
                MAX_HEAD_BYTES >> 10
            );
            return Err(Problem::new(Code::MalformedRequest, detail));
        }
        let Some(mut piece) = self.read().await? else {
            return Ok(None);
        };
        // While this function waits, the parser can find the end of a head in the bytes that it
        // has. So `head_left` is read again after each wait.
        if let Some(left) = self.head_left() {
            let wanted = left.min(MAX_HEAD_BYTES - left);
            if piece.len() < wanted {
                piece = self.join(piece, wanted).await?;
            }
        }
        if let Some(left) = self.head_left() {
            self.rest = piece.split_off(piece.len().min(left));
            self.head_left.store(left - piece.len(), Ordering::Relaxed);
        }
        Ok(Some(piece))
    }

    /// How many more bytes the parser gets; `None` while it reads a part's data.
    fn head_left(&self) -> Option<usize> {
        let left = self.head_left.load(Ordering::Relaxed);
        (left != NOT_IN_HEAD).then_some(left)
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.rest.is_empty() {
            self.body.next().await
        } else {
            Ok(Some(std::mem::take(&mut self.rest)))
        }
    }

    /// Joins `first` with the chunks after it, up to so many bytes or for [`JOIN_TIME`].
    async fn join(&mut self, first: Bytes, wanted: usize) -> Result<Bytes, Problem> {
        let until = Instant::now() + JOIN_TIME;
        let mut joined = BytesMut::from(first);
        while joined.len() < wanted {
            match timeout_at(until, self.body.next()).await {
                Ok(more) => match more? {
                    Some(more) => joined.extend_from_slice(&more),
                    None => break,
                },
                Err(_) => break,
            }
        }
        Ok(joined.freeze())
    }
}

/// The problem because of which the parser gets no more bytes.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.detail)]
struct Refused(Problem);

fn problem(error: multer::Error) -> Problem {
    let malformed = || {
        let detail = "the multipart form is malformed or ended early";
        Problem::new(Code::MalformedRequest, detail)
    };
    match error {
        multer::Error::StreamReadFailed(cause) => match cause.downcast::<Refused>() {
            Ok(refused) => refused.0,
            Err(_) => malformed(),
        },
        _ => malformed(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    /// A body that arrives in chunks, each after a pause.
    struct Script {
        chunks: std::vec::IntoIter<Bytes>,
        pause: Duration,
        due: Option<Instant>,
    }

    impl Script {
        fn new(body: &[u8], sizes: impl Iterator<Item = usize>, pause: Duration) -> Self {
            let mut rest = Bytes::copy_from_slice(body);
            let mut chunks = Vec::new();
            for size in sizes {
                if rest.is_empty() {
                    break;
                }
                chunks.push(rest.split_to(size.min(rest.len())));
            }
            Self {
                chunks: chunks.into_iter(),
                pause,
                due: None,
            }
        }
    }

    impl Chunks for Script {
        async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
            let due = *self.due.get_or_insert(Instant::now() + self.pause);
            tokio::time::sleep_until(due).await;
            self.due = None;
            Ok(self.chunks.next())
        }
    }

    /// The names and the data of a form's parts.
    async fn parts(body: &mut Script) -> Result<Vec<(String, Vec<u8>)>, Problem> {
        let mut form = Form::new(body, "frontier".to_owned());
        let mut parts = Vec::new();
        while let Some(mut part) = form.next().await? {
            let name = part.name().unwrap_or_default().to_owned();
            let mut data = Vec::new();
            while let Some(chunk) = part.chunk().await? {
                data.extend_from_slice(&chunk);
            }
            parts.push((name, data));
        }
        Ok(parts)
    }

    fn form(preamble: usize, head: usize, data: &[u8]) -> Vec<u8> {
        let mut body = vec![b'p'; preamble];
        for name in ["crop", "file"] {
            let filler = "x".repeat(head);
            let head = format!(
                "\r\n--frontier\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\
                 X-Filler: {filler}\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(data);
        }
        body.extend_from_slice(b"\r\n--frontier--\r\n");
        body
    }

    #[tokio::test(start_paused = true)]
    async fn the_chunks_of_a_form_do_not_change_its_parts() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut data: Vec<_> = std::iter::repeat_with(|| random.u8(..))
                .take(3000)
                .collect();
            // Data that resembles a boundary is data.
            data.extend_from_slice(b"\r\n--frontie\r\n--\r");
            let body = form(random.usize(..9000), random.usize(..5000), &data);
            let max_size = random.usize(1..2000);
            let sizes = std::iter::repeat_with(|| random.usize(1..=max_size));
            let pause = Duration::from_millis(seed % 3 * 4);
            let mut script = Script::new(&body, sizes, pause);
            let parts = parts(&mut script).await.unwrap();
            let expected = ["crop", "file"].map(|name| (name.to_owned(), data.clone()));
            assert_eq!(parts, expected, "seed {seed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_preamble_or_head_without_an_end_is_refused_at_16_kib() {
        let mut endless = b"\r\n--frontier\r\nX-Filler: ".to_vec();
        endless.resize(1 << 20, b'x');
        for body in [
            vec![b'p'; 1 << 20],
            form(1 << 20, 1, b""),
            form(0, 20_000, b""),
            endless,
        ] {
            for size in [1, 100, 60_000] {
                let sizes = std::iter::repeat(size);
                let mut script = Script::new(&body, sizes, Duration::ZERO);
                let problem = parts(&mut script).await.unwrap_err();
                assert_eq!(problem.code, Code::MalformedRequest);
                assert!(
                    problem.detail.contains("more than 16 KiB"),
                    "{}",
                    problem.detail
                );
                let read = body.len() - script.chunks.map(|chunk| chunk.len()).sum::<usize>();
                assert!(read <= MAX_HEAD_BYTES + 2 * size, "{read} bytes were read");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_in_single_bytes_is_searched_rarely() {
        let body = vec![b'p'; 100_000];
        let mut script = Script::new(&body, std::iter::repeat(1), Duration::from_millis(1));
        let pieces = Pieces {
            body: &mut script,
            head_left: Arc::new(AtomicUsize::new(MAX_HEAD_BYTES)),
            rest: Bytes::new(),
        };
        let mut pieces = std::pin::pin!(pieces.into_stream());
        let (mut searches, mut bytes) = (0, 0);
        while let Some(Ok(piece)) = pieces.next().await {
            searches += 1;
            bytes += piece.len();
        }
        assert_eq!(bytes, MAX_HEAD_BYTES);
        assert!(searches < 2000, "{searches} searches");
    }
}
