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

mod fields;
mod response;

use std::{fmt, future::Future, marker::PhantomData, net::SocketAddr, str};

use http::{HeaderName, Version, header::HOST};

pub use self::response::Response;
#[cfg(feature = "local")]
use super::local;
use super::{
    Body,
    app::{App as AnyApp, IntoApp},
    app_function::{Awaited, Fallible, Plain},
    call::{Respond, Start, failed},
    request,
};
use crate::{BoxError, abi, crossing::version};

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

/// A request, borrowed from the server for as long as the handler runs.
#[derive(Debug)]
pub struct Request<'a>(&'a abi::Request);

impl<'a> Request<'a> {
    /// # Safety
    ///
    /// What `request` borrows is valid for `'a`, and as the contract says; its body is the plugin's to
    /// take.
    pub(crate) unsafe fn new(request: &'a abi::Request) -> Self {
        Self(request)
    }

    fn text(slice: abi::Slice) -> &'a str {
        // SAFETY: who made this says that it is valid for `'a`, and all of these are text.
        unsafe { slice.known_text() }
    }

    /// The method, as `GET`.
    #[must_use]
    pub fn method(&self) -> &'a str {
        Self::text(self.0.method)
    }

    /// The path below the app's mount, without the query.
    #[must_use]
    pub fn path(&self) -> &'a str {
        let path = self.path_and_query();
        let end = path.bytes().position(|byte| byte == b'?');
        &path[..end.unwrap_or(path.len())]
    }

    /// What is behind the `?`, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        Some(self.path_and_query().split_once('?')?.1)
    }

    /// Path and query below the app's mount.
    #[must_use]
    pub fn path_and_query(&self) -> &'a str {
        Self::text(self.0.path)
    }

    /// Path and query as the client sent them.
    #[must_use]
    pub fn original_path(&self) -> &'a str {
        Self::text(self.0.original_path)
    }

    /// Where the app is mounted: `/`, or `/shop`.
    #[must_use]
    pub fn mount(&self) -> &'a str {
        Self::text(self.0.mount)
    }

    /// What identifies the request in the log.
    #[must_use]
    pub fn request_id(&self) -> &'a str {
        // What it is, the client may have said.
        // SAFETY: as for `text`.
        unsafe { self.0.request_id.text() }.unwrap_or_default()
    }

    /// The address of the client, or of the proxy before the server.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer.to_std()
    }

    /// The scheme of the target, as `http`: in HTTP/2 that of a request with an
    /// [`authority`](Self::authority), in HTTP/1 that of a target that is a whole URL.
    #[must_use]
    pub fn scheme(&self) -> Option<&'a str> {
        Self::some_text(self.0.scheme)
    }

    /// Host and port in the target, as `example.org:8080`: HTTP/2's `:authority`, and in HTTP/1 those
    /// of a target that is a whole URL, or the target of a `CONNECT`. [`host`](Self::host) also knows
    /// the header field.
    #[must_use]
    pub fn authority(&self) -> Option<&'a str> {
        Self::some_text(self.0.authority)
    }

    /// Which host the request is for, and on which port where the client says so, as
    /// `example.org:8080`, whatever the version of HTTP: the target's [`authority`](Self::authority),
    /// or else the header field `host`. The server takes no request in which the two differ.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        let field = || {
            self.header(&HOST)
                .and_then(|host| str::from_utf8(host).ok())
        };
        self.authority().or_else(field)
    }

    /// What an extended `CONNECT` of HTTP/2 asks for (RFC 8441), as `websocket`. None for any other
    /// request.
    #[must_use]
    pub fn protocol(&self) -> Option<&'a str> {
        Self::some_text(self.0.protocol)
    }

    /// A text of the request that may be missing.
    fn some_text(slice: abi::Slice) -> Option<&'a str> {
        // SAFETY: as for `text`.
        let bytes = unsafe { slice.some_bytes() }?;
        str::from_utf8(bytes).ok()
    }

    /// The version of HTTP.
    #[must_use]
    pub fn version(&self) -> Version {
        version(self.0.version)
    }

    /// The first value of the header `name`.
    #[must_use]
    pub fn header(&self, name: &HeaderName) -> Option<&'a [u8]> {
        // SAFETY: as for `text`.
        let field = unsafe { fields::find(self.fields(), name) }?;
        // SAFETY: as for `text`.
        Some(unsafe { field.value.bytes() })
    }

    /// The headers in their order, their names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.fields().iter().map(|field| {
            // SAFETY: as for `text`.
            (Self::text(field.name), unsafe { field.value.bytes() })
        })
    }

    fn fields(&self) -> &'a [abi::Header] {
        // SAFETY: as for `text`, and requests are not shared with other threads.
        unsafe { self.0.fields() }
    }

    /// The body, once; then it is empty.
    #[must_use]
    pub fn take_body(&mut self) -> Body {
        // SAFETY: it is the plugin's to take.
        unsafe { Body::take(self.0.body) }
    }

    /// The request as an [`http::Request`], as a tower service takes it; a body that was not taken
    /// goes along. Connections cannot be taken over by it.
    ///
    /// # Errors
    ///
    /// When a part is not what HTTP allows, which the server checks before.
    pub fn into_http(mut self) -> Result<http::Request<Body>, BoxError> {
        let mut request = http::Request::new(self.take_body());
        self.fill(&mut request)?;
        Ok(request)
    }

    /// Makes `head` this request.
    pub(crate) fn fill<B>(self, head: &mut http::Request<B>) -> Result<(), BoxError> {
        // SAFETY: as for `text`.
        unsafe { request::fill(head, self.0) }
    }

    /// The connection of a request that asks for an upgrade, once, and what an extended `CONNECT`
    /// asks for.
    #[cfg(feature = "upgrade")]
    pub(crate) fn take_upgrade(&self) -> Option<(abi::Stream, Option<&'a str>)> {
        // SAFETY: it is null, or the plugin's to take.
        let stream = unsafe { self.0.upgrade.as_mut() }?.take();
        // SAFETY: as for `text`.
        (!stream.is_none()).then(|| (stream, unsafe { self.0.protocol.text() }))
    }
}
