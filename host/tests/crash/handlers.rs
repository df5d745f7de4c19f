//! Signal handlers as plugins and C libraries install them: they replace the handlers of the host.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use host::{scoreboard::Label, worker::crash};

use crate::child::in_app;

/// The handler of the host, if the new handler must call it.
static mut PREVIOUS: Option<libc::sigaction> = None;

/// Replaces the host's handler of SIGSEGV. `way` is `ignored` (the signal is ignored), `replaced`, or
/// `replaced_and_chained` (the new handler calls the host's handler).
pub(crate) fn replace_handler(way: &str) {
    extern "C" fn other(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        let message = b"the other handler ran\n";
        // SAFETY: `message` has `len` bytes.
        unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
        // SAFETY: `PREVIOUS` is written before a fault, and never again.
        match unsafe { PREVIOUS } {
            Some(previous) => {
                // SAFETY: the host's handler is installed with SA_SIGINFO, so it takes three arguments.
                let previous = unsafe {
                    std::mem::transmute::<
                        usize,
                        extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void),
                    >(previous.sa_sigaction)
                };
                previous(signal, info, context);
            }
            // SAFETY: `signal` is async-signal-safe, and any signal may have its default action.
            None => unsafe {
                libc::signal(signal, libc::SIG_DFL);
            },
        }
    }
    // SAFETY: zeros are a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = if way == "ignored" {
        libc::SIG_IGN
    } else {
        other as *const () as usize
    };
    let mut previous = action;
    // SAFETY: `action` is a valid action, and `previous` is writable.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut previous) };
    if way == "replaced_and_chained" {
        // SAFETY: no other thread reads `PREVIOUS` before the fault.
        unsafe { PREVIOUS = Some(previous) };
    }
}

/// Writes to pages that are not writable, with a handler that makes a page writable after the fault.
pub(crate) fn write_with_mending_handler(label: Label) {
    extern "C" fn mend(_signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
        // SAFETY: the kernel passes a valid `siginfo_t`.
        let info = unsafe { &*info };
        // SAFETY: the signal is SIGSEGV after a fault, so `info` contains an address.
        let address = unsafe { info.si_addr() };
        let page = (address as usize & !4095) as *mut c_void;
        // SAFETY: the fault was on a page that is mapped below.
        unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) };
    }
    // SAFETY: zeros are a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = mend as *const () as usize;
    // SAFETY: `action` is a valid action.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()) };
    assert_eq!(crash::reinstall(), ["SIGSEGV"]);
    in_app(label, || {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        for _ in 0..10 {
            // SAFETY: the kernel chooses the address, so the new mapping replaces no other.
            let page = unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
            // SAFETY: the page is mapped, and the handler makes it writable.
            unsafe { page.cast::<u8>().write_volatile(1) };
        }
    });
}
