//! The layout of a [`CallSlot`] while a call is pending: the call's future, the future's vtable, and the runtime in
//! which the future runs.

use std::{
    mem::{self, MaybeUninit},
    ptr,
    task::{Context, Waker},
};

use super::runtime::RuntimeScope;
use crate::{
    abi::{CallContext, CallSlot, poll},
    crossing::with_waker,
    panics::catch,
};

/// The content of a slot between the polls of a call.
#[repr(C, align(16))]
pub(super) struct PendingCall {
    /// The memory of the future. Must stay the first field, because the address of the slot is used as the address of
    /// the future.
    future: [MaybeUninit<u8>; MAX_FUTURE_SIZE],
    vtable: &'static FutureVtable,
    /// The runtime in which the future is polled and dropped.
    runtime: RuntimeScope,
}

/// The number of bytes of a slot that a future may use. The other 32 bytes of the slot hold the vtable and the runtime.
const MAX_FUTURE_SIZE: usize = 480;

/// Returns whether a slot has the size and the alignment for an `F`. A larger future must be boxed.
pub(super) const fn fits_in_slot<F>() -> bool {
    size_of::<F>() <= MAX_FUTURE_SIZE && align_of::<F>() <= 16
}

/// The functions of a future whose type is erased. Their first argument is the address of the future.
pub(super) struct FutureVtable {
    /// Polls the future and, if the future is ready, sends the response to the host. Returns a code of [`poll`].
    pub(super) poll: unsafe fn(*mut u8, &mut Context<'_>, &CallContext, &RuntimeScope) -> u32,
    /// Drops the future in place.
    pub(super) drop: unsafe fn(*mut u8),
}

impl PendingCall {
    /// Creates a future directly in the slot, because moving a large future is expensive. Returns the address of the
    /// future. The slot has no vtable until the caller calls [`write_vtable`](Self::write_vtable).
    ///
    /// # Safety
    ///
    /// `slot` is empty, and only the caller uses the slot during this function.
    pub(super) unsafe fn write_future<F>(slot: *mut CallSlot, make: impl FnOnce() -> F) -> *mut u8 {
        const { assert!(size_of::<Self>() <= size_of::<CallSlot>()) };
        const { assert!(align_of::<Self>() <= align_of::<CallSlot>()) };
        const { assert!(mem::offset_of!(Self, future) == 0) };
        assert!(fits_in_slot::<F>(), "the caller boxes what does not fit");

        let future: *mut u8 = slot.cast();
        // SAFETY: the slot has the size and the alignment for the future, by the assertions above.
        unsafe { future.cast::<F>().write(make()) };
        future
    }

    /// Writes the vtable of the future in the slot, and the runtime. The slot then holds a complete pending call.
    ///
    /// # Safety
    ///
    /// `slot` holds a future from [`write_future`](Self::write_future), and `vtable` belongs to the type of this
    /// future. Only the caller uses the slot during this function.
    pub(super) unsafe fn write_vtable(
        slot: *mut CallSlot,
        vtable: &'static FutureVtable,
        runtime: &RuntimeScope,
    ) {
        // The fields are written by raw pointers, because a reference to the whole struct would be invalid: the other
        // field is uninitialized, and the future may have pointers into itself.
        let pending = slot.cast::<Self>();
        // SAFETY: the slot has the size and the alignment of `Self`, by the assertions in `write_future`.
        let vtable_field = unsafe { &raw mut (*pending).vtable };
        // SAFETY: `vtable_field` points into the slot, and only the caller uses the slot.
        unsafe { vtable_field.write(vtable) };
        // SAFETY: the slot has the size and the alignment of `Self`, by the assertions in `write_future`.
        let runtime_field = unsafe { &raw mut (*pending).runtime };
        // SAFETY: `runtime_field` points into the slot, and only the caller uses the slot.
        unsafe { runtime_field.write(runtime.clone()) };
    }

    /// Returns the vtable of the future in `slot`, and its runtime. Creates no reference to the whole slot, because the
    /// future may have pointers into itself.
    ///
    /// # Safety
    ///
    /// `slot` holds a pending call for `'a`.
    pub(super) unsafe fn vtable_and_runtime<'a>(
        slot: *mut CallSlot,
    ) -> (&'static FutureVtable, &'a RuntimeScope) {
        let pending = slot.cast::<Self>();
        // SAFETY: the caller guarantees that `slot` holds a pending call, so the vtable is initialized.
        let vtable = unsafe { (*pending).vtable };
        // SAFETY: the caller guarantees that `slot` holds a pending call for `'a`, so the runtime is initialized.
        let runtime = unsafe { &(*pending).runtime };
        (vtable, runtime)
    }

    /// Polls the call in `slot`, and returns a code of [`poll`]. The slot is empty afterwards unless the code is
    /// [`poll::PENDING`].
    ///
    /// # Safety
    ///
    /// `slot` holds a pending call, and has not moved since the call started.
    pub(super) unsafe fn poll(slot: *mut CallSlot, call: &CallContext) -> u32 {
        // SAFETY: the caller guarantees that `slot` holds a pending call.
        let (vtable, runtime) = unsafe { Self::vtable_and_runtime(slot) };
        let poll_with = |waker: &Waker| {
            let mut context = Context::from_waker(waker);
            // SAFETY: `vtable` belongs to the future at the beginning of the slot, and the future has not moved.
            unsafe { (vtable.poll)(slot.cast(), &mut context, call, runtime) }
        };
        // SAFETY: the host keeps the waker of a `CallContext` valid until the poll returns.
        let polled = catch(|| unsafe { with_waker(call.waker, poll_with) });
        if polled == Some(poll::PENDING) {
            return poll::PENDING;
        }
        // Two separate `catch`, because the slot must be empty also after a panic of the poll, and the destructor of
        // the future may panic too.
        // SAFETY: `slot` holds a pending call, and the host does not use the content of the slot after this result.
        let dropped = catch(|| unsafe { Self::drop_in_slot(slot) });
        dropped.and(polled).unwrap_or(poll::PANICKED)
    }

    /// Drops the call in `slot`. The slot is empty afterwards, also if the destructor of the future panics.
    ///
    /// # Safety
    ///
    /// `slot` holds a pending call, and has not moved since the call started.
    pub(super) unsafe fn drop_in_slot(slot: *mut CallSlot) {
        // SAFETY: the caller guarantees that `slot` holds a pending call.
        let (vtable, runtime) = unsafe { Self::vtable_and_runtime(slot) };
        // Moved out before the future is dropped, so that a panic of the future's destructor drops the runtime too.
        // SAFETY: the slot counts as empty after this function, so no other code uses or drops this value.
        let _runtime = unsafe { ptr::read(runtime) };
        // SAFETY: `vtable` belongs to the future at the beginning of the slot. The future is dropped only here, because
        // the slot counts as empty afterwards.
        unsafe { (vtable.drop)(slot.cast()) };
    }
}
