//! Reports of panics, as the host takes them: what, where, on which thread, in which span.

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

static HOST: OnceLock<HostLog> = OnceLock::new();

/// Makes every panic in this library a report to `host`.
pub(super) fn install(host: HostLog) {
    // An app is started once.
    let _ = HOST.set(host);
    panics::install(report);
}

fn report(message: &str, place: Option<&Location<'_>>) {
    let Some(host) = HOST.get() else {
        return;
    };
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
