//! Detects an app that installs a subscriber or a logger of its own, as it would without a server.
//!
//! The subscriber of this crate is installed before any of the app's code runs, and both `tracing` and `log` take only
//! the first, so ours stays in force. But a new subscriber makes `tracing` ask all subscribers about all callsites again.
//! If `tracing` asks ours and we did not cause that, the app has made a subscriber.

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

/// A callsite of our own: a question about it shows that `tracing` asks anew. The callsite also stands for the spans of
/// requests, which are made on the host's side.
pub(super) static REQUEST: &Metadata<'static> = &Metadata::new(
    "request",
    "request",
    Level::ERROR,
    None,
    None,
    None,
    FieldSet::new(&[], identify_callsite!(&CALLSITE)),
    Kind::SPAN,
);

static CALLSITE: DefaultCallsite = DefaultCallsite::new(REQUEST);

/// How many of our own actions are running that make `tracing` ask about all callsites again. Only while this is 0
/// does such a question mean that the app made a subscriber. It starts at 1, so nothing is detected before
/// [`start_watching`].
static OWN_ACTIONS: AtomicUsize = AtomicUsize::new(1);

/// Whether a rival was detected since the last [`check`].
static FOUND: AtomicBool = AtomicBool::new(false);

/// Detects rivals from now on.
pub(super) fn start_watching() {
    callsite::register(&CALLSITE);
    OWN_ACTIONS.fetch_sub(1, Ordering::SeqCst);
}

/// Runs `action`, which makes `tracing` ask anew.
pub(super) fn run_own(action: impl FnOnce()) {
    OWN_ACTIONS.fetch_add(1, Ordering::SeqCst);
    action();
    OWN_ACTIONS.fetch_sub(1, Ordering::SeqCst);
}

/// Notes that `tracing` asks about a callsite. Must not log, because `tracing` holds its locks.
pub(super) fn asked_about(metadata: &Metadata<'_>) {
    if std::ptr::addr_eq(metadata, REQUEST) && OWN_ACTIONS.load(Ordering::SeqCst) == 0 {
        FOUND.store(true, Ordering::SeqCst);
    }
}

/// Warns of a rival that was detected since the last check, and undoes what it did to the level.
pub(crate) fn check() {
    let level_changed = {
        let _changing = super::CHANGING
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        log::max_level() != log::LevelFilter::from(super::level())
    };
    if FOUND.swap(false, Ordering::SeqCst) | level_changed {
        // The callsites still cache an interest that depends on the answers of the app's subscriber.
        super::ask_anew();
        log::warn!(target: "plugin_api", "The app sets up logging of its own, which stays without effect but where it is for a scope: {REMOVE_LOGGER}");
    }
}
