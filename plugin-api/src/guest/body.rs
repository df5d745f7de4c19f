//! The body of a request, as the app reads it.

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
    crossing::Imported,
};
#[cfg(feature = "local")]
use crate::{
    BoxError,
    crossing::{Guard, export},
};

/// The body of a request: an [`http_body::Body`] of [`Bytes`].
///
/// The body is read as it arrives; not reading holds the client back. Dropping it unread is fine.
#[derive(Debug)]
pub struct Body(Imported);

impl Body {
    /// The body that the host gave with a request, and leaves to the plugin; an empty one when the host gave none.
    pub(crate) fn take(body: Option<&mut abi::Body>) -> Self {
        Self(body.map_or(Imported::Empty, |body| Imported::take(body, MAX_FRAMES)))
    }
}

#[cfg(feature = "local")]
impl Body {
    /// A body of this process, which is polled, and dropped, under `guard`.
    pub(crate) fn of<B>(body: B, guard: impl Guard) -> Self
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        Self(Imported::take(&mut export(body, guard), MAX_FRAMES))
    }
}

fn of_bytes(frame: Frame<OwnedBytes>) -> Frame<Bytes> {
    frame.map_data(Bytes::from)
}

/// How many frames are asked for at once. Not more, because the server can reuse its read buffer only after the
/// previous frame has been dropped.
const MAX_FRAMES: usize = 1;

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.0.is_stream() {
            return self.0.poll_frame(context).map_ok(of_bytes);
        }
        // A frame uses up some of the task's budget, as a read of a tokio socket does.
        let step = ready!(coop::poll_proceed(context));
        let frame = ready!(self.0.poll_frame(context));
        step.made_progress();
        Poll::Ready(frame.map(|frame| frame.map(of_bytes)))
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

    impl Guard for Here {
        fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
            catch(work)
        }
    }

    #[test]
    fn a_task_that_reads_a_body_which_is_always_there_gives_its_thread_back() {
        let frames = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from("a"))));
        let mut body = Body::of(StreamBody::new(frames), Here);
        let runtime = Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(poll_fn(|context| {
            let mut polls = (0..1000).map(|_| Pin::new(&mut body).poll_frame(context));
            Poll::Ready(polls.position(|polled| polled.is_pending()))
        }));
        assert_eq!(read, Some(128));
    }
}
