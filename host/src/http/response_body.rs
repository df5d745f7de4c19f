//! The bodies of responses on their way to the connection, and what the logs get to know of them.
//!
//! A body is given to hyper either whole, in one frame, or in pieces: a stream of the app's, or a body that
//! is too large for one frame of HTTP/2 (`PIECE`). The request that the body answers stays attached to
//! it until hyper drops the body, because only then its outcome is known.

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
    framing::{LengthCheck, LengthError},
    request_record::RequestRecord,
};
use crate::{log::access::RequestOutcome, scoreboard::WorkKind, worker::generation::Generation};

/// The body of a response: the host's own, or an app's.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    /// The request that this body answers. None before [`attach_request`](Self::attach_request).
    request: Option<(RequestGuard, RequestRecord)>,
}

/// The result of polling a body for its next frame.
pub(super) type FramePoll = Poll<Option<Result<Frame<OwnedBytes>, ResponseBodyError>>>;

#[derive(Debug)]
enum Content {
    /// The whole body is there, and goes out in one frame.
    Whole {
        bytes: OwnedBytes,
        /// Counts the request as in flight in its app until the body is dropped. None for the host's own
        /// bodies.
        in_flight: Option<InFlight>,
    },
    /// Boxed, because most bodies are `Whole`, and every body is moved several times.
    Pieces(Box<Pieces>),
    /// A body around another `ResponseBody`.
    Wrapper(Wrapper),
}

/// A body that holds another `ResponseBody` and changes what it gives.
struct Wrapper(Pin<Box<dyn Body<Data = OwnedBytes, Error = ResponseBodyError> + Send>>);

impl fmt::Debug for Wrapper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Wrapper")
    }
}

/// A body that is given to the connection piece by piece.
#[derive(Debug)]
struct Pieces {
    /// The rest of a frame that was larger than a piece may be.
    rest: Bytes,
    source: PieceSource,
    /// Compares the bytes of a stream with the length that the head announces.
    length: LengthCheck,
    /// Whether pieces have at most `PIECE` bytes.
    are_small: bool,
}

/// The source of the pieces that follow `rest`.
#[derive(Debug)]
enum PieceSource {
    /// The app's stream.
    App(AppBody),
    /// No more pieces follow `rest`.
    Exhausted(
        #[expect(
            dead_code,
            reason = "counts the request as in flight until the last piece is given"
        )]
        InFlight,
    ),
}

impl ResponseBody {
    /// Returns a body of the host's own.
    pub fn own(bytes: impl Into<Bytes>) -> Self {
        Self {
            content: Content::whole(bytes.into().into(), None),
            request: None,
        }
    }

    /// Returns the body of an app's response. `length` is the length that the head announces, if it does.
    ///
    /// The task that sends the response has to call this, because the [`delivery`] of that task is told
    /// that a response begins.
    #[must_use]
    pub(super) fn app(body: AppBody, generation: &Arc<Generation>, length: Option<u64>) -> Self {
        let content = match body.into_whole() {
            Ok((bytes, in_flight)) => {
                // Over HTTP/2 a large body is cut into pieces, although all of its bytes are there.
                if delivery::begin(generation, false) && bytes.remaining() > PIECE {
                    Content::Pieces(Box::new(Pieces {
                        rest: bytes.into(),
                        source: PieceSource::Exhausted(in_flight),
                        length: LengthCheck::default(),
                        are_small: true,
                    }))
                } else {
                    Content::whole(bytes, Some(in_flight))
                }
            }
            Err(body) => Content::Pieces(Box::new(Pieces {
                rest: Bytes::new(),
                length: LengthCheck::of(length, &body.size_hint()),
                source: PieceSource::App(body),
                are_small: delivery::begin(generation, true),
            })),
        };
        Self {
            content,
            request: None,
        }
    }

    /// Returns a body around another `ResponseBody`. The inner body keeps its request, and reports the
    /// outcome.
    pub(super) fn wrapper(
        body: impl Body<Data = OwnedBytes, Error = ResponseBodyError> + Send + 'static,
    ) -> Self {
        Self {
            content: Content::Wrapper(Wrapper(Box::pin(body))),
            request: None,
        }
    }

    /// Whether the body is the host's own, in place of an app's.
    pub(super) fn is_own(&self) -> bool {
        matches!(
            self.content,
            Content::Whole {
                in_flight: None,
                ..
            }
        )
    }

    /// Replaces the content by bytes of the host's own. The request stays attached.
    pub(super) fn replace(&mut self, bytes: impl Into<Bytes>) {
        self.content = Content::whole(bytes.into().into(), None);
    }

    /// Attaches the request that this body answers. The request ends when the body is dropped.
    pub fn attach_request(&mut self, guard: RequestGuard, record: RequestRecord) {
        self.request = Some((guard, record));
    }
}

impl Default for ResponseBody {
    /// An empty body of the host's own.
    fn default() -> Self {
        Self {
            content: Content::whole(OwnedBytes::EMPTY, None),
            request: None,
        }
    }
}

impl Body for ResponseBody {
    type Data = OwnedBytes;
    type Error = ResponseBodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> FramePoll {
        let Self { content, request } = &mut *self;
        let polled = match content {
            Content::Wrapper(Wrapper(body)) => return body.as_mut().poll_frame(context),
            // `in_flight` stays until the drop, so that the request counts as in flight while hyper sends.
            Content::Whole { bytes, .. } => {
                let bytes = mem::take(bytes);
                Poll::Ready((bytes.remaining() > 0).then(|| Ok(Frame::data(bytes))))
            }
            Content::Pieces(pieces) => {
                let polled = match (pieces.take_ready(), &mut *request) {
                    (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    (None, Some((_, record))) => {
                        record.scope_in_app(WorkKind::Body, || pieces.poll(context))
                    }
                    (None, None) => pieces.poll(context),
                };
                pieces.check_length(polled)
            }
        };
        delivery::polled(matches!(polled, Poll::Ready(Some(Ok(_)))));
        if let Some((_, record)) = request {
            record_frame(record, &polled, content.is_end_stream());
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
            Content::Wrapper(Wrapper(body)) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // The host's own bodies are not delivered by `delivery::begin`, and a wrapper's inner body has a
        // drop of its own.
        if let Content::Wrapper(_)
        | Content::Whole {
            in_flight: None, ..
        } = &self.content
        {
            return;
        }
        let reason = delivery::end();
        let Some((_, record)) = &mut self.request else {
            return;
        };
        if let Some(reason) = reason {
            record.scope(|| debug!(reason = reason.as_str(), "Response given up"));
            record.set_outcome(reason.outcome());
        }
        if let Content::Pieces(_) = &self.content {
            // Code of the app runs when its stream is dropped. What it logs belongs to the request.
            let content = &mut self.content;
            record.scope_in_app(WorkKind::Drop, || {
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
            Self::Wrapper(Wrapper(body)) => body.is_end_stream(),
        }
    }
}

impl Pieces {
    /// Returns the next piece if it is there already, so that the app need not be polled.
    ///
    /// A poll of the app's stream fetches several frames in one crossing of the boundary. The frames after
    /// the first are returned here, and the crossing, its panic boundary and the scoreboard cost nothing
    /// for them.
    fn take_ready(&mut self) -> Option<OwnedBytes> {
        if self.rest.is_empty() {
            let PieceSource::App(body) = &mut self.source else {
                return None;
            };
            let bytes = body.take_ahead()?;
            return Some(self.piece(bytes));
        }
        let len = self.rest.len().min(PIECE);
        Some(self.rest.split_to(len).into())
    }

    /// Polls the app's stream.
    fn poll(&mut self, context: &mut Context<'_>) -> FramePoll {
        let PieceSource::App(body) = &mut self.source else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        polled.map(|frame| {
            let frame = frame?.map_err(ResponseBodyError::App);
            Some(frame.map(|frame| match frame.into_data() {
                Ok(bytes) => Frame::data(self.piece(bytes)),
                Err(frame) => frame,
            }))
        })
    }

    /// Returns as much of `bytes` as may be given at once, and keeps the rest.
    fn piece(&mut self, bytes: OwnedBytes) -> OwnedBytes {
        if !self.are_small || bytes.remaining() <= PIECE {
            return bytes;
        }
        self.rest = bytes.into();
        self.rest.split_to(PIECE).into()
    }

    /// Returns `polled`, or an error if `polled` makes the body longer or shorter than the head announces.
    fn check_length(&mut self, polled: FramePoll) -> FramePoll {
        let checked = match &polled {
            Poll::Ready(Some(Ok(frame))) => self.length.count(Some(frame)),
            Poll::Ready(None) => self.length.count::<OwnedBytes>(None),
            Poll::Ready(Some(Err(_))) | Poll::Pending => Ok(()),
        };
        match checked {
            Ok(()) => polled,
            Err(error) => Poll::Ready(Some(Err(ResponseBodyError::Length(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        // A body that is too short must not say that it is at its end: hyper would not poll it again, and
        // the next poll gives the error.
        self.rest.is_empty()
            && !self.length.is_short()
            && match &self.source {
                PieceSource::App(body) => body.is_end_stream(),
                PieceSource::Exhausted(_) => true,
            }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = match &self.source {
            PieceSource::App(body) => body.size_hint(),
            PieceSource::Exhausted(_) => SizeHint::with_exact(0),
        };
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// A response body that broke off.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    /// The app's stream failed, or the app panicked.
    #[error(transparent)]
    App(BodyError),
    /// The body is not as long as the head of the response announces.
    #[error(transparent)]
    Length(LengthError),
}

/// Records what came of polling the body of a request, and logs a failure. `is_end` says whether the body
/// is at its end after the frame.
fn record_frame(record: &mut RequestRecord, polled: &FramePoll, is_end: bool) {
    match polled {
        Poll::Pending => {}
        Poll::Ready(None) => record.set_outcome(RequestOutcome::Answered),
        Poll::Ready(Some(Ok(frame))) => {
            record.add_bytes_sent(frame.data_ref().map_or(0, Buf::remaining));
            if is_end {
                record.set_outcome(RequestOutcome::Answered);
            }
        }
        // A panic is logged where it happens.
        Poll::Ready(Some(Err(ResponseBodyError::App(error)))) if error.is_panic() => {
            record.set_outcome(RequestOutcome::Panicked);
        }
        Poll::Ready(Some(Err(error))) => {
            record.set_outcome(RequestOutcome::Failed);
            let plugin = record.plugin();
            record.scope(|| {
                error!(
                    plugin,
                    error = error as &dyn std::error::Error,
                    "The app's response broke off"
                );
            });
        }
    }
}
