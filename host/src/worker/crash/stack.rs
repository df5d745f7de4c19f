//! Alternate stacks for signal handlers, for threads whose own stack is full.
//!
//! std gives each thread that it starts an alternate stack of 8 KiB. With wide vector registers to save, that is
//! hardly enough for a backtrace. Threads that C libraries start have none.

use std::{cell::OnceCell, ffi::c_void, mem, ptr};

/// Gives this thread an alternate stack of 64 KiB until the thread ends. The memory is touched only when a handler
/// runs. A failure is ignored: the thread keeps the stack that it has.
pub fn alternate() {
    let _ = STACK.try_with(|stack| stack.get_or_init(Stack::new).is_some());
}

thread_local! {
    static STACK: OnceCell<Option<Stack>> = const { OnceCell::new() };
}

/// A mapping with a guard page at its low end, towards which the stack grows.
struct Stack {
    map: *mut c_void,
}

impl Stack {
    fn new() -> Option<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, wherever there is room.
        let map = unsafe { libc::mmap(ptr::null_mut(), LEN + PAGE, libc::PROT_NONE, flags, -1, 0) };
        if map == libc::MAP_FAILED {
            return None;
        }
        let stack = Self { map };
        let base = map.wrapping_byte_add(PAGE);
        // SAFETY: this part of the mapping is nobody else's.
        let failed = unsafe { libc::mprotect(base, LEN, libc::PROT_READ | libc::PROT_WRITE) };
        if failed != 0 {
            return None;
        }
        set(&libc::stack_t {
            ss_sp: base,
            ss_flags: 0,
            ss_size: LEN,
        })
        .then_some(stack)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // std may have removed the alternate stack already, as the thread ends.
        if current().ss_sp == self.map.wrapping_byte_add(PAGE) {
            set(&libc::stack_t {
                ss_sp: ptr::null_mut(),
                ss_flags: libc::SS_DISABLE,
                ss_size: LEN,
            });
        }
        // SAFETY: nothing runs on the stack, as this does, and nothing will.
        unsafe { libc::munmap(self.map, LEN + PAGE) };
    }
}

fn set(stack: &libc::stack_t) -> bool {
    // SAFETY: the stack is valid, or none, and the old one is not asked for.
    let failed = unsafe { libc::sigaltstack(stack, ptr::null_mut()) };
    failed == 0
}

fn current() -> libc::stack_t {
    // SAFETY: all zeros is a stack.
    let mut stack: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: the stack is only asked for.
    unsafe { libc::sigaltstack(ptr::null(), &raw mut stack) };
    stack
}

/// The size of the stack: enough to save the registers, unwind, and run std's handler.
const LEN: usize = 64 << 10;
/// The size of the guard: at least a page on every machine.
const PAGE: usize = 64 << 10;
