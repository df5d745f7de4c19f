//! Alternate signal stacks (sigaltstack(2)) for the threads of the plugin's runtime.
//!
//! After a stack overflow, a signal handler cannot run on the overflowed stack, so the server's crash handler could not
//! record the cause of the crash. The std of the server's binary installs an alternate stack on each thread that it
//! starts. The plugin's own copy of std does not, so this module installs one.

use std::{cell::Cell, ffi::c_void, mem, ptr};

/// Installs an alternate signal stack on this thread. Does nothing if the memory cannot be mapped, because the app
/// works without the stack. The stack uses no physical memory until a signal handler runs.
pub(super) fn install_signal_stack() {
    if cfg!(miri) {
        // Miri supports neither signals nor mappings with `PROT_NONE`.
        return;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
    let len = GUARD_SIZE + STACK_SIZE;
    // SAFETY: the kernel chooses the address, so the new mapping replaces no other.
    let mapping = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    if mapping == libc::MAP_FAILED {
        return;
    }
    MAPPING.set(mapping);
    // A stack grows downward, so the guard area is below the stack. The guard area stays without access: a handler
    // that overflows the stack gets a fault and does not overwrite other memory.
    let base = mapping.wrapping_byte_add(GUARD_SIZE);
    // SAFETY: the range is a part of the new mapping, which no other code uses.
    let failed = unsafe { libc::mprotect(base, STACK_SIZE, libc::PROT_READ | libc::PROT_WRITE) };
    if failed == 0 {
        set_signal_stack(base, 0);
    }
}

/// Removes and frees the stack of [`install_signal_stack`]. Runs on the same thread, before the thread ends.
pub(super) fn remove_signal_stack() {
    let mapping = MAPPING.replace(ptr::null_mut());
    if mapping.is_null() {
        return;
    }
    // SAFETY: zeros are a valid value of each field of `stack_t`.
    let mut current: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: `current` is writable. The first argument is null, so the call changes nothing.
    unsafe { libc::sigaltstack(ptr::null(), &raw mut current) };
    // The plugin's code may have installed another stack on this thread. That stack must stay.
    if current.ss_sp == mapping.wrapping_byte_add(GUARD_SIZE) {
        set_signal_stack(ptr::null_mut(), libc::SS_DISABLE);
    }
    // SAFETY: no handler uses the stack: this thread runs this function and no handler, and the stack is no longer
    // installed.
    unsafe { libc::munmap(mapping, GUARD_SIZE + STACK_SIZE) };
}

fn set_signal_stack(base: *mut c_void, flags: i32) {
    let stack = libc::stack_t {
        ss_sp: base,
        ss_flags: flags,
        ss_size: STACK_SIZE,
    };
    // The result is not checked: after an error the thread has no alternate stack, and the app works without the stack.
    // SAFETY: either the flags disable the stack, or `stack` describes writable memory that stays mapped until the stack
    // is removed. The second argument is null, so the call writes nothing.
    unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) };
}

thread_local! {
    /// The mapping of this thread's guard area and stack. Null if the thread has none.
    static MAPPING: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
}

/// The size of a stack in bytes. Enough for a signal handler that saves the registers and unwinds the stack.
const STACK_SIZE: usize = 64 << 10;
/// The size of the guard area in bytes: at least one page on every machine, because pages have up to 64 KiB.
const GUARD_SIZE: usize = 64 << 10;
