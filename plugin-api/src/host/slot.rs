//! Memory for the futures of calls, kept from call to call.

use std::{cell::RefCell, ptr};

use crate::abi::CallSlot;

/// Memory for a call's future, with an address that does not change.
#[derive(Debug)]
pub(super) struct Slot(Option<Box<CallSlot>>);

impl Slot {
    /// A slot that this thread keeps, or a new one.
    pub(super) fn take() -> Self {
        let slot = SPARE.try_with(|spare| spare.borrow_mut().pop());
        Self(Some(slot.ok().flatten().unwrap_or_default()))
    }

    /// The address of the slot.
    pub(super) fn as_mut(&mut self) -> *mut CallSlot {
        self.0.as_deref_mut().map_or(ptr::null_mut(), ptr::from_mut)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The slot is empty again. Fails while the thread ends; the slot is freed then.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARES {
                spare.extend(self.0.take());
            }
        });
    }
}

thread_local! {
    #[expect(clippy::vec_box, reason = "a slot stays where it is")]
    static SPARE: RefCell<Vec<Box<CallSlot>>> = const { RefCell::new(Vec::new()) };
}

/// How many slots a thread keeps for later.
const SPARES: usize = 64;
