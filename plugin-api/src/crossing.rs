//! Code that the host side and the plugin side share: conversions of bodies, wakers, header fields and request heads
//! to ABI types and back, and caches for these conversions.

use std::error::Error;

pub(crate) mod cache;
mod exported;
mod headers;
mod imported;
mod names;
mod request;
#[cfg_attr(
    not(feature = "host"),
    allow(unreachable_pub, reason = "public only with the host side")
)]
mod stall_watch;
mod waker;

#[cfg(feature = "host")]
pub(crate) use self::exported::export_unpin;
#[cfg(feature = "host")]
pub use self::stall_watch::StallWatch;
#[cfg(not(feature = "host"))]
pub(crate) use self::stall_watch::StallWatch;
#[cfg(any(feature = "host", feature = "local"))]
pub(crate) use self::{exported::export, request::AbiRequestParts};
pub(crate) use self::{
    exported::export_eager,
    headers::HeaderFields,
    imported::ImportedBody,
    names::ids,
    request::version,
    waker::{PollWaker, with_waker},
};

/// Returns an error and its sources as one text, separated by `: `.
pub(crate) fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Runs code of this side in a call from the other side, and catches panics, because a panic must not unwind into the
/// other side.
///
/// Both methods return `None` after a panic, and the panic is then already reported.
pub(crate) trait PanicBoundary: Send + 'static {
    /// Runs `work`.
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R>;

    /// Runs `work`, which polls a future or a stream. The plugin side applies tokio's cooperative budget, so that work
    /// whose channels and sockets are always ready still gives its thread back.
    fn poll<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        self.run(work)
    }
}
