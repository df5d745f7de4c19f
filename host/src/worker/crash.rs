//! What a worker writes down when a fatal signal, or a call of `exit`, ends it: where the thread was, and for whom it worked.
//!
//! A handler for SIGSEGV and its like records into the [scoreboard](crate::scoreboard), whose memory outlives the process,
//! and then lets the process die as it would have, so that exit status and core are true. It works in two steps: what the
//! kernel told of the thread, which needs nothing that a crashed process could have broken; then a backtrace, which may
//! crash again or hang, for which there is a timer. std's handler, which tells of stack overflows, stays behind this one.
//! Plugins and C libraries set handlers of their own: after each load, [`reinstall`] goes back to the front.
//!
//! [`stack`] gives threads the stack that a handler needs when their own is full; [`dump`] makes threads say where they
//! are. Other signals are looked after by [`process_guard`](super::process_guard).

#![expect(
    unsafe_code,
    reason = "signal handlers, and all that they call, are C's"
)]

pub mod dump;
mod exit;
pub mod stack;
mod trace;

use std::{
    cell::Cell,
    ffi::{CStr, c_int, c_void},
    io, mem, ptr,
    sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering},
};

use libc::{SIG_DFL, SIG_IGN, siginfo_t};

use self::trace::Context;
use crate::scoreboard::{
    Scoreboard,
    record::{self, ThreadRecord},
};

/// Has this process write into `board` how it dies. To be called once, when `board` [serves](Scoreboard::serve), before
/// there are other threads, and before a library is opened.
///
/// # Errors
///
/// When the system refuses a handler.
pub fn install(board: &Scoreboard) -> io::Result<()> {
    // The first backtrace loads what unwinds, and allocates: not in a handler.
    trace::prepare();
    stack::alternate();
    for known in &FATAL_SIGNALS {
        let previous = replace(known.signal)?;
        known.is_original.store(true, Ordering::Relaxed);
        known.save_previous(&previous);
    }
    dump::install(board)?;
    exit::install()
}

/// Looks whether somebody has replaced the handlers, and puts those of [`install`] in front of them again. Returns the
/// names of such signals. To be called after a library was opened, and after an app was started.
pub fn reinstall() -> Vec<&'static str> {
    let replaced = |known: &&FatalSignal| !is_ours(known.signal);
    let put_back = |known: &FatalSignal| {
        let previous = replace(known.signal).ok()?;
        let is_none = [SIG_DFL, SIG_IGN].contains(&previous.sa_sigaction);
        known.is_original.store(is_none, Ordering::Relaxed);
        known.save_previous(&previous);
        Some(known.name)
    };
    FATAL_SIGNALS
        .iter()
        .filter(replaced)
        .filter_map(put_back)
        .collect()
}

/// A fatal signal, and who handled it before.
struct FatalSignal {
    signal: c_int,
    name: &'static str,
    /// The handler, as sigaction(2) has it.
    handler: AtomicUsize,
    flags: AtomicI32,
    /// Whether it was there when this program began, as std's is, or does nothing. Then the process ends; a handler
    /// that came later may be waiting for the signal, to go on.
    is_original: AtomicBool,
}

static FATAL_SIGNALS: [FatalSignal; 7] = [
    FatalSignal::new(libc::SIGSEGV, "SIGSEGV"),
    FatalSignal::new(libc::SIGBUS, "SIGBUS"),
    FatalSignal::new(libc::SIGILL, "SIGILL"),
    FatalSignal::new(libc::SIGFPE, "SIGFPE"),
    FatalSignal::new(libc::SIGABRT, "SIGABRT"),
    FatalSignal::new(libc::SIGSYS, "SIGSYS"),
    FatalSignal::new(libc::SIGTRAP, "SIGTRAP"),
];

impl FatalSignal {
    const fn new(signal: c_int, name: &'static str) -> Self {
        Self {
            signal,
            name,
            handler: AtomicUsize::new(SIG_DFL),
            flags: AtomicI32::new(0),
            is_original: AtomicBool::new(true),
        }
    }

    fn save_previous(&self, action: &libc::sigaction) {
        self.flags.store(action.sa_flags, Ordering::Relaxed);
        self.handler.store(action.sa_sigaction, Ordering::Release);
    }

    /// Calls the handler that was there before; nothing where that was none.
    fn call(&self, info: *mut siginfo_t, context: *mut c_void) {
        let handler = self.handler.load(Ordering::Acquire);
        if handler == SIG_DFL || handler == SIG_IGN {
            return;
        }
        if self.flags.load(Ordering::Relaxed) & libc::SA_SIGINFO != 0 {
            // SAFETY: a handler with this flag is such a function.
            let handler = unsafe { mem::transmute::<usize, SignalHandler>(handler) };
            handler(self.signal, info, context);
        } else {
            // SAFETY: a handler without this flag is such a function.
            let handler = unsafe { mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(self.signal);
        }
    }
}

/// A handler, as sigaction(2) has it.
type SignalHandler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

extern "C" fn fatal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(known) = FATAL_SIGNALS.iter().find(|known| known.signal == signal) else {
        return;
    };
    // SAFETY: the kernel calls, or a handler that the kernel called, with what it gave.
    let context_of = unsafe { Context::new(signal, info, context) };
    if let Some(record) = CURRENT_RECORD.get() {
        // Another handler came first and leaves the signal to this one; or the first one crashed itself.
        record.trace_in(&context_of);
        return die(signal, context_of.is_sent());
    }
    let record = record::claim_crash();
    if let Some(record) = record {
        record.note(&context_of.signal_info());
    }
    CURRENT_RECORD.set(record);
    if known.is_original.load(Ordering::Relaxed) {
        if let Some(record) = record {
            record.trace_in(&context_of);
        }
        // What std says of a full stack ends in `abort`, of which nothing more is to be noted: there may be no room
        // on this stack for another handler.
        set_default(libc::SIGABRT);
        known.call(info, context);
        return die(signal, context_of.is_sent());
    }
    known.call(info, context);
    if is_ours(signal) {
        // The signal was expected, as by a virtual machine, and the thread goes on.
        if let Some(record) = record {
            record.give_back();
        }
        CURRENT_RECORD.set(None);
    }
}

/// Sees to it that the process ends by `signal` as soon as the handler returns: a fault comes again by itself.
fn die(signal: c_int, is_sent: bool) {
    set_default(signal);
    if is_sent {
        // SAFETY: it has no memory to be wrong about.
        unsafe { libc::raise(signal) };
        if rustix::process::getpid().is_init() {
            // The first process of a container gets no signal that it does not handle.
            // SAFETY: as above.
            unsafe { libc::_exit(128 + signal) };
        }
    }
}

fn set_default(signal: c_int) {
    // SAFETY: all zeros is an action: the default, with no flags and an empty mask.
    let action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: the action is valid, and the old one is not asked for.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
}

/// Sets [`fatal`] for a signal; returns who handled it before.
fn replace(signal: c_int) -> io::Result<libc::sigaction> {
    handle(signal, fatal, libc::SA_ONSTACK)
}

/// Sets a handler; returns who handled the signal before.
fn handle(signal: c_int, handler: SignalHandler, flags: c_int) -> io::Result<libc::sigaction> {
    // SAFETY: all zeros is an action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags | libc::SA_SIGINFO;
    // SAFETY: all zeros is an action.
    let mut previous: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: both are valid; the handler does only what a handler may.
    let failed = unsafe { libc::sigaction(signal, &raw const action, &raw mut previous) };
    if failed == 0 {
        Ok(previous)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn is_ours(signal: c_int) -> bool {
    action(signal).is_some_and(|action| action.sa_sigaction == fatal as *const () as usize)
}

fn action(signal: c_int) -> Option<libc::sigaction> {
    // SAFETY: all zeros is an action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: the action is only asked for.
    let failed = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    (failed == 0).then_some(action)
}

/// The name of this thread, filled up with zeros.
fn thread_name() -> [u8; 16] {
    let mut name = [0_u8; 16];
    // SAFETY: there is room for 16 bytes, which is what the call writes at most.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

const MAPS: &CStr = c"/proc/self/maps";

thread_local! {
    /// The record of the fatal signal that this thread handles.
    static CURRENT_RECORD: Cell<Option<&'static ThreadRecord>> = const { Cell::new(None) };
}
