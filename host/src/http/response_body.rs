//! The bodies of responses on their way to the connection, with an end that the log hears of.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use plugin_api::{
    BodyError,
    abi::OwnedBytes,
    host::{Body as AppBody, InFlight},
};
use tracing::{debug, error};

use super::{
    activity::RequestGuard,
    delivery::{self, PIECE},
    framing::{Length, WrongLength},
    trail::Trail,
};
use crate::{log::access::Outcome, scoreboard::Doing, worker::generation::Generation};

/// The body of a response: the host's own, or an app's.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    /// Until when the request counts as being answered, and what the log gets to know.
    sending: Option<(RequestGuard, Trail)>,
}

#[derive(Debug)]
enum Content {
    /// All of it is there.
    Whole {
        bytes: OwnedBytes,
        /// The request is in the app for as long as the body is there. None for the host's own bodies.
        in_flight: Option<InFlight>,
    },
    /// Boxed, because most bodies are `Whole`, and are moved several times.
    Pieces(Box<Pieces>),
    /// Another body, which passes this one on.
    Changed(Changed),
}

/// A body that changes what an app's says.
struct Changed(Pin<Box<dyn Body<Data = OwnedBytes, Error = Broken> + Send>>);

impl fmt::Debug for Changed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Changed")
    }
}

/// A body that is given to the connection one part after the other.
#[derive(Debug)]
struct Pieces {
    /// The rest of a frame that is larger than a part may be.
    rest: Bytes,
    source: Source,
    /// Compares the bytes of an app's stream with the length that the head says.
    length: Length,
    /// Whether parts are at most [`PIECE`] long.
    are_small: bool,
}

/// Where the parts of a body come from, after `rest`.
#[derive(Debug)]
enum Source {
    App(AppBody),
    /// There are no more, but the request is in the app until the last one has been given.
    Over(
        #[expect(
            dead_code,
            reason = "the request is in the app for as long as this is there"
        )]
        InFlight,
    ),
}

impl ResponseBody {
    /// A body of the host's.
    pub fn own(bytes: impl Into<Bytes>) -> Self {
        Self {
            content: Content::whole(bytes.into().into(), None),
            sending: None,
        }
    }

    /// The body of an app, in this generation of it, with the length that the head says, if it does.
    /// To be called by the task that sends it.
    #[must_use]
    pub(super) fn app(body: AppBody, generation: &Arc<Generation>, length: Option<u64>) -> Self {
        let content = match body.into_whole() {
            Ok((bytes, in_flight)) => {
                if delivery::begin(generation, false) && bytes.remaining() > PIECE {
                    Content::Pieces(Box::new(Pieces {
                        rest: bytes.into(),
                        source: Source::Over(in_flight),
                        length: Length::default(),
                        are_small: true,
                    }))
                } else {
                    Content::whole(bytes, Some(in_flight))
                }
            }
            Err(body) => Content::Pieces(Box::new(Pieces {
                rest: Bytes::new(),
                length: Length::of(length, &body.size_hint()),
                source: Source::App(body),
                are_small: delivery::begin(generation, true),
            })),
        };
        Self {
            content,
            sending: None,
        }
    }

    /// A body made of another, which it holds: that one tells the log what becomes of the request.
    pub(super) fn changed(
        body: impl Body<Data = OwnedBytes, Error = Broken> + Send + 'static,
    ) -> Self {
        Self {
            content: Content::Changed(Changed(Box::pin(body))),
            sending: None,
        }
    }

    /// Whether it is the host's own, in the place of an app's.
    pub(super) fn is_own(&self) -> bool {
        matches!(
            self.content,
            Content::Whole {
                in_flight: None,
                ..
            }
        )
    }

    /// Puts a body of the host's in the place of this one, for the same request.
    pub(super) fn replace(&mut self, bytes: impl Into<Bytes>) {
        self.content = Content::whole(bytes.into().into(), None);
    }

    /// The request counts as being answered for as long as this is there, and ends with it.
    pub fn until_sent(&mut self, answering: RequestGuard, trail: Trail) {
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
            Content::Changed(Changed(body)) => return body.as_mut().poll_frame(context),
            Content::Whole { bytes, .. } => {
                let bytes = mem::take(bytes);
                Poll::Ready((bytes.remaining() > 0).then(|| Ok(Frame::data(bytes))))
            }
            Content::Pieces(pieces) => {
                let polled = match (pieces.take_ahead(), &mut *sending) {
                    (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    (None, Some((_, trail))) => {
                        trail.scope_in_app(Doing::Body, || pieces.poll(context))
                    }
                    (None, None) => pieces.poll(context),
                };
                pieces.measure(polled)
            }
        };
        delivery::polled(matches!(polled, Poll::Ready(Some(Ok(_)))));
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
            Content::Pieces(pieces) => pieces.size_hint(),
            Content::Changed(Changed(body)) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Content::Changed(_)
        | Content::Whole {
            in_flight: None, ..
        } = &self.content
        {
            return;
        }
        let over = delivery::end();
        let Some((_, trail)) = &mut self.sending else {
            return;
        };
        if let Some(over) = over {
            trail.scope(|| debug!(reason = over.as_str(), "Response given up"));
            trail.end(over.outcome());
        }
        if let Content::Pieces(_) = &self.content {
            // The app's code that runs when its stream is dropped logs as the request.
            let content = &mut self.content;
            trail.scope_in_app(Doing::Drop, || {
                *content = Content::whole(OwnedBytes::EMPTY, None);
            });
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
            Self::Pieces(pieces) => pieces.is_end_stream(),
            Self::Changed(Changed(body)) => body.is_end_stream(),
        }
    }
}

impl Pieces {
    /// The next part, if it is there without polling the app.
    fn take_ahead(&mut self) -> Option<OwnedBytes> {
        if self.rest.is_empty() {
            let Source::App(body) = &mut self.source else {
                return None;
            };
            let bytes = body.take_ahead()?;
            return Some(self.part(bytes));
        }
        let len = self.rest.len().min(PIECE);
        Some(self.rest.split_to(len).into())
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<OwnedBytes>, Broken>>> {
        let Source::App(body) = &mut self.source else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        polled.map(|frame| {
            let frame = frame?.map_err(Broken::App);
            Some(frame.map(|frame| match frame.into_data() {
                Ok(bytes) => Frame::data(self.part(bytes)),
                Err(frame) => frame,
            }))
        })
    }

    /// `bytes`, or as much of them as may be given at once.
    fn part(&mut self, bytes: OwnedBytes) -> OwnedBytes {
        if !self.are_small || bytes.remaining() <= PIECE {
            return bytes;
        }
        self.rest = bytes.into();
        self.rest.split_to(PIECE).into()
    }

    /// `polled`, or an error if that makes the body longer or shorter than the head says.
    fn measure(
        &mut self,
        polled: Poll<Option<Result<Frame<OwnedBytes>, Broken>>>,
    ) -> Poll<Option<Result<Frame<OwnedBytes>, Broken>>> {
        let passed = match &polled {
            Poll::Ready(Some(Ok(frame))) => self.length.pass(Some(frame)),
            Poll::Ready(None) => self.length.pass::<OwnedBytes>(None),
            Poll::Ready(Some(Err(_))) | Poll::Pending => Ok(()),
        };
        match passed {
            Ok(()) => polled,
            Err(error) => Poll::Ready(Some(Err(Broken::Length(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        // hyper does not poll a body again that is at its end, so the end of a body that is too short
        // is not reported here: the next poll gives the error.
        self.rest.is_empty()
            && !self.length.is_short()
            && match &self.source {
                Source::App(body) => body.is_end_stream(),
                Source::Over(_) => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = match &self.source {
            Source::App(body) => body.size_hint(),
            Source::Over(_) => SizeHint::with_exact(0),
        };
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The app's own reason, or that it panicked.
    #[error(transparent)]
    App(BodyError),
    /// The body is not as long as the head of the response says.
    #[error(transparent)]
    Length(WrongLength),
}

/// Tells a request's trail what came of polling its body, and the log of a failure.
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
        // The panic was logged where it happened.
        Poll::Ready(Some(Err(Broken::App(error)))) if error.is_panic() => {
            trail.end(Outcome::Panicked);
        }
        Poll::Ready(Some(Err(error))) => {
            trail.end(Outcome::Failed);
            let plugin = trail.plugin();
            trail.scope(|| {
                error!(
                    plugin,
                    error = error as &dyn std::error::Error,
                    "The app's response broke off"
                );
            });
        }
    }
}
