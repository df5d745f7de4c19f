//! The feature `log-always` of `tracing`: each event is a record of `log` as well, which would make two lines
//! of one event.
//!
//! A dependency of the author's may turn the feature on, for all of the library. An event at a callsite of
//! our own tells whether it is on. If so, a record that comes right behind an event of the same place, on the
//! same thread, is left out, and so are records by which `tracing` tells of spans.

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering},
};

use log::Record;
use tracing_core::Metadata;

use crate::Level;

/// The target of our own event.
const PROBE: &str = "plugin_api::log_always";

/// Whether the feature is on.
static IS_ON: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The event or span that this thread told of last.
    static LAST: Cell<Option<&'static Metadata<'static>>> = const { Cell::new(None) };
}

/// Logs the event by which the feature is found out. Subscriber and logger are in place, and none of the
/// author's code has run.
pub(super) fn find_out() {
    let max = log::max_level();
    log::set_max_level(log::LevelFilter::Trace);
    tracing::error!(target: PROBE, "");
    log::set_max_level(max);
    if IS_ON.load(Ordering::Relaxed) {
        tracing::debug!(
            target: "plugin_api",
            "The feature log-always of the crate tracing is on: each event is a record of the crate log as well, \
             which is left out"
        );
    }
}

/// Whether this is the target of our own event.
pub(super) fn is_probe(target: &str) -> bool {
    target == PROBE
}

/// Whether the feature is on.
pub(super) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// This thread has logged an event, or told of a span.
pub(super) fn logged(event: &'static Metadata<'static>) {
    if IS_ON.load(Ordering::Relaxed) {
        LAST.set(Some(event));
    }
}

/// Whether `tracing` made this record of an event or a span that is in the log already.
pub(super) fn is_double(record: &Record<'_>) -> bool {
    if !IS_ON.load(Ordering::Relaxed) {
        if is_probe(record.target()) {
            IS_ON.store(true, Ordering::Relaxed);
            return true;
        }
        return false;
    }
    if matches!(
        record.target(),
        "tracing::span" | "tracing::span::active" | PROBE
    ) {
        return true;
    }
    LAST.take().is_some_and(|event| {
        record.line() == event.line()
            && record.file() == event.file()
            && record.target() == event.target()
            && Level::from(record.level()) == Level::of(event)
    })
}
