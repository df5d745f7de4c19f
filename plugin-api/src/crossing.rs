//! What both banks do in the same way: hand a body, a waker or header fields to the other side, and
//! use the other's.

use std::error::Error;

pub(crate) mod cache;
mod exported;
mod headers;
mod imported;
mod names;
mod request;
mod waker;
#[cfg_attr(
    not(feature = "host"),
    allow(unreachable_pub, reason = "the server's bank makes it public")
)]
mod workers;

#[cfg(feature = "host")]
pub(crate) use self::exported::export_pinned;
#[cfg(feature = "host")]
pub use self::workers::Workers;
#[cfg(not(feature = "host"))]
pub(crate) use self::workers::Workers;
#[cfg(any(feature = "host", feature = "local"))]
pub(crate) use self::{exported::export, request::LentRequest};
pub(crate) use self::{
    exported::export_polled,
    headers::HeaderFields,
    imported::Imported,
    names::ids,
    request::version,
    waker::{PollWaker, with_waker},
};

/// An error and its sources in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// How a side runs its own code when the other side calls in.
///
/// A panic ends in here: `None` then, and it has been reported.
pub(crate) trait Guard: Send + 'static {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R>;

    /// The same for work that polls a future or a stream, and that is to be pending after a while even if
    /// all that it waits for is there.
    fn poll<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        self.run(work)
    }
}
