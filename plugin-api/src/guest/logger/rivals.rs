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
        log::warn!(target: "plugin_api", "The app sets up logging of its own, which stays without effect but where it is for a scope: {REMOVE}");
    }
}

/// Whether an app that says this did not start because it is the second to install a subscriber or a logger.
pub(crate) fn is_of_a_second_logger(why: &str) -> bool {
    // What `log` and `tracing` say to whoever comes second, for people and by `Debug`.
    let second = [
        "SetLoggerError",
        "SetGlobalDefaultError",
        "logging system was already initialized",
        "global default trace dispatcher has already been set",
    ];
    second.iter().any(|said| why.contains(said))
}

/// What to say of such an app; `place` is where it does so.
pub(crate) fn advice(place: Option<&str>) -> String {
    let place = place.map_or_else(String::new, |place| format!(" in {place}"));
    format!(
        "the app sets up logging of its own{place}, but the server's is there before it: {REMOVE}"
    )
}

const REMOVE: &str = "remove the line that installs a subscriber or logger, such as \
                      `tracing_subscriber::fmt::init()` or `env_logger::init()`";
