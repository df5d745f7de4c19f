//! Records why the worker dies. Handlers for fatal signals and for `exit` write down the work of the thread.
//!
//! The handler of a fatal signal writes a record into the [scoreboard](crate::scoreboard), whose memory outlives the
//! process. Afterwards the process dies of the signal, so that exit status and core dump are those of a crash without
//! the handler. The record is written in two steps:
//!
//! 1. The facts from the kernel: signal, address, registers, thread. This step uses nothing that a crash could have
//!    damaged.
//! 2. A backtrace. The unwinder may crash or hang on a corrupt stack, so a timer ends the process after one second.
//!
//! After that, the host's handler calls the handler of the standard library, which prints a message about stack
//! overflows. Plugins and C libraries may replace the host's handlers by their own. [`reinstall`] installs the host's
//! handlers again after each load.
//!
//! [`stack`] gives threads an alternate stack for handlers. [`dump`] makes all threads write a backtrace.
//! [`process_guard`](super::process_guard) is responsible for all signals that are not fatal.

#![expect(
    unsafe_code,
    reason = "signal handlers are C functions, and call C functions"
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

/// Installs the handlers, which write into `board`. Must be called once: after [`Scoreboard::activate`], before other
/// threads exist, and before a library is opened.
///
/// # Errors
///
/// When the system refuses to install a handler.
pub fn install(board: &Scoreboard) -> io::Result<()> {
    // Takes the first backtrace here, because the first backtrace loads the unwinder and allocates memory, and a signal
    // handler must do neither.
    trace::prepare();
    stack::install();
    for fatal_signal in &FATAL_SIGNALS {
        let previous = install_fatal_handler(fatal_signal.signal)?;
        fatal_signal.ends_process.store(true, Ordering::Relaxed);
        fatal_signal.save_previous(&previous);
    }
    dump::install(board)?;
    exit::install()
}

/// Installs the host's handlers again for the signals whose handlers a library has replaced. Returns the names of these
/// signals. The handlers of the library are called after the host's. Must be called after a library was opened, and
/// after an app was started.
pub fn reinstall() -> Vec<&'static str> {
    let is_replaced = |fatal_signal: &&FatalSignal| !is_installed(fatal_signal.signal);
    let reinstall_one = |fatal_signal: &FatalSignal| {
        let previous = install_fatal_handler(fatal_signal.signal).ok()?;
        let has_no_handler = [SIG_DFL, SIG_IGN].contains(&previous.sa_sigaction);
        fatal_signal
            .ends_process
            .store(has_no_handler, Ordering::Relaxed);
        fatal_signal.save_previous(&previous);
        Some(fatal_signal.name)
    };
    FATAL_SIGNALS
        .iter()
        .filter(is_replaced)
        .filter_map(reinstall_one)
        .collect()
}

/// A fatal signal, and the handler that was installed before the host's handler.
struct FatalSignal {
    signal: c_int,
    name: &'static str,
    /// The address of the previous handler, or `SIG_DFL` or `SIG_IGN` (sigaction(2)).
    previous_handler: AtomicUsize,
    /// The flags of the previous handler.
    previous_flags: AtomicI32,
    /// Whether the process always dies of this signal. True if the previous handler was installed before [`install`],
    /// as the handler of the standard library is, or if no previous handler exists. A handler that a library installed
    /// later may recover from the signal instead.
    ends_process: AtomicBool,
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
            previous_handler: AtomicUsize::new(SIG_DFL),
            previous_flags: AtomicI32::new(0),
            ends_process: AtomicBool::new(true),
        }
    }

    fn save_previous(&self, action: &libc::sigaction) {
        self.previous_flags
            .store(action.sa_flags, Ordering::Relaxed);
        // Release, and Acquire in `call_previous`: a thread that reads the new handler also reads the new flags, which
        // decide how the handler is called.
        self.previous_handler
            .store(action.sa_sigaction, Ordering::Release);
    }

    /// Calls the previous handler, unless the previous action was `SIG_DFL` or `SIG_IGN`.
    fn call_previous(&self, info: *mut siginfo_t, context: *mut c_void) {
        let handler = self.previous_handler.load(Ordering::Acquire);
        if handler == SIG_DFL || handler == SIG_IGN {
            return;
        }
        if self.previous_flags.load(Ordering::Relaxed) & libc::SA_SIGINFO != 0 {
            // SAFETY: `handler` is the address of a function, and SA_SIGINFO means that it takes these three arguments.
            let handler = unsafe { mem::transmute::<usize, SignalHandler>(handler) };
            handler(self.signal, info, context);
        } else {
            // SAFETY: `handler` is the address of a function, and a handler without SA_SIGINFO takes the signal alone.
            let handler = unsafe { mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(self.signal);
        }
    }
}

/// A signal handler with three arguments (sigaction(2), `SA_SIGINFO`).
type SignalHandler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// The handler of fatal signals. Runs on the alternate stack, and must use only calls that are async-signal-safe
/// (signal-safety(7)).
extern "C" fn handle_fatal_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(fatal_signal) = FATAL_SIGNALS
        .iter()
        .find(|fatal_signal| fatal_signal.signal == signal)
    else {
        return;
    };
    // SAFETY: the arguments come from the kernel, directly or through a library's handler that passes them on. They are
    // valid until this handler returns.
    let signal_context = unsafe { Context::new(signal, info, context) };
    if let Some(record) = CURRENT_RECORD.get() {
        // This thread is handling a fatal signal already. Either a library's handler has called this handler for the
        // same signal, or a handler has crashed. In both cases nothing will recover from the signal.
        record.trace_with_timeout(&signal_context);
        return die(signal, signal_context.is_sent());
    }
    // `None` if all records are in use or the process has no scoreboard. The signal is then handled without a record.
    let record = record::claim_crash();
    if let Some(record) = record {
        record.write_facts(&signal_context.signal_info());
    }
    CURRENT_RECORD.set(record);
    if fatal_signal.ends_process.load(Ordering::Relaxed) {
        // The backtrace is written before the previous handler is called, because that handler may not return.
        if let Some(record) = record {
            record.trace_with_timeout(&signal_context);
        }
        // The handler of the standard library calls `abort` after a stack overflow. That abort needs no second record,
        // and the alternate stack may have no space for another handler.
        set_default(libc::SIGABRT);
        fatal_signal.call_previous(info, context);
        return die(signal, signal_context.is_sent());
    }
    fatal_signal.call_previous(info, context);
    // A library's handler that does not recover restores the default action before it returns, and the process dies
    // when the fault happens again. If the host's handler is still installed, the library's handler has recovered from
    // the signal, as virtual machines do, and the thread continues.
    if is_installed(signal) {
        if let Some(record) = record {
            record.release();
        }
        CURRENT_RECORD.set(None);
    }
}

/// Makes the process die of `signal` as soon as the handler returns. A fault then happens again by itself, and meets
/// the default action. A signal that was sent (`is_sent`) does not happen again, so this function raises the signal.
fn die(signal: c_int, is_sent: bool) {
    set_default(signal);
    if is_sent {
        // SAFETY: `raise` takes no pointer.
        unsafe { libc::raise(signal) };
        if rustix::process::getpid().is_init() {
            // The kernel ignores a signal with the default action for the first process of a container, so the process
            // exits with the status that a shell reports for the signal.
            // SAFETY: `_exit` takes no pointer.
            unsafe { libc::_exit(128 + signal) };
        }
    }
}

/// Sets the default action for a signal.
fn set_default(signal: c_int) {
    // SAFETY: a `sigaction` of zeros is valid: the default action, no flags, and an empty mask.
    let action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `action` is valid during the call, and null means that the old action is not returned.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
}

/// Installs [`handle_fatal_signal`] for a signal. Returns the previous action.
fn install_fatal_handler(signal: c_int) -> io::Result<libc::sigaction> {
    set_handler(signal, handle_fatal_signal, libc::SA_ONSTACK)
}

/// Installs a handler for a signal. Returns the previous action.
fn set_handler(signal: c_int, handler: SignalHandler, flags: c_int) -> io::Result<libc::sigaction> {
    // SAFETY: a `sigaction` of zeros is valid.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = flags | libc::SA_SIGINFO;
    // SAFETY: a `sigaction` of zeros is valid.
    let mut previous: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: both actions are valid during the call. The handlers of this module use only async-signal-safe calls.
    let failed = unsafe { libc::sigaction(signal, &raw const action, &raw mut previous) };
    if failed == 0 {
        Ok(previous)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returns whether [`handle_fatal_signal`] is the current handler of a signal.
fn is_installed(signal: c_int) -> bool {
    current_action(signal)
        .is_some_and(|action| action.sa_sigaction == handle_fatal_signal as *const () as usize)
}

/// Returns the current action of a signal.
fn current_action(signal: c_int) -> Option<libc::sigaction> {
    // SAFETY: a `sigaction` of zeros is valid.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: null means that the action is not changed, and `action` is valid during the call.
    let failed = unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    (failed == 0).then_some(action)
}

/// Returns the name of this thread, padded with zeros.
fn thread_name() -> [u8; 16] {
    let mut name = [0_u8; 16];
    // SAFETY: the call writes at most 16 bytes, and `name` has 16 bytes.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// The file that lists the memory maps of this process.
const MAPS_PATH: &CStr = c"/proc/self/maps";

thread_local! {
    /// The record of the fatal signal that this thread is handling. The value is a constant without a destructor, so
    /// that a signal handler can access the variable without an allocation.
    static CURRENT_RECORD: Cell<Option<&'static ThreadRecord>> = const { Cell::new(None) };
}
