//! Stacks for the handlers of threads whose own stack is full.
//!
//! std gives each thread that it starts one of 8 KiB, which with wide registers to save is hardly enough to unwind on; threads that
//! others start have none.

use std::{cell::OnceCell, ffi::c_void, mem, ptr};

/// Gives this thread a stack of 64 KiB for its signal handlers, until it ends. The memory is only touched when one runs. A thread
/// that cannot have one goes on with what it has.
pub fn alternate() {
    let _ = STACK.try_with(|stack| stack.get_or_init(Stack::new).is_some());
}

thread_local! {
    static STACK: OnceCell<Option<Stack>> = const { OnceCell::new() };
}

/// A mapping whose first page, which the stack grows to, cannot be touched.
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
        // std takes away whatever stack there is when a thread of its own ends.
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

/// Enough to save the registers, unwind, and let std tell of the overflow.
const LEN: usize = 64 << 10;
/// At least a page, on all machines.
const PAGE: usize = 64 << 10;
