//! A body of this side, handed to the other side, which polls it for frames.
//!
//! Most bodies have one frame and then end. So a response's body is polled once before it crosses: if that gives all
//! bytes, they cross as they are, and the other side never has to call back. Otherwise the body crosses as a stream, and
//! the frame that was polled is its first.

use std::{
    ffi::c_void,
    pin::Pin,
    slice,
    task::{Context, Poll, Waker},
};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::{Guard, HeaderFields, chain, with_waker};
use crate::{
    BoxError, PANICKED,
    abi::{self, OwnedBytes, poll},
};

#[cfg(any(feature = "host", feature = "local"))]
/// Hands `body` across as a stream. The body is polled, and dropped, under `guard`.
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

/// Hands `body` across after it was polled once: a body whose bytes are all there crosses as bytes.
///
/// `context` wakes the task that will poll the body.
pub(crate) fn export_eager<B, G>(body: B, guard: &G, context: &mut Context<'_>) -> abi::Body
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    G: Guard + Clone,
{
    if body.is_end_stream() {
        return abi::Body::empty();
    }
    #[cfg(feature = "axum")]
    let body = {
        // axum's body is `Unpin`, because it is a box inside: another box is not needed.
        let mut body = Some(body);
        let any: &mut dyn std::any::Any = &mut body;
        let axum = any.downcast_mut::<Option<axum::body::Body>>();
        if let Some(body) = axum.and_then(Option::take) {
            return export_unpin(body, guard, context);
        }
        let Some(body) = body else {
            unreachable!("it was taken only if it is axum's")
        };
        body
    };
    export_unpin(Box::pin(body), guard, context)
}

/// [`export_eager`] for a body that is `Unpin`: if its bytes are all there, nothing is allocated.
pub(crate) fn export_unpin<B, G>(mut body: B, guard: &G, context: &mut Context<'_>) -> abi::Body
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
    /// None once the body ended, failed or panicked.
    body: Option<B>,
    /// The frame that was polled before the body crossed, until the other side takes it.
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
        poll_frames: Self::poll_frames,
    };

    fn new(body: B, guard: G) -> Self {
        Self {
            body: Some(body),
            first: None,
            trailers: Trailers::NONE_YET,
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
        // SAFETY: the caller lends a valid frame, which is replaced.
        let place = unsafe { &mut *out };
        // SAFETY: as the caller of this function promises.
        let count = unsafe { Self::fill(stream, waker, slice::from_mut(place), 1) };
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
        // SAFETY: the caller lends it for the call.
        let out = unsafe { &mut *out };
        // SAFETY: the caller lends an array of so many valid frames, which are replaced.
        let places = unsafe { slice::from_raw_parts_mut(out.frames, out.room) };
        // SAFETY: as the caller of this function promises.
        let count = unsafe { Self::fill(stream, waker, places, out.enough) };
        if count == 0 {
            return poll::PENDING;
        }
        out.count = count;
        poll::READY
    }

    /// # Safety
    ///
    /// `stream` and `waker` are what the functions of [`abi::BodyVtable`] are called with.
    unsafe fn fill(
        stream: *mut c_void,
        waker: *const abi::Waker,
        places: &mut [abi::Frame],
        enough: usize,
    ) -> usize {
        // SAFETY: this table goes with a boxed `Self`, which one thread polls at a time.
        let this = unsafe { &mut *stream.cast::<Self>() };
        let next = |waker: &Waker| this.next(&mut Context::from_waker(waker), places, enough);
        // SAFETY: the caller lends the waker until this returns.
        unsafe { with_waker(waker, next) }
    }

    unsafe extern "C" fn drop(stream: *mut c_void) {
        // SAFETY: this table goes with a boxed `Self`, and the caller gives it back once.
        let this = unsafe { Box::from_raw(stream.cast::<Self>()) };
        let Self {
            body,
            first,
            trailers,
            guard,
        } = *this;
        // The trailers too, because their values may be bytes with a destructor of the author's. A panic has been
        // reported, and changes nothing for the caller.
        let _ = guard.run(move || drop((first, body, trailers)));
    }

    /// Puts the next frames into `places`, and returns how many they are: none when the body is pending. Polls no
    /// further once the frames have `enough` bytes.
    fn next(
        &mut self,
        context: &mut Context<'_>,
        places: &mut [abi::Frame],
        enough: usize,
    ) -> usize {
        let Self {
            body,
            first,
            trailers,
            guard,
        } = self;
        let Some(end) = places.len().checked_sub(1) else {
            // The contract demands room for one frame at least. Without any, pending is the only answer.
            return 0;
        };
        let Some(open) = body else {
            places[0] = abi::Frame::end();
            return 1;
        };
        let (mut count, mut bytes, mut last) = (0, 0, false);
        // All code of the app's runs under the guard, also that of its bytes.
        let asked = guard.poll(|| {
            while count < places.len() && bytes < enough && !last {
                let frame = match first.take() {
                    Some(first) => Some(first),
                    None => match Pin::new(&mut *open).poll_frame(context) {
                        Poll::Ready(frame) => frame,
                        Poll::Pending => break,
                    },
                };
                let place = &mut places[count];
                last = put(place, frame, trailers) || open.is_end_stream();
                place.last = last.into();
                bytes += place.data.remaining();
                count += 1;
            }
        });
        if asked.is_none() {
            last = true;
            // The guard may fail after the work filled all places, when it cannot leave the runtime. Then the failure
            // replaces the last frame.
            let at = count.min(end);
            places[at] = broken(PANICKED.to_owned());
            count = at + 1;
        }
        if last {
            let body = body.take();
            let _ = guard.run(move || drop(body));
        }
        count
    }
}

/// Writes what a body gave to `place`. Returns whether it is the last frame. Trailers are moved to `trailers`, from
/// which the frame borrows.
fn put<D: Buf, E: Into<BoxError>>(
    place: &mut abi::Frame,
    frame: Option<Result<Frame<D>, E>>,
    trailers: &mut Trailers,
) -> bool {
    let frame = match frame {
        Some(Ok(frame)) => frame,
        Some(Err(error)) => {
            *place = broken(chain(&*error.into()));
            return true;
        }
        None => {
            *place = abi::Frame::end();
            return true;
        }
    };
    match frame.into_data() {
        Ok(data) => {
            place.kind = abi::Frame::DATA;
            place.data = owned(data);
            false
        }
        Err(frame) => {
            *place = abi::Frame::end();
            if let Ok(map) = frame.into_trailers() {
                *trailers = Trailers::new(map);
                place.kind = abi::Frame::TRAILERS;
                place.trailers = trailers.fields.as_abi();
            }
            true
        }
    }
}

fn broken(text: String) -> abi::Frame {
    abi::Frame {
        kind: abi::Frame::ERROR,
        data: text.into(),
        ..abi::Frame::end()
    }
}

/// Trailers, and the fields that borrow from them.
struct Trailers {
    fields: HeaderFields,
    /// None before there are trailers.
    _map: Option<HeaderMap>,
}

impl Trailers {
    /// No trailers, and no memory for any, because most streams have none, and some stay open for long.
    const NONE_YET: Self = Self {
        fields: HeaderFields::NONE,
        _map: None,
    };

    fn new(map: HeaderMap) -> Self {
        // The map may move after this, because its names and values are behind pointers.
        Self {
            fields: HeaderFields::new(&map),
            _map: Some(map),
        }
    }
}
