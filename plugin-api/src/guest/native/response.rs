//! The response of a native handler.

use std::{mem, task};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use smallvec::SmallVec;

#[cfg(feature = "local")]
use crate::guest::local_response;
use crate::{
    BoxError,
    abi::{self, CallContext, poll},
    crossing::{HeaderFields, export_eager},
    guest::{
        response::{Respond, log_error, send_response},
        runtime::RuntimeScope,
    },
};

/// The response of a native handler.
///
/// ```
/// use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
/// use plugin_api::native::Response;
///
/// let busy = Response::text("come back later")
///     .status(StatusCode::SERVICE_UNAVAILABLE)
///     .header(RETRY_AFTER, HeaderValue::from_static("60"));
/// ```
#[derive(Debug)]
pub struct Response {
    status: StatusCode,
    fields: SmallVec<[(HeaderName, HeaderValue); 2]>,
    body: Content,
}

/// The body of a [`Response`]. Bytes are a variant of their own, because they cross the ABI without an allocation.
#[derive(Debug)]
enum Content {
    Bytes(Bytes),
    Stream(UnsyncBoxBody<Bytes, BoxError>),
}

impl Response {
    /// Returns a response without a body.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            fields: SmallVec::new(),
            body: Content::default(),
        }
    }

    /// Returns a response with status 200, a text as its body, and the type `text/plain; charset=utf-8`.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::bytes(HeaderValue::from_static("text/plain; charset=utf-8"), text)
    }

    /// Returns a response with status 200, bytes as its body, and their `content-type`, such as `application/json`.
    pub fn bytes(content_type: HeaderValue, bytes: impl Into<Bytes>) -> Self {
        let mut response = Self::new(StatusCode::OK);
        response.fields.push((CONTENT_TYPE, content_type));
        response.body = Content::Bytes(bytes.into());
        response
    }

    /// Returns a response with status 200 and a body that is sent frame by frame.
    pub fn stream<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let mut response = Self::new(StatusCode::OK);
        response.body = Content::Stream(body.map_err(Into::into).boxed_unsync());
        response
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Adds a header field. Keeps earlier fields of the same name.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    /// Sends the response to the host, and returns [`poll::READY`]. Moves the body out of `self`.
    ///
    /// Takes `self` by reference, because moving a large struct is expensive.
    pub(super) fn send(
        &mut self,
        context: &mut task::Context<'_>,
        call: &CallContext,
        runtime: &RuntimeScope,
    ) -> u32 {
        let mut body = match mem::take(&mut self.body) {
            Content::Bytes(bytes) if bytes.is_empty() => abi::Body::empty(),
            Content::Bytes(bytes) => abi::Body::full(bytes.into()),
            Content::Stream(stream) => export_eager(stream, runtime, context),
        };
        let fields = HeaderFields::new(self.fields.iter().map(|(name, value)| (name, value)));
        send_response(call, self.status, &fields, &mut body);
        poll::READY
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Respond for Response {
    fn respond(
        mut self,
        context: &mut task::Context<'_>,
        call: &CallContext,
        runtime: &RuntimeScope,
    ) -> u32 {
        self.send(context, call, runtime)
    }

    #[cfg(feature = "local")]
    fn into_http_response(self) -> Result<local_response::Response, BoxError> {
        let body = match self.body {
            Content::Bytes(bytes) => http_body_util::Full::new(bytes)
                .map_err(|never| match never {})
                .boxed_unsync(),
            Content::Stream(stream) => stream,
        };
        let mut response = http::Response::new(body);
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.fields);
        Ok(response)
    }
}

/// An error is logged, and the host answers 500.
impl<E: Into<BoxError>> Respond for Result<Response, E> {
    fn respond(
        self,
        context: &mut task::Context<'_>,
        call: &CallContext,
        runtime: &RuntimeScope,
    ) -> u32 {
        match self {
            Ok(response) => response.respond(context, call, runtime),
            Err(error) => log_error(error),
        }
    }

    #[cfg(feature = "local")]
    fn into_http_response(self) -> Result<local_response::Response, BoxError> {
        self.map_err(Into::into)?.into_http_response()
    }
}
