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

use super::logger::{self, HostLog};
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
        if logger::is_of_a_second_logger(message) {
            AUTHOR.replace(authors_place(&Backtrace::force_capture().to_string()));
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
    /// Where the author's code has installed a logger, as a panic of that told.
    static AUTHOR: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Where the author's code has installed a logger, if that made it panic on this thread and the library has
/// names of functions. Takes it.
pub(crate) fn place_of_a_second_logger() -> Option<String> {
    AUTHOR.take()
}

/// The innermost function of a backtrace that is neither of a package from a registry nor of Rust nor ours,
/// with file and line where they are known.
fn authors_place(backtrace: &str) -> Option<String> {
    let mut lines = backtrace.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some((number, name)) = line.split_once(": ") else {
            continue;
        };
        if number.parse::<u32>().is_err() {
            continue;
        }
        let at = lines.next_if(|line| line.starts_with("at "));
        let at = at.and_then(|line| line.strip_prefix("at "));
        let is_ours = name.starts_with("plugin_api::") || name.starts_with("<plugin_api::");
        let is_theirs = match at {
            Some(at) => {
                let ours = file!().trim_end_matches("guest/panics.rs");
                let foreign = [
                    "/registry/src/",
                    "/git/checkouts/",
                    "/rustc/",
                    "/rustlib/",
                    ours,
                ];
                !foreign.iter().any(|part| at.contains(part))
            }
            // Without debug information the names alone have to tell.
            None => {
                let foreign = [
                    "std::",
                    "core::",
                    "alloc::",
                    "tracing",
                    "env_logger::",
                    "log::",
                    "fern::",
                    "rust_begin_unwind",
                    "__rust",
                    "_R",
                    "<",
                ];
                !is_ours && !foreign.iter().any(|part| name.starts_with(part))
            }
        };
        if is_theirs {
            return Some(match at {
                Some(at) => format!("{name} ({at})"),
                None => name.to_owned(),
            });
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::authors_place;

    #[test]
    fn the_authors_place_is_the_innermost_that_is_nobody_elses() {
        let backtrace = "   0: std::backtrace::Backtrace::create
             at /rustc/5980/library/std/src/backtrace.rs:331:13
   1: plugin_api::guest::panics::told
             at ./plugin-api/src/guest/panics.rs:60:9
   2: tracing_subscriber::util::SubscriberInitExt::init
             at /home/a/.cargo/registry/src/index-1949/tracing-subscriber-0.3.23/src/util.rs:94:14
   3: shop::app
             at ./src/lib.rs:12:9
   4: shop::other
             at ./src/lib.rs:20:9";
        let place = authors_place(backtrace);
        assert_eq!(place.as_deref(), Some("shop::app (./src/lib.rs:12:9)"));
        let stripped = "   0: std::backtrace::Backtrace::create
   1: <T as tracing_subscriber::util::SubscriberInitExt>::init
   2: shop::app";
        assert_eq!(authors_place(stripped).as_deref(), Some("shop::app"));
        assert_eq!(authors_place("   0: <unknown>"), None);
    }
}
