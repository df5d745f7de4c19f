//! The host's side of a running call: provides the header fields of the request, and receives the response.

use std::ffi::c_void;

use http::{HeaderMap, Response, StatusCode};

use super::{Body, InFlight, boundary::HostBoundary, call_error::CallError};
use crate::{
    abi::{self, CallContext, Headers, poll},
    crossing::{HeaderFields, ImportedBody, PanicBoundary, cache},
};

/// The object behind [`CallContext::sink`] and [`abi::Request::source`]. Lives as long as one call or poll.
pub(super) struct Sink {
    /// The header fields of the request until the plugin passes the response; then those of the response. Empty at the
    /// start of a poll, because the app can read the header fields of the request only during the call.
    headers: HeaderMap,
    /// The header fields of the request as ABI structs, which borrow from `headers`. Empty until `lay_out` is called,
    /// and again after the plugin has passed the response.
    fields: HeaderFields,
    /// `None` until the plugin passes the response. An error if the response is invalid.
    response: Option<Result<(StatusCode, ImportedBody), CallError>>,
}

impl Sink {
    /// Creates a sink for one call or poll. `headers` are the header fields of the request.
    pub(super) fn new(headers: HeaderMap) -> Self {
        Self {
            headers,
            fields: HeaderFields::NONE,
            response: None,
        }
    }

    /// Returns the context of a call or poll whose response goes to `sink`.
    pub(super) fn context(sink: *mut Self, waker: *const abi::Waker) -> CallContext {
        CallContext {
            size: size_of::<CallContext>(),
            waker,
            sink: sink.cast(),
            respond,
        }
    }

    /// Returns the header fields of the request as ABI structs. They are valid until the plugin passes the response.
    pub(super) fn lay_out(&mut self) -> Headers {
        if self.fields.is_empty() {
            self.fields = HeaderFields::new(&self.headers);
        }
        self.fields.as_abi()
    }

    /// Returns the result of a call that has ended, and writes status and header fields to `response`. `status` is the
    /// [code](poll) that the plugin has returned; not [`poll::PENDING`].
    pub(super) fn into_result<R>(
        self,
        status: u32,
        in_flight: InFlight,
        response: &mut Response<R>,
    ) -> Result<Body, CallError> {
        match (status, self.response) {
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

/// Implements [`abi::Request::lay_out`].
pub(super) unsafe extern "C" fn lay_out(sink: *mut c_void) -> Headers {
    // SAFETY: the plugin passes the sink of this call, which is alive. Only the thread of the call uses the sink.
    let sink = unsafe { &mut *sink.cast::<Sink>() };
    sink.lay_out()
}

/// Implements [`CallContext::respond`]. Stores the response in the sink.
unsafe extern "C" fn respond(sink: *mut c_void, response: *const abi::Response) {
    // SAFETY: the plugin passes the sink of this call or poll, which is alive. Only the thread of the call uses the
    // sink.
    let sink = unsafe { &mut *sink.cast::<Sink>() };
    // SAFETY: the plugin passes a response that is valid until this function returns.
    let response = unsafe { &*response };
    // SAFETY: the response points to a body that is valid, and may be moved out, until this function returns.
    let body = unsafe { &mut *response.body };
    let body = ImportedBody::take(body, ImportedBody::MAX_FRAMES_AT_ONCE);
    // Dropped before `read_head` clears the map, because `fields` borrows from the map.
    sink.fields = HeaderFields::NONE;
    let headers = &mut sink.headers;
    // SAFETY: the slices in `response` are valid until this function returns.
    let status = HostBoundary.run(|| unsafe { read_head(response, headers) });
    sink.response = status.map(|status| status.map(|status| (status, body)));
}

/// Replaces `headers` by the header fields of the response, and returns its status.
///
/// # Errors
///
/// Returns [`CallError::Invalid`] if HTTP does not allow the status or a header field.
///
/// # Safety
///
/// The slices in `response` are valid until this function returns.
unsafe fn read_head(
    response: &abi::Response,
    headers: &mut HeaderMap,
) -> Result<StatusCode, CallError> {
    headers.clear();
    // SAFETY: the caller guarantees that the slices in `response` are valid.
    let fields = unsafe { response.headers.view() };
    cache::with(|cache| cache.add(headers, fields)).map_err(|_| CallError::Invalid)?;
    StatusCode::from_u16(response.status).map_err(|_| CallError::Invalid)
}
