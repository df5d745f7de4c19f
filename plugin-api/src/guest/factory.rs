//! The author's `app` function, in every shape that it may have.

use std::{error::Error, future::Future};

use super::{
    Context,
    app::{App, Building, IntoApp},
    native::{self, Answer, Native},
};
use crate::{BoxError, crossing::chain};

/// A function that makes an app: taking a [`Context`] or nothing, giving an [`Outcome`]. Or one that is
/// an app: a native handler.
///
/// `Shape` tells the kinds of function apart; it is always inferred.
pub trait Factory<Shape> {
    /// Calls the function.
    fn build(self, context: Context) -> impl Future<Output = Result<Box<dyn App>, BoxError>>;
}

impl<F, O, Shape> Factory<(fn() -> O, Shape)> for F
where
    F: FnOnce() -> O,
    O: Outcome<Shape>,
{
    async fn build(self, _: Context) -> Result<Box<dyn App>, BoxError> {
        self().outcome().await
    }
}

impl<F, O, Shape> Factory<(fn(Context) -> O, Shape)> for F
where
    F: FnOnce(Context) -> O,
    O: Outcome<Shape>,
{
    async fn build(self, context: Context) -> Result<Box<dyn App>, BoxError> {
        self(context).outcome().await
    }
}

impl<F, A> Factory<(Native, A)> for F
where
    F: Fn(native::Request<'_>) -> A + Send + Sync + 'static,
    A: Answer,
{
    async fn build(self, _: Context) -> Result<Box<dyn App>, BoxError> {
        Ok(native::app(self).into_app())
    }
}

/// What the function gives: an app, a `Result` of one, or a future of either, as an `async fn`
/// does.
pub trait Outcome<Shape> {
    /// The app, or why there is none.
    fn outcome(self) -> impl Future<Output = Result<Box<dyn App>, BoxError>>;
}

/// The shape of an app itself.
#[derive(Debug)]
pub struct Plain<Shape>(Shape);

/// The shape of a `Result`.
#[derive(Debug)]
pub struct Fallible<Shape>(Shape);

/// The shape of a `Result` whose error stays on its thread.
#[derive(Debug)]
pub struct FallibleLocally<Shape>(Shape);

/// The shape of a future.
#[derive(Debug)]
pub struct Awaited<Shape>(Shape);

impl<A: IntoApp<Shape>, Shape> Outcome<Plain<Shape>> for A {
    async fn outcome(self) -> Result<Box<dyn App>, BoxError> {
        Ok(self.into_app())
    }
}

/// Any error that may be shared between threads will do, and text: only the text crosses.
impl<A: IntoApp<Shape>, E: Into<BoxError>, Shape> Outcome<Fallible<Shape>> for Result<A, E> {
    async fn outcome(self) -> Result<Box<dyn App>, BoxError> {
        self.map(IntoApp::into_app)
            .map_err(|error| chain(&*error.into()).into())
    }
}

/// So will any error at all, as `?` makes one in a `main`.
impl<A: IntoApp<Shape>, Shape> Outcome<FallibleLocally<Shape>> for Result<A, Box<dyn Error>> {
    async fn outcome(self) -> Result<Box<dyn App>, BoxError> {
        self.map(IntoApp::into_app)
            .map_err(|error| chain(&*error).into())
    }
}

impl<F: Future, Shape> Outcome<Awaited<Shape>> for F
where
    F::Output: Outcome<Shape>,
{
    async fn outcome(self) -> Result<Box<dyn App>, BoxError> {
        self.await.outcome().await
    }
}

/// What [`export_app!`](crate::export_app) calls: the factory, with its types forgotten.
pub fn build<F: Factory<Shape> + 'static, Shape: 'static>(
    factory: F,
    context: Context,
) -> Building {
    Box::pin(factory.build(context))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, io};

    use axum::Router;

    use super::*;

    /// It is enough that these compile: the shape is inferred, for every kind of function.
    #[test]
    fn an_app_may_be_any_function_that_makes_a_service() {
        fn takes<F: Factory<Shape>, Shape>(_: F) {}

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
        takes(|_: native::Request<'_>| async { native::Response::text("hello") });
        takes(|| native::app(|_| native::Response::text("hello")));
    }
}
