//! The content of a host's slot while a call is pending: the call's future, its functions, and its runtime.

use std::{
    mem::{self, MaybeUninit},
    ptr,
    task::{Context, Waker},
};

use super::runtime::Entered;
use crate::{
    abi::{CallContext, CallSlot, poll},
    crossing::with_waker,
    panics::catch,
};

/// The content of a slot between the polls of a call.
#[repr(C, align(16))]
pub(super) struct Filled {
    future: [MaybeUninit<u8>; ROOM],
    operations: &'static Operations,
    runtime: Entered,
}

/// The bytes of a slot that a future may use.
const ROOM: usize = 480;

pub(super) const fn fits<F>() -> bool {
    size_of::<F>() <= ROOM && align_of::<F>() <= 16
}

/// The functions of the future in a slot, which alone know its type.
pub(super) struct Operations {
    pub(super) poll: unsafe fn(*mut u8, &mut Context<'_>, &CallContext, &Entered) -> u32,
    pub(super) drop: unsafe fn(*mut u8),
}

impl Filled {
    /// Makes a future in the slot, because futures are large to move. Returns its address.
    ///
    /// # Safety
    ///
    /// `slot` is the plugin's for now, and holds nothing.
    pub(super) unsafe fn put<F>(slot: *mut CallSlot, make: impl FnOnce() -> F) -> *mut u8 {
        const { assert!(size_of::<Self>() <= size_of::<CallSlot>()) };
        const { assert!(align_of::<Self>() <= align_of::<CallSlot>()) };
        const { assert!(mem::offset_of!(Self, future) == 0) };
        assert!(fits::<F>(), "the caller boxes what does not fit");

        let place: *mut u8 = slot.cast();
        // SAFETY: there is room for the future, by the checks above.
        unsafe { place.cast::<F>().write(make()) };
        place
    }

    /// Adds the functions of the future that is in the slot, and its runtime.
    ///
    /// # Safety
    ///
    /// `slot` is the plugin's for now.
    pub(super) unsafe fn complete(
        slot: *mut CallSlot,
        operations: &'static Operations,
        runtime: &Entered,
    ) {
        let filled = slot.cast::<Self>();
        // SAFETY: the slot has the room and the alignment, by the assertions in `put`.
        let to_operations = unsafe { &raw mut (*filled).operations };
        // SAFETY: as above.
        unsafe { to_operations.write(operations) };
        // SAFETY: as above.
        let to_runtime = unsafe { &raw mut (*filled).runtime };
        // SAFETY: as above.
        unsafe { to_runtime.write(runtime.clone()) };
    }

    /// The functions of the future in `slot`, and its runtime. The result is no reference to the whole slot, because
    /// the future may have pointers into itself.
    ///
    /// # Safety
    ///
    /// `slot` is filled, and stays so for `'a`.
    pub(super) unsafe fn of<'a>(slot: *mut CallSlot) -> (&'static Operations, &'a Entered) {
        let filled = slot.cast::<Self>();
        // SAFETY: the caller says so.
        let operations = unsafe { (*filled).operations };
        // SAFETY: as above.
        let runtime = unsafe { &(*filled).runtime };
        (operations, runtime)
    }

    /// Polls the call in `slot`, and empties the slot unless it is still pending.
    ///
    /// # Safety
    ///
    /// The slot is filled, and has not moved since.
    pub(super) unsafe fn poll(slot: *mut CallSlot, call: &CallContext) -> u32 {
        // SAFETY: the caller says so.
        let (operations, runtime) = unsafe { Self::of(slot) };
        let poll_with = |waker: &Waker| {
            let mut context = Context::from_waker(waker);
            // SAFETY: `operations` were stored for the future that is there.
            unsafe { (operations.poll)(slot.cast(), &mut context, call, runtime) }
        };
        // SAFETY: the waker is lent until this returns.
        let polled = catch(|| unsafe { with_waker(call.waker, poll_with) });
        if polled == Some(poll::PENDING) {
            return poll::PENDING;
        }
        // SAFETY: the slot is filled, and nobody looks at it after this.
        let emptied = catch(|| unsafe { Self::empty(slot) });
        emptied.and(polled).unwrap_or(poll::PANICKED)
    }

    /// Drops what is in `slot`.
    ///
    /// # Safety
    ///
    /// The slot is filled; it is not any more then.
    pub(super) unsafe fn empty(slot: *mut CallSlot) {
        // SAFETY: the caller says so.
        let (operations, runtime) = unsafe { Self::of(slot) };
        // SAFETY: it is taken out once.
        let _runtime = unsafe { ptr::read(runtime) };
        // SAFETY: `operations` were stored for the future that is there, and it is dropped once.
        unsafe { (operations.drop)(slot.cast()) };
    }
}
