//! The body of a request, as a type for authors.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::coop;

use crate::{
    BodyError,
    abi::{self, OwnedBytes},
    crossing::ImportedBody,
};
#[cfg(feature = "local")]
use crate::{
    BoxError,
    crossing::{PanicBoundary, export},
};

/// The body of a request: an [`http_body::Body`] of [`Bytes`].
///
/// The server passes the body to the app while the client sends the body. If the app does not read, the client must
/// wait. An app may drop a body that it has not read.
#[derive(Debug)]
pub struct Body(ImportedBody);

impl Body {
    /// Moves the host's `body` out and leaves an empty body behind. Returns an empty body if `body` is `None`.
    pub(crate) fn take(body: Option<&mut abi::Body>) -> Self {
        Self(body.map_or(ImportedBody::Empty, |body| {
            ImportedBody::take(body, MAX_FRAMES)
        }))
    }
}

#[cfg(feature = "local")]
impl Body {
    /// Returns a body that was created in this library, for an app without a server. `boundary` runs the polls and the
    /// drop of `body`, and catches their panics.
    pub(crate) fn from_local<B>(body: B, boundary: impl PanicBoundary) -> Self
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        Self(ImportedBody::take(&mut export(body, boundary), MAX_FRAMES))
    }
}

/// Converts the data of a frame to [`Bytes`].
fn into_bytes(frame: Frame<OwnedBytes>) -> Frame<Bytes> {
    frame.map_data(Bytes::from)
}

/// The maximum number of frames that one poll requests. 1, because the server can reuse its read buffer only after the
/// app has dropped the previous frame.
const MAX_FRAMES: usize = 1;

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.0.is_stream() {
            return self.0.poll_frame(context).map_ok(into_bytes);
        }
        // A frame consumes one unit of the task's cooperative budget, as a read from a tokio socket does. Otherwise a
        // task that reads a body whose frames are always ready would never return its thread to the runtime.
        let unit = ready!(coop::poll_proceed(context));
        // If the frame is pending, the drop of `unit` returns the unit to the budget.
        let frame = ready!(self.0.poll_frame(context));
        unit.made_progress();
        Poll::Ready(frame.map(|frame| frame.map(into_bytes)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(all(test, feature = "local"))]
mod tests {
    use std::{convert::Infallible, future::poll_fn};

    use futures_util::stream;
    use http_body::Body as _;
    use http_body_util::StreamBody;
    use tokio::runtime::Builder;

    use super::*;
    use crate::panics::catch;

    struct Here;

    impl PanicBoundary for Here {
        fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
            catch(work)
        }
    }

    #[test]
    fn a_task_that_reads_a_body_which_is_always_there_gives_its_thread_back() {
        let frames = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from("a"))));
        let mut body = Body::from_local(StreamBody::new(frames), Here);
        let runtime = Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(poll_fn(|context| {
            let mut polls = (0..1000).map(|_| Pin::new(&mut body).poll_frame(context));
            Poll::Ready(polls.position(|polled| polled.is_pending()))
        }));
        assert_eq!(read, Some(128));
    }
}
