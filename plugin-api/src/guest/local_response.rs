//! The response types of an app that runs in this process, without a library (`standalone`, `testing`).

use std::{future::Future, pin::Pin};

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};

use crate::BoxError;

/// The body of a [`Response`].
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// The future of the response to a request.
pub(crate) type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

/// A response whose body has the same type for all apps.
pub(crate) type Response = http::Response<ResponseBody>;

/// Converts a response of any body type to a [`Response`].
pub(crate) fn with_boxed_body<B>(response: http::Response<B>) -> Response
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    response.map(|body| {
        body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
            .map_err(Into::into)
            .boxed_unsync()
    })
}
