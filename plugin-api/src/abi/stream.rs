//! The byte stream of a client's connection that was upgraded to another protocol, such as a WebSocket.

use std::{ffi::c_void, mem, ptr};

use super::{Slice, Waker};

/// A connection with two directions, owned by the side that received the stream. Two null pointers mean that there is
/// no stream.
///
/// The sender passes a stream as `*mut Stream`. The receiver moves the stream out and leaves [`Stream::NONE`] behind
/// ([`Stream::take`]). After the call, the sender drops the `Stream` behind the pointer, so the connection is closed if
/// the receiver did not move the stream out. Dropping a stream closes the connection.
#[repr(C)]
#[derive(Debug)]
pub struct Stream {
    /// The stream. Only the functions of `vtable` may dereference this pointer. Null if there is no stream.
    pub(crate) stream: *mut c_void,
    /// The functions of `stream`; null if there is no stream.
    pub(crate) vtable: *const StreamVtable,
}

/// The functions of a [`Stream`].
///
/// Any thread may call these functions, `drop` included, but never two threads at the same time. One task may read
/// while another task writes: a stream stores the waker of a pending `read` separately from the waker of a pending
/// `write`, `flush` or `shutdown`.
///
/// All functions except `drop` return [`PENDING`](super::poll::PENDING), [`READY`](super::poll::READY), or
/// [`FAILED`](super::poll::FAILED) with the error number in `out`.
#[repr(C)]
#[derive(Debug)]
pub struct StreamVtable {
    /// The size of this table in bytes.
    pub size: usize,
    /// Reads up to `len` bytes into `buffer`, and sets `count` in `out`. A count of 0 means the end of the stream. The
    /// memory of `buffer` may be uninitialized.
    pub read: unsafe extern "C" fn(
        stream: *mut c_void,
        waker: *const Waker,
        buffer: *mut u8,
        len: usize,
        out: *mut Transfer,
    ) -> u32,
    /// Writes as many of the first bytes of `bytes` as possible, and sets `count` in `out` to their number.
    pub write: unsafe extern "C" fn(
        stream: *mut c_void,
        waker: *const Waker,
        bytes: Slice,
        out: *mut Transfer,
    ) -> u32,
    /// Sends all written bytes that are still in a buffer.
    pub flush:
        unsafe extern "C" fn(stream: *mut c_void, waker: *const Waker, out: *mut Transfer) -> u32,
    /// Closes the sending direction, so that the peer reads the end of the stream.
    pub shutdown:
        unsafe extern "C" fn(stream: *mut c_void, waker: *const Waker, out: *mut Transfer) -> u32,
    /// Closes the connection and frees the stream. The owner may call this in any state of the stream, also while an
    /// operation is pending.
    pub drop: unsafe extern "C" fn(stream: *mut c_void),
}

/// The result of an operation on a [`Stream`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// The number of bytes that were read or written.
    pub count: usize,
    /// The error number of the system (errno) if the operation failed; 0 if the error has no number.
    pub errno: i32,
}

impl Stream {
    /// No stream.
    pub const NONE: Self = Self {
        stream: ptr::null_mut(),
        vtable: ptr::null(),
    };

    /// Moves the stream out and leaves [`Self::NONE`] behind.
    #[must_use]
    pub const fn take(&mut self) -> Self {
        mem::replace(self, Self::NONE)
    }

    /// Returns whether there is no stream.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.stream.is_null()
    }
}

// SAFETY: the contract of `StreamVtable` allows any thread to use and to drop the stream.
unsafe impl Send for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_none() {
            return;
        }
        // SAFETY: `vtable` is the table of `stream`. The table is never freed, because libraries are never unloaded.
        let vtable = unsafe { &*self.vtable };
        // SAFETY: `self` owns the stream, and only this destructor drops the stream.
        unsafe { (vtable.drop)(self.stream) };
    }
}
