//! What both banks do in the same way: hand a body, a waker or header fields to the other side, and
//! use the other's.

mod body;
mod headers;
mod memo;
mod names;
mod request;
mod shape;
mod waker;

#[cfg(any(feature = "host", feature = "local"))]
pub(crate) use self::{body::export, request::Lent};
pub(crate) use self::{
    body::{Imported, export_polled},
    headers::{HeaderFields, Texts, add_fields},
    memo::forget,
    names::id as name_id,
    request::version,
    waker::{PollWaker, with_waker},
};

/// How a side runs its own code when the other side calls in.
///
/// A panic ends in here: `None` then, and it has been reported.
pub(crate) trait Guard: Send + 'static {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R>;
}
