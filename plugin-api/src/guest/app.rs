//! The apps of authors. The trait [`App`] has one implementation for tower services and one for native handlers, so
//! that the rest of the plugin side handles both alike.

use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::Pin,
    task::Poll,
};

use http::{Request, Response};
use tower_service::Service;

#[cfg(feature = "local")]
use super::local_response::{ResponseFuture, with_boxed_body};
#[cfg(feature = "upgrade")]
use super::upgrade::PendingUpgrade;
use super::{Body, call::CallStarter, kinds::Tower, native_request, response::log_error};
use crate::BoxError;

/// An app whose concrete type is erased. The plugin stores its app as a `Box<dyn App>`.
pub trait App: Send + Sync {
    /// Starts the call of a request and polls the call once. Returns a code of [`poll`](crate::abi::poll), as
    /// [`Plugin::call`](crate::abi::Plugin::call) does.
    #[doc(hidden)]
    fn call(&self, request: native_request::Request<'_>, starter: CallStarter<'_>) -> u32;

    /// Returns the response of an app that runs without a server, for `testing` and `standalone`.
    #[cfg(feature = "local")]
    #[doc(hidden)]
    fn answer(&self, request: Request<Body>) -> ResponseFuture;
}

/// The future that builds the app. The future need not be `Send`, because the thread that starts the app polls the
/// future until it is ready.
pub type AppFuture = Pin<Box<dyn Future<Output = Result<Box<dyn App>, BoxError>>>>;

/// An app: a tower service or a [native handler](crate::native).
///
/// The service takes an [`http::Request`] with a [`Body`], and returns an [`http::Response`] with a body of any type.
/// An axum `Router` is such a service. Each request is handled by its own clone of the service, after the clone has
/// become ready (`poll_ready`).
///
/// This trait is sealed: only this crate implements it. The parameter `Kind` distinguishes the kinds of apps. The
/// compiler always infers `Kind`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no app: neither a tower service of HTTP that is `Clone + Send + Sync`, nor a native app",
    label = "no app"
)]
pub trait IntoApp<Kind> {
    /// Returns the app with its type erased.
    #[doc(hidden)]
    fn into_app(self) -> Box<dyn App>;
}

impl<S, B> IntoApp<(Tower, B)> for S
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    fn into_app(self) -> Box<dyn App> {
        #[cfg(feature = "axum")]
        let service = match try_axum(self) {
            Ok(app) => return app,
            Err(service) => service,
        };
        #[cfg(not(feature = "axum"))]
        let service = self;
        Box::new(TowerApp(service, PhantomData::<fn(Body)>))
    }
}

/// Returns the app of an axum `Router`. Returns `service` as the error if `service` is not a `Router`.
///
/// `with_state` builds the routes of a `Router` once, as `axum::serve` does. Without this call, the `Router` would
/// build the routes again for each request. The requests of a `Router` have axum's own type of body.
#[cfg(feature = "axum")]
fn try_axum<S: 'static>(service: S) -> Result<Box<dyn App>, S> {
    // Stable Rust has no specialization, so `Any` checks at run time whether `S` is a `Router`. `Any` returns only a
    // reference. The router can be moved out of the reference because it is in an `Option`.
    let mut service = Some(service);
    let any: &mut dyn std::any::Any = &mut service;
    let router = any.downcast_mut::<Option<axum::Router>>();
    if let Some(router) = router.and_then(Option::take) {
        let router = router.with_state(());
        return Ok(Box::new(TowerApp(
            router,
            PhantomData::<fn(axum::body::Body)>,
        )));
    }
    Err(service.unwrap_or_else(|| unreachable!("it was taken only if it is a router")))
}

/// A type of body that a service takes in its requests.
trait RequestBody: Send + 'static {
    fn from_body(body: Body) -> Self;
}

impl RequestBody for Body {
    fn from_body(body: Body) -> Self {
        body
    }
}

#[cfg(feature = "axum")]
impl RequestBody for axum::body::Body {
    fn from_body(body: Body) -> Self {
        // `Self::new` allocates, and most requests have no body.
        if http_body::Body::is_end_stream(&body) {
            Self::empty()
        } else {
            Self::new(body)
        }
    }
}

/// The app of a tower service `S`. `I` is the type of body that `S` takes in its requests.
struct TowerApp<S, I>(S, PhantomData<fn(I)>);

impl<S, I, B> App for TowerApp<S, I>
where
    S: Service<Request<I>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    I: RequestBody,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    fn call(&self, mut borrowed: native_request::Request<'_>, starter: CallStarter<'_>) -> u32 {
        let mut request = Request::new(I::from_body(borrowed.take_body()));
        #[cfg(feature = "upgrade")]
        let upgrade = borrowed.take_upgrade();
        if let Err(error) = borrowed.fill(&mut request) {
            return log_error(error);
        }
        let mut service = self.0.clone();
        #[cfg(feature = "upgrade")]
        if let Some((stream, protocol)) = upgrade {
            return match PendingUpgrade::new(stream, protocol, &mut request) {
                Some(pending) => {
                    starter.run(|| pending.await_response(call_when_ready(service, request)))
                }
                // Without a usable connection, the app handles the request as one without an upgrade.
                None => starter.run(|| call_when_ready(service, request)),
            };
        }
        match starter.with_context(|context| service.poll_ready(context)) {
            // Most services are always ready. The memory for the call's future (see `slot`) then holds only the future
            // of the response, which is smaller than the future of `call_when_ready`.
            Poll::Ready(Ok(())) => starter.run(move || service.call(request)),
            Poll::Ready(Err(error)) => log_error(error),
            Poll::Pending => starter.run(|| call_when_ready(service, request)),
        }
    }

    #[cfg(feature = "local")]
    fn answer(&self, request: Request<Body>) -> ResponseFuture {
        let response = call_when_ready(self.0.clone(), request.map(I::from_body));
        Box::pin(async { response.await.map(with_boxed_body) })
    }
}

/// Waits until `service` is ready, calls the service, and returns its response.
async fn call_when_ready<S, I, B>(
    mut service: S,
    request: Request<I>,
) -> Result<Response<B>, BoxError>
where
    S: Service<Request<I>, Response = Response<B>, Error: Into<BoxError>>,
{
    poll_fn(|context| service.poll_ready(context))
        .await
        .map_err(Into::into)?;
    service.call(request).await.map_err(Into::into)
}
