//! Catches panics and reports them. The host side and the plugin side both use this module. It depends on neither side.
//!
//! Each library has its own copy of std, and therefore its own panic hook. A plugin installs a reporter, which sends
//! its panics to the host's log. The server's binary installs no reporter, so std's hook prints its panics.

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

/// A function that reports a panic: its message, and its source location if known.
pub(crate) type Reporter = fn(&str, Option<&Location<'_>>);

/// Runs `work`. Returns `None` if `work` has panicked; the panic is then already reported.
///
/// After a panic, data that `work` shares with other code may be half-changed, as after the panic of a thread. Data in
/// a lock of std is protected by poisoning.
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Option<R> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(|payload| {
            report_unless_reported(&*payload);
            drop_payload(payload);
        })
        .ok()
}

/// Runs `work`. If `work` has panicked, returns the message and location of the panic as an error, and does not report
/// the panic.
pub(crate) fn catch_message<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    let outer = CAPTURES_MESSAGE.replace(true);
    CAPTURED_MESSAGE.take();
    let result = catch(work);
    CAPTURES_MESSAGE.set(outer);
    let captured = CAPTURED_MESSAGE.take();
    let result = result.ok_or_else(|| captured.clone());
    if let (Ok(_), false, Some(report)) = (&result, captured.is_empty(), REPORTER.get()) {
        // `work` itself has caught the panic and has continued. Without this report the panic would be lost.
        report(&captured, None);
    }
    result
}

/// Sends every panic of this library to `reporter` instead of std's hook, which prints panics on stderr. Later calls
/// keep the reporter of the first call.
pub(crate) fn install(reporter: Reporter) {
    let reporter = *REPORTER.get_or_init(|| reporter);
    set_hook(reporter, None);
}

/// Installs our hook again if the author's code has replaced the hook, because panics without a report would be missing
/// from the log. Our hook then calls the author's hook.
pub(crate) fn restore_hook() {
    // `take_hook` itself panics on a thread that is panicking.
    let Some(&reporter) = REPORTER.get().filter(|_| !thread::panicking()) else {
        return;
    };
    // std has no function that reads the current hook, so the hook is taken out and set again.
    let hook = panic::take_hook();
    if address(&*hook) == OUR_HOOK.load(Ordering::Relaxed) {
        panic::set_hook(hook);
    } else {
        set_hook(reporter, Some(hook));
    }
}

/// Returns, once, the location in the author's code of a panic on this thread that a known [`Mistake`] has caused. The
/// location is captured within [`catch_message`]. Returns `None` if the backtrace contains no function of the author.
pub(crate) fn take_author_location() -> Option<String> {
    AUTHOR_LOCATION.take()
}

type Hook = dyn Fn(&PanicHookInfo<'_>) + Send + Sync;

static REPORTER: OnceLock<Reporter> = OnceLock::new();

/// The address of the hook that [`set_hook`] has set last.
static OUR_HOOK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether our hook has run for the panic that is unwinding on this thread.
    static HOOK_RAN: Cell<bool> = const { Cell::new(false) };
    /// Whether our hook is calling the author's hook.
    static IN_AUTHOR_HOOK: Cell<bool> = const { Cell::new(false) };
    /// Whether [`catch_message`] is running: messages are then captured and not reported.
    static CAPTURES_MESSAGE: Cell<bool> = const { Cell::new(false) };
    /// The message of the last panic within [`catch_message`].
    static CAPTURED_MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
    /// The location in the author's code of the last panic that a known [`Mistake`] has caused.
    static AUTHOR_LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn set_hook(reporter: Reporter, author_hook: Option<Box<Hook>>) {
    let hook: Box<Hook> = Box::new(move |info| run_hook(reporter, info, author_hook.as_deref()));
    OUR_HOOK.store(address(&*hook), Ordering::Relaxed);
    panic::set_hook(hook);
}

/// Returns the address of a hook, which identifies the hook. Our hook has an address of its own, because it captures
/// variables and is therefore on the heap.
fn address(hook: &Hook) -> usize {
    ptr::from_ref(hook).cast::<()>().addr()
}

/// The body of our hook. `author_hook` is the hook that the author's code has set.
fn run_hook(reporter: Reporter, info: &PanicHookInfo<'_>, author_hook: Option<&Hook>) {
    if IN_AUTHOR_HOOK.get() {
        // An author's hook usually calls the previous hook, and that is this one. The panic is already reported.
        return;
    }
    HOOK_RAN.set(true);
    let message = message(info.payload());
    if CAPTURES_MESSAGE.get() {
        CAPTURED_MESSAGE.replace(format!("{message} at {}", location(info)));
        if Mistake::of(message).is_some() {
            let backtrace = Backtrace::force_capture().to_string();
            AUTHOR_LOCATION.replace(mistakes::author_location(&backtrace));
        }
    } else {
        reporter(message, info.location());
    }
    if let Some(author_hook) = author_hook {
        IN_AUTHOR_HOOK.set(true);
        author_hook(info);
        IN_AUTHOR_HOOK.set(false);
    }
}

/// Reports the panic with this payload, unless our hook has reported it.
///
/// Our hook does not run in two cases: the author's code has replaced the hook, or the panic was resumed with
/// `resume_unwind`, for example the panic of a task that tokio has caught.
fn report_unless_reported(payload: &(dyn Any + Send)) {
    let Some(reporter) = REPORTER.get().filter(|_| !HOOK_RAN.replace(false)) else {
        return;
    };
    // For the case that the author's code has replaced the hook while the app was running.
    restore_hook();
    if CAPTURES_MESSAGE.get() {
        CAPTURED_MESSAGE.replace(message(payload).to_owned());
    } else {
        reporter(message(payload), None);
    }
}

/// Drops the payload of a panic. If its destructor panics, the payload of that second panic is leaked, because its
/// destructor may panic too.
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

fn location(info: &PanicHookInfo<'_>) -> String {
    info.location()
        .map_or_else(|| "an unknown place".to_owned(), ToString::to_string)
}
