//! The output streams of the C library (`stdout` and others), to which libraries of the process may have written.

use std::ptr;

/// Flushes all output streams of the C library (fflush(3)). Call this before a process ends without `exit`, because
/// only `exit` flushes the streams.
///
/// Blocks while another thread holds the lock of a stream, for example because the thread reads from stdin. Call this
/// on a thread that may block for ever.
pub fn flush_c_streams() {
    // SAFETY: with a null pointer, `fflush` flushes all open streams, and locks each of them.
    unsafe { libc::fflush(ptr::null_mut()) };
}
