//! The bodies on their way through the host: requests' with a limit, responses' with an end.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use plugin_api::{BodyError, BoxError, abi::OwnedBytes, host::Body as AppBody};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{activity::Answering, trail::Trail};
use crate::log::access::Outcome;

/// The body of a request, which breaks off when it is larger than it may be.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// How many bytes may still come.
    left: u64,
    exceeded: Arc<AtomicBool>,
}

impl RequestBody {
    /// A body of at most `limit` bytes. The flag tells when there were more.
    #[must_use]
    pub fn new(incoming: Incoming, limit: u64) -> (Self, Arc<AtomicBool>) {
        let exceeded = Arc::new(AtomicBool::new(false));
        (
            Self {
                incoming,
                left: limit,
                exceeded: Arc::clone(&exceeded),
            },
            exceeded,
        )
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context)?);
        let len = frame
            .as_ref()
            .and_then(Frame::data_ref)
            .map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(len) {
            Some(left) => self.left = left,
            None => {
                self.exceeded.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(
                    "the request's body is larger than this server takes".into(),
                )));
            }
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

pin_project! {
    /// The body of a response: the host's own, or an app's, which may be cut off.
    #[derive(Debug)]
    pub struct ResponseBody {
        content: Content,
        cut: Option<CancellationToken>,
        // Made when the body is first not ready: most never are.
        #[pin]
        cancelled: Option<WaitForCancellationFutureOwned>,
        // Until when the request counts as being answered, and what the log gets to know.
        sending: Option<(Answering, Trail)>,
    }

    impl PinnedDrop for ResponseBody {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // What an app does at the end of its body is its request's.
            if let Some((_, trail)) = this.sending {
                trail.scope(|| *this.content = Content::Own(Full::default()));
            }
        }
    }
}

#[derive(Debug)]
enum Content {
    Own(Full<Bytes>),
    App(AppBody),
}

impl ResponseBody {
    /// A body of the host's.
    pub fn own(bytes: impl Into<Bytes>) -> Self {
        let content = Content::Own(Full::new(bytes.into()));
        Self {
            content,
            cut: None,
            cancelled: None,
            sending: None,
        }
    }

    /// An app's body, which breaks off when `cut` is cancelled.
    #[must_use]
    pub fn app(body: AppBody, cut: CancellationToken) -> Self {
        Self {
            content: Content::App(body),
            cut: Some(cut),
            cancelled: None,
            sending: None,
        }
    }

    /// The same body. The request counts as being answered for as long as it is there, and ends
    /// with it.
    #[must_use]
    pub fn until_sent(mut self, answering: Answering, trail: Trail) -> Self {
        self.sending = Some((answering, trail));
        self
    }
}

impl Body for ResponseBody {
    type Data = Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Data>, BoxError>>> {
        let mut this = self.project();
        let content = this.content;
        let polled = match this.sending {
            Some((_, trail)) => trail.scope(|| content.poll(context)),
            None => content.poll(context),
        };
        if polled.is_pending() && this.cancelled.is_none() {
            this.cancelled
                .set(this.cut.take().map(CancellationToken::cancelled_owned));
        }
        let cut = match this.cancelled.as_pin_mut() {
            Some(cancelled) if polled.is_pending() => cancelled.poll(context).is_ready(),
            _ => false,
        };
        if let Some((_, trail)) = this.sending {
            tell(trail, &polled, cut, content.is_end_stream());
        }
        if cut {
            return Poll::Ready(Some(Err("the app's time to drain is over".into())));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(body) => body.size_hint(),
            Content::App(body) => body.size_hint(),
        }
    }
}

impl Content {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Data>, BoxError>>> {
        match self {
            Self::Own(body) => {
                let own = |frame: Frame<Bytes>| frame.map_data(Data::Own);
                Pin::new(body)
                    .poll_frame(context)
                    .map_ok(own)
                    .map_err(Into::into)
            }
            Self::App(body) => {
                let app = |frame: Frame<OwnedBytes>| frame.map_data(Data::App);
                Pin::new(body)
                    .poll_frame(context)
                    .map_ok(app)
                    .map_err(Into::into)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::App(body) => body.is_end_stream(),
        }
    }
}

/// Tells a request's trail what came of polling its body.
fn tell(
    trail: &mut Trail,
    polled: &Poll<Option<Result<Frame<Data>, BoxError>>>,
    cut: bool,
    ended: bool,
) {
    match polled {
        Poll::Pending if cut => trail.end(Outcome::CutOff),
        Poll::Pending => {}
        Poll::Ready(None) => trail.end(Outcome::Answered),
        Poll::Ready(Some(Ok(frame))) => {
            trail.send(frame.data_ref().map_or(0, Buf::remaining));
            if ended {
                trail.end(Outcome::Answered);
            }
        }
        Poll::Ready(Some(Err(error))) => trail.end(match error.downcast_ref::<BodyError>() {
            Some(error) if error.is_panic() => Outcome::Panicked,
            _ => Outcome::Failed,
        }),
    }
}

/// A piece of a response.
#[derive(Debug)]
pub enum Data {
    /// The host's.
    Own(Bytes),
    /// An app's: it is sent from where the app put it.
    App(OwnedBytes),
}

impl Buf for Data {
    fn remaining(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.remaining(),
            Self::App(bytes) => bytes.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes.chunk(),
            Self::App(bytes) => bytes.chunk(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Own(bytes) => bytes.advance(count),
            Self::App(bytes) => bytes.advance(count),
        }
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        match self {
            Self::Own(bytes) => bytes.copy_to_bytes(len),
            Self::App(bytes) => bytes.copy_to_bytes(len),
        }
    }
}
