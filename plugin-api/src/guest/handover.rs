//! The types of handover hooks. A handover hook returns the state with which the next generation starts.

use std::{future::Future, pin::Pin, sync::Arc};

use crate::BoxError;

/// A hook with erased types. Can be called several times, because a handover can fail, and the next reload then calls
/// the hook again.
pub(crate) type HandoverHook = Arc<dyn Fn() -> StateFuture + Send + Sync>;

/// The future of the state that a hook returns, as bytes.
type StateFuture = Pin<Box<dyn Future<Output = Result<Vec<u8>, BoxError>> + Send>>;

/// A function or async function that returns bytes, text or `()`, or a `Result` of them.
///
/// This trait is sealed: only this crate implements it. The parameter `Kind` distinguishes functions from async
/// functions. The compiler always infers `Kind`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no hook for a handover",
    label = "no hook",
    note = "a hook is a function or an async function without arguments that may be called again, and that gives bytes, \
            text or `()`, or a `Result` of them"
)]
pub trait IntoHandover<Kind>: Send + Sync + 'static {
    /// Returns the hook with its types erased.
    #[doc(hidden)]
    fn into_handover(self) -> HandoverHook;
}

// The `Kind` of this implementation is a function type, and that of the next one is a tuple, so that the compiler does
// not reject the two as overlapping.
impl<F, S> IntoHandover<fn() -> S> for F
where
    F: Fn() -> S + Send + Sync + 'static,
    S: State,
{
    fn into_handover(self) -> HandoverHook {
        // Each future owns a handle of the function, because the future must not borrow from the hook.
        let function = Arc::new(self);
        Arc::new(move || {
            let function = Arc::clone(&function);
            Box::pin(async move { function().into_bytes() })
        })
    }
}

impl<F, A> IntoHandover<(A,)> for F
where
    F: Fn() -> A + Send + Sync + 'static,
    A: Future<Output: State> + Send + 'static,
{
    fn into_handover(self) -> HandoverHook {
        Arc::new(move || {
            let state = self();
            Box::pin(async move { state.await.into_bytes() })
        })
    }
}

/// A value that a handover hook can return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no state that a hook may hand over",
    label = "neither bytes, nor text, nor `()`, nor a `Result` of them"
)]
pub trait State {
    /// Returns the state as bytes.
    ///
    /// # Errors
    ///
    /// Returns the error if the value is an `Err`. The handover has then failed: the app continues to serve, and the
    /// next generation is not started.
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

/// The empty state, for a hook that only releases a resource.
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
