//! Records where a thread was at a signal: the registers, the return addresses, and the mapped files of these
//! addresses.

use std::{
    cell::UnsafeCell,
    ffi::{c_int, c_void},
    mem, ptr,
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
};

use libc::{siginfo_t, ucontext_t};

use super::{MAPS_PATH, set_default, set_handler, thread_name};
use crate::scoreboard::record::{CodeArea, SignalInfo, ThreadRecord};

/// The facts that the kernel passes to a signal handler.
pub(super) struct Context {
    signal: c_int,
    /// The reason of the signal (`si_code`, sigaction(2)).
    code: c_int,
    /// The address that caused a fault, or 0.
    address: u64,
    /// The instruction pointer, or 0 if unknown.
    instruction: u64,
    /// The stack pointer, or 0 if unknown.
    stack: u64,
}

impl Context {
    /// Reads the facts from the arguments of a signal handler.
    ///
    /// # Safety
    ///
    /// `info` and `context` must be null, or the arguments of a signal handler that has not returned.
    pub(super) unsafe fn new(
        signal: c_int,
        info: *const siginfo_t,
        context: *const c_void,
    ) -> Self {
        let (code, address) = if info.is_null() {
            (0, 0)
        } else {
            // SAFETY: the caller guarantees that `info` is the argument of a handler that has not returned.
            let info = unsafe { &*info };
            // SAFETY: the kernel fills in the field of every `siginfo_t`, although its bytes mean an address only for
            // faults.
            (info.si_code, unsafe { info.si_addr() } as u64)
        };
        let (instruction, stack) = if context.is_null() {
            (0, 0)
        } else {
            // SAFETY: the caller guarantees that `context` is the argument of a handler that has not returned, which is
            // a `ucontext_t`.
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

    /// Returns the facts for a record, together with the id and the name of this thread.
    pub(super) fn signal_info(&self) -> SignalInfo {
        SignalInfo {
            signal: self.signal,
            code: self.code,
            address: self.address,
            instruction: self.instruction,
            stack: self.stack,
            thread: thread_id(),
            name: thread_name(),
        }
    }

    /// Returns whether a process sent the signal, as `abort` does, instead of the kernel after a fault. A fault happens
    /// again when the handler returns, and a signal that was sent does not. The codes of the kernel are positive
    /// (sigaction(2)).
    pub(super) fn is_sent(&self) -> bool {
        self.code <= 0
    }
}

/// Returns whether the address in the facts of a signal is meaningful, because the kernel reports a fault.
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

/// Returns the id of this thread in the kernel.
pub(super) fn thread_id() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
}

/// Takes a backtrace, because the first backtrace of a process loads the unwinder, which a handler must not do.
pub(super) fn prepare() {
    let mut frames = [ptr::null_mut(); 4];
    unwind(&mut frames);
}

impl ThreadRecord {
    /// Writes the backtrace from the point of the signal, and the files of the addresses. If the unwinder hangs for a
    /// second or crashes, the process dies of the signal, and the record has only the data that was written before.
    ///
    /// Only one thread at a time can write a backtrace, because the buffer and the timer are shared. The records of
    /// other threads have only the registers.
    pub(super) fn trace_with_timeout(&self, context: &Context) {
        // Acquire, and Release below: the next thread that uses the buffer sees all writes of this thread.
        if TRACING.swap(true, Ordering::Acquire) {
            return;
        }
        start_timeout(context.signal);
        self.trace_from_signal(context);
        self.locate_frames_by_maps();
        stop_timeout();
        TRACING.store(false, Ordering::Release);
    }

    /// Writes the return addresses from the point of the signal up to the start of the thread.
    pub(super) fn trace_from_signal(&self, context: &Context) {
        let mut frames = [ptr::null_mut(); 96];
        let frames = unwind(&mut frames);
        let is_first = |frame: &*mut c_void| *frame as u64 == context.instruction;
        match frames.iter().position(is_first) {
            // The frames before belong to the handler.
            Some(first) => self.write_frames(frames[first..].iter().map(|frame| *frame as u64)),
            // The unwinder finds no frame for the instruction, for example after a call through a bad pointer. On
            // x86-64 such a call has just pushed its return address, so the address of the caller is on top of the
            // stack.
            None => {
                let caller = read_word(context.stack);
                self.write_frames([context.instruction].into_iter().chain(caller));
            }
        }
    }

    /// Writes the backtrace of the current call, and the files of the addresses. Starts no timer, because the thread
    /// has not crashed.
    pub(super) fn trace_current_call(&self) {
        if TRACING.swap(true, Ordering::Acquire) {
            return;
        }
        let mut frames = [ptr::null_mut(); 96];
        let frames = unwind(&mut frames);
        self.write_frames(frames.iter().map(|frame| *frame as u64));
        self.locate_frames_by_maps();
        TRACING.store(false, Ordering::Release);
    }

    /// Finds the files of the addresses in `/proc/self/maps`. Uses only system calls and a static buffer, because the
    /// heap may be corrupt.
    fn locate_frames_by_maps(&self) {
        // SAFETY: the path is a C string, which ends with a zero byte.
        let file = unsafe { libc::open(MAPS_PATH.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if file < 0 {
            return;
        }
        // SAFETY: this thread has set `TRACING`, so no other thread uses the buffer.
        let buffer = unsafe { &mut *MAPS_BUFFER.0.get() };
        let mut filled = 0;
        loop {
            let free = &mut buffer[filled..];
            // SAFETY: the file is open, and `free` has as many bytes as the call may write.
            let read = unsafe { libc::read(file, free.as_mut_ptr().cast(), free.len()) };
            let Ok(read @ 1..) = usize::try_from(read) else {
                break;
            };
            filled += read;
            let Some(end) = buffer[..filled].iter().rposition(|byte| *byte == b'\n') else {
                // The buffer has no line end yet. Lines of libraries fit into the buffer, so these bytes are dropped.
                filled = 0;
                continue;
            };
            let lines = buffer[..end].split(|byte| *byte == b'\n');
            lines
                .filter_map(CodeArea::parse)
                .for_each(|area| self.locate_frames(&area));
            // Moves the beginning of the next line to the front.
            buffer.copy_within(end + 1..filled, 0);
            filled -= end + 1;
        }
        // SAFETY: the descriptor was opened above, and no other code closes it.
        unsafe { libc::close(file) };
        self.mark_complete();
    }
}

/// Writes the return addresses of this thread into `frames`, as many as fit, and returns these. After the first call,
/// glibc unwinds without locks and allocations (`_dl_find_object`, since glibc 2.35).
fn unwind(frames: &mut [*mut c_void]) -> &[*mut c_void] {
    let len = c_int::try_from(frames.len()).unwrap_or(c_int::MAX);
    // SAFETY: `frames` has space for `len` addresses.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), len) };
    &frames[..usize::try_from(count).unwrap_or(0)]
}

/// Returns the word at an address, or `None` if the address is not mapped. A system call reads the word, because for a
/// bad address the call returns an error, and an ordinary read would crash.
fn read_word(address: u64) -> Option<u64> {
    let mut word = 0_u64;
    let local = libc::iovec {
        iov_base: (&raw mut word).cast(),
        iov_len: size_of::<u64>(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut c_void,
        iov_len: size_of::<u64>(),
    };
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: each count is 1, and `local` describes the variable `word`. If `remote` is not mapped, the call fails.
    let read =
        unsafe { libc::process_vm_readv(process, &raw const local, 1, &raw const remote, 1, 0) };
    (read == size_of::<u64>() as isize).then_some(word)
}

/// Starts a timer that ends the process by `signal` after a second, unless [`stop_timeout`] is called before.
fn start_timeout(signal: c_int) {
    TIMEOUT_SIGNAL.store(signal, Ordering::Relaxed);
    if set_handler(libc::SIGALRM, handle_timeout, libc::SA_ONSTACK).is_ok() {
        // Some thread must be able to get SIGALRM, and this thread may have blocked the signal.
        unblock(libc::SIGALRM);
        set_timer(1);
    }
}

/// Stops the timer of [`start_timeout`].
fn stop_timeout() {
    set_timer(0);
}

/// The handler of the timer: ends the process by the signal that was being handled.
extern "C" fn handle_timeout(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    let signal = TIMEOUT_SIGNAL.load(Ordering::Relaxed);
    set_default(signal);
    // The kernel has blocked the signal while its handler runs, and a blocked signal does not end the process.
    unblock(signal);
    // SAFETY: `raise` takes no pointer.
    unsafe { libc::raise(signal) };
    // Reached only if the signal did not end the process, for example in the first process of a container.
    // SAFETY: `_exit` takes no pointer.
    unsafe { libc::_exit(128 + signal) };
}

/// Sets the real-time timer of the process, which sends SIGALRM once. 0 stops the timer.
fn set_timer(seconds: i64) {
    let zero = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let timer = libc::itimerval {
        it_interval: zero,
        it_value: libc::timeval {
            tv_sec: seconds,
            ..zero
        },
    };
    // SAFETY: `timer` is valid during the call, and null means that the old timer is not returned.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
}

/// Removes a signal from the signal mask of this thread.
fn unblock(signal: c_int) {
    // SAFETY: a `sigset_t` of zeros is the empty set.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is valid during the call.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: `set` is valid during the call, and null means that the old mask is not returned.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) };
}

/// Whether a thread is writing a backtrace, and so uses [`MAPS_BUFFER`] and the timer.
static TRACING: AtomicBool = AtomicBool::new(false);
/// The signal of which the process dies when the timer fires.
static TIMEOUT_SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The buffer for the content of `/proc/self/maps`. The buffer is static, because an alternate stack may be too small.
static MAPS_BUFFER: MapsBuffer = MapsBuffer(UnsafeCell::new([0; 8192]));

struct MapsBuffer(UnsafeCell<[u8; 8192]>);

// SAFETY: only the thread that has set `TRACING` uses the buffer.
unsafe impl Sync for MapsBuffer {}
