//! What both banks do in the same way: hand a body, a waker or header fields to the other side, and
//! use the other's.

mod exported;
mod headers;
mod imported;
mod memo;
mod names;
mod paths;
mod request;
mod shape;
mod waker;

#[cfg(feature = "host")]
pub(crate) use self::exported::export_pinned;
#[cfg(not(feature = "host"))]
pub(crate) use self::memo::forget;
#[cfg(any(feature = "host", feature = "local"))]
pub(crate) use self::{exported::export, request::Lent};
pub(crate) use self::{
    exported::export_polled,
    headers::{HeaderFields, add_fields},
    imported::Imported,
    memo::{Met, with as with_met},
    names::ids,
    paths::path_and_query,
    request::version,
    shape::{fill_map, keep_room},
    waker::{PollWaker, with_waker},
};

/// How a side runs its own code when the other side calls in.
///
/// A panic ends in here: `None` then, and it has been reported.
pub(crate) trait Guard: Send + 'static {
    fn run<R>(&self, work: impl FnOnce() -> R) -> Option<R>;
}
