//! What both banks do in the same way: hand a body, a waker or header fields to the other side, and
//! use the other's.

use std::{
    any::Any,
    error::Error,
    panic::{self, AssertUnwindSafe},
};

use crate::guest::panics;

mod exported;
mod headers;
mod imported;
mod memo;
mod names;
mod paths;
mod request;
mod shape;
mod waker;
#[cfg_attr(
    not(feature = "host"),
    allow(unreachable_pub, reason = "the server's bank makes it public")
)]
mod workers;

#[cfg(feature = "host")]
pub(crate) use self::exported::export_pinned;
#[cfg(not(feature = "host"))]
pub(crate) use self::memo::forget;
#[cfg(feature = "host")]
pub use self::workers::Workers;
#[cfg(not(feature = "host"))]
pub(crate) use self::workers::Workers;
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

/// Runs `work`; none when it panicked, which has been reported.
///
/// What the work shares with others stays theirs to distrust, as after a thread's panic: std's
/// locks are poisoned.
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Option<R> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(|payload| {
            panics::caught(&*payload);
            drop_payload(payload);
        })
        .ok()
}

/// Drops what a panic carried, whose own destructor may panic, and so on: then it is leaked.
fn drop_payload(payload: Box<dyn Any + Send>) {
    std::mem::forget(panic::catch_unwind(AssertUnwindSafe(|| drop(payload))));
}

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
