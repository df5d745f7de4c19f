//! Records which thread calls `exit`. A library that parses a command line, for example, may end the whole process.

use std::{
    ffi::{c_int, c_void},
    io, ptr,
};

use super::{thread_name, trace};
use crate::scoreboard::record::{self, SignalInfo};

unsafe extern "C" {
    /// Like `atexit`, but the handler gets the exit code (on_exit(3)).
    fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

pub(super) fn install() -> io::Result<()> {
    // SAFETY: the handler is a function of this program, which is never unloaded, and needs no argument.
    match unsafe { on_exit(exits, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::other("there is no room for a handler of exits")),
    }
}

extern "C" fn exits(code: c_int, _argument: *mut c_void) {
    let thread = trace::thread();
    // The main thread of a worker runs no app. Its call is the normal end of `main`.
    let is_main = rustix::process::getpid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
        == thread;
    if is_main && !record::is_in_app() {
        return;
    }
    let Some(record) = record::claim_exit() else {
        return;
    };
    record.note(&SignalInfo {
        code,
        thread,
        name: thread_name(),
        ..SignalInfo::default()
    });
    record.trace_here();
}
