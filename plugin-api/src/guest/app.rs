//! Apps of authors: tower services and native handlers behind one trait.

use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::Pin,
    task::Poll,
};

use http::{Request, Response};
use tower_service::Service;

#[cfg(feature = "local")]
use super::local::{Answer, boxed};
#[cfg(feature = "upgrade")]
use super::upgrade::PendingUpgrade;
use super::{Body, call::Start, native, response::failed};
use crate::BoxError;

/// An app, whose types are erased.
pub trait App: Send + Sync {
    /// Starts a request, and polls it once.
    #[doc(hidden)]
    fn call(&self, request: native::Request<'_>, start: Start<'_>) -> u32;

    /// Answers a request in this process.
    #[cfg(feature = "local")]
    #[doc(hidden)]
    fn answer(&self, request: Request<Body>) -> Answer;
}

/// The future of an app. It need not be `Send`, because the thread that loads the plugin awaits it.
pub type AppFuture = Pin<Box<dyn Future<Output = Result<Box<dyn App>, BoxError>>>>;

/// An app: a tower service that takes an [`http::Request`] with a [`Body`] and
/// gives an [`http::Response`] with a body of any kind, as an axum `Router` is, or a
/// [native handler](native).
///
/// Each request gets a clone of the service, which waits until it is ready.
///
/// This trait is sealed: only this crate implements it. `Shape` tells the kinds of apps apart, and is always
/// inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no app: neither a tower service of HTTP that is `Clone + Send + Sync`, nor a native app",
    label = "no app"
)]
pub trait IntoApp<Shape> {
    /// The app.
    #[doc(hidden)]
    fn into_app(self) -> Box<dyn App>;
}

/// The shape of a tower service.
#[derive(Debug)]
pub struct Tower;

impl<S, B> IntoApp<(Tower, B)> for S
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    fn into_app(self) -> Box<dyn App> {
        #[cfg(feature = "axum")]
        let this = match of_axum(self) {
            Ok(app) => return app,
            Err(this) => this,
        };
        #[cfg(not(feature = "axum"))]
        let this = self;
        Box::new(TowerApp(this, PhantomData::<fn(Body)>))
    }
}

/// An axum `Router` makes its routes once, as under `axum::serve`, and gets its own kind of body.
#[cfg(feature = "axum")]
fn of_axum<S: 'static>(service: S) -> Result<Box<dyn App>, S> {
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

/// The body of the requests that a service takes.
trait RequestBody: Send + 'static {
    fn of(body: Body) -> Self;
}

impl RequestBody for Body {
    fn of(body: Body) -> Self {
        body
    }
}

#[cfg(feature = "axum")]
impl RequestBody for axum::body::Body {
    fn of(body: Body) -> Self {
        if http_body::Body::is_end_stream(&body) {
            Self::empty()
        } else {
            Self::new(body)
        }
    }
}

/// A tower service, and what it takes for the body of a request.
struct TowerApp<S, I>(S, PhantomData<fn(I)>);

impl<S, I, B> App for TowerApp<S, I>
where
    S: Service<Request<I>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    I: RequestBody,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    fn call(&self, mut lent: native::Request<'_>, start: Start<'_>) -> u32 {
        let mut request = Request::new(I::of(lent.take_body()));
        #[cfg(feature = "upgrade")]
        let upgrade = lent.take_upgrade();
        if let Err(error) = lent.fill(&mut request) {
            return failed(error);
        }
        let mut service = self.0.clone();
        #[cfg(feature = "upgrade")]
        if let Some((stream, protocol)) = upgrade {
            return match PendingUpgrade::new(stream, protocol, &mut request) {
                Some(pending) => start.run(|| pending.answered(respond(service, request))),
                None => start.run(|| respond(service, request)),
            };
        }
        match start.with_context(|context| service.poll_ready(context)) {
            // Most services are always ready. Then only the future of the response is kept.
            Poll::Ready(Ok(())) => start.run(move || service.call(request)),
            Poll::Ready(Err(error)) => failed(error),
            Poll::Pending => start.run(|| respond(service, request)),
        }
    }

    #[cfg(feature = "local")]
    fn answer(&self, request: Request<Body>) -> Answer {
        let response = respond(self.0.clone(), request.map(I::of));
        Box::pin(async { response.await.map(boxed) })
    }
}

async fn respond<S, I, B>(mut service: S, request: Request<I>) -> Result<Response<B>, BoxError>
where
    S: Service<Request<I>, Response = Response<B>, Error: Into<BoxError>>,
{
    poll_fn(|context| service.poll_ready(context))
        .await
        .map_err(Into::into)?;
    service.call(request).await.map_err(Into::into)
}
