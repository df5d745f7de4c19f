//! The request as the app sees it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Method, Request, Uri, uri};
use http_body::{Frame, SizeHint};
use tokio::task::coop;

#[cfg(feature = "info")]
use super::info::RequestInfo;
#[cfg(feature = "local")]
use crate::crossing::{Guard, export};
use crate::{
    BodyError, BoxError,
    abi::{self, OwnedBytes},
    crossing::{Imported, Met, fill_map, path_and_query, version, with_met},
};

/// The body of a request: an [`http_body::Body`] of [`Bytes`].
///
/// It is read as it arrives; not reading holds the client back. Dropping it unread is fine.
#[derive(Debug)]
pub struct Body(Imported);

impl Body {
    /// The body that the host gave with a request; an empty one when that was taken before.
    ///
    /// # Safety
    ///
    /// `body` is null, or the host's, for the plugin to take.
    pub(crate) unsafe fn take(body: *mut abi::Body) -> Self {
        // SAFETY: the caller says so.
        let body = unsafe { body.as_mut() };
        Self(body.map_or(Imported::Empty, |body| Imported::take(body, ONE)))
    }
}

#[cfg(feature = "local")]
impl Body {
    /// A body of this process, which is polled, and dropped, under `guard`.
    pub(crate) fn of<B>(body: B, guard: impl Guard) -> Self
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        Self(Imported::take(&mut export(body, guard), ONE))
    }
}

fn of_bytes(frame: Frame<OwnedBytes>) -> Frame<Bytes> {
    frame.map_data(Bytes::from)
}

/// How many frames are asked for at once: a server reads a body into memory that it uses again when
/// the piece before has been dropped.
const ONE: usize = 1;

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
        // A frame counts as a step of the task, as one that tokio's own socket gives.
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

/// Makes `head` the request that the host lent: in its place, as it is large to move.
///
/// # Errors
///
/// When a part is not what HTTP allows, which a host checks before.
///
/// # Safety
///
/// `request` and what it borrows are valid until this returns.
pub(crate) unsafe fn fill<B>(
    head: &mut Request<B>,
    request: &abi::Request,
) -> Result<(), BoxError> {
    // SAFETY: the caller says so, as for all the slices below.
    let bytes = |slice: abi::Slice| unsafe { slice.bytes() };
    // SAFETY: as above.
    let fields = unsafe { request.fields() };
    *head.method_mut() = Method::from_bytes(bytes(request.method))?;
    *head.version_mut() = version(request.version);
    let [scheme, authority, path] = [request.scheme, request.authority, request.path].map(bytes);
    with_met(|mut met| {
        *head.uri_mut() = uri(scheme, authority, path, met.as_deref_mut())?;
        #[cfg(feature = "info")]
        {
            let path = head.uri().path_and_query();
            // SAFETY: as above.
            let info = unsafe { RequestInfo::new(request, path, met.as_deref_mut()) }?;
            info.insert_into(head);
        }
        // SAFETY: as above.
        unsafe { fill_map(head.headers_mut(), fields, met) }?;
        Ok(())
    })
}

fn uri(
    scheme: &[u8],
    authority: &[u8],
    path: &[u8],
    met: Option<&mut Met>,
) -> Result<Uri, BoxError> {
    if scheme.is_empty() && authority.is_empty() && !path.is_empty() {
        return Ok(path_and_query(path, met)?.into());
    }
    let mut parts = uri::Parts::default();
    if !scheme.is_empty() {
        parts.scheme = Some(scheme.try_into()?);
    }
    if !authority.is_empty() {
        parts.authority = Some(authority.try_into()?);
    }
    if !path.is_empty() {
        parts.path_and_query = Some(path_and_query(path, met)?);
    }
    Ok(Uri::from_parts(parts)?)
}

#[cfg(all(test, feature = "local"))]
mod tests {
    use std::{convert::Infallible, future::poll_fn};

    use futures_util::stream;
    use http_body::Body as _;
    use http_body_util::StreamBody;
    use tokio::runtime::Builder;

    use super::*;
    use crate::crossing::catch;

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
