//! The streams of the C library, which libraries in the process may have written to.

use std::ptr;

/// Writes out what C code of the process has printed and the C library still holds in its buffers
/// (fflush(3)), as the end of a process without `exit` does not.
///
/// Blocks while another thread holds the lock of a stream, for example because it reads from stdin:
/// call this function on a thread that need not come back.
pub fn flush_c_streams() {
    // SAFETY: with a null pointer, fflush takes every stream that is open, under its lock.
    unsafe { libc::fflush(ptr::null_mut()) };
}
