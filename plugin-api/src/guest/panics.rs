//! Reports panics to the host: where, what, on which thread. Each library has its own copy of std,
//! and so its own hook.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::{Cell, RefCell},
    panic::{self, PanicHookInfo},
    thread,
};

use super::logger::{self, HostLog};
use crate::{
    abi::{self, Slice},
    crossing::catch as run,
};

/// Makes every panic in this library a report to `host`, in place of std's lines on stderr.
pub(crate) fn install(host: HostLog) {
    panic::set_hook(Box::new(move |info| {
        if CATCHING.get() {
            CAUGHT.replace(format!("{} at {}", message(info), place(info)));
            return;
        }
        report(host, info);
    }));
}

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`. A panic is not reported but returned: what it said, and where.
pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    let outer = CATCHING.replace(true);
    let done = run(work);
    CATCHING.set(outer);
    done.ok_or_else(|| CAUGHT.take())
}

fn report(host: HostLog, info: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = thread::current();
    host.panicked(&abi::Panic {
        size: size_of::<abi::Panic>(),
        message: Slice::new(message(info).as_bytes()),
        file: Slice::from_option(info.location().map(|location| location.file())),
        thread: Slice::from_option(thread.name()),
        backtrace: Slice::from_option(backtrace.as_deref()),
        line: info.location().map_or(0, |location| location.line()),
        column: info.location().map_or(0, |location| location.column()),
        span: logger::current_span(),
    });
}

fn message<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
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
