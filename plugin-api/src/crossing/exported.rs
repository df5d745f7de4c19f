//! Passes a body of this side to the other side, which polls the body for frames.
//!
//! Most bodies have one frame. Therefore [`export_eager`] polls a body once before it passes the body on. If the poll
//! returns all bytes, the body is passed as plain bytes, and the other side never has to call back. Otherwise the body
//! is passed as a stream, and the polled frame is its first frame.

use std::{
    ffi::c_void,
    pin::Pin,
    slice,
    task::{Context, Poll, Waker},
};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::{HeaderFields, PanicBoundary, error_chain, with_waker};
use crate::{
    BoxError, PANICKED,
    abi::{self, OwnedBytes, poll},
};

#[cfg(any(feature = "host", feature = "local"))]
/// Converts `body` to a stream. The other side's calls poll and drop the body within `boundary`.
pub(crate) fn export<B, G>(body: B, boundary: G) -> abi::Body
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    G: PanicBoundary,
{
    if body.is_end_stream() {
        return abi::Body::empty();
    }
    ExportedBody::new(Box::pin(body), boundary).into_abi()
}

/// Polls `body` once and converts the body: to plain bytes if the poll has returned all of them, otherwise to a stream.
///
/// This first poll does not run within `boundary`: a panic of the body unwinds into the caller. `context` must wake the
/// task that will poll the body.
pub(crate) fn export_eager<B, G>(body: B, boundary: &G, context: &mut Context<'_>) -> abi::Body
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    G: PanicBoundary + Clone,
{
    if body.is_end_stream() {
        return abi::Body::empty();
    }
    #[cfg(feature = "axum")]
    let body = {
        // axum's body contains a box and is `Unpin`, so it needs no second box. Stable Rust has no specialization, so
        // the type is checked at run time.
        let mut body = Some(body);
        let any: &mut dyn std::any::Any = &mut body;
        let axum_body = any.downcast_mut::<Option<axum::body::Body>>();
        if let Some(body) = axum_body.and_then(Option::take) {
            return export_unpin(body, boundary, context);
        }
        let Some(body) = body else {
            unreachable!("it was taken only if it is axum's")
        };
        body
    };
    export_unpin(Box::pin(body), boundary, context)
}

/// Like [`export_eager`], for a body that is `Unpin`. Allocates nothing if the first poll returns all bytes.
pub(crate) fn export_unpin<B, G>(mut body: B, boundary: &G, context: &mut Context<'_>) -> abi::Body
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    G: PanicBoundary + Clone,
{
    match Pin::new(&mut body).poll_frame(context) {
        Poll::Ready(None) => abi::Body::empty(),
        Poll::Ready(Some(Ok(frame))) if frame.is_data() && body.is_end_stream() => {
            frame.into_data().map_or_else(
                |_| abi::Body::empty(),
                |data| abi::Body::full(to_owned_bytes(data)),
            )
        }
        Poll::Ready(Some(first)) => {
            let mut exported = ExportedBody::new(body, boundary.clone());
            exported.first = Some(first);
            exported.into_abi()
        }
        Poll::Pending => ExportedBody::new(body, boundary.clone()).into_abi(),
    }
}

fn to_owned_bytes(mut data: impl Buf) -> OwnedBytes {
    data.copy_to_bytes(data.remaining()).into()
}

/// The object behind the `stream` pointer of an [`abi::Body`].
struct ExportedBody<B: Body, G> {
    /// `None` after the body has ended, failed or panicked.
    body: Option<B>,
    /// The frame that [`export_unpin`] has polled, until the other side's first poll.
    first: Option<Result<Frame<B::Data>, B::Error>>,
    trailers: Trailers,
    boundary: G,
}

impl<B, G> ExportedBody<B, G>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    G: PanicBoundary,
{
    const VTABLE: &'static abi::BodyVtable = &abi::BodyVtable {
        size: size_of::<abi::BodyVtable>(),
        poll: Self::poll,
        drop: Self::drop,
        poll_frames: Self::poll_frames,
    };

    fn new(body: B, boundary: G) -> Self {
        Self {
            body: Some(body),
            first: None,
            trailers: Trailers::EMPTY,
            boundary,
        }
    }

    fn into_abi(self) -> abi::Body {
        // The hint of the body covers the bytes that are still to come, so the bytes of `first` are added.
        let hint = self
            .body
            .as_ref()
            .map(|body| body.size_hint())
            .unwrap_or_default();
        let first = match &self.first {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.remaining() as u64),
            _ => 0,
        };
        abi::Body {
            kind: abi::Body::STREAM,
            data: OwnedBytes::EMPTY,
            stream: Box::into_raw(Box::new(self)).cast(),
            vtable: Self::VTABLE,
            lower: hint.lower().saturating_add(first),
            upper: hint
                .upper()
                .map_or(u64::MAX, |upper| upper.saturating_add(first)),
        }
    }

    unsafe extern "C" fn poll(
        stream: *mut c_void,
        waker: *const abi::Waker,
        out: *mut abi::Frame,
    ) -> u32 {
        // SAFETY: the contract of `BodyVtable::poll` requires that `out` points to a valid frame.
        let frame = unsafe { &mut *out };
        // SAFETY: `stream` and `waker` are the arguments of a function of `BodyVtable`.
        let count = unsafe { Self::fill(stream, waker, slice::from_mut(frame), 1) };
        if count == 0 {
            poll::PENDING
        } else {
            poll::READY
        }
    }

    unsafe extern "C" fn poll_frames(
        stream: *mut c_void,
        waker: *const abi::Waker,
        out: *mut abi::Frames,
    ) -> u32 {
        // SAFETY: the contract of `BodyVtable::poll_frames` requires that `out` is borrowed for the call.
        let out = unsafe { &mut *out };
        // SAFETY: the contract of `Frames` requires an array of `room` valid frames.
        let frames = unsafe { slice::from_raw_parts_mut(out.frames, out.room) };
        // SAFETY: `stream` and `waker` are the arguments of a function of `BodyVtable`.
        let count = unsafe { Self::fill(stream, waker, frames, out.enough) };
        if count == 0 {
            return poll::PENDING;
        }
        out.count = count;
        poll::READY
    }

    /// Polls the stream and writes the frames to `out`. Returns the number of frames, or 0 if the body is pending.
    ///
    /// # Safety
    ///
    /// `stream` and `waker` are the arguments of a function of [`abi::BodyVtable`].
    unsafe fn fill(
        stream: *mut c_void,
        waker: *const abi::Waker,
        out: &mut [abi::Frame],
        max_bytes: usize,
    ) -> usize {
        // SAFETY: `VTABLE` belongs to a boxed `Self`, and the contract of `BodyVtable` excludes other threads.
        let this = unsafe { &mut *stream.cast::<Self>() };
        let poll = |waker: &Waker| this.poll_into(&mut Context::from_waker(waker), out, max_bytes);
        // SAFETY: the contract of `BodyVtable` makes the waker valid until the called function returns.
        unsafe { with_waker(waker, poll) }
    }

    unsafe extern "C" fn drop(stream: *mut c_void) {
        // SAFETY: `VTABLE` belongs to a boxed `Self`, and the owner of the stream calls `drop` only once.
        let this = unsafe { Box::from_raw(stream.cast::<Self>()) };
        let Self {
            body,
            first,
            trailers,
            boundary,
        } = *this;
        // The trailers are dropped within the boundary too, because the destructors of their values may be code of the
        // author. The boundary has reported a panic, and the caller needs no result.
        let _ = boundary.run(move || drop((first, body, trailers)));
    }

    /// Writes the next frames to `out`, and returns their number, or 0 if the body is pending. Stops when the frames
    /// hold `max_bytes` bytes or more.
    fn poll_into(
        &mut self,
        context: &mut Context<'_>,
        out: &mut [abi::Frame],
        max_bytes: usize,
    ) -> usize {
        let Self {
            body,
            first,
            trailers,
            boundary,
        } = self;
        let Some(last_index) = out.len().checked_sub(1) else {
            // The contract requires an array of at least one frame. Without a place for a frame, the only valid result
            // is pending.
            return 0;
        };
        let Some(open_body) = body else {
            out[0] = abi::Frame::end();
            return 1;
        };
        let (mut count, mut bytes, mut is_last) = (0, 0, false);
        // Converting a frame is within the boundary too, because its bytes and its error have types of the author.
        let polled = boundary.poll(|| {
            while count < out.len() && bytes < max_bytes && !is_last {
                let item = match first.take() {
                    Some(first) => Some(first),
                    None => match Pin::new(&mut *open_body).poll_frame(context) {
                        Poll::Ready(item) => item,
                        Poll::Pending => break,
                    },
                };
                let frame = &mut out[count];
                is_last = write_frame(frame, item, trailers) || open_body.is_end_stream();
                frame.last = is_last.into();
                bytes += frame.data.remaining();
                count += 1;
            }
        });
        if polled.is_none() {
            is_last = true;
            // On the plugin side, the boundary may also panic when it leaves the runtime, after the work has filled all
            // of `out`. The error frame then replaces the last frame, because an index behind `out` would panic here,
            // and that would abort the process.
            let index = count.min(last_index);
            out[index] = error_frame(PANICKED.to_owned());
            count = index + 1;
        }
        if is_last {
            // The body is dropped at once, within the boundary. A panic is reported, and the frames stay as they are.
            let body = body.take();
            let _ = boundary.run(move || drop(body));
        }
        count
    }
}

/// Converts `item`, the result of a poll, and writes the frame to `out`. Returns whether this is the last frame of the
/// stream. Trailers are moved to `trailers`, because the ABI frame borrows them.
fn write_frame<D: Buf, E: Into<BoxError>>(
    out: &mut abi::Frame,
    item: Option<Result<Frame<D>, E>>,
    trailers: &mut Trailers,
) -> bool {
    let frame = match item {
        Some(Ok(frame)) => frame,
        Some(Err(error)) => {
            *out = error_frame(error_chain(&*error.into()));
            return true;
        }
        None => {
            *out = abi::Frame::end();
            return true;
        }
    };
    match frame.into_data() {
        Ok(data) => {
            out.kind = abi::Frame::DATA;
            out.data = to_owned_bytes(data);
            false
        }
        Err(frame) => {
            *out = abi::Frame::end();
            if let Ok(map) = frame.into_trailers() {
                *trailers = Trailers::new(map);
                out.kind = abi::Frame::TRAILERS;
                out.trailers = trailers.fields.as_abi();
            }
            true
        }
    }
}

fn error_frame(text: String) -> abi::Frame {
    abi::Frame {
        kind: abi::Frame::ERROR,
        data: text.into(),
        ..abi::Frame::end()
    }
}

/// Trailers, and the ABI fields that borrow from them.
struct Trailers {
    fields: HeaderFields,
    /// The map from which `fields` borrow; `None` until the body has returned trailers.
    _map: Option<HeaderMap>,
}

impl Trailers {
    /// No trailers, in a vector without memory, because most streams have no trailers, and a long-lived stream would
    /// occupy the spare vector of the thread.
    const EMPTY: Self = Self {
        fields: HeaderFields::NONE,
        _map: None,
    };

    fn new(map: HeaderMap) -> Self {
        // The map may be moved after this, because its names and values are on the heap or static.
        Self {
            fields: HeaderFields::new(&map),
            _map: Some(map),
        }
    }
}
