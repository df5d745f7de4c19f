//! Handlers that see a request as it crosses, without the types of the `http` crate being built.
//!
//! A request of an axum or tower app is copied into an [`http::Request`] first, which takes longer
//! than all else that the boundary needs. A native handler looks at what the server has, and takes
//! what it wants.
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
//! A handler may also give a `Result` of a response.
//!
//! What has to wait is a future, which takes along what it needs of the request. An `async fn` that takes the
//! request is no handler, because its future would borrow the request, which the server lends only until the
//! function returns:
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
//! A handler with state is made by the function that is exported, with [`app`]:
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

mod request;
mod response;

use std::{fmt, future::Future, marker::PhantomData};

pub use self::{request::Request, response::Response};
#[cfg(feature = "local")]
use super::Body;
#[cfg(feature = "local")]
use super::local;
use super::{
    app::{App as AnyApp, IntoApp},
    app_function::{Awaited, Fallible, Plain},
    call::Start,
    response::{Respond, failed},
};
use crate::BoxError;

/// An app that is a native handler.
pub struct App<H>(H);

/// Makes an app of a handler: a function that takes a [`Request`] and gives an [`Answer`]. The handler runs on
/// a thread of the server, in the app's runtime.
pub fn app<H, A, Shape>(handler: H) -> App<H>
where
    H: Fn(Request<'_>) -> A + Send + Sync + 'static,
    A: Answer<Shape>,
{
    App(handler)
}

impl<H> fmt::Debug for App<H> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("App")
    }
}

/// The shape of a native app.
#[derive(Debug)]
pub struct Native;

impl<H, A, Shape> IntoApp<(Native, A, Shape)> for App<H>
where
    H: Fn(Request<'_>) -> A + Send + Sync + 'static,
    A: Answer<Shape>,
    Shape: 'static,
{
    fn into_app(self) -> Box<dyn AnyApp> {
        Box::new(NativeApp(self.0, PhantomData::<fn() -> Shape>))
    }
}

/// A native handler, and the shape of its answers.
struct NativeApp<H, Shape>(H, PhantomData<fn() -> Shape>);

impl<H, A, Shape> AnyApp for NativeApp<H, Shape>
where
    H: Fn(Request<'_>) -> A + Send + Sync + 'static,
    A: Answer<Shape>,
{
    fn call(&self, request: Request<'_>, start: Start<'_>) -> u32 {
        (self.0)(request).start(start)
    }

    #[cfg(feature = "local")]
    fn answer(&self, request: http::Request<Body>) -> local::Answer {
        local::lend(request, |request| (self.0)(request).local())
    }
}

/// What a native handler may give: a [`Response`], a `Result` of one, or a future of either. An error is
/// logged, and becomes a 500.
///
/// This trait is sealed: only this crate implements it. `Shape` tells the kinds of answers apart, and is always
/// inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no answer of a native handler",
    label = "neither a `native::Response`, nor a `Result` of one, nor a future of either",
    note = "a future is `Send + 'static`: it takes along what it needs of the request, and does not borrow the request"
)]
pub trait Answer<Shape>: Send + 'static {
    /// Begins to answer.
    #[doc(hidden)]
    fn start(self, start: Start<'_>) -> u32;

    /// Answers in this process.
    #[cfg(feature = "local")]
    #[doc(hidden)]
    fn local(self) -> local::Answer;
}

impl Answer<Plain<()>> for Response {
    fn start(mut self, start: Start<'_>) -> u32 {
        start.with_context(|context| self.give(context, start.context, start.runtime))
    }

    #[cfg(feature = "local")]
    fn local(self) -> local::Answer {
        Box::pin(std::future::ready(self.into_local()))
    }
}

impl<E> Answer<Fallible<()>> for Result<Response, E>
where
    E: Into<BoxError> + Send + 'static,
{
    fn start(self, start: Start<'_>) -> u32 {
        match self {
            Ok(response) => response.start(start),
            Err(error) => failed(error),
        }
    }

    #[cfg(feature = "local")]
    fn local(self) -> local::Answer {
        Box::pin(std::future::ready(self.into_local()))
    }
}

impl<F> Answer<Awaited<()>> for F
where
    F: Future<Output: Respond> + Send + 'static,
{
    fn start(self, start: Start<'_>) -> u32 {
        start.run(|| self)
    }

    #[cfg(feature = "local")]
    fn local(self) -> local::Answer {
        Box::pin(async { self.await.into_local() })
    }
}
