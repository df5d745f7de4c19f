//! Hooks that give the state for the next generation.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::BoxError;

/// A hook, with its types forgotten. It may be called more than once: a handover can fail.
pub(crate) type Hook = Arc<dyn Fn() -> Giving + Send + Sync>;

type Giving = Pin<Box<dyn Future<Output = Result<Vec<u8>, BoxError>> + Send>>;

/// A function or async function that gives bytes, text or `()`, or a `Result` of them.
///
/// This trait is sealed: only this crate implements it. `Shape` tells the two apart, and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no hook for a handover",
    label = "no hook",
    note = "a hook is a function or an async function without arguments that may be called again, and that gives bytes, \
            text or `()`, or a `Result` of them"
)]
pub trait IntoHandover<Shape>: Send + Sync + 'static {
    /// The hook.
    #[doc(hidden)]
    fn into_handover(self) -> Hook;
}

impl<F, S> IntoHandover<fn() -> S> for F
where
    F: Fn() -> S + Send + Sync + 'static,
    S: State,
{
    fn into_handover(self) -> Hook {
        let this = Arc::new(self);
        Arc::new(move || {
            let this = Arc::clone(&this);
            Box::pin(async move { this().into_bytes() })
        })
    }
}

impl<F, A> IntoHandover<(A,)> for F
where
    F: Fn() -> A + Send + Sync + 'static,
    A: Future<Output: State> + Send + 'static,
{
    fn into_handover(self) -> Hook {
        Arc::new(move || {
            let giving = self();
            Box::pin(async move { giving.await.into_bytes() })
        })
    }
}

/// State as bytes, or why there is none.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no state that a hook may hand over",
    label = "neither bytes, nor text, nor `()`, nor a `Result` of them"
)]
pub trait State {
    /// The bytes.
    ///
    /// # Errors
    ///
    /// When there are none: then the app goes on, and the next generation is not started.
    fn into_bytes(self) -> Result<Vec<u8>, BoxError>;
}

impl State for Vec<u8> {
    fn into_bytes(self) -> Result<Vec<u8>, BoxError> {
        Ok(self)
    }
}

impl State for String {
    fn into_bytes(self) -> Result<Vec<u8>, BoxError> {
        Ok(String::into_bytes(self))
    }
}

impl State for &'static str {
    fn into_bytes(self) -> Result<Vec<u8>, BoxError> {
        Ok(self.into())
    }
}

impl State for &'static [u8] {
    fn into_bytes(self) -> Result<Vec<u8>, BoxError> {
        Ok(self.into())
    }
}

/// No state: for a hook that only lets go of something.
impl State for () {
    fn into_bytes(self) -> Result<Vec<u8>, BoxError> {
        Ok(Vec::new())
    }
}

impl<S: State, E: Into<BoxError>> State for Result<S, E> {
    fn into_bytes(self) -> Result<Vec<u8>, BoxError> {
        self.map_err(Into::into)?.into_bytes()
    }
}
