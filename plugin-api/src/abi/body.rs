//! A message body that crosses: nothing, a piece of bytes, or a stream of frames that is polled.

use std::{ffi::c_void, mem, ptr};

use super::{Headers, OwnedBytes, Waker};

/// A body, owned by the side that received it.
///
/// A body is passed as `*mut Body`: the receiver takes it, leaving an empty one behind
/// ([`Body::take`]), and the giver drops what is left. So a body is freed once whichever way a call
/// ends.
#[repr(C)]
#[derive(Debug)]
pub struct Body {
    /// One of the constants below.
    pub(crate) kind: u32,
    /// The whole body when `kind` is [`Self::FULL`].
    pub(crate) data: OwnedBytes,
    /// The stream when `kind` is [`Self::STREAM`], else null.
    pub(crate) stream: *mut c_void,
    /// The functions of `stream`, else null.
    pub(crate) vtable: *const BodyVtable,
    /// At least this many bytes will come from a stream.
    pub(crate) lower: u64,
    /// At most this many bytes will come from a stream; `u64::MAX` when nobody knows.
    pub(crate) upper: u64,
}

/// The functions of a stream. One thread at a time calls these.
#[repr(C)]
#[derive(Debug)]
pub struct BodyVtable {
    /// The size of this table in bytes.
    pub size: usize,
    /// Asks for the next frame: [`poll::PENDING`](super::poll::PENDING), or
    /// [`poll::READY`](super::poll::READY) with the frame written to `out`. Not asking is how a
    /// receiver that is full holds the sender back.
    pub poll:
        unsafe extern "C" fn(stream: *mut c_void, waker: *const Waker, out: *mut Frame) -> u32,
    /// Ends the stream and frees it. May be called before the end was reached.
    pub drop: unsafe extern "C" fn(stream: *mut c_void),
    /// Since 1.1, where `size` covers it: like `poll`, for several frames at once. A receiver calls this only when
    /// it will use all of them. The function gives the frames that are ready, and waits only for the first.
    pub poll_frames:
        unsafe extern "C" fn(stream: *mut c_void, waker: *const Waker, out: *mut Frames) -> u32,
}

/// Room for several frames of a stream. Borrowed by [`BodyVtable::poll_frames`] until that returns.
#[repr(C)]
#[derive(Debug)]
pub struct Frames {
    /// The size of this struct in bytes.
    pub size: usize,
    /// An array of the receiver's. Its frames are valid before the call, and the function replaces them; the
    /// receiver drops them.
    pub frames: *mut Frame,
    /// The length of the array; one at least.
    pub room: usize,
    /// No further frame is added once the frames have this many bytes; one at least.
    pub enough: usize,
    /// How many frames were written, from the start of the array. Set when the function returns
    /// [`poll::READY`](super::poll::READY), and then one at least.
    pub count: usize,
}

/// One frame of a stream.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    /// One of the constants below.
    pub kind: u32,
    /// 1 when nothing follows this frame, so that the receiver need not ask.
    pub last: u32,
    /// The bytes of [`Self::DATA`]; the text of [`Self::ERROR`].
    pub data: OwnedBytes,
    /// The fields of [`Self::TRAILERS`], borrowed from the stream until it is polled again or
    /// dropped.
    pub trailers: Headers,
}

impl Body {
    /// No bytes at all.
    pub const EMPTY: u32 = 0;
    /// All bytes are in `data`.
    pub const FULL: u32 = 1;
    /// The bytes come from `stream`.
    pub const STREAM: u32 = 2;

    /// A body of no bytes.
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

    /// A body that is all there.
    #[must_use]
    pub fn full(data: OwnedBytes) -> Self {
        Self {
            kind: Self::FULL,
            data,
            ..Self::empty()
        }
    }

    /// Whether the body is [`FULL`](Self::FULL) and has the length that this `content-length` says. That is digits
    /// alone (RFC 9110, section 8.6); std's parser would take a sign as well.
    pub(crate) fn is_as_long_as(&self, length: &[u8]) -> bool {
        let add = |sum: usize, digit: &u8| {
            let digit = digit.wrapping_sub(b'0');
            let sum = sum.checked_mul(10)?.checked_add(digit.into())?;
            (digit < 10).then_some(sum)
        };
        self.kind == Self::FULL && length.iter().try_fold(0, add) == Some(self.data.len)
    }

    /// Moves the body out, leaving an empty one.
    #[must_use]
    pub const fn take(&mut self) -> Self {
        mem::replace(self, Self::empty())
    }
}

impl BodyVtable {
    /// [`Self::poll_frames`]; none when the table is of an ABI before 1.1.
    ///
    /// # Safety
    ///
    /// `vtable` is the table of a stream.
    pub(crate) unsafe fn poll_frames_fn(vtable: *const Self) -> Option<PollFrames> {
        // SAFETY: every table begins with its size.
        let size = unsafe { (*vtable).size };
        if size < mem::offset_of!(Self, poll_frames) + size_of::<PollFrames>() {
            return None;
        }
        // SAFETY: the table is long enough.
        Some(unsafe { (*vtable).poll_frames })
    }
}

pub(crate) type PollFrames = unsafe extern "C" fn(*mut c_void, *const Waker, *mut Frames) -> u32;

// SAFETY: a stream may be polled and dropped by any thread, by the contract of `BodyVtable`.
unsafe impl Send for Body {}
// SAFETY: shared access reaches only scalars and `data`, which is `Sync`; polling takes `&mut`.
unsafe impl Sync for Body {}

impl Drop for Body {
    fn drop(&mut self) {
        if self.stream.is_null() {
            return;
        }
        // SAFETY: a body with a stream has that stream's table, which lives as long as its library:
        // for ever.
        let drop = unsafe { (*self.vtable).drop };
        // SAFETY: `self` owns the stream, and this is its one drop.
        unsafe { drop(self.stream) };
    }
}

// SAFETY: the trailers borrow from the stream, which is `Send` too. Only the owner of both reads them.
unsafe impl Send for Frame {}
// SAFETY: shared access reaches only scalars and `data`, which is `Sync`.
unsafe impl Sync for Frame {}

impl Frame {
    /// The end: nothing more comes.
    pub const END: u32 = 0;
    /// Some bytes.
    pub const DATA: u32 = 1;
    /// The trailer fields; nothing follows.
    pub const TRAILERS: u32 = 2;
    /// The stream broke, with a text that says how; nothing follows. That of a panic, which was reported
    /// to [`Host::panicked`](super::Host::panicked), is `the app panicked`.
    pub const ERROR: u32 = 3;

    /// The end of a stream.
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
        assert!(body.is_as_long_as(b"11"));
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
            assert!(!body.is_as_long_as(other.as_bytes()), "{other:?}");
        }
        assert!(!Body::empty().is_as_long_as(b"0"));
    }
}
