//! The bodies of responses. hyper polls them, and they record the outcome of their requests for the logs.
//!
//! A body is returned to hyper either whole, in one frame, or in pieces. Pieces are used for a stream of an app, and
//! over HTTP/2 for a body that is too large for one frame (`MAX_PIECE_BYTES`). The request stays attached to its
//! response body until hyper drops the body, because the outcome of the request is not known before.

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
    delivery::{self, MAX_PIECE_BYTES},
    framing::{LengthCheck, LengthError},
    request_record::RequestRecord,
};
use crate::{apps::generation::Generation, log::access::RequestOutcome, scoreboard::WorkKind};

/// The body of a response of the host or of an app.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    /// The request that the response answers. `None` before [`attach_request`](Self::attach_request).
    request: Option<(RequestGuard, RequestRecord)>,
}

/// The result of polling a body for its next frame.
pub(super) type FramePoll = Poll<Option<Result<Frame<OwnedBytes>, ResponseBodyError>>>;

/// The content of a [`ResponseBody`].
#[derive(Debug)]
enum Content {
    /// All bytes of the body are in memory, and are returned in one frame.
    Whole {
        /// The bytes. Empty once they were returned.
        bytes: OwnedBytes,
        /// Counts the request as in flight in its app until the body is dropped. `None` for the host's own bodies.
        in_flight: Option<InFlight>,
    },
    /// The body is returned in several frames. Boxed, because every body is moved several times, and most bodies are
    /// `Whole`.
    Pieces(Box<Pieces>),
    /// A body of the layer for a development session.
    Dev(DevBody),
}

/// A body of the layer for a development session: a stream of events, or a page that changes the bytes of another
/// `ResponseBody`.
struct DevBody(Pin<Box<dyn Body<Data = OwnedBytes, Error = ResponseBodyError> + Send>>);

impl fmt::Debug for DevBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DevBody")
    }
}

/// A body that is returned to hyper in pieces.
#[derive(Debug)]
struct Pieces {
    /// The rest of a frame of the app that was larger than a piece may be.
    rest: Bytes,
    source: PieceSource,
    /// Compares the number of bytes of a stream with the `content-length` of the head.
    length: LengthCheck,
    /// Whether a piece may have at most `MAX_PIECE_BYTES` bytes. True over HTTP/2.
    has_size_limit: bool,
}

/// The source of the pieces that follow `rest`.
#[derive(Debug)]
enum PieceSource {
    /// The app's stream.
    App(AppBody),
    /// No source: `rest` is all that is left of the body.
    Exhausted(
        #[expect(
            dead_code,
            reason = "counts the request as in flight until the body is dropped"
        )]
        InFlight,
    ),
}

impl ResponseBody {
    /// Creates a body of the host's own.
    pub fn of_host(bytes: impl Into<Bytes>) -> Self {
        Self {
            content: Content::whole(bytes.into().into(), None),
            request: None,
        }
    }

    /// Creates the body of an app's response. `content_length` is the `content-length` of the head, if the head has
    /// that field.
    ///
    /// The function has to be called in the task that sends the response, because it begins the [`delivery`] of that
    /// task.
    #[must_use]
    pub(super) fn of_app(
        body: AppBody,
        generation: &Arc<Generation>,
        content_length: Option<u64>,
    ) -> Self {
        let content = match body.into_whole() {
            Ok((bytes, in_flight)) => {
                // Over HTTP/2 a large body is split into pieces, although all of its bytes are in memory: only a poll
                // for the next piece shows that the client reads bytes.
                if delivery::on_response_begin(generation, false)
                    && bytes.remaining() > MAX_PIECE_BYTES
                {
                    Content::Pieces(Box::new(Pieces {
                        rest: bytes.into(),
                        source: PieceSource::Exhausted(in_flight),
                        length: LengthCheck::default(),
                        has_size_limit: true,
                    }))
                } else {
                    Content::whole(bytes, Some(in_flight))
                }
            }
            Err(body) => Content::Pieces(Box::new(Pieces {
                rest: Bytes::new(),
                length: LengthCheck::of(content_length, &body.size_hint()),
                source: PieceSource::App(body),
                has_size_limit: delivery::on_response_begin(generation, true),
            })),
        };
        Self {
            content,
            request: None,
        }
    }

    /// Creates a body of the layer for a development session. If `body` contains another `ResponseBody`, the request
    /// stays attached to the inner body, which records the outcome.
    pub(super) fn of_dev_layer(
        body: impl Body<Data = OwnedBytes, Error = ResponseBodyError> + Send + 'static,
    ) -> Self {
        Self {
            content: Content::Dev(DevBody(Box::pin(body))),
            request: None,
        }
    }

    /// Returns whether the body is the host's own. A body of the development layer is not.
    pub(super) fn is_of_host(&self) -> bool {
        matches!(
            self.content,
            Content::Whole {
                in_flight: None,
                ..
            }
        )
    }

    /// Replaces the content by bytes of the host's own. The request stays attached.
    pub(super) fn replace_content(&mut self, bytes: impl Into<Bytes>) {
        self.content = Content::whole(bytes.into().into(), None);
    }

    /// Attaches the request that the response answers. The request ends when the body is dropped.
    pub fn attach_request(&mut self, guard: RequestGuard, record: RequestRecord) {
        self.request = Some((guard, record));
    }
}

impl Default for ResponseBody {
    /// Creates an empty body of the host's own.
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
            Content::Dev(DevBody(body)) => return body.as_mut().poll_frame(context),
            // `in_flight` is not dropped yet, because the request counts as in flight while hyper sends the bytes.
            Content::Whole { bytes, .. } => {
                let bytes = mem::take(bytes);
                Poll::Ready((bytes.remaining() > 0).then(|| Ok(Frame::data(bytes))))
            }
            Content::Pieces(pieces) => {
                // Pieces in memory come first. Only a poll runs code of the app, which needs the scope of the request.
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
        delivery::on_body_polled(matches!(polled, Poll::Ready(Some(Ok(_)))));
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
            Content::Dev(DevBody(body)) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // The host's own bodies did not begin a delivery. A body of the development layer may contain another body,
        // which is dropped separately.
        if let Content::Dev(_)
        | Content::Whole {
            in_flight: None, ..
        } = &self.content
        {
            return;
        }
        // Also without a request, because the delivery has to stop watching the generation.
        let reason = delivery::on_response_end();
        let Some((_, record)) = &mut self.request else {
            return;
        };
        if let Some(reason) = reason {
            record.scope(|| debug!(reason = reason.as_str(), "Response aborted"));
            record.set_outcome(reason.outcome());
        }
        if let Content::Pieces(_) = &self.content {
            // The drop of the stream runs code of the app, whose log lines belong to the request.
            let content = &mut self.content;
            record.scope_in_app(WorkKind::Drop, || {
                *content = Content::whole(OwnedBytes::EMPTY, None);
            });
        }
    }
}

impl Content {
    /// Creates a body whose bytes are all in memory.
    fn whole(bytes: OwnedBytes, in_flight: Option<InFlight>) -> Self {
        Self::Whole { bytes, in_flight }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { bytes, .. } => bytes.remaining() == 0,
            Self::Pieces(pieces) => pieces.is_end_stream(),
            Self::Dev(DevBody(body)) => body.is_end_stream(),
        }
    }
}

impl Pieces {
    /// Returns the next piece if its bytes are in memory. Otherwise returns `None`, and the app has to be polled.
    ///
    /// A poll of the app's stream fetches several frames with one crossing of the ABI. This function returns the frames
    /// after the first without the cost of a crossing, a catch of panics, and an entry on the scoreboard.
    fn take_ready(&mut self) -> Option<OwnedBytes> {
        if self.rest.is_empty() {
            let PieceSource::App(body) = &mut self.source else {
                return None;
            };
            let bytes = body.take_prefetched()?;
            return Some(self.split_piece(bytes));
        }
        let len = self.rest.len().min(MAX_PIECE_BYTES);
        Some(self.rest.split_to(len).into())
    }

    /// Polls the app's stream for the next piece.
    fn poll(&mut self, context: &mut Context<'_>) -> FramePoll {
        let PieceSource::App(body) = &mut self.source else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(context);
        polled.map(|frame| {
            let frame = frame?.map_err(ResponseBodyError::App);
            Some(frame.map(|frame| match frame.into_data() {
                Ok(bytes) => Frame::data(self.split_piece(bytes)),
                Err(frame) => frame,
            }))
        })
    }

    /// Returns the first piece of `bytes`, and stores the rest in `rest`.
    fn split_piece(&mut self, bytes: OwnedBytes) -> OwnedBytes {
        if !self.has_size_limit || bytes.remaining() <= MAX_PIECE_BYTES {
            return bytes;
        }
        self.rest = bytes.into();
        self.rest.split_to(MAX_PIECE_BYTES).into()
    }

    /// Returns `polled`, or an error if with `polled` the body is longer or shorter than the `content-length` of the
    /// head.
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
        // False for a body that is too short, because hyper has to poll the body again to get the error.
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

/// A response body that failed before its end.
#[derive(Debug, thiserror::Error)]
pub enum ResponseBodyError {
    /// The app's stream failed, or the app panicked.
    #[error(transparent)]
    App(BodyError),
    /// The length of the body is not the `content-length` of the head.
    #[error(transparent)]
    Length(LengthError),
}

/// Records the result of a poll of a response body, and logs a failure. `is_end` is true if the body has no more frames
/// after `polled`.
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
        // A panic is not logged here, because the plugin has reported it.
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
                    "The app's response ended early"
                );
            });
        }
    }
}
