//! The author's `app` function, in every shape that it may have.

use std::{error::Error, future::Future};

use super::{
    Context,
    app::{App, AppFuture, IntoApp},
    native::{self, Answer, Native},
};
use crate::{BoxError, crossing::chain};

/// A function that [`export_app!`](crate::export_app) takes.
///
/// - A `fn` or an `async fn` that makes the app: it takes a [`Context`] or nothing, and gives an
///   [`AppResult`].
/// - A [native](crate::native) handler, which is the app: it takes a
///   [`native::Request`](crate::native::Request) and gives a [`native::Answer`](crate::native::Answer).
///
/// This trait is sealed: only this crate implements it. `Shape` tells the kinds of function apart, and is
/// always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no function that `export_app!` takes",
    label = "makes no app",
    note = "the function takes `Context` or nothing, and gives an axum `Router`, another tower service, or a \
            `Result` or future of one",
    note = "a `Router<S>` is an app once it has its state: end it with `.with_state(state)`",
    note = "the app is the `Router` itself: leave out `.into_make_service()`, and for \
            `.into_make_service_with_connect_info()` turn on the feature `axum-info` of plugin-api",
    note = "a service is `Clone + Send + Sync`, because all threads of the server share it: of tower's boxes, take \
            `BoxCloneSyncService`",
    note = "an app of axum 0.6 or before has other types, those of http 0.2: use axum 0.7 or later; `cargo tree -d` \
            lists crates that are there in two versions",
    note = "a native handler is a `fn(Request<'_>)` that gives a `Response`, a `Result` of one, or a future that does \
            not borrow the request, as that of an `async fn` would"
)]
pub trait AppFunction<Shape> {
    /// Calls the function.
    #[doc(hidden)]
    fn build(self, context: Context) -> impl Future<Output = Result<Box<dyn App>, BoxError>>;
}

impl<F, O, Shape> AppFunction<(fn() -> O, Shape)> for F
where
    F: FnOnce() -> O,
    O: AppResult<Shape>,
{
    async fn build(self, _: Context) -> Result<Box<dyn App>, BoxError> {
        self().into_result().await
    }
}

impl<F, O, Shape> AppFunction<(fn(Context) -> O, Shape)> for F
where
    F: FnOnce(Context) -> O,
    O: AppResult<Shape>,
{
    async fn build(self, context: Context) -> Result<Box<dyn App>, BoxError> {
        self(context).into_result().await
    }
}

impl<F, A, Shape> AppFunction<(Native, A, Shape)> for F
where
    F: Fn(native::Request<'_>) -> A + Send + Sync + 'static,
    A: Answer<Shape>,
    Shape: 'static,
{
    async fn build(self, _: Context) -> Result<Box<dyn App>, BoxError> {
        Ok(native::app(self).into_app())
    }
}

/// What a function that makes an app gives: an app ([`IntoApp`]), a `Result` of one, or a future of either, as
/// an `async fn` does.
///
/// The error of the `Result` may be any error, or text: only its text reaches the server.
///
/// This trait is sealed: only this crate implements it. `Shape` tells the kinds of results apart, and is always
/// inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no app, nor a `Result` or a future of one",
    label = "no app"
)]
pub trait AppResult<Shape> {
    /// The app, or why there is none.
    #[doc(hidden)]
    fn into_result(self) -> impl Future<Output = Result<Box<dyn App>, BoxError>>;
}

/// The shape of an app itself.
#[derive(Debug)]
pub struct Plain<Shape>(Shape);

/// The shape of a `Result`.
#[derive(Debug)]
pub struct Fallible<Shape>(Shape);

/// The shape of a `Result` whose error cannot be shared between threads.
#[derive(Debug)]
pub struct FallibleLocally<Shape>(Shape);

/// The shape of a future.
#[derive(Debug)]
pub struct Awaited<Shape>(Shape);

impl<A: IntoApp<Shape>, Shape> AppResult<Plain<Shape>> for A {
    async fn into_result(self) -> Result<Box<dyn App>, BoxError> {
        Ok(self.into_app())
    }
}

/// The error may be any that can be shared between threads, or text, because only the text crosses.
impl<A: IntoApp<Shape>, E: Into<BoxError>, Shape> AppResult<Fallible<Shape>> for Result<A, E> {
    async fn into_result(self) -> Result<Box<dyn App>, BoxError> {
        self.map(IntoApp::into_app)
            .map_err(|error| chain(&*error.into()).into())
    }
}

/// A `Result` whose error cannot be shared between threads, as `?` makes one in a `main`.
impl<A: IntoApp<Shape>, Shape> AppResult<FallibleLocally<Shape>> for Result<A, Box<dyn Error>> {
    async fn into_result(self) -> Result<Box<dyn App>, BoxError> {
        self.map(IntoApp::into_app)
            .map_err(|error| chain(&*error).into())
    }
}

impl<F: Future, Shape> AppResult<Awaited<Shape>> for F
where
    F::Output: AppResult<Shape>,
{
    async fn into_result(self) -> Result<Box<dyn App>, BoxError> {
        self.await.into_result().await
    }
}

/// Runs the author's function, and erases its types. [`export_app!`](crate::export_app) calls this.
pub fn build<F: AppFunction<Shape> + 'static, Shape: 'static>(
    function: F,
    context: Context,
) -> AppFuture {
    Box::pin(function.build(context))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, io};

    use axum::Router;

    use super::*;

    /// The test is that these compile: the shape is inferred, for every kind of function.
    #[test]
    fn an_app_may_be_any_function_that_makes_a_service() {
        fn takes<F: AppFunction<Shape>, Shape>(_: F) {}

        takes(Router::new);
        takes(|_: Context| Router::new());
        takes(async || Router::new());
        takes(async |_: Context| Router::new());
        takes(|| Ok::<_, Infallible>(Router::new()));
        takes(async |_: Context| Ok::<_, BoxError>(Router::new()));
        takes(async || Ok::<_, Box<dyn Error>>(Router::new()));
        takes(async || Ok::<_, io::Error>(Router::new()));
        takes(|| Ok::<_, String>(Router::new()));
        takes(|_: native::Request<'_>| native::Response::text("hello"));
        takes(|_: native::Request<'_>| Ok::<_, io::Error>(native::Response::text("hello")));
        takes(|_: native::Request<'_>| async { native::Response::text("hello") });
        takes(|| native::app(|_| native::Response::text("hello")));
    }
}
