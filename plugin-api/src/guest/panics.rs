//! Reports panics to the host: where, what, on which thread. Each library has its own copy of std,
//! and so its own hook.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    panic::{self, Location, PanicHookInfo},
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    logger::{self, HostLog},
    mistakes::{self, Mistake},
};
use crate::{
    abi::{self, Slice},
    crossing::catch as run,
};

/// Makes every panic in this library a report to `host`, in place of std's lines on stderr.
pub(crate) fn install(host: HostLog) {
    // An app is started once.
    let _ = HOST.set(host);
    set_hook(host, None);
}

/// Puts our hook back if the author's code has set another: the author's hook is then called by ours, as a
/// panic without a report would be missing from the log.
pub(crate) fn keep_hook() {
    let Some(&host) = HOST.get().filter(|_| !thread::panicking()) else {
        return;
    };
    let hook = panic::take_hook();
    if address(&*hook) == HOOK.load(Ordering::Relaxed) {
        panic::set_hook(hook);
    } else {
        set_hook(host, Some(hook));
    }
}

type Hook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync;

fn set_hook(host: HostLog, theirs: Option<Box<Hook>>) {
    let hook: Box<Hook> = Box::new(move |info| told(host, info, theirs.as_deref()));
    HOOK.store(address(&*hook), Ordering::Relaxed);
    panic::set_hook(hook);
}

/// Where a hook is. Ours is on the heap, as it has something to keep.
fn address(hook: &Hook) -> usize {
    ptr::from_ref(hook).cast::<()>().addr()
}

/// The hook. `theirs` is the author's.
fn told(host: HostLog, info: &PanicHookInfo<'_>, theirs: Option<&Hook>) {
    if IN_THEIRS.get() {
        // The author's hook calls the one before it, which is this one.
        return;
    }
    TOLD.set(true);
    let message = message(info.payload());
    if CATCHING.get() {
        CAUGHT.replace(format!("{message} at {}", place(info)));
        if Mistake::of(message).is_some() {
            AUTHOR.replace(mistakes::authors_place(
                &Backtrace::force_capture().to_string(),
            ));
        }
    } else {
        report(host, message, info.location());
    }
    if let Some(theirs) = theirs {
        IN_THEIRS.set(true);
        theirs(info);
        IN_THEIRS.set(false);
    }
}

static HOST: OnceLock<HostLog> = OnceLock::new();

/// The address of our hook.
static HOOK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether the hook was told of the panic that is on its way.
    static TOLD: Cell<bool> = const { Cell::new(false) };
    /// Whether the author's hook runs.
    static IN_THEIRS: Cell<bool> = const { Cell::new(false) };
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<String> = const { RefCell::new(String::new()) };
    /// The place in the author's code of a panic that tells of a known mistake.
    static AUTHOR: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes the place in the author's code at which a known mistake made this thread panic. None when the library
/// has no names of functions.
pub(crate) fn take_authors_place() -> Option<String> {
    AUTHOR.take()
}

/// A panic with this payload was caught. The hook is not told of one that is resumed, as that of a task.
pub(crate) fn caught(payload: &(dyn Any + Send)) {
    let Some(&host) = HOST.get().filter(|_| !TOLD.replace(false)) else {
        return;
    };
    // Or it was replaced while the app ran.
    keep_hook();
    if CATCHING.get() {
        CAUGHT.replace(message(payload).to_owned());
    } else {
        report(host, message(payload), None);
    }
}

/// Runs `work`. A panic is not reported but returned: what it said, and where.
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    let outer = CATCHING.replace(true);
    CAUGHT.take();
    let done = run(work);
    CATCHING.set(outer);
    let caught = CAUGHT.take();
    let done = done.ok_or_else(|| caught.clone());
    if let (Ok(_), false, Some(&host)) = (&done, caught.is_empty(), HOST.get()) {
        // The work went on after it.
        report(host, &caught, None);
    }
    done
}

fn report(host: HostLog, message: &str, place: Option<&Location<'_>>) {
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = thread::current();
    host.panicked(&abi::Panic {
        size: size_of::<abi::Panic>(),
        message: Slice::new(message.as_bytes()),
        file: Slice::from_option(place.map(Location::file)),
        thread: Slice::from_option(thread.name()),
        backtrace: Slice::from_option(backtrace.as_deref()),
        line: place.map_or(0, Location::line),
        column: place.map_or(0, Location::column),
        span: logger::current_span(),
    });
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
