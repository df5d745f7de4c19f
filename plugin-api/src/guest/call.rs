//! One call of the app. The plugin stores the future of the call in the host's slot, and polls the future until it
//! returns a response.
//!
//! The functions here return a code of [`poll`], as [`Plugin::call`](crate::abi::Plugin::call) and
//! [`Plugin::poll`](crate::abi::Plugin::poll) do.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::{
    response::Respond,
    runtime::RuntimeScope,
    slot::{FutureVtable, PendingCall, fits_in_slot},
};
use crate::{
    abi::{CallContext, CallSlot, poll},
    crossing::{PanicBoundary, with_waker},
    panics::catch,
};

/// Starts a call: stores the future of the call in the slot, and polls the future. The app creates the future.
pub struct CallStarter<'a> {
    /// The slot of the call. Empty. Only the plugin uses the slot until [`Plugin::call`](crate::abi::Plugin::call)
    /// returns.
    pub(crate) slot: *mut CallSlot,
    /// The waker of the call, and the host's function that receives the response.
    pub(crate) call: &'a CallContext,
    /// The runtime of the app. Later polls of the call enter this runtime.
    pub(crate) runtime: &'a RuntimeScope,
}

impl CallStarter<'_> {
    /// Stores the future that `make` returns in the slot, and polls the future once. Returns a code of [`poll`]. The
    /// slot is empty afterwards unless the result is [`poll::PENDING`].
    ///
    /// Call this function within [`PanicBoundary::poll`]. Run none of the author's code after this function and within
    /// that boundary. A panic of such code would make the result [`poll::PANICKED`], and the future in the slot would
    /// never be dropped.
    pub(crate) fn run<F>(self, make: impl FnOnce() -> F) -> u32
    where
        F: Future<Output: Respond> + Send + 'static,
    {
        if fits_in_slot::<F>() {
            self.run_in_slot(make)
        } else {
            self.run_in_slot(|| Box::pin(make()))
        }
    }

    /// Does the work of [`Self::run`] for a future that fits into the slot.
    fn run_in_slot<F>(self, make: impl FnOnce() -> F) -> u32
    where
        F: Future<Output: Respond> + Send + 'static,
    {
        // SAFETY: `CallStarter::slot` is empty, and only the plugin uses the slot until the host's call returns.
        let future = unsafe { PendingCall::write_future(self.slot, make) };
        let poll = |context: &mut Context<'_>| {
            // SAFETY: `write_future` has just created an `F` at `future`.
            unsafe { TypedFuture::<F>::poll(future, context, self.call, self.runtime) }
        };
        let polled = catch(|| self.with_context(poll));
        if polled == Some(poll::PENDING) {
            // The rest of the slot is written only now, because most calls end with their first poll.
            // SAFETY: only the plugin uses the slot until the host's call returns. The slot holds an `F`, and `VTABLE`
            // has the functions for `F`.
            unsafe { PendingCall::write_vtable(self.slot, TypedFuture::<F>::VTABLE, self.runtime) };
            return poll::PENDING;
        }
        // The destructor of the future is the author's code, so it may panic too.
        // SAFETY: there is an `F` at `future`, and no code uses it after this line.
        let dropped = catch(|| unsafe { TypedFuture::<F>::drop(future) });
        dropped.and(polled).unwrap_or(poll::PANICKED)
    }

    /// Runs `work` with a std [`Context`] that has the waker of the call.
    pub(crate) fn with_context<R>(&self, work: impl FnOnce(&mut Context<'_>) -> R) -> R {
        let work = |waker: &Waker| work(&mut Context::from_waker(waker));
        // SAFETY: the host keeps the waker valid until its call returns, and `self` borrows the call until then.
        unsafe { with_waker(self.call.waker, work) }
    }
}

/// Runs `step`, the first poll or a later poll of a call, in the app's runtime. Returns the result of `step`, or
/// [`poll::PANICKED`] if `step` has panicked.
///
/// If the author's code has leaked a guard of `Handle::enter`, leaving the runtime panics after `step` has returned.
/// The result is then [`poll::PANICKED`] too, and a call that is pending in `slot` is dropped.
///
/// # Safety
///
/// `slot` holds a pending call when `step` returns [`poll::PENDING`].
pub(crate) unsafe fn run_step(
    runtime: &RuntimeScope,
    slot: *mut CallSlot,
    step: impl FnOnce() -> u32,
) -> u32 {
    // The result of `step` is stored outside, because it decides whether the slot holds a call, also when leaving the
    // runtime panics.
    let mut outcome = poll::PANICKED;
    let left_runtime = runtime.poll(|| outcome = step());
    if left_runtime.is_none() && outcome == poll::PENDING {
        // SAFETY: the caller guarantees that `slot` holds a pending call after this result of `step`.
        let _ = catch(|| unsafe { PendingCall::drop_in_slot(slot) });
        return poll::PANICKED;
    }
    outcome
}

/// Polls a pending call in the app's runtime. Returns a code of [`poll`]. The slot is empty afterwards unless the
/// result is [`poll::PENDING`].
///
/// # Safety
///
/// `slot` holds a pending call, and the slot was not moved since the call was stored.
pub(crate) unsafe fn poll_pending(slot: *mut CallSlot, context: &CallContext) -> u32 {
    // SAFETY: the caller guarantees that `slot` holds a pending call.
    let (_, runtime) = unsafe { PendingCall::vtable_and_runtime(slot) };
    // Cloned, because the poll drops the handle in the slot when the call ends, and `run_step` still needs a handle to
    // leave the runtime.
    let runtime = runtime.clone();
    // SAFETY: the caller guarantees that `slot` holds a pending call and was not moved.
    let poll = || unsafe { PendingCall::poll(slot, context) };
    // SAFETY: `PendingCall::poll` empties the slot only if its result is not `PENDING`.
    unsafe { run_step(&runtime, slot, poll) }
}

/// Drops a pending call in the app's runtime. The slot is empty afterwards.
///
/// # Safety
///
/// `slot` holds a pending call, and the slot was not moved since the call was stored.
pub(crate) unsafe fn cancel(slot: *mut CallSlot) {
    // SAFETY: the caller guarantees that `slot` holds a pending call.
    let (_, runtime) = unsafe { PendingCall::vtable_and_runtime(slot) };
    // Cloned, because `drop_in_slot` drops the handle in the slot.
    let runtime = runtime.clone();
    // A panic is already reported, and the host expects no result.
    // SAFETY: the caller guarantees that `slot` holds a pending call, and no code uses the call after this line.
    let _ = runtime.run(|| unsafe { PendingCall::drop_in_slot(slot) });
}

/// The functions of [`FutureVtable`] for a future of type `F`.
struct TypedFuture<F>(F);

impl<F> TypedFuture<F>
where
    F: Future<Output: Respond> + Send + 'static,
{
    const VTABLE: &'static FutureVtable = &FutureVtable {
        poll: Self::poll,
        drop: Self::drop,
    };

    unsafe fn poll(
        future: *mut u8,
        context: &mut Context<'_>,
        call: &CallContext,
        runtime: &RuntimeScope,
    ) -> u32 {
        // SAFETY: `VTABLE` belongs to a slot with an `F`, so `future` points to an `F`.
        let future = unsafe { &mut *future.cast::<F>() };
        // SAFETY: the host does not move the slot of a pending call, and the future is dropped in the slot.
        let future = unsafe { Pin::new_unchecked(future) };
        match future.poll(context) {
            Poll::Pending => poll::PENDING,
            Poll::Ready(response) => response.respond(context, call, runtime),
        }
    }

    unsafe fn drop(future: *mut u8) {
        // SAFETY: `VTABLE` belongs to a slot with an `F`, and the caller does not use the future after this call.
        unsafe { future.cast::<F>().drop_in_place() };
    }
}
