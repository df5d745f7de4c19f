//! The body of a request or response: empty, a single piece of bytes, or a stream of frames that the receiver polls.

use std::{ffi::c_void, mem, ptr};

use super::{Headers, OwnedBytes, Waker};

/// A body, owned by the side that received the body.
///
/// The sender passes a body as `*mut Body`. The receiver moves the body out and leaves an empty body behind
/// ([`Body::take`]). After the call, the sender drops the `Body` behind the pointer. A body is therefore freed
/// exactly once, also when the receiver fails before it moves the body out.
#[repr(C)]
#[derive(Debug)]
pub struct Body {
    /// [`Self::EMPTY`], [`Self::FULL`] or [`Self::STREAM`].
    pub(crate) kind: u32,
    /// The whole body when `kind` is [`Self::FULL`].
    pub(crate) data: OwnedBytes,
    /// The stream when `kind` is [`Self::STREAM`], otherwise null.
    pub(crate) stream: *mut c_void,
    /// The functions of `stream`; null if `stream` is null.
    pub(crate) vtable: *const BodyVtable,
    /// The minimum number of bytes that the stream still has to yield.
    pub(crate) lower: u64,
    /// The maximum number of bytes that the stream still has to yield; `u64::MAX` if unknown.
    pub(crate) upper: u64,
}

/// The functions of a body's stream. Any thread may call these, but never two threads at the same time.
#[repr(C)]
#[derive(Debug)]
pub struct BodyVtable {
    /// The size of this table in bytes.
    pub size: usize,
    /// Polls for the next frame. Returns [`poll::PENDING`](super::poll::PENDING), or writes the frame to `out`
    /// and returns [`poll::READY`](super::poll::READY). A receiver whose buffers are full does not poll; the
    /// sender then produces no frames (backpressure).
    pub poll:
        unsafe extern "C" fn(stream: *mut c_void, waker: *const Waker, out: *mut Frame) -> u32,
    /// Closes the stream and frees its memory. The receiver may call this before the stream has ended.
    pub drop: unsafe extern "C" fn(stream: *mut c_void),
    /// Like `poll`, for several frames at once. Returns the frames that are ready. Returns
    /// [`poll::PENDING`](super::poll::PENDING) only if not even one frame is ready. A receiver calls this only
    /// if it will consume all of these frames.
    ///
    /// Since 1.1. Present only if `size` covers this field.
    pub poll_frames:
        unsafe extern "C" fn(stream: *mut c_void, waker: *const Waker, out: *mut Frames) -> u32,
}

/// A buffer for several frames. Borrowed by [`BodyVtable::poll_frames`] until that function returns.
#[repr(C)]
#[derive(Debug)]
pub struct Frames {
    /// The size of this struct in bytes.
    pub size: usize,
    /// An array that the receiver owns. All its frames are initialized before the call. The called function
    /// replaces frames in the array, and the receiver drops them.
    pub frames: *mut Frame,
    /// The length of the array; at least 1.
    pub room: usize,
    /// The limit in bytes; at least 1. The called function adds no further frame when the frames in the array
    /// hold this many bytes or more.
    pub enough: usize,
    /// The number of frames that the called function has written from the start of the array. Set, and at least 1,
    /// when that function returns [`poll::READY`](super::poll::READY).
    pub count: usize,
}

/// One frame of a stream.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    /// [`Self::END`], [`Self::DATA`], [`Self::TRAILERS`] or [`Self::ERROR`].
    pub kind: u32,
    /// 1 if no frame follows this frame, which saves the receiver one more poll; otherwise 0.
    pub last: u32,
    /// The bytes of a [`Self::DATA`] frame; the text of a [`Self::ERROR`] frame.
    pub data: OwnedBytes,
    /// The fields of a [`Self::TRAILERS`] frame. Borrowed from the stream until the receiver polls the stream again
    /// or drops the stream.
    pub trailers: Headers,
}

impl Body {
    /// No bytes at all.
    pub const EMPTY: u32 = 0;
    /// All bytes are in `data`.
    pub const FULL: u32 = 1;
    /// The bytes come from `stream`.
    pub const STREAM: u32 = 2;

    /// Returns an empty body.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            kind: Self::EMPTY,
            data: OwnedBytes::EMPTY,
            stream: ptr::null_mut(),
            vtable: ptr::null(),
            lower: 0,
            upper: 0,
        }
    }

    /// Returns a body whose bytes are all in `data`.
    #[must_use]
    pub fn full(data: OwnedBytes) -> Self {
        Self {
            kind: Self::FULL,
            data,
            ..Self::empty()
        }
    }

    /// Returns whether the body is [`FULL`](Self::FULL) and its length equals `length`, the value of a
    /// `content-length` field.
    ///
    /// Parses `length` by hand because RFC 9110, section 8.6, allows only digits; the parser of std also accepts a
    /// sign.
    pub(crate) fn has_length(&self, length: &[u8]) -> bool {
        let add = |sum: usize, digit: &u8| {
            // Every byte that is not a digit becomes 10 or more.
            let digit = digit.wrapping_sub(b'0');
            let sum = sum.checked_mul(10)?.checked_add(digit.into())?;
            (digit < 10).then_some(sum)
        };
        self.kind == Self::FULL && length.iter().try_fold(0, add) == Some(self.data.len)
    }

    /// Moves the body out and leaves an empty body behind.
    #[must_use]
    pub const fn take(&mut self) -> Self {
        mem::replace(self, Self::empty())
    }
}

impl BodyVtable {
    /// Returns the function [`Self::poll_frames`], or `None` if the other side was built for ABI 1.0, whose table
    /// has no such field.
    ///
    /// # Safety
    ///
    /// `vtable` points to the table of a stream.
    pub(crate) unsafe fn poll_frames_fn(vtable: *const Self) -> Option<PollFrames> {
        // Only `size` is read before the check. A reference to the whole table would claim that all of its fields
        // are readable.
        // SAFETY: every table begins with its size.
        let size = unsafe { (*vtable).size };
        if size < mem::offset_of!(Self, poll_frames) + size_of::<PollFrames>() {
            return None;
        }
        // SAFETY: `size` covers the field, by the check above.
        Some(unsafe { (*vtable).poll_frames })
    }
}

/// The type of [`BodyVtable::poll_frames`].
pub(crate) type PollFrames = unsafe extern "C" fn(*mut c_void, *const Waker, *mut Frames) -> u32;

// SAFETY: the contract of `BodyVtable` allows any thread to poll and drop the stream.
unsafe impl Send for Body {}
// SAFETY: a `&Body` gives access only to scalars and to `data`, which is `Sync`. Polling the stream needs `&mut`.
unsafe impl Sync for Body {}

impl Drop for Body {
    fn drop(&mut self) {
        if self.stream.is_null() {
            return;
        }
        // SAFETY: `vtable` is the table of `stream`. The table is never freed, because libraries are never unloaded.
        let drop = unsafe { (*self.vtable).drop };
        // SAFETY: `self` owns the stream, and only this destructor drops the stream.
        unsafe { drop(self.stream) };
    }
}

// SAFETY: the trailers borrow from the stream, which is `Send`. Only the thread that owns the stream reads the
// trailers.
unsafe impl Send for Frame {}
// SAFETY: a `&Frame` gives access only to scalars and to `data`, which is `Sync`.
unsafe impl Sync for Frame {}

impl Frame {
    /// The end of the stream.
    pub const END: u32 = 0;
    /// A piece of the body's bytes.
    pub const DATA: u32 = 1;
    /// The trailer fields. The last frame of its stream.
    pub const TRAILERS: u32 = 2;
    /// The stream failed; `data` holds the error text. The last frame of its stream. After a panic the text is
    /// `the app panicked`, and the plugin has reported the panic to
    /// [`Host::panicked`](super::Host::panicked).
    pub const ERROR: u32 = 3;

    /// Returns the frame that ends a stream.
    #[must_use]
    pub const fn end() -> Self {
        Self {
            kind: Self::END,
            last: 1,
            data: OwnedBytes::EMPTY,
            trailers: Headers::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_length_is_that_of_a_whole_body_or_another() {
        let body = Body::full(Bytes::from_static(b"hello world").into());
        assert!(body.has_length(b"11"));
        for other in [
            "12",
            "1",
            "",
            "+11",
            ";",
            "11 ",
            "11, 11",
            "99999999999999999999",
        ] {
            assert!(!body.has_length(other.as_bytes()), "{other:?}");
        }
        assert!(!Body::empty().has_length(b"0"));
    }
}
