//! Records why the worker dies: a handler for fatal signals and for `exit` writes what the thread was doing.
//!
//! The handler writes into the [scoreboard](crate::scoreboard), whose memory outlives the process. Then it lets
//! the process die of the signal, so that exit status and core dump stay true. It works in two steps:
//!
//! 1. The facts from the kernel: signal, address, registers, thread. This step needs nothing that a crash could
//!    have broken.
//! 2. A backtrace. The unwinder may crash again or hang on a corrupt stack, so a timer of one second ends it.
//!
//! std's handler, which prints a message about stack overflows, is called after this one. Plugins and C
//! libraries install handlers of their own; [`reinstall`] puts the host's in front again after each load.
//!
//! [`stack`] gives threads an alternate stack for handlers; [`dump`] makes all threads write a backtrace. Other
//! signals are the subject of [`process_guard`](super::process_guard).

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

/// Installs the handlers, which write into `board`. Must be called once, after `board` [serves](Scoreboard::serve),
/// before other threads exist and before a library is opened.
///
/// # Errors
///
/// When the system refuses a handler.
pub fn install(board: &Scoreboard) -> io::Result<()> {
    // The first backtrace loads the unwinder and allocates memory, which a handler must not do.
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

/// Puts the host's handlers in front again where code of a library has replaced them. Returns the names of the
/// signals concerned. Must be called after a library was opened, and after an app was started.
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

/// A fatal signal, and the handler that was installed before the host's.
struct FatalSignal {
    signal: c_int,
    name: &'static str,
    /// The previous handler (sigaction(2)).
    handler: AtomicUsize,
    flags: AtomicI32,
    /// Whether the previous handler was there when this program began, as std's is, or does nothing. Then the
    /// signal ends the process. A handler that a library installed later may recover from the signal.
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

    /// Calls the previous handler, if there is one.
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

/// A signal handler with three arguments (sigaction(2), `SA_SIGINFO`).
type SignalHandler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// The handler of fatal signals. Runs on the alternate stack, and may use async-signal-safe calls only.
extern "C" fn fatal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(known) = FATAL_SIGNALS.iter().find(|known| known.signal == signal) else {
        return;
    };
    // SAFETY: the kernel calls, or a handler that the kernel called, with what it gave.
    let context_of = unsafe { Context::new(signal, info, context) };
    if let Some(record) = CURRENT_RECORD.get() {
        // This thread is handling a fatal signal already: a library's handler has passed the signal on, or
        // the handler itself crashed.
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
        // std's handler calls `abort` after a stack overflow. That abort needs no record, and the alternate stack
        // may have no space for another handler.
        set_default(libc::SIGABRT);
        known.call(info, context);
        return die(signal, context_of.is_sent());
    }
    known.call(info, context);
    if is_ours(signal) {
        // The library's handler has recovered from the signal, as a virtual machine does, and the thread goes on.
        if let Some(record) = record {
            record.give_back();
        }
        CURRENT_RECORD.set(None);
    }
}

/// Makes the process die of `signal` as soon as the handler returns. A fault happens again by itself with the
/// default action; a signal that was sent must be raised again.
fn die(signal: c_int, is_sent: bool) {
    set_default(signal);
    if is_sent {
        // SAFETY: it has no memory to be wrong about.
        unsafe { libc::raise(signal) };
        if rustix::process::getpid().is_init() {
            // The kernel drops a signal without a handler for the first process of a container.
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

/// Installs [`fatal`] for a signal. Returns the previous handler.
fn replace(signal: c_int) -> io::Result<libc::sigaction> {
    handle(signal, fatal, libc::SA_ONSTACK)
}

/// Installs a handler. Returns the previous one.
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

/// Returns the name of this thread, padded with zeros.
fn thread_name() -> [u8; 16] {
    let mut name = [0_u8; 16];
    // SAFETY: there is room for 16 bytes, which is what the call writes at most.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

const MAPS: &CStr = c"/proc/self/maps";

thread_local! {
    /// The record of the fatal signal that this thread is handling.
    static CURRENT_RECORD: Cell<Option<&'static ThreadRecord>> = const { Cell::new(None) };
}
