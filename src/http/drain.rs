//! Reads and discards the rest of a refused request's body.
//!
//! A client that still sends its body when the connection is closed gets a reset, and does not see
//! the response with the reason. So the rest of a refused body is read and discarded, up to a size
//! and for a limited time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::EXPECT;
use futures_util::StreamExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

/// The most bytes that are discarded for one request.
const MAX_BYTES: usize = 64 << 20;
/// The longest time for which a body is discarded.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Makes the request discard the rest of its body when the body is dropped before its end.
pub(super) fn when_dropped(request: Request) -> Request {
    // A client that sends `Expect: 100-continue` sends no body after a refusal.
    if request.headers().contains_key(EXPECT) || request.body().is_end_stream() {
        return request;
    }
    request.map(|body| Body::new(Drained { body: Some(body) }))
}

struct Drained {
    body: Option<Body>,
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        // The task needs no owner: it ends after `MAX_TIME`, or with the connection.
        runtime.spawn(tokio::time::timeout(MAX_TIME, async move {
            let mut left = MAX_BYTES;
            let mut chunks = body.into_data_stream();
            while let Some(Ok(chunk)) = chunks.next().await {
                left = left.saturating_sub(chunk.len());
                if left == 0 {
                    break;
                }
            }
        }));
    }
}
