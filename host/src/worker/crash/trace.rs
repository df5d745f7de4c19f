//! The place of a thread at a signal: registers, return addresses, and the files that these are in.

use std::{
    cell::UnsafeCell,
    ffi::{c_int, c_void},
    mem, ptr,
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
};

use libc::{siginfo_t, ucontext_t};

use super::{MAPS, handle, set_default, thread_name};
use crate::scoreboard::record::{Area, SignalInfo, ThreadRecord};

/// What the kernel passes to a handler.
pub(super) struct Context {
    signal: c_int,
    code: c_int,
    address: u64,
    instruction: u64,
    stack: u64,
}

impl Context {
    /// # Safety
    ///
    /// The arguments are those of a handler, which has not yet returned.
    pub(super) unsafe fn new(
        signal: c_int,
        info: *const siginfo_t,
        context: *const c_void,
    ) -> Self {
        let (code, address) = if info.is_null() {
            (0, 0)
        } else {
            // SAFETY: the caller says so.
            let info = unsafe { &*info };
            // SAFETY: the field is there for all signals; it is of no meaning for some.
            (info.si_code, unsafe { info.si_addr() } as u64)
        };
        let (instruction, stack) = if context.is_null() {
            (0, 0)
        } else {
            // SAFETY: the caller says so.
            registers(unsafe { &*context.cast::<ucontext_t>() })
        };
        Self {
            signal,
            code,
            address: if is_about_address(signal, code) {
                address
            } else {
                0
            },
            instruction,
            stack,
        }
    }

    pub(super) fn signal_info(&self) -> SignalInfo {
        SignalInfo {
            signal: self.signal,
            code: self.code,
            address: self.address,
            instruction: self.instruction,
            stack: self.stack,
            thread: thread(),
            name: thread_name(),
        }
    }

    /// Returns whether the signal was sent, as by `abort`, and not caused by a fault. Then the signal does not happen
    /// again by itself when the handler returns.
    pub(super) fn is_sent(&self) -> bool {
        self.code <= 0
    }
}

fn is_about_address(signal: c_int, code: c_int) -> bool {
    let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];
    code > 0 && faults.contains(&signal)
}

/// Returns the instruction pointer and the stack pointer of a thread.
#[cfg(target_arch = "x86_64")]
fn registers(context: &ucontext_t) -> (u64, u64) {
    let registers = &context.uc_mcontext.gregs;
    (
        registers[libc::REG_RIP as usize] as u64,
        registers[libc::REG_RSP as usize] as u64,
    )
}

#[cfg(target_arch = "aarch64")]
fn registers(context: &ucontext_t) -> (u64, u64) {
    (context.uc_mcontext.pc, context.uc_mcontext.sp)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn registers(_context: &ucontext_t) -> (u64, u64) {
    (0, 0)
}

/// Returns the kernel's number for this thread.
pub(super) fn thread() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
}

/// Loads the unwinder, so that a handler need not.
pub(super) fn prepare() {
    let mut frames = [ptr::null_mut(); 4];
    unwind(&mut frames);
}

impl ThreadRecord {
    /// Writes the backtrace of the thread, with the files. If the unwinder hangs for a second or crashes again, the
    /// process dies of the signal with what is written so far. Only one thread at a time may do so, because the
    /// buffer and the timer are shared; another one is left with its registers.
    pub(super) fn trace_in(&self, context: &Context) {
        if TRACING.swap(true, Ordering::Acquire) {
            return;
        }
        guard(context.signal);
        self.trace_from(context);
        self.place_by_maps();
        unguard();
        TRACING.store(false, Ordering::Release);
    }

    /// Writes the return addresses up from the point of the signal.
    pub(super) fn trace_from(&self, context: &Context) {
        let mut frames = [ptr::null_mut(); 96];
        let frames = unwind(&mut frames);
        let is_first = |frame: &*mut c_void| *frame as u64 == context.instruction;
        match frames.iter().position(is_first) {
            // The frames before are those of the handler.
            Some(first) => self.trace(frames[first..].iter().map(|frame| *frame as u64)),
            // A call through a bad pointer has no frame to unwind. The call has just pushed its return address, so
            // the top of the stack has the caller.
            None => {
                let caller = word_at(context.stack);
                self.trace([context.instruction].into_iter().chain(caller));
            }
        }
    }

    /// Writes the backtrace of the current call, with the files.
    pub(super) fn trace_here(&self) {
        if TRACING.swap(true, Ordering::Acquire) {
            return;
        }
        let mut frames = [ptr::null_mut(); 96];
        let frames = unwind(&mut frames);
        self.trace(frames.iter().map(|frame| *frame as u64));
        self.place_by_maps();
        TRACING.store(false, Ordering::Release);
    }

    /// Finds the files of the addresses in `/proc/self/maps`. Uses plain system calls, because the heap may be corrupt.
    fn place_by_maps(&self) {
        // SAFETY: the path ends with a zero.
        let file = unsafe { libc::open(MAPS.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if file < 0 {
            return;
        }
        // SAFETY: `TRACING` says that no other thread uses the buffer.
        let buffer = unsafe { &mut *BUFFER.0.get() };
        let mut filled = 0;
        loop {
            let room = &mut buffer[filled..];
            // SAFETY: the file is open, and there is room for as many bytes.
            let read = unsafe { libc::read(file, room.as_mut_ptr().cast(), room.len()) };
            let Ok(read @ 1..) = usize::try_from(read) else {
                break;
            };
            filled += read;
            let Some(end) = buffer[..filled].iter().rposition(|byte| *byte == b'\n') else {
                // A line longer than the buffer is not that of a library.
                filled = 0;
                continue;
            };
            let lines = buffer[..end].split(|byte| *byte == b'\n');
            lines
                .filter_map(Area::parse)
                .for_each(|area| self.place(&area));
            buffer.copy_within(end + 1..filled, 0);
            filled -= end + 1;
        }
        // SAFETY: the file was opened above.
        unsafe { libc::close(file) };
        self.placed();
    }
}

/// Returns the return addresses of this thread, as many as fit. glibc unwinds without locks and allocations after
/// the first time (`_dl_find_object`, glibc 2.35).
fn unwind(room: &mut [*mut c_void]) -> &[*mut c_void] {
    let len = c_int::try_from(room.len()).unwrap_or(c_int::MAX);
    // SAFETY: there is room for `len` addresses.
    let count = unsafe { libc::backtrace(room.as_mut_ptr(), len) };
    &room[..usize::try_from(count).unwrap_or(0)]
}

/// Returns the word at an address, or `None` if the address is not mapped. A system call reads the word, so a bad
/// address is an error and not a crash.
fn word_at(address: u64) -> Option<u64> {
    let mut word = 0_u64;
    let here = libc::iovec {
        iov_base: (&raw mut word).cast(),
        iov_len: size_of::<u64>(),
    };
    let there = libc::iovec {
        iov_base: address as *mut c_void,
        iov_len: size_of::<u64>(),
    };
    let this = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: one buffer each; where `there` is not mapped, the call fails.
    let read = unsafe { libc::process_vm_readv(this, &raw const here, 1, &raw const there, 1, 0) };
    (read == size_of::<u64>() as isize).then_some(word)
}

/// Starts a timer that ends the process by `signal`, unless [`unguard`] is called within a second.
fn guard(signal: c_int) {
    SIGNAL.store(signal, Ordering::Relaxed);
    if handle(libc::SIGALRM, time_out, libc::SA_ONSTACK).is_ok() {
        unblock(libc::SIGALRM);
        set_timer(1);
    }
}

fn unguard() {
    set_timer(0);
}

extern "C" fn time_out(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    let signal = SIGNAL.load(Ordering::Relaxed);
    set_default(signal);
    unblock(signal);
    // SAFETY: it has no memory to be wrong about.
    unsafe { libc::raise(signal) };
    // SAFETY: as above.
    unsafe { libc::_exit(128 + signal) };
}

fn set_timer(seconds: i64) {
    let none = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let timer = libc::itimerval {
        it_interval: none,
        it_value: libc::timeval {
            tv_sec: seconds,
            ..none
        },
    };
    // SAFETY: the timer is valid, and the old one is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
}

fn unblock(signal: c_int) {
    // SAFETY: all zeros is a set.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set is valid.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: the set is valid, and the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) };
}

/// Whether a thread uses [`BUFFER`] and the timer.
static TRACING: AtomicBool = AtomicBool::new(false);
/// The signal that the process dies of when the timer fires.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The buffer for `/proc/self/maps`. It is static because an alternate stack may be too small for it.
static BUFFER: Buffer = Buffer(UnsafeCell::new([0; 8192]));

struct Buffer(UnsafeCell<[u8; 8192]>);

// SAFETY: only the thread that has set `TRACING` uses it.
unsafe impl Sync for Buffer {}
