//! Room for the futures of calls.

use std::{cell::RefCell, ptr};

use crate::abi::CallSlot;

/// Room for a call's future, that stays where it is.
#[derive(Debug)]
pub(super) struct Slot(Option<Box<CallSlot>>);

impl Slot {
    /// One that this thread has left over, or a new one.
    pub(super) fn take() -> Self {
        let slot = SPARE.try_with(|spare| spare.borrow_mut().pop());
        Self(Some(slot.ok().flatten().unwrap_or_default()))
    }

    /// Where it is, which stays so.
    pub(super) fn as_mut(&mut self) -> *mut CallSlot {
        self.0.as_deref_mut().map_or(ptr::null_mut(), ptr::from_mut)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // It is empty again. While the thread ends there is nobody to leave it to.
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
