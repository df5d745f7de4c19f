//! The kinds of functions that an author can pass to [`export_app!`](crate::export_app), and the kinds of results that
//! these functions can return. One trait describes the functions, and one the results.

use std::{error::Error, future::Future};

use super::{
    Context,
    app::{App, AppFuture, IntoApp},
    kinds::{Direct, FutureOf, LocalResultOf, Native, ResultOf},
    native::{self, Answer},
};
use crate::{BoxError, crossing::error_chain};

/// A function that [`export_app!`](crate::export_app) takes.
///
/// - A `fn` or an `async fn` that creates the app. The function takes a [`Context`] or no argument, and returns an
///   [`AppResult`].
/// - A [native](crate::native) handler, which is itself the app. The handler takes a
///   [`native::Request`](crate::native::Request) and returns a [`native::Answer`](crate::native::Answer).
///
/// This trait is sealed: only this crate implements it. The parameter `Kind` distinguishes the kinds of functions. The
/// compiler always infers `Kind`.
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
pub trait AppFunction<Kind> {
    /// Calls the function and returns its app. A native handler is not called, because it is the app.
    #[doc(hidden)]
    fn build(self, context: Context) -> impl Future<Output = Result<Box<dyn App>, BoxError>>;
}

// The `Kind` of each implementation is a tuple. Its first element names the parameters of the function, so that the
// compiler does not reject the three implementations as overlapping.
impl<F, O, Kind> AppFunction<(fn() -> O, Kind)> for F
where
    F: FnOnce() -> O,
    O: AppResult<Kind>,
{
    async fn build(self, _: Context) -> Result<Box<dyn App>, BoxError> {
        self().into_result().await
    }
}

impl<F, O, Kind> AppFunction<(fn(Context) -> O, Kind)> for F
where
    F: FnOnce(Context) -> O,
    O: AppResult<Kind>,
{
    async fn build(self, context: Context) -> Result<Box<dyn App>, BoxError> {
        self(context).into_result().await
    }
}

impl<F, A, Kind> AppFunction<(Native, A, Kind)> for F
where
    F: Fn(native::Request<'_>) -> A + Send + Sync + 'static,
    A: Answer<Kind>,
    Kind: 'static,
{
    async fn build(self, _: Context) -> Result<Box<dyn App>, BoxError> {
        Ok(native::app(self).into_app())
    }
}

/// The result of a function that creates an app: an app ([`IntoApp`]), a `Result` of an app, or a future of either. An
/// `async fn` returns such a future.
///
/// The error of the `Result` may be any error, or text. The server receives only the text of the error and of its
/// sources.
///
/// This trait is sealed: only this crate implements it. The parameter `Kind` distinguishes the kinds of results. The
/// compiler always infers `Kind`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no app, nor a `Result` or a future of one",
    label = "no app"
)]
pub trait AppResult<Kind> {
    /// Returns the app, or the error with which the author's function failed.
    #[doc(hidden)]
    fn into_result(self) -> impl Future<Output = Result<Box<dyn App>, BoxError>>;
}

impl<A: IntoApp<Kind>, Kind> AppResult<Direct<Kind>> for A {
    async fn into_result(self) -> Result<Box<dyn App>, BoxError> {
        Ok(self.into_app())
    }
}

/// A `Result` whose error converts to [`BoxError`]: an error that threads can share, or text.
impl<A: IntoApp<Kind>, E: Into<BoxError>, Kind> AppResult<ResultOf<Kind>> for Result<A, E> {
    async fn into_result(self) -> Result<Box<dyn App>, BoxError> {
        // The error becomes one text here, because only text crosses the ABI.
        self.map(IntoApp::into_app)
            .map_err(|error| error_chain(&*error.into()).into())
    }
}

/// A `Result` whose error threads cannot share. This implementation is needed because `Box<dyn Error>`, a common return
/// type of a `main`, does not convert to [`BoxError`].
impl<A: IntoApp<Kind>, Kind> AppResult<LocalResultOf<Kind>> for Result<A, Box<dyn Error>> {
    async fn into_result(self) -> Result<Box<dyn App>, BoxError> {
        self.map(IntoApp::into_app)
            .map_err(|error| error_chain(&*error).into())
    }
}

impl<F: Future, Kind> AppResult<FutureOf<Kind>> for F
where
    F::Output: AppResult<Kind>,
{
    async fn into_result(self) -> Result<Box<dyn App>, BoxError> {
        self.await.into_result().await
    }
}

/// Returns the future that runs the author's function, with the types of the function erased.
/// [`export_app!`](crate::export_app) calls this.
pub fn build<F: AppFunction<Kind> + 'static, Kind: 'static>(
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

    /// Tests by compiling: the compiler infers the `Kind` of each function.
    #[test]
    fn an_app_may_be_any_function_that_makes_a_service() {
        fn takes<F: AppFunction<Kind>, Kind>(_: F) {}

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
