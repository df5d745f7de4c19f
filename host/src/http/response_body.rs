//! The bodies of responses on their way to the connection, with an end that the log hears of.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use plugin_api::{
    BodyError,
    abi::OwnedBytes,
    host::{Body as AppBody, InFlight},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{activity::Answering, trail::Trail};
use crate::{log::access::Outcome, worker::generation::Generation};

/// The body of a response: the host's own, or an app's.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    /// Until when the request counts as being answered, and what the log gets to know.
    sending: Option<(Answering, Trail)>,
}

#[derive(Debug)]
enum Content {
    /// All of it is there.
    Whole {
        bytes: OwnedBytes,
        #[expect(
            dead_code,
            reason = "the request is in the app for as long as the body is there"
        )]
        in_flight: Option<InFlight>,
    },
    /// Apart, so that the others, which are most, are small to move.
    Stream(Box<Cuttable>),
}

/// An app's body that may have to wait, and then breaks off when its generation is cut off.
#[derive(Debug)]
struct Cuttable {
    body: AppBody,
    generation: Arc<Generation>,
    /// Made when the body is first not ready: most never are.
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl ResponseBody {
    /// A body of the host's.
    pub fn own(bytes: impl Into<Bytes>) -> Self {
        Self {
            content: Content::whole(bytes.into().into(), None),
            sending: None,
        }
    }

    /// The body of an app, in this generation of it.
    #[must_use]
    pub fn app(body: AppBody, generation: &Arc<Generation>) -> Self {
        let content = match body.into_whole() {
            Ok((bytes, in_flight)) => Content::whole(bytes, Some(in_flight)),
            Err(body) => Content::Stream(Box::new(Cuttable {
                body,
                generation: Arc::clone(generation),
                cut: None,
            })),
        };
        Self {
            content,
            sending: None,
        }
    }

    /// The request counts as being answered for as long as this is there, and ends with it.
    pub fn until_sent(&mut self, answering: Answering, trail: Trail) {
        self.sending = Some((answering, trail));
    }
}

impl Default for ResponseBody {
    /// No bytes.
    fn default() -> Self {
        Self {
            content: Content::whole(OwnedBytes::EMPTY, None),
            sending: None,
        }
    }
}

impl Body for ResponseBody {
    type Data = OwnedBytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<OwnedBytes>, Broken>>> {
        let Self { content, sending } = &mut *self;
        let polled = match content {
            Content::Whole { bytes, .. } => {
                let bytes = mem::take(bytes);
                Poll::Ready((bytes.remaining() > 0).then(|| Ok(Frame::data(bytes))))
            }
            Content::Stream(stream) => match (stream.body.take_ahead(), &mut *sending) {
                (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                (None, Some((_, trail))) => trail.scope(|| stream.poll(context)),
                (None, None) => stream.poll(context),
            },
        };
        if let Some((_, trail)) = sending {
            tell(trail, &polled, content.is_end_stream());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole { bytes, .. } => SizeHint::with_exact(bytes.remaining() as u64),
            Content::Stream(stream) => stream.body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // What an app does at the end of its stream is its request's.
        if let (Content::Stream(_), Some((_, trail))) = (&self.content, &mut self.sending) {
            let content = &mut self.content;
            trail.scope(|| *content = Content::whole(OwnedBytes::EMPTY, None));
        }
    }
}

impl Content {
    fn whole(bytes: OwnedBytes, in_flight: Option<InFlight>) -> Self {
        Self::Whole { bytes, in_flight }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { bytes, .. } => bytes.remaining() == 0,
            Self::Stream(stream) => stream.body.is_end_stream(),
        }
    }
}

impl Cuttable {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<OwnedBytes>, Broken>>> {
        let polled = Pin::new(&mut self.body)
            .poll_frame(context)
            .map_err(Broken::App);
        if polled.is_ready() {
            return polled;
        }
        let cut = self
            .cut
            .get_or_insert_with(|| Box::pin(self.generation.cut.clone().cancelled_owned()));
        ready!(cut.as_mut().poll(context));
        Poll::Ready(Some(Err(Broken::CutOff)))
    }
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The app's own reason, or that it panicked.
    #[error(transparent)]
    App(BodyError),
    /// Its generation was cut off.
    #[error("the app's time to drain is over")]
    CutOff,
}

/// Tells a request's trail what came of polling its body.
fn tell(trail: &mut Trail, polled: &Poll<Option<Result<Frame<OwnedBytes>, Broken>>>, ended: bool) {
    match polled {
        Poll::Pending => {}
        Poll::Ready(None) => trail.end(Outcome::Answered),
        Poll::Ready(Some(Ok(frame))) => {
            trail.send(frame.data_ref().map_or(0, Buf::remaining));
            if ended {
                trail.end(Outcome::Answered);
            }
        }
        Poll::Ready(Some(Err(Broken::CutOff))) => trail.end(Outcome::CutOff),
        Poll::Ready(Some(Err(Broken::App(error)))) => trail.end(if error.is_panic() {
            Outcome::Panicked
        } else {
            Outcome::Failed
        }),
    }
}
