//! The ways to crash. Each way is a function that is never inlined, so that a backtrace contains its name.

use std::{ffi::c_void, hint::black_box, os::fd::AsRawFd, process, ptr};

use host::{
    scoreboard::{self, Label},
    worker::crash,
};
use http::Method;

#[inline(never)]
pub(crate) fn write_to_null() {
    let null: *mut u8 = black_box(ptr::null_mut());
    // SAFETY: not safe on purpose, because this function must crash.
    unsafe { null.write_volatile(1) }; // a fault is here
}

#[inline(never)]
pub(crate) fn call_null() {
    // SAFETY: not safe on purpose, because this function must crash.
    let function = unsafe { std::mem::transmute::<usize, extern "C" fn(i32) -> i32>(black_box(0)) };
    black_box(function(black_box(1)));
}

#[inline(never)]
pub(crate) fn call_abort() {
    process::abort();
}

#[inline(never)]
pub(crate) fn call_exit() {
    process::exit(3);
}

#[inline(never)]
pub(crate) fn touch_bus() {
    let file = rustix::fs::memfd_create("empty", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = file.as_raw_fd();
    // SAFETY: the kernel chooses the address, so the new mapping replaces no other.
    let map = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file,
            0,
        )
    };
    // SAFETY: not safe on purpose: the file is empty, so reading its first page must crash.
    black_box(unsafe { map.cast::<u8>().read_volatile() });
}

#[inline(never)]
pub(crate) fn run_illegal() {
    // SAFETY: not safe on purpose, because this function must crash.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("ud2");
    }
    // SAFETY: not safe on purpose, because this function must crash.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("udf #0");
    }
}

#[inline(never)]
pub(crate) fn call_double_free() {
    // SAFETY: `malloc` accepts any size.
    let memory = black_box(unsafe { libc::malloc(24) });
    // SAFETY: `memory` comes from `malloc`, and is freed for the first time.
    unsafe { libc::free(memory) };
    // SAFETY: not safe on purpose: glibc must detect that `memory` is freed twice.
    unsafe { libc::free(black_box(memory)) };
}

#[inline(never)]
pub(crate) fn loop_for_ever() {
    loop {
        black_box(0);
    }
}

#[inline(never)]
#[expect(
    unconditional_recursion,
    reason = "the recursion must overflow the stack"
)]
pub(crate) fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[7]
}

/// Overflows the stack of a thread that std has not started, so std has installed no signal stack on the thread. If
/// `has_signal_stack` is true, the host's signal stack is installed.
pub(crate) fn overflow_foreign_thread(label: Label, has_signal_stack: bool) {
    extern "C" fn run(argument: *mut c_void) -> *mut c_void {
        // SAFETY: the argument is the box that is passed to `pthread_create` below.
        let argument = unsafe { Box::from_raw(argument.cast::<(Label, bool)>()) };
        let (label, has_signal_stack) = *argument;
        if has_signal_stack {
            crash::stack::install();
        }
        let _entered = scoreboard::enter_request(label, b"7f3a", &Method::GET, "/orders/17");
        black_box(recurse(1));
        ptr::null_mut()
    }
    let mut thread = 0;
    let argument = Box::into_raw(Box::new((label, has_signal_stack)));
    // SAFETY: `run` takes an argument of this type.
    unsafe { libc::pthread_create(&raw mut thread, ptr::null(), run, argument.cast()) };
    // SAFETY: the thread was started above, and is joined once.
    unsafe { libc::pthread_join(thread, ptr::null_mut()) };
}
