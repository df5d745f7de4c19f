//! Stacks for the server's signal handlers on the threads of the plugin's runtime.
//!
//! When a thread's stack is full, no handler can run on it, and nobody learns why the process ended. std gives
//! another stack (sigaltstack(2)) to the threads of programs, and not to those that a library starts.

use std::{cell::Cell, ffi::c_void, mem, ptr};

/// Gives this thread a stack for signal handlers. Its memory is only touched when one runs. A thread that cannot have one does
/// without.
pub(super) fn alternate() {
    if cfg!(miri) {
        // Miri knows neither signals nor mappings without access.
        return;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, wherever there is room.
    let map = unsafe { libc::mmap(ptr::null_mut(), GUARD + LEN, libc::PROT_NONE, flags, -1, 0) };
    if map == libc::MAP_FAILED {
        return;
    }
    MAP.set(map);
    let base = map.wrapping_byte_add(GUARD);
    // SAFETY: this part of the mapping is nobody else's. The rest, which the stack grows to, stays out of reach.
    let failed = unsafe { libc::mprotect(base, LEN, libc::PROT_READ | libc::PROT_WRITE) };
    if failed == 0 {
        set(base, 0);
    }
}

/// Takes the stack of [`alternate`] away again, before the thread ends.
pub(super) fn give_back() {
    let map = MAP.replace(ptr::null_mut());
    if map.is_null() {
        return;
    }
    // SAFETY: all zeros is a stack.
    let mut now: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: the stack is only asked for.
    unsafe { libc::sigaltstack(ptr::null(), &raw mut now) };
    // The plugin may have set another one.
    if now.ss_sp == map.wrapping_byte_add(GUARD) {
        set(ptr::null_mut(), libc::SS_DISABLE);
    }
    // SAFETY: no handler runs on the stack, as this does, and none will.
    unsafe { libc::munmap(map, GUARD + LEN) };
}

fn set(base: *mut c_void, flags: i32) {
    let stack = libc::stack_t {
        ss_sp: base,
        ss_flags: flags,
        ss_size: LEN,
    };
    // SAFETY: the stack is valid, or none, and the old one is not asked for.
    unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
}

thread_local! {
    static MAP: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
}

/// Enough to save the registers and to unwind.
const LEN: usize = 64 << 10;
/// At least a page, on all machines.
const GUARD: usize = 64 << 10;
