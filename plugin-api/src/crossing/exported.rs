//! A body of ours, handed across as frames to poll.

use std::{
    ffi::c_void,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::{Guard, HeaderFields, with_waker};
use crate::{
    BoxError, PANICKED,
    abi::{self, OwnedBytes, poll},
};

#[cfg(any(feature = "host", feature = "local"))]
/// Hands `body` across. It is polled, and dropped, under `guard`.
pub(crate) fn export<B, G>(body: B, guard: G) -> abi::Body
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    G: Guard,
{
    if body.is_end_stream() {
        return abi::Body::empty();
    }
    Exported::new(Box::pin(body), guard).into_abi()
}

/// The same, asking for the first frame at once: a body that is all there crosses as bytes, and is
/// not asked again.
///
/// `context` is that of the task that will send the body, or one that leads to it.
pub(crate) fn export_polled<B, G>(body: B, guard: &G, context: &mut Context<'_>) -> abi::Body
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    G: Guard + Clone,
{
    if body.is_end_stream() {
        return abi::Body::empty();
    }
    #[cfg(feature = "axum")]
    let body = {
        // It is a box already, and needs none around it to stay where it is.
        let mut body = Some(body);
        let any: &mut dyn std::any::Any = &mut body;
        let axum = any.downcast_mut::<Option<axum::body::Body>>();
        if let Some(body) = axum.and_then(Option::take) {
            return export_pinned(body, guard, context);
        }
        let Some(body) = body else {
            unreachable!("it was taken only if it is axum's")
        };
        body
    };
    export_pinned(Box::pin(body), guard, context)
}

fn export_pinned<B, G>(mut body: B, guard: &G, context: &mut Context<'_>) -> abi::Body
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    G: Guard + Clone,
{
    match Pin::new(&mut body).poll_frame(context) {
        Poll::Ready(None) => abi::Body::empty(),
        Poll::Ready(Some(Ok(frame))) if frame.is_data() && body.is_end_stream() => frame
            .into_data()
            .map_or_else(|_| abi::Body::empty(), |data| abi::Body::full(owned(data))),
        Poll::Ready(Some(first)) => {
            let mut exported = Exported::new(body, guard.clone());
            exported.first = Some(first);
            exported.into_abi()
        }
        Poll::Pending => Exported::new(body, guard.clone()).into_abi(),
    }
}

fn owned(mut data: impl Buf) -> OwnedBytes {
    data.copy_to_bytes(data.remaining()).into()
}

struct Exported<B: Body, G> {
    /// None once it ended, broke or panicked.
    body: Option<B>,
    /// A frame that was asked for before the other side did.
    first: Option<Result<Frame<B::Data>, B::Error>>,
    trailers: Trailers,
    guard: G,
}

impl<B, G> Exported<B, G>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    G: Guard,
{
    const VTABLE: &'static abi::BodyVtable = &abi::BodyVtable {
        size: size_of::<abi::BodyVtable>(),
        poll: Self::poll,
        drop: Self::drop,
    };

    fn new(body: B, guard: G) -> Self {
        Self {
            body: Some(body),
            first: None,
            trailers: Default::default(),
            guard,
        }
    }

    fn into_abi(self) -> abi::Body {
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
        // SAFETY: this table goes with a boxed `Self`, which one thread polls at a time.
        let this = unsafe { &mut *stream.cast::<Self>() };
        // SAFETY: the caller lends the waker until this returns.
        let polled =
            unsafe { with_waker(waker, |waker| this.next(&mut Context::from_waker(waker))) };
        let Poll::Ready(frame) = polled else {
            return poll::PENDING;
        };
        // SAFETY: the caller gives room for a frame, holding one that may be dropped.
        unsafe { *out = frame };
        poll::READY
    }

    unsafe extern "C" fn drop(stream: *mut c_void) {
        // SAFETY: this table goes with a boxed `Self`, and the caller gives it back once.
        let this = unsafe { Box::from_raw(stream.cast::<Self>()) };
        let Self {
            body, first, guard, ..
        } = *this;
        // What a panic leaves undone has been reported; there is nobody to tell.
        let _ = guard.run(move || drop((first, body)));
    }

    fn next(&mut self, context: &mut Context<'_>) -> Poll<abi::Frame> {
        let Self {
            body,
            first,
            trailers,
            guard,
        } = self;
        let Some(open) = body else {
            return Poll::Ready(abi::Frame::end());
        };
        // Everything that is the app's, the bytes' own code included, runs under the guard.
        let polled = guard.run(|| {
            let frame = match first.take() {
                Some(first) => Some(first),
                None => ready!(Pin::new(&mut *open).poll_frame(context)),
            };
            Poll::Ready((Next::from(frame), open.is_end_stream()))
        });
        let (next, ended) = match polled {
            Some(Poll::Pending) => return Poll::Pending,
            Some(Poll::Ready(ready)) => ready,
            None => (Next::Broken(PANICKED.to_owned()), true),
        };
        let last = ended || !matches!(next, Next::Data(_));
        if last {
            let body = body.take();
            let _ = guard.run(move || drop(body));
        }
        let (kind, data) = match next {
            Next::Data(data) => (abi::Frame::DATA, data),
            Next::Trailers(map) => {
                *trailers = Trailers::new(map);
                (abi::Frame::TRAILERS, OwnedBytes::EMPTY)
            }
            Next::Broken(text) => (abi::Frame::ERROR, text.into()),
            Next::End => (abi::Frame::END, OwnedBytes::EMPTY),
        };
        Poll::Ready(abi::Frame {
            kind,
            last: last.into(),
            data,
            trailers: trailers.fields.as_abi(),
        })
    }
}

/// What a body gave.
enum Next {
    Data(OwnedBytes),
    Trailers(HeaderMap),
    Broken(String),
    End,
}

impl<D: Buf, E: Into<BoxError>> From<Option<Result<Frame<D>, E>>> for Next {
    fn from(frame: Option<Result<Frame<D>, E>>) -> Self {
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => Self::Data(owned(data)),
            Some(Ok(Err(frame))) => frame.into_trailers().map_or(Self::End, Self::Trailers),
            Some(Err(error)) => Self::Broken(error.into().to_string()),
            None => Self::End,
        }
    }
}

/// Trailers, and the fields that borrow from them.
#[derive(Default)]
struct Trailers {
    fields: HeaderFields,
    _map: HeaderMap,
}

impl Trailers {
    fn new(map: HeaderMap) -> Self {
        // A map's names and values lie behind pointers, and stay where they are when the map moves.
        Self {
            fields: HeaderFields::new(&map),
            _map: map,
        }
    }
}
