//! The response of a call on its way to the host.

use std::task::Context;

use http::{Response, StatusCode, header::CONTENT_LENGTH, response};

#[cfg(feature = "axum")]
use super::extractors;
#[cfg(feature = "local")]
use super::local;
use super::runtime::Entered;
use crate::{
    BoxError,
    abi::{self, CallContext, poll},
    crossing::{HeaderFields, cache, export_eager},
};

/// The output of a call's future: a response, or an error.
pub trait Respond: Sized {
    /// Gives the response to the host. The result is a constant of [`poll`].
    #[doc(hidden)]
    fn respond(self, context: &mut Context<'_>, call: &CallContext, runtime: &Entered) -> u32;

    /// The response, for an app in this process.
    #[cfg(feature = "local")]
    #[doc(hidden)]
    fn into_local(self) -> Result<local::Response, BoxError>;
}

impl<B, E> Respond for Result<Response<B>, E>
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    E: Into<BoxError>,
{
    fn respond(self, context: &mut Context<'_>, call: &CallContext, runtime: &Entered) -> u32 {
        let response = match self {
            Ok(response) => response,
            Err(error) => return failed(error),
        };
        let (head, body) = response.into_parts();
        let mut body = export_eager(body, runtime, context);
        #[cfg(feature = "axum")]
        if head.status == StatusCode::INTERNAL_SERVER_ERROR {
            extractors::look_at(&body);
        }
        let fields = fields_of(&head, &body);
        give(call, head.status, &fields, &mut body);
        cache::recycle(head.headers);
        poll::READY
    }

    #[cfg(feature = "local")]
    fn into_local(self) -> Result<local::Response, BoxError> {
        self.map(local::boxed).map_err(Into::into)
    }
}

/// The fields of a response as they cross, without a `content-length` that the host would add again.
///
/// The host adds `content-length` as the last field, as axum does, when the body crosses as bytes. So a
/// `content-length` that is the last field and true is left out. In 204 and 304 it stays, because the host adds none
/// (RFC 9110, sections 8.6 and 15.4.5).
fn fields_of(head: &response::Parts, body: &abi::Body) -> HeaderFields {
    let may_have_body = !matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    );
    let last = head.headers.len();
    let fields = head.headers.iter().zip(1..);
    let crossing = fields.filter_map(|(field @ (name, value), at)| {
        let is_said = at == last
            && may_have_body
            && *name == CONTENT_LENGTH
            && body.is_as_long_as(value.as_bytes());
        (!is_said).then_some(field)
    });
    HeaderFields::new(crossing)
}

/// Gives the host a response.
pub(crate) fn give(
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
    // SAFETY: function and sink are the host's, and everything is borrowed for the call.
    unsafe { (call.respond)(call.sink, &raw const response) };
}

/// Logs the error of an app that gave no response.
pub(crate) fn failed(error: impl Into<BoxError>) -> u32 {
    tracing::error!(
        error = &*error.into() as &dyn std::error::Error,
        "The app returned an error"
    );
    poll::FAILED
}
