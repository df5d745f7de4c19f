//! Detects that the app installs its own subscriber or logger, as a program without a server would do.
//!
//! The subscriber of this crate is installed before the app's code runs. `tracing` and `log` accept only the first
//! subscriber and logger, so the app's have no effect. But when a subscriber is created, `tracing` registers all
//! callsites with all subscribers again. If `tracing` registers a callsite again and this crate did not cause it, the
//! app has created a subscriber.

use std::sync::{
    PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tracing_core::{
    Kind, Level, Metadata,
    callsite::{self, DefaultCallsite},
    field::FieldSet,
    identify_callsite,
};

use crate::panics::REMOVE_LOGGER;

/// The metadata of a callsite of this crate, with two purposes: its registration shows that `tracing` registers all
/// callsites again, and [`Span::current`] returns it for the span of a request, which the host creates.
///
/// [`Span::current`]: tracing::Span::current
pub(super) static REQUEST_METADATA: &Metadata<'static> = &Metadata::new(
    "request",
    "request",
    Level::ERROR,
    None,
    None,
    None,
    FieldSet::new(&[], identify_callsite!(&REQUEST_CALLSITE)),
    Kind::SPAN,
);

static REQUEST_CALLSITE: DefaultCallsite = DefaultCallsite::new(REQUEST_METADATA);

/// The number of actions of this crate that are running and make `tracing` register all callsites again. Only while
/// this number is 0 does a registration reveal a subscriber of the app. The number is 1 until [`start_detection`], so
/// nothing is detected before.
static OWN_REBUILDS: AtomicUsize = AtomicUsize::new(1);

/// Whether a subscriber of the app was detected since the last [`check`].
static DETECTED: AtomicBool = AtomicBool::new(false);

/// Starts the detection. Called after the subscriber of this crate is installed.
pub(super) fn start_detection() {
    callsite::register(&REQUEST_CALLSITE);
    OWN_REBUILDS.fetch_sub(1, Ordering::SeqCst);
}

/// Runs `action`, which makes `tracing` register all callsites again. Such a registration is not detected.
pub(super) fn run_own_rebuild(action: impl FnOnce()) {
    OWN_REBUILDS.fetch_add(1, Ordering::SeqCst);
    action();
    OWN_REBUILDS.fetch_sub(1, Ordering::SeqCst);
}

/// Notes that `tracing` registers a callsite. Must not log, because `tracing` holds its locks during a registration.
pub(super) fn note_registration(metadata: &Metadata<'_>) {
    if std::ptr::addr_eq(metadata, REQUEST_METADATA) && OWN_REBUILDS.load(Ordering::SeqCst) == 0 {
        DETECTED.store(true, Ordering::SeqCst);
    }
}

/// Logs a warning if the app has created a subscriber, or changed the maximum level of `log`, since the last check.
/// Also undoes the effect on the levels.
pub(crate) fn check() {
    // The installation of a logger for `log` cannot be observed directly. But some loggers set the maximum level before
    // they try to install themselves.
    let level_changed = {
        let _lock = super::LEVEL_LOCK
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        log::max_level() != log::LevelFilter::from(super::level())
    };
    if DETECTED.swap(false, Ordering::SeqCst) | level_changed {
        // The callsites still cache an interest that depends on the answers of the app's subscriber.
        super::register_all_again();
        log::warn!(target: "plugin_api", "The app sets up logging of its own, which stays without effect but where it is for a scope: {REMOVE_LOGGER}");
    }
}
