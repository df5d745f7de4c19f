//! What both banks do in the same way: hand a body, a waker, a byte stream or header fields to the
//! other side, and use the other's.

mod body;
mod headers;
#[cfg(any(feature = "host", feature = "upgrade"))]
mod stream;
mod waker;

#[cfg(feature = "upgrade")]
pub(crate) use self::stream::ImportedStream;
#[cfg(feature = "host")]
pub(crate) use self::{body::export, stream::export_stream};
pub(crate) use self::{
    body::{Imported, export_polled},
    headers::{HeaderFields, header_map},
    waker::{PollWaker, with_waker},
};

/// How a side runs its own code when the other side calls in.
///
/// A panic ends in here: `None` then, and it has been reported.
pub(crate) trait Guard: Send + 'static {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R>;
}
