//! One call of the app: its future in the host's slot, polled until it gives a response.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::{
    response::Respond,
    runtime::Entered,
    slot::{Filled, Operations, fits},
};
use crate::{
    abi::{CallContext, CallSlot, poll},
    crossing::{Guard, with_waker},
    panics::catch,
};

/// A call before its future is made: what that needs.
pub struct Start<'a> {
    /// Empty, and the plugin's until the call returns.
    pub(crate) slot: *mut CallSlot,
    pub(crate) context: &'a CallContext,
    pub(crate) runtime: &'a Entered,
}

impl Start<'_> {
    /// Puts the future that `make` gives into the slot and polls it once. Returns the result of
    /// [`Plugin::call`](crate::abi::Plugin::call); the slot is empty unless that is pending.
    ///
    /// Call this under [`Guard::poll`]. None of the author's code may run between this and the end of the guard,
    /// because a panic would then end a call whose future is in the slot.
    pub(crate) fn run<F>(self, make: impl FnOnce() -> F) -> u32
    where
        F: Future<Output: Respond> + Send + 'static,
    {
        if fits::<F>() {
            self.start(make)
        } else {
            self.start(|| Box::pin(make()))
        }
    }

    fn start<F>(self, make: impl FnOnce() -> F) -> u32
    where
        F: Future<Output: Respond> + Send + 'static,
    {
        // SAFETY: the slot is there for this call, and holds nothing before.
        let place = unsafe { Filled::put(self.slot, make) };
        let poll = |context: &mut Context<'_>| {
            // SAFETY: the future was put there just now.
            unsafe { Typed::<F>::poll(place, context, self.context, self.runtime) }
        };
        let polled = catch(|| self.with_context(poll));
        if polled == Some(poll::PENDING) {
            // SAFETY: the slot is there for this call.
            unsafe { Filled::complete(self.slot, Typed::<F>::OPERATIONS, self.runtime) };
            return poll::PENDING;
        }
        // SAFETY: the future is there, and nobody looks at it after this.
        let dropped = catch(|| unsafe { Typed::<F>::drop(place) });
        dropped.and(polled).unwrap_or(poll::PANICKED)
    }

    /// Runs `work` with the waker of the call.
    pub(crate) fn with_context<R>(&self, work: impl FnOnce(&mut Context<'_>) -> R) -> R {
        let work = |waker: &Waker| work(&mut Context::from_waker(waker));
        // SAFETY: the host lends the waker for the call, which lasts longer than `self`.
        unsafe { with_waker(self.context.waker, work) }
    }
}

/// Does a step of a call in the app's runtime.
///
/// If the author's code leaked a guard of tokio's, leaving the runtime panics after the step. A call that is pending
/// then cannot go on: the slot is emptied, and the result is [`poll::PANICKED`].
///
/// # Safety
///
/// `slot` is the plugin's for now, and holds a call when `step` says that one is pending.
pub(crate) unsafe fn step(
    runtime: &Entered,
    slot: *mut CallSlot,
    step: impl FnOnce() -> u32,
) -> u32 {
    let mut outcome = poll::PANICKED;
    let left = runtime.poll(|| outcome = step());
    if left.is_none() && outcome == poll::PENDING {
        // SAFETY: the caller says so.
        let _ = catch(|| unsafe { Filled::empty(slot) });
        return poll::PANICKED;
    }
    outcome
}

/// Polls a call that is pending, in the app's runtime.
///
/// # Safety
///
/// `slot` holds a pending call, and has not moved since.
pub(crate) unsafe fn poll_pending(slot: *mut CallSlot, context: &CallContext) -> u32 {
    // SAFETY: the caller says so.
    let (_, runtime) = unsafe { Filled::of(slot) };
    let runtime = runtime.clone();
    // SAFETY: the caller says so.
    let poll = || unsafe { Filled::poll(slot, context) };
    // SAFETY: the slot is filled for as long as it is pending.
    unsafe { step(&runtime, slot, poll) }
}

/// Drops a call that is pending, in the app's runtime.
///
/// # Safety
///
/// `slot` holds a pending call, and has not moved since.
pub(crate) unsafe fn cancel(slot: *mut CallSlot) {
    // SAFETY: the caller says so.
    let (_, runtime) = unsafe { Filled::of(slot) };
    let runtime = runtime.clone();
    // SAFETY: the caller says so. A panic has been reported.
    let _ = runtime.run(|| unsafe { Filled::empty(slot) });
}

struct Typed<F>(F);

impl<F> Typed<F>
where
    F: Future<Output: Respond> + Send + 'static,
{
    const OPERATIONS: &'static Operations = &Operations {
        poll: Self::poll,
        drop: Self::drop,
    };

    unsafe fn poll(
        future: *mut u8,
        context: &mut Context<'_>,
        call: &CallContext,
        runtime: &Entered,
    ) -> u32 {
        // SAFETY: an `F` is there.
        let future = unsafe { &mut *future.cast::<F>() };
        // SAFETY: it stays in its place until it is dropped.
        let future = unsafe { Pin::new_unchecked(future) };
        match future.poll(context) {
            Poll::Pending => poll::PENDING,
            Poll::Ready(response) => response.respond(context, call, runtime),
        }
    }

    unsafe fn drop(future: *mut u8) {
        // SAFETY: an `F` is there, and nobody looks at it after this.
        unsafe { future.cast::<F>().drop_in_place() };
    }
}
