//! Reports the panics of this library to the host: message, source location, backtrace, thread and span.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::Location,
    sync::OnceLock,
    thread,
};

use super::logger::{self, HostLog};
use crate::{
    abi::{self, Slice},
    panics,
};

/// The host that receives the reports. Set when the app of this library starts.
static HOST: OnceLock<HostLog> = OnceLock::new();

/// Reports every panic in this library to `host` from now on. Later calls keep the host of the first call.
pub(super) fn install(host: HostLog) {
    // A second `set` fails, which is harmless: each load of a library starts one app, with one host.
    let _ = HOST.set(host);
    panics::install(report);
}

fn report(message: &str, location: Option<&Location<'_>>) {
    let Some(host) = HOST.get() else {
        return;
    };
    // Captured only if `RUST_BACKTRACE` or `RUST_LIB_BACKTRACE` is set, as by std's own panic hook.
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = thread::current();
    host.panicked(&abi::Panic {
        size: size_of::<abi::Panic>(),
        message: Slice::new(message.as_bytes()),
        file: Slice::from_option(location.map(Location::file)),
        thread: Slice::from_option(thread.name()),
        backtrace: Slice::from_option(backtrace.as_deref()),
        line: location.map_or(0, Location::line),
        column: location.map_or(0, Location::column),
        span: logger::current_span(),
    });
}
