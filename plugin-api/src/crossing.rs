//! Code that both sides (server and plugin) use: to pass a body, a waker or header fields to the other side, and to
//! use what the other side passed.

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
pub(crate) use self::exported::export_unpin;
#[cfg(feature = "host")]
pub use self::workers::Workers;
#[cfg(not(feature = "host"))]
pub(crate) use self::workers::Workers;
#[cfg(any(feature = "host", feature = "local"))]
pub(crate) use self::{exported::export, request::LentRequest};
pub(crate) use self::{
    exported::export_eager,
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

/// Runs this side's code when the other side calls it, and catches panics.
///
/// The methods return `None` if the code panicked; the panic is already reported then.
pub(crate) trait Guard: Send + 'static {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R>;

    /// Like [`run`](Self::run), for work that polls a future or a stream. A side may limit how much such work does in
    /// one poll.
    fn poll<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        self.run(work)
    }
}
