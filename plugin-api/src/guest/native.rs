//! Native handlers: functions that read a request directly from the server's memory.
//!
//! For an axum or tower app, this crate first copies the request into an [`http::Request`]. The copy takes longer than
//! all other steps of passing a request to an app. A native handler borrows the server's own data, and reads only the
//! parts that it needs.
//!
//! ```
//! use http::StatusCode;
//! use plugin_api::native::{Request, Response};
//!
//! plugin_api::export_app!(greet, name = "greeter");
//!
//! fn greet(request: Request<'_>) -> Response {
//!     match request.path() {
//!         "/" => Response::text("hello world"),
//!         _ => Response::new(StatusCode::NOT_FOUND),
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! A handler may also return a `Result` of a response.
//!
//! A handler that has to wait returns a future. The future must own all data that it needs from the request.
//! An `async fn` that takes the request is not a handler, because its future would borrow the request, and the request
//! is valid only until the function returns:
//!
//! ```
//! use std::future::Future;
//!
//! use http_body_util::BodyExt;
//! use plugin_api::{BodyError, native::{Request, Response}};
//!
//! plugin_api::export_app!(echo, name = "echo");
//!
//! fn echo(mut request: Request<'_>) -> impl Future<Output = Result<Response, BodyError>> + use<> {
//!     let body = request.take_body();
//!     async { Ok(Response::text(body.collect().await?.to_bytes())) }
//! }
//! # fn main() {}
//! ```
//!
//! If the handler has state, export a function that creates the handler and returns it in an [`app`]:
//!
//! ```
//! use plugin_api::{BoxError, Context, native::{self, Request, Response}};
//!
//! plugin_api::export_app!(app, name = "greeter");
//!
//! #[derive(serde::Deserialize)]
//! struct Settings {
//!     greeting: String,
//! }
//!
//! fn app(context: Context) -> Result<native::App<impl Fn(Request<'_>) -> Response>, BoxError> {
//!     let Settings { greeting } = context.config()?;
//!     Ok(native::app(move |_| Response::text(greeting.clone())))
//! }
//! # fn main() {}
//! ```

mod response;

use std::{fmt, future::Future, marker::PhantomData};

pub use self::response::Response;
#[cfg(feature = "local")]
use super::Body;
pub use super::native_request::Request;
use super::{
    app::{App as AnyApp, IntoApp},
    call::CallStarter,
    kinds::{Direct, FutureOf, Native, ResultOf},
    response::{Respond, log_error},
};
#[cfg(feature = "local")]
use super::{local, local_response::ResponseFuture};
use crate::BoxError;

/// An app that consists of a native handler.
pub struct App<H>(H);

/// Creates an app from a handler: a function that takes a [`Request`] and returns an [`Answer`]. The handler runs on a
/// thread of the server, within the app's tokio runtime.
pub fn app<H, A, Kind>(handler: H) -> App<H>
where
    H: Fn(Request<'_>) -> A + Send + Sync + 'static,
    A: Answer<Kind>,
{
    App(handler)
}

impl<H> fmt::Debug for App<H> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("App")
    }
}

impl<H, A, Kind> IntoApp<(Native, A, Kind)> for App<H>
where
    H: Fn(Request<'_>) -> A + Send + Sync + 'static,
    A: Answer<Kind>,
    Kind: 'static,
{
    fn into_app(self) -> Box<dyn AnyApp> {
        Box::new(NativeApp(self.0, PhantomData::<fn() -> Kind>))
    }
}

/// A native handler. `Kind` is the marker of the handler's answers (see [`Answer`]).
struct NativeApp<H, Kind>(H, PhantomData<fn() -> Kind>);

impl<H, A, Kind> AnyApp for NativeApp<H, Kind>
where
    H: Fn(Request<'_>) -> A + Send + Sync + 'static,
    A: Answer<Kind>,
{
    fn call(&self, request: Request<'_>, starter: CallStarter<'_>) -> u32 {
        (self.0)(request).start_call(starter)
    }

    #[cfg(feature = "local")]
    fn answer(&self, request: http::Request<Body>) -> ResponseFuture {
        local::with_native_request(request, |request| (self.0)(request).into_local_future())
    }
}

/// The return value of a native handler: a [`Response`], a `Result` of a response, or a future that returns a response
/// or such a `Result`. An error is logged, and the client gets a 500.
///
/// This trait is sealed: only this crate implements it. `Kind` is a marker for the kind of answer, which the compiler
/// always infers.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no answer of a native handler",
    label = "neither a `native::Response`, nor a `Result` of one, nor a future of either",
    note = "a future is `Send + 'static`: it takes along what it needs of the request, and does not borrow the request"
)]
pub trait Answer<Kind>: Send + 'static {
    /// Starts the call: sends a finished response to the host, or stores a future in the host's slot and polls the
    /// future once. Returns a code of [`poll`](crate::abi::poll).
    #[doc(hidden)]
    fn start_call(self, starter: CallStarter<'_>) -> u32;

    /// Returns the future of the response for an app in this process, without the ABI.
    #[cfg(feature = "local")]
    #[doc(hidden)]
    fn into_local_future(self) -> ResponseFuture;
}

impl Answer<Direct<()>> for Response {
    fn start_call(mut self, starter: CallStarter<'_>) -> u32 {
        starter.with_context(|context| self.send(context, starter.call, starter.runtime))
    }

    #[cfg(feature = "local")]
    fn into_local_future(self) -> ResponseFuture {
        Box::pin(std::future::ready(self.into_http_response()))
    }
}

impl<E> Answer<ResultOf<()>> for Result<Response, E>
where
    E: Into<BoxError> + Send + 'static,
{
    fn start_call(self, starter: CallStarter<'_>) -> u32 {
        match self {
            Ok(response) => response.start_call(starter),
            Err(error) => log_error(error),
        }
    }

    #[cfg(feature = "local")]
    fn into_local_future(self) -> ResponseFuture {
        Box::pin(std::future::ready(self.into_http_response()))
    }
}

impl<F> Answer<FutureOf<()>> for F
where
    F: Future<Output: Respond> + Send + 'static,
{
    fn start_call(self, starter: CallStarter<'_>) -> u32 {
        starter.run(|| self)
    }

    #[cfg(feature = "local")]
    fn into_local_future(self) -> ResponseFuture {
        Box::pin(async { self.await.into_http_response() })
    }
}
