//! Sends the response of a call to the host.

use std::task::Context;

use http::{Response, StatusCode, header::CONTENT_LENGTH, response};

#[cfg(feature = "axum")]
use super::extractors;
#[cfg(feature = "local")]
use super::local_response;
use super::runtime::RuntimeScope;
use crate::{
    BoxError,
    abi::{self, CallContext, poll},
    crossing::{HeaderFields, export_eager},
};

/// The output of a call's future: a response, or an error.
pub trait Respond: Sized {
    /// Sends the response to the host. Returns a code of [`poll`]: `READY`, or `FAILED` if `self` is an error.
    ///
    /// `context` belongs to the poll of the call. The first poll of the body uses `context` too.
    #[doc(hidden)]
    fn respond(self, context: &mut Context<'_>, call: &CallContext, runtime: &RuntimeScope) -> u32;

    /// Converts the output to an [`http::Response`], for a caller that runs the app without the ABI (the features
    /// `testing` and `standalone`).
    #[cfg(feature = "local")]
    #[doc(hidden)]
    fn into_http_response(self) -> Result<local_response::Response, BoxError>;
}

impl<B, E> Respond for Result<Response<B>, E>
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    E: Into<BoxError>,
{
    fn respond(self, context: &mut Context<'_>, call: &CallContext, runtime: &RuntimeScope) -> u32 {
        let response = match self {
            Ok(response) => response,
            Err(error) => return log_error(error),
        };
        let (head, body) = response.into_parts();
        let mut body = export_eager(body, runtime, context);
        #[cfg(feature = "axum")]
        if head.status == StatusCode::INTERNAL_SERVER_ERROR {
            extractors::check_body(&body);
        }
        let fields = header_fields(&head, &body);
        send_response(call, head.status, &fields, &mut body);
        poll::READY
    }

    #[cfg(feature = "local")]
    fn into_http_response(self) -> Result<local_response::Response, BoxError> {
        self.map(local_response::with_boxed_body)
            .map_err(Into::into)
    }
}

/// Returns the header fields of a response in ABI form, without a `content-length` that the host would add again.
///
/// If the body crosses as bytes, the host adds a `content-length` as the last field. Therefore a `content-length` does
/// not need to cross if it is the last field, as in axum's responses, and equals the length of the body. The field of a
/// 204 or 304 response always crosses, because the host adds no `content-length` to these (RFC 9110, sections 8.6 and
/// 15.4.5).
fn header_fields(head: &response::Parts, body: &abi::Body) -> HeaderFields {
    let may_have_body = !matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    let count = head.headers.len();
    let numbered = head.headers.iter().zip(1..);
    let crossing = numbered.filter_map(|(field @ (name, value), number)| {
        let is_redundant = number == count
            && may_have_body
            && *name == CONTENT_LENGTH
            && body.has_length(value.as_bytes());
        (!is_redundant).then_some(field)
    });
    HeaderFields::new(crossing)
}

/// Sends a response to the host. The host moves the body out of `body`.
pub(crate) fn send_response(
    call: &CallContext,
    status: StatusCode,
    fields: &HeaderFields,
    body: &mut abi::Body,
) {
    let response = abi::Response {
        size: size_of::<abi::Response>(),
        headers: fields.as_abi(),
        body,
        status: status.as_u16(),
        flags: 0,
    };
    // SAFETY: `sink` is the argument that the host has set for `respond`. The response, its fields and its body are
    // valid until `respond` returns.
    unsafe { (call.respond)(call.sink, &raw const response) };
}

/// Logs an error that the app returned in place of a response. Returns [`poll::FAILED`], on which the host answers 500.
pub(crate) fn log_error(error: impl Into<BoxError>) -> u32 {
    tracing::error!(
        error = &*error.into() as &dyn std::error::Error,
        "The app returned an error"
    );
    poll::FAILED
}
