//! Memory for the futures of calls, with a cache for each thread, so that most calls allocate nothing.

use std::{cell::RefCell, ptr};

use crate::abi::CallSlot;

/// A [`CallSlot`] on the heap, at an address that does not change. The drop returns the memory to the cache of the
/// thread. The call in the slot must have ended before, because the drop does not cancel the call.
#[derive(Debug)]
pub(super) struct Slot(
    /// `None` only while the slot is dropped.
    Option<Box<CallSlot>>,
);

impl Slot {
    /// Returns an empty slot: from the cache of this thread, or a new slot if the cache is empty.
    pub(super) fn take() -> Self {
        // Fails while the thread ends, after its thread-locals were destroyed. The slot is then a new one.
        let slot = CACHED_SLOTS.try_with(|slots| slots.borrow_mut().pop());
        Self(Some(slot.ok().flatten().unwrap_or_default()))
    }

    /// Returns a pointer to the slot.
    pub(super) fn as_mut_ptr(&mut self) -> *mut CallSlot {
        self.0.as_deref_mut().map_or(ptr::null_mut(), ptr::from_mut)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Fails while the thread ends, after its thread-locals were destroyed. The memory is then freed.
        let _ = CACHED_SLOTS.try_with(|slots| {
            let mut slots = slots.borrow_mut();
            if slots.len() < MAX_CACHED_SLOTS {
                slots.extend(self.0.take());
            }
        });
    }
}

thread_local! {
    /// The empty slots of this thread.
    #[expect(clippy::vec_box, reason = "a slot must keep its address")]
    static CACHED_SLOTS: RefCell<Vec<Box<CallSlot>>> = const { RefCell::new(Vec::new()) };
}

/// The maximum number of slots in the cache of a thread.
const MAX_CACHED_SLOTS: usize = 64;
