//! The end of a panic: where it is caught, and how its message becomes a report. Used by both banks, and uses neither.
//!
//! Each library has its own copy of std, and so its own panic hook. A library without a reporter, as the server is,
//! keeps std's hook.

mod mistakes;

use std::{
    any::Any,
    backtrace::Backtrace,
    cell::{Cell, RefCell},
    mem,
    panic::{self, AssertUnwindSafe, Location, PanicHookInfo},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

pub(crate) use self::mistakes::{Mistake, REMOVE_LOGGER};

/// Takes the message of a panic, and its place where that is known.
pub(crate) type Report = fn(&str, Option<&Location<'_>>);

/// Runs `work`. None when it panicked, which has been reported.
///
/// Data that the work shares with others may be half-changed after a panic, as after the panic of a thread: std's
/// locks are poisoned then.
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Option<R> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(|payload| {
            caught(&*payload);
            drop_payload(payload);
        })
        .ok()
}

/// Runs `work`. The error is the message of its panic, and the place, which are not reported.
pub(crate) fn catch_message<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    let outer = KEEPS_MESSAGE.replace(true);
    MESSAGE.take();
    let done = catch(work);
    KEEPS_MESSAGE.set(outer);
    let caught = MESSAGE.take();
    let done = done.ok_or_else(|| caught.clone());
    if let (Ok(_), false, Some(report)) = (&done, caught.is_empty(), REPORT.get()) {
        // The work itself caught the panic, and went on.
        report(&caught, None);
    }
    done
}

/// Has `report` take every panic of this library, in place of std's lines on stderr. The first reporter stays.
pub(crate) fn install(report: Report) {
    let report = *REPORT.get_or_init(|| report);
    set_hook(report, None);
}

/// Puts our hook back if the author's code has set another. The author's hook is then called by ours, because a
/// panic without a report would be missing from the log.
pub(crate) fn keep_hook() {
    let Some(&report) = REPORT.get().filter(|_| !thread::panicking()) else {
        return;
    };
    let hook = panic::take_hook();
    if address(&*hook) == HOOK.load(Ordering::Relaxed) {
        panic::set_hook(hook);
    } else {
        set_hook(report, Some(hook));
    }
}

/// Takes the place in the author's code at which a known mistake made this thread panic. None when the library
/// has no names of functions.
pub(crate) fn take_authors_place() -> Option<String> {
    AUTHORS_PLACE.take()
}

type Hook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync;

static REPORT: OnceLock<Report> = OnceLock::new();

/// The address of our hook.
static HOOK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether the hook ran for the panic that is on its way.
    static HOOK_RAN: Cell<bool> = const { Cell::new(false) };
    /// Whether the author's hook runs.
    static IN_AUTHORS_HOOK: Cell<bool> = const { Cell::new(false) };
    /// Whether messages are kept for [`catch_message`], and not reported.
    static KEEPS_MESSAGE: Cell<bool> = const { Cell::new(false) };
    /// The message of the last panic that was not reported.
    static MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
    /// The place in the author's code of a panic that tells of a known mistake.
    static AUTHORS_PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn set_hook(report: Report, authors: Option<Box<Hook>>) {
    let hook: Box<Hook> = Box::new(move |info| run_hook(report, info, authors.as_deref()));
    HOOK.store(address(&*hook), Ordering::Relaxed);
    panic::set_hook(hook);
}

/// The address of a hook. Ours is on the heap, because it has captured something.
fn address(hook: &Hook) -> usize {
    ptr::from_ref(hook).cast::<()>().addr()
}

/// Our hook. `authors` is the author's.
fn run_hook(report: Report, info: &PanicHookInfo<'_>, authors: Option<&Hook>) {
    if IN_AUTHORS_HOOK.get() {
        // The author's hook calls the one before it, which is this one.
        return;
    }
    HOOK_RAN.set(true);
    let message = message(info.payload());
    if KEEPS_MESSAGE.get() {
        MESSAGE.replace(format!("{message} at {}", place(info)));
        if Mistake::of(message).is_some() {
            let backtrace = Backtrace::force_capture().to_string();
            AUTHORS_PLACE.replace(mistakes::authors_place(&backtrace));
        }
    } else {
        report(message, info.location());
    }
    if let Some(authors) = authors {
        IN_AUTHORS_HOOK.set(true);
        authors(info);
        IN_AUTHORS_HOOK.set(false);
    }
}

/// Reports a panic with this payload, unless the hook did so. No hook runs for a panic that is resumed, as that of a
/// task is.
fn caught(payload: &(dyn Any + Send)) {
    let Some(report) = REPORT.get().filter(|_| !HOOK_RAN.replace(false)) else {
        return;
    };
    // Or the author's code replaced the hook while the app ran.
    keep_hook();
    if KEEPS_MESSAGE.get() {
        MESSAGE.replace(message(payload).to_owned());
    } else {
        report(message(payload), None);
    }
}

/// Drops the payload of a panic. Its destructor may panic as well, and so on: then the payload is leaked.
fn drop_payload(payload: Box<dyn Any + Send>) {
    mem::forget(panic::catch_unwind(AssertUnwindSafe(|| drop(payload))));
}

fn message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "a value that is not text"
    }
}

fn place(info: &PanicHookInfo<'_>) -> String {
    info.location()
        .map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
}
