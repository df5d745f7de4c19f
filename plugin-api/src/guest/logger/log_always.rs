//! Removes the duplicate log lines that the feature `log-always` of the crate `tracing` causes. With this feature,
//! `tracing` also emits each event as a record of the crate `log`, so one event would become two lines.
//!
//! Any dependency of the author may enable the feature, and it then applies to the whole library. A probe event detects
//! at run time whether the feature is enabled. If it is enabled, two kinds of records are dropped: a record that
//! follows an event of the same callsite on the same thread, and the records that `tracing` emits about spans.

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, Ordering},
};

use log::Record;
use tracing_core::Metadata;

use crate::Level;

/// The target of the probe event.
const PROBE_TARGET: &str = "plugin_api::log_always";

/// Whether the feature is enabled.
static IS_ENABLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The callsite of the last event or span that this thread has logged, until the next record of `log`.
    static LAST_LOGGED: Cell<Option<&'static Metadata<'static>>> = const { Cell::new(None) };
}

/// Logs the probe event, and sets [`IS_ENABLED`]. Called after subscriber and logger are installed, and before the
/// author's code runs.
pub(super) fn detect() {
    let max_level = log::max_level();
    // The maximum level is raised for the probe, because `log` could drop the record of the probe event otherwise.
    log::set_max_level(log::LevelFilter::Trace);
    // If the feature is enabled, this event also calls `is_duplicate`, which then sets `IS_ENABLED`.
    tracing::error!(target: PROBE_TARGET, "");
    log::set_max_level(max_level);
    if is_enabled() {
        tracing::debug!(
            target: "plugin_api",
            "The feature log-always of the crate tracing is on: each event is a record of the crate log as well, \
             which is left out"
        );
    }
}

/// Returns whether `target` is the target of the probe event.
pub(super) fn is_probe(target: &str) -> bool {
    target == PROBE_TARGET
}

/// Returns whether the feature is enabled.
pub(super) fn is_enabled() -> bool {
    IS_ENABLED.load(Ordering::Relaxed)
}

/// Stores the callsite of an event or a span that this thread has just logged.
pub(super) fn set_last_logged(metadata: &'static Metadata<'static>) {
    if is_enabled() {
        LAST_LOGGED.set(Some(metadata));
    }
}

/// Returns whether `tracing` has emitted `record` for the probe event, or for an event or a span that is already
/// logged.
pub(super) fn is_duplicate(record: &Record<'_>) -> bool {
    if !is_enabled() {
        if is_probe(record.target()) {
            // The probe event has become a record, so the feature is enabled.
            IS_ENABLED.store(true, Ordering::Relaxed);
            return true;
        }
        return false;
    }
    if matches!(
        record.target(),
        "tracing::span" | "tracing::span::active" | PROBE_TARGET
    ) {
        return true;
    }
    // `tracing` emits the record directly after the event, so only the next record can be the duplicate.
    LAST_LOGGED.take().is_some_and(|event| {
        record.line() == event.line()
            && record.file() == event.file()
            && record.target() == event.target()
            && Level::from(record.level()) == Level::of(event)
    })
}
