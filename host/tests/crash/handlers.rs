//! Signal handlers of plugins and C libraries, which stand before those of the host.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use host::{scoreboard::Label, worker::crash};

use crate::child::in_app;

static mut PREVIOUS: Option<libc::sigaction> = None;

pub(crate) fn replace_handler(way: &str) {
    extern "C" fn other(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        let said = b"the other handler ran\n";
        // SAFETY: the bytes are there.
        unsafe { libc::write(2, said.as_ptr().cast(), said.len()) };
        // SAFETY: written before the handler was set.
        match unsafe { PREVIOUS } {
            Some(previous) => {
                // SAFETY: it is a handler of three arguments.
                let previous = unsafe {
                    std::mem::transmute::<
                        usize,
                        extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void),
                    >(previous.sa_sigaction)
                };
                previous(signal, info, context);
            }
            // SAFETY: the default may be set.
            None => unsafe {
                libc::signal(signal, libc::SIG_DFL);
            },
        }
    }
    // SAFETY: all zeros is an action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = if way == "ignored" {
        libc::SIG_IGN
    } else {
        other as *const () as usize
    };
    let mut previous = action;
    // SAFETY: both are valid.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut previous) };
    if way == "replaced_and_chained" {
        // SAFETY: no other thread looks at it yet.
        unsafe { PREVIOUS = Some(previous) };
    }
}

/// Writes to a page that a handler makes writable when that is tried.
pub(crate) fn mended(label: Label) {
    extern "C" fn mend(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
        // SAFETY: the kernel gives it.
        let info = unsafe { &*info };
        // SAFETY: it tells of a fault.
        let address = unsafe { info.si_addr() };
        let page = (address as usize & !4095) as *mut c_void;
        // SAFETY: the page was mapped below.
        unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) };
    }
    // SAFETY: all zeros is an action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = mend as *const () as usize;
    // SAFETY: the action is valid.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()) };
    assert_eq!(crash::reinstall(), ["SIGSEGV"]);
    in_app(label, || {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        for _ in 0..10 {
            // SAFETY: a new mapping.
            let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
            // SAFETY: the handler makes it writable.
            unsafe { page.cast::<u8>().write_volatile(1) };
        }
    });
}
