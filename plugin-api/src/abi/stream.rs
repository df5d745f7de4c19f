//! A connection that crosses: the bytes both ways of what a client upgraded to another protocol.

use std::{ffi::c_void, mem, ptr};

use super::{Slice, Waker};

/// A byte stream, owned by the side that received it. Null pointers mean that there is no stream.
///
/// A stream is passed as `*mut Stream`: the receiver takes it, leaving none behind ([`Stream::take`]),
/// and the giver drops what is left. A stream that is dropped is closed.
#[repr(C)]
#[derive(Debug)]
pub struct Stream {
    /// A pointer that only the side that made the stream may dereference; null if there is no stream.
    pub(crate) stream: *mut c_void,
    /// The functions of `stream`; null for none.
    pub(crate) vtable: *const StreamVtable,
}

/// The functions of a [`Stream`]. One thread at a time calls these, but one task may read and
/// another write: the wakers of reading and of writing are kept apart.
///
/// Each returns [`PENDING`](super::poll::PENDING), [`READY`](super::poll::READY), or
/// [`FAILED`](super::poll::FAILED) with the system's number of the error in `out`.
#[repr(C)]
#[derive(Debug)]
pub struct StreamVtable {
    /// The size of this table in bytes.
    pub size: usize,
    /// Reads up to `len` bytes into `buffer`, which need not be initialized. A count of 0
    /// means the end of the stream.
    pub read: unsafe extern "C" fn(
        stream: *mut c_void,
        waker: *const Waker,
        buffer: *mut u8,
        len: usize,
        out: *mut Transfer,
    ) -> u32,
    /// Writes some of `bytes`.
    pub write: unsafe extern "C" fn(
        stream: *mut c_void,
        waker: *const Waker,
        bytes: Slice,
        out: *mut Transfer,
    ) -> u32,
    /// Sends what has been written on its way.
    pub flush:
        unsafe extern "C" fn(stream: *mut c_void, waker: *const Waker, out: *mut Transfer) -> u32,
    /// Tells the peer that nothing more will be written.
    pub shutdown:
        unsafe extern "C" fn(stream: *mut c_void, waker: *const Waker, out: *mut Transfer) -> u32,
    /// Closes the stream and frees it. May be called at any time.
    pub drop: unsafe extern "C" fn(stream: *mut c_void),
}

/// The result of an operation on a stream.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// How many bytes were read or written.
    pub count: usize,
    /// The system's number of the error (errno), or 0 where it has none.
    pub errno: i32,
}

impl Stream {
    /// No stream.
    pub const NONE: Self = Self {
        stream: ptr::null_mut(),
        vtable: ptr::null(),
    };

    /// Moves the stream out, leaving none.
    #[must_use]
    pub const fn take(&mut self) -> Self {
        mem::replace(self, Self::NONE)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.stream.is_null()
    }
}

// SAFETY: a stream may be used and dropped by any thread, by the contract of `StreamVtable`.
unsafe impl Send for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_none() {
            return;
        }
        // SAFETY: a stream has its table, which lives as long as its library: for ever.
        let vtable = unsafe { &*self.vtable };
        // SAFETY: `self` owns the stream, and this is its one drop.
        unsafe { (vtable.drop)(self.stream) };
    }
}
