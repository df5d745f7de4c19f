//! Finds out an app that installs a subscriber or a logger of its own, as it does without a server.
//!
//! The server's is there before any of the app's code runs, and both `tracing` and `log` take one
//! for good, so it stays in force. But whoever makes a subscriber makes `tracing` ask every other
//! one again about all callsites: asked without having caused it, we know of a rival.

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

/// The callsite that we are asked about. It also stands for the spans of requests, which are made
/// on the host's side.
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

/// How many reasons there are to be asked: one until we watch.
static EXPECTED: AtomicUsize = AtomicUsize::new(1);

static FOUND: AtomicBool = AtomicBool::new(false);

/// Watches from now on.
pub(super) fn watch() {
    callsite::register(&CALLSITE);
    EXPECTED.fetch_sub(1, Ordering::SeqCst);
}

/// Runs `ask`, which makes us be asked.
pub(super) fn expect(ask: impl FnOnce()) {
    EXPECTED.fetch_add(1, Ordering::SeqCst);
    ask();
    EXPECTED.fetch_sub(1, Ordering::SeqCst);
}

/// We are asked about a callsite. Nothing may be logged meanwhile: `tracing` holds its locks.
pub(super) fn registering(metadata: &Metadata<'_>) {
    if std::ptr::addr_eq(metadata, REQUEST) && EXPECTED.load(Ordering::SeqCst) == 0 {
        FOUND.store(true, Ordering::SeqCst);
    }
}

/// Warns of a rival that was found since the last time, and undoes what it did to the level.
pub(crate) fn check() {
    let level_changed = {
        let _changing = super::CHANGING
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        log::max_level() != log::LevelFilter::from(super::level())
    };
    if FOUND.swap(false, Ordering::SeqCst) | level_changed {
        // Its answers are still with the callsites.
        super::ask_anew();
        log::warn!(target: "plugin_api", "The app sets up logging of its own, which stays without effect but where it is for a scope: {REMOVE_LOGGER}");
    }
}
