//! A call of an app: its response, and its future while it has to wait.

use std::{
    ffi::c_void,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderMap, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::{InFlight, slot::Slot};
use crate::{
    BodyError,
    abi::{self, CallContext, Headers, OwnedBytes, poll},
    crossing::{Guard, HeaderFields, Imported, PollWaker, add_fields},
};

/// What came of a request when the app was called.
#[derive(Debug)]
pub enum Called {
    /// It was answered at once, as most are.
    Answered(Result<Body, CallError>),
    /// The app has to wait for something. It was polled, so its waker is known to it.
    Pending(Call),
}

/// A call of an app that has to wait for something.
///
/// Dropping it cancels the request: the app's future is dropped in the app's runtime. The request
/// counts as being in the app until the response's body is dropped.
#[must_use = "a call does nothing unless polled"]
#[derive(Debug)]
pub struct Call {
    /// Some until it is ready.
    in_flight: Option<InFlight>,
    waker: PollWaker,
    slot: Slot,
}

impl Call {
    /// A call that was polled, and whose future is in `slot`.
    pub(super) fn new(in_flight: InFlight, waker: PollWaker, slot: Slot) -> Self {
        Self {
            in_flight: Some(in_flight),
            waker,
            slot,
        }
    }

    /// Polls the app's future. When it has a response, its status and headers come to `response`.
    ///
    /// # Panics
    ///
    /// When it is polled after it was ready.
    pub fn poll_response<R>(
        &mut self,
        context: &mut Context<'_>,
        response: &mut Response<R>,
    ) -> Poll<Result<Body, CallError>> {
        let Self {
            in_flight,
            waker,
            slot,
        } = self;
        let Some(app) = in_flight else {
            panic!("a call was polled after it was ready");
        };
        let plugin = app.app().plugin;
        let mut sink = Sink::new(HeaderMap::new());
        let to_sink = &raw mut sink;
        let polled = waker.lend(context.waker(), |waker| {
            let context = Sink::context(to_sink, waker);
            // SAFETY: the slot holds a pending call, and has not moved since.
            unsafe { (plugin.poll)(slot.as_mut(), &raw const context) }
        });
        if polled == poll::PENDING {
            return Poll::Pending;
        }
        let Some(in_flight) = in_flight.take() else {
            unreachable!("it was there");
        };
        Poll::Ready(sink.answer(polled, in_flight, response))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            // SAFETY: the slot holds a pending call, and has not moved since.
            unsafe { (in_flight.app().plugin.cancel)(self.slot.as_mut()) };
        }
    }
}

/// Where a request's header fields are asked for, and where the response comes to.
pub(super) struct Sink {
    /// Those of the request, or none; then those of the response.
    headers: HeaderMap,
    /// The request's, once they were asked for: they borrow from `headers`.
    fields: HeaderFields,
    /// Some when the plugin has given a response.
    response: Option<Result<(StatusCode, Imported), CallError>>,
}

impl Sink {
    pub(super) fn new(headers: HeaderMap) -> Self {
        Self {
            headers,
            fields: HeaderFields::NONE,
            response: None,
        }
    }

    /// What the plugin answers to.
    pub(super) fn context(sink: *mut Self, waker: *const abi::Waker) -> CallContext {
        CallContext {
            size: size_of::<CallContext>(),
            waker,
            sink: sink.cast(),
            respond,
        }
    }

    /// The request's header fields, valid until the response comes.
    pub(super) fn lay_out(&mut self) -> Headers {
        if self.fields.is_empty() {
            self.fields = HeaderFields::new(&self.headers);
        }
        self.fields.as_abi()
    }

    /// What a poll that was not pending came to.
    pub(super) fn answer<R>(
        self,
        polled: u32,
        in_flight: InFlight,
        response: &mut Response<R>,
    ) -> Result<Body, CallError> {
        match (polled, self.response) {
            (poll::READY, Some(Ok((status, body)))) => {
                *response.status_mut() = status;
                *response.headers_mut() = self.headers;
                Ok(Body(body, in_flight))
            }
            (poll::READY, _) => Err(CallError::Invalid),
            (poll::FAILED, _) => Err(CallError::Failed),
            _ => Err(CallError::Panicked),
        }
    }
}

/// [`Sink::lay_out`], for an app that asks.
pub(super) unsafe extern "C" fn lay_out(sink: *mut c_void) -> Headers {
    // SAFETY: the plugin gives back the sink of this call, on the thread that calls.
    let sink = unsafe { &mut *sink.cast::<Sink>() };
    sink.lay_out()
}

unsafe extern "C" fn respond(sink: *mut c_void, response: *const abi::Response) {
    // SAFETY: the plugin gives back the sink of this poll, once.
    let sink = unsafe { &mut *sink.cast::<Sink>() };
    // SAFETY: the plugin lends the response for the call.
    let response = unsafe { &*response };
    // SAFETY: as above.
    let body = unsafe { &mut *response.body };
    let body = Imported::take(body, Imported::SEVERAL);
    sink.fields = HeaderFields::NONE;
    let headers = &mut sink.headers;
    // SAFETY: as above.
    let status = Caught.run(|| unsafe { import(response, headers) });
    sink.response = status.map(|status| status.map(|status| (status, body)));
}

/// Puts the fields of the response into `headers`, and gives its status.
///
/// # Safety
///
/// What `response` borrows is valid until this returns.
unsafe fn import(
    response: &abi::Response,
    headers: &mut HeaderMap,
) -> Result<StatusCode, CallError> {
    headers.clear();
    // SAFETY: the caller says so.
    unsafe { add_fields(headers, response.headers) }.map_err(|_| CallError::Invalid)?;
    StatusCode::from_u16(response.status).map_err(|_| CallError::Invalid)
}

/// The body of a response: a [`http_body::Body`] of bytes that the plugin owns.
#[derive(Debug)]
pub struct Body(
    Imported,
    /// The request is in the app for as long as the body is there.
    InFlight,
);

impl Body {
    /// All of its bytes, when they are there, and the request that is in the app until they are
    /// sent; else the body, whose bytes come one after the other, and may have to be waited for.
    ///
    /// # Errors
    ///
    /// The body when it is such a stream.
    pub fn into_whole(self) -> Result<(OwnedBytes, InFlight), Self> {
        match self.0 {
            Imported::Empty => Ok((OwnedBytes::EMPTY, self.1)),
            Imported::Full(bytes) => Ok((bytes, self.1)),
            Imported::Stream(_) => Err(self),
        }
    }

    /// Whether there is a stream: code of the app's runs for its bytes, and when it is dropped.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.0, Imported::Stream(_))
    }

    /// The next bytes, when they are here already: no code of the app's runs for them.
    pub fn take_ahead(&mut self) -> Option<OwnedBytes> {
        self.0.take_ahead()
    }
}

impl http_body::Body for Body {
    type Data = OwnedBytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<OwnedBytes>, BodyError>>> {
        self.0.poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// A request that the app gave no response to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The app's service returned an error, which is in the log.
    #[error("the app returned an error")]
    Failed,
    /// The app panicked, which is in the log.
    #[error("the app panicked")]
    Panicked,
    /// The response is not one that HTTP allows.
    #[error("the app's response is not one that HTTP allows")]
    Invalid,
}

/// How the host runs its own code when a plugin calls in: with an end to panics, which std reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caught;

impl Guard for Caught {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        panic::catch_unwind(AssertUnwindSafe(work)).ok()
    }
}
