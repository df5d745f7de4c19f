//! Ways to crash, each in a function of its own, so that a backtrace names the function.

use std::{ffi::c_void, hint::black_box, os::fd::AsRawFd, process, ptr};

use host::{
    scoreboard::{self, Label},
    worker::crash,
};
use http::Method;

#[inline(never)]
pub(crate) fn write_to_null() {
    let nowhere: *mut u8 = black_box(ptr::null_mut());
    // SAFETY: none: this is to crash.
    unsafe { nowhere.write_volatile(1) }; // a fault is here
}

#[inline(never)]
pub(crate) fn call_null() {
    // SAFETY: none: this is to crash.
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
    // SAFETY: a new mapping.
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
    // SAFETY: none: the file has no such page, and this is to crash.
    black_box(unsafe { map.cast::<u8>().read_volatile() });
}

#[inline(never)]
pub(crate) fn run_illegal() {
    // SAFETY: none: this is to crash.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("ud2");
    }
    // SAFETY: none: this is to crash.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("udf #0");
    }
}

#[inline(never)]
pub(crate) fn call_double_free() {
    // SAFETY: any size will do.
    let room = black_box(unsafe { libc::malloc(24) });
    // SAFETY: the room is there.
    unsafe { libc::free(room) };
    // SAFETY: none: glibc is to notice.
    unsafe { libc::free(black_box(room)) };
}

#[inline(never)]
pub(crate) fn loop_for_ever() {
    loop {
        black_box(0);
    }
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "the stack is to be full")]
pub(crate) fn recurse(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    recurse(depth + 1) + room[7]
}

/// Fills the stack of a thread that std has not started.
pub(crate) fn foreign(label: Label, has_stack: bool) {
    extern "C" fn run(argument: *mut c_void) -> *mut c_void {
        // SAFETY: the argument is what was boxed below.
        let (label, has_stack) = *unsafe { Box::from_raw(argument.cast::<(Label, bool)>()) };
        if has_stack {
            crash::stack::install();
        }
        let _entered = scoreboard::enter_request(label, b"7f3a", &Method::GET, "/orders/17");
        black_box(recurse(1));
        ptr::null_mut()
    }
    let mut thread = 0;
    let argument = Box::into_raw(Box::new((label, has_stack)));
    // SAFETY: the function takes such an argument.
    unsafe { libc::pthread_create(&raw mut thread, ptr::null(), run, argument.cast()) };
    // SAFETY: the thread was started above.
    unsafe { libc::pthread_join(thread, ptr::null_mut()) };
}
