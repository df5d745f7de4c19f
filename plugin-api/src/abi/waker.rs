//! The waker that a poll passes to the other side, which calls the waker when a new poll can make progress.

/// The first field of every waker object. The polling side creates the object, and only that side knows the rest of it.
///
/// A poll passes a borrowed waker, valid until the poll returns. To keep the waker, the polled side calls
/// [`clone`](WakerVtable::clone). The result is an owned waker, which the polled side must release with `wake` or
/// `drop`.
///
/// The polling side passes the same address again for the same task if possible, so that the polled side recognizes an
/// unchanged waker by its address and need not clone it again.
#[repr(C)]
#[derive(Debug)]
pub struct Waker {
    /// The functions of the waker.
    pub vtable: *const WakerVtable,
}

/// The functions of a [`Waker`]. Any thread may call these at any time, also during a poll.
#[repr(C)]
#[derive(Debug)]
pub struct WakerVtable {
    /// The size of this table in bytes.
    pub size: usize,
    /// Returns an owned waker for the same task. The argument may be borrowed or owned.
    pub clone: unsafe extern "C" fn(waker: *const Waker) -> *const Waker,
    /// Wakes the task and releases an owned waker.
    pub wake: unsafe extern "C" fn(waker: *const Waker),
    /// Wakes the task. The argument may be borrowed or owned, and stays valid.
    pub wake_by_ref: unsafe extern "C" fn(waker: *const Waker),
    /// Releases an owned waker.
    pub drop: unsafe extern "C" fn(waker: *const Waker),
}
