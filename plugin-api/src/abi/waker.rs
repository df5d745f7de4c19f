//! The waker that crosses: how the side that is polled tells the other side to poll again.

/// The head of a waker object of the side that polls.
///
/// A poll passes one borrowed. The polled side keeps it by [`clone`](WakerVtable::clone), which
/// returns a pointer that it owns and gives back by `wake` or `drop`. The same task passes the same
/// pointer again where it can, so that two wakers of one task compare equal by address.
#[repr(C)]
#[derive(Debug)]
pub struct Waker {
    /// The functions of the waker.
    pub vtable: *const WakerVtable,
}

/// The functions of a [`Waker`]. Any thread may call any of these, at any time, also during a
/// poll.
#[repr(C)]
#[derive(Debug)]
pub struct WakerVtable {
    /// The size of this table in bytes.
    pub size: usize,
    /// Returns a waker that the caller owns.
    pub clone: unsafe extern "C" fn(waker: *const Waker) -> *const Waker,
    /// Wakes, and takes an owned waker back.
    pub wake: unsafe extern "C" fn(waker: *const Waker),
    /// Wakes; the waker stays the caller's.
    pub wake_by_ref: unsafe extern "C" fn(waker: *const Waker),
    /// Takes an owned waker back.
    pub drop: unsafe extern "C" fn(waker: *const Waker),
}
