//! Records which thread calls `exit`. Code in a library may end the whole process with `exit`, for example a parser of
//! command lines.

use std::{
    ffi::{c_int, c_void},
    io, ptr,
};

use super::{thread_name, trace};
use crate::scoreboard::record::{self, SignalInfo};

unsafe extern "C" {
    /// Registers a handler as `atexit` does, but the handler gets the exit code as well (on_exit(3)).
    fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

/// Installs the handler, which the C library calls in the thread that calls `exit`.
pub(super) fn install() -> io::Result<()> {
    // SAFETY: the handler is a function of this program, which is never unloaded. The handler does not use the null
    // argument.
    match unsafe { on_exit(handle_exit, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::other("there is no room for a handler of exits")),
    }
}

extern "C" fn handle_exit(code: c_int, _argument: *mut c_void) {
    let thread = trace::thread_id();
    // The main thread of a worker normally runs no code of an app. Its call of `exit` is then the normal end of `main`.
    // The main thread of a process is the thread whose id equals the process id.
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
    // An exit is not a signal, so the fields that describe a signal stay 0.
    record.write_facts(&SignalInfo {
        code,
        thread,
        name: thread_name(),
        ..SignalInfo::default()
    });
    record.trace_current_call();
}
