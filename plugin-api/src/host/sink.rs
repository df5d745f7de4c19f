//! Where a call of an app takes header fields from, and where its response comes to.

use std::ffi::c_void;

use http::{HeaderMap, Response, StatusCode};

use super::{Body, InFlight, call_error::CallError, caught::Caught};
use crate::{
    abi::{self, CallContext, Headers, poll},
    crossing::{HeaderFields, ImportedBody, PanicBoundary, cache},
};

/// Where a request's header fields are asked for, and where the response comes to.
pub(super) struct Sink {
    /// The header fields of the request, or none. The response replaces them by its own.
    headers: HeaderMap,
    /// The header fields of the request as they cross, once the app asked for them. They borrow from `headers`.
    fields: HeaderFields,
    /// Some when the plugin has given a response.
    response: Option<Result<(StatusCode, ImportedBody), CallError>>,
}

impl Sink {
    pub(super) fn new(headers: HeaderMap) -> Self {
        Self {
            headers,
            fields: HeaderFields::NONE,
            response: None,
        }
    }

    /// The context of a call or poll.
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

    /// The result of a poll that was not pending.
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
    let body = ImportedBody::take(body, ImportedBody::MAX_FRAMES_AT_ONCE);
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
    let fields = unsafe { response.headers.view() };
    cache::with(|cache| cache.add(headers, fields)).map_err(|_| CallError::Invalid)?;
    StatusCode::from_u16(response.status).map_err(|_| CallError::Invalid)
}
