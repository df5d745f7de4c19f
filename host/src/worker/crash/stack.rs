//! Alternate stacks, on which signal handlers run when the normal stack of a thread is full.
//!
//! The standard library gives each thread that it starts an alternate stack of 8 KiB. On processors with wide vector
//! registers, whose content the kernel saves there, 8 KiB is hardly enough for a backtrace. Threads that C libraries
//! start have no alternate stack.

use std::{cell::OnceCell, ffi::c_void, mem, ptr};

/// Gives this thread an alternate stack of 64 KiB until the thread ends. The stack uses physical memory only after a
/// handler has run. If the allocation fails, the thread keeps the alternate stack that it has, and no error is
/// returned.
pub fn install() {
    let _ = STACK.try_with(|stack| stack.get_or_init(AlternateStack::new).is_some());
}

thread_local! {
    /// The alternate stack of this thread. `None` inside if the allocation failed.
    static STACK: OnceCell<Option<AlternateStack>> = const { OnceCell::new() };
}

/// A memory mapping that contains an alternate stack. The low end of the mapping cannot be accessed: a stack grows
/// towards its low end, and a handler that uses too much stack then crashes instead of overwriting other memory.
struct AlternateStack {
    /// The address of the mapping.
    map: *mut c_void,
}

impl AlternateStack {
    /// Maps a stack and sets it as the alternate stack of this thread. Returns `None` on failure.
    fn new() -> Option<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // The whole mapping is inaccessible at first. The next call makes all but the guard accessible.
        // SAFETY: a new mapping at an address that the kernel chooses overlaps no other memory.
        let map = unsafe {
            libc::mmap(
                ptr::null_mut(),
                STACK_SIZE + GUARD_SIZE,
                libc::PROT_NONE,
                flags,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return None;
        }
        let stack = Self { map };
        let base = map.wrapping_byte_add(GUARD_SIZE);
        // SAFETY: `base` and the bytes after it are a part of the new mapping, which no other code uses.
        let failed =
            unsafe { libc::mprotect(base, STACK_SIZE, libc::PROT_READ | libc::PROT_WRITE) };
        if failed != 0 {
            return None;
        }
        set_alternate(&libc::stack_t {
            ss_sp: base,
            ss_flags: 0,
            ss_size: STACK_SIZE,
        })
        .then_some(stack)
    }
}

impl Drop for AlternateStack {
    fn drop(&mut self) {
        // The standard library may have removed or replaced the alternate stack already, because the thread ends.
        if current_alternate().ss_sp == self.map.wrapping_byte_add(GUARD_SIZE) {
            set_alternate(&libc::stack_t {
                ss_sp: ptr::null_mut(),
                ss_flags: libc::SS_DISABLE,
                ss_size: STACK_SIZE,
            });
        }
        // SAFETY: this destructor runs on the normal stack, and the alternate stack is disabled, so no code uses the
        // mapping.
        unsafe { libc::munmap(self.map, STACK_SIZE + GUARD_SIZE) };
    }
}

/// Sets the alternate stack of this thread. Returns whether the call succeeded.
fn set_alternate(stack: &libc::stack_t) -> bool {
    // SAFETY: `stack` describes a valid stack or disables the alternate stack, and null means that the old stack is not
    // returned.
    let failed = unsafe { libc::sigaltstack(stack, ptr::null_mut()) };
    failed == 0
}

/// Returns the alternate stack of this thread.
fn current_alternate() -> libc::stack_t {
    // SAFETY: a `stack_t` of zeros is valid.
    let mut stack: libc::stack_t = unsafe { mem::zeroed() };
    // SAFETY: null means that the alternate stack is not changed, and `stack` is valid during the call.
    unsafe { libc::sigaltstack(ptr::null(), &raw mut stack) };
    stack
}

/// The size of the stack in bytes: enough to save the registers, unwind, and run the handler of the standard library.
const STACK_SIZE: usize = 64 << 10;
/// The size of the inaccessible part in bytes: at least one page on every machine.
const GUARD_SIZE: usize = 64 << 10;
