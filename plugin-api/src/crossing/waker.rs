//! Converts wakers between std and the ABI, in both directions: [`PollWaker`] passes a std waker to the other side, and
//! [`with_waker`] wraps a waker of the other side in a std waker.
//!
//! A std waker may be implemented by the author, so this module catches its panics.

use std::{
    mem::ManuallyDrop,
    sync::Arc,
    task::{RawWaker, RawWakerVTable, Waker},
};

use crate::{abi, panics::catch};

/// Passes the wakers of one call or stream to the other side, poll after poll.
///
/// The first poll passes a [`StackWaker`], which needs no allocation, because most calls end with their first poll.
/// Later polls pass an [`ArcWaker`]. Its address stays the same as long as the polling task is the same. The other side
/// compares addresses (`Waker::will_wake`) to recognize an unchanged waker, and then does not clone the waker again.
#[derive(Debug, Default)]
pub(crate) struct PollWaker {
    was_polled: bool,
    /// The waker of the last poll, from the second poll on.
    stored: Option<Arc<ArcWaker>>,
}

impl PollWaker {
    /// Runs `poll` with an ABI waker for `waker`. The pointer is valid until `poll` returns.
    pub(crate) fn with_abi<R>(
        &mut self,
        waker: &Waker,
        poll: impl FnOnce(*const abi::Waker) -> R,
    ) -> R {
        if !self.was_polled {
            self.was_polled = true;
            let on_stack = StackWaker {
                head: abi::Waker {
                    vtable: &STACK_VTABLE,
                },
                waker,
            };
            return poll((&raw const on_stack).cast());
        }
        let stored = match &self.stored {
            Some(stored) if stored.waker.will_wake(waker) => stored,
            _ => self.stored.insert(ArcWaker::new(waker)),
        };
        // The pointer is borrowed: it has no reference count of its own. The other side adds a count when it clones the
        // waker.
        poll(Arc::as_ptr(stored).cast())
    }
}

/// An ABI waker on the stack of the polling thread. Valid only during one poll.
#[repr(C)]
struct StackWaker<'a> {
    head: abi::Waker,
    waker: &'a Waker,
}

/// An ABI waker in an `Arc`. Each clone that the other side owns is one reference count.
#[repr(C)]
#[derive(Debug)]
struct ArcWaker {
    head: abi::Waker,
    waker: Waker,
}

// SAFETY: `head` points to a static, and a `Waker` is `Send`.
unsafe impl Send for ArcWaker {}
// SAFETY: `head` points to a static, and a `Waker` is `Sync`.
unsafe impl Sync for ArcWaker {}

impl ArcWaker {
    fn new(waker: &Waker) -> Arc<Self> {
        Arc::new(Self {
            head: abi::Waker {
                vtable: &ARC_VTABLE,
            },
            waker: waker.clone(),
        })
    }
}

static STACK_VTABLE: abi::WakerVtable = abi::WakerVtable {
    size: size_of::<abi::WakerVtable>(),
    clone: stack_clone,
    wake: stack_wake,
    wake_by_ref: stack_wake,
    drop: stack_drop,
};

static ARC_VTABLE: abi::WakerVtable = abi::WakerVtable {
    size: size_of::<abi::WakerVtable>(),
    clone: arc_clone,
    wake: arc_wake,
    wake_by_ref: arc_wake_by_ref,
    drop: arc_drop,
};

// A clone may outlive the poll, so the clone of a `StackWaker` is an `ArcWaker`.
unsafe extern "C" fn stack_clone(waker: *const abi::Waker) -> *const abi::Waker {
    // SAFETY: `STACK_VTABLE` belongs to a `StackWaker`, which is valid until the poll returns.
    let on_stack = unsafe { &*waker.cast::<StackWaker<'_>>() };
    let clone = catch(|| ArcWaker::new(on_stack.waker));
    // The function must return a waker even if the author's `clone` has panicked. This one wakes no task.
    let clone = clone.unwrap_or_else(|| ArcWaker::new(Waker::noop()));
    Arc::into_raw(clone).cast()
}

unsafe extern "C" fn stack_wake(waker: *const abi::Waker) {
    // SAFETY: `STACK_VTABLE` belongs to a `StackWaker`, which is valid until the poll returns.
    let on_stack = unsafe { &*waker.cast::<StackWaker<'_>>() };
    let _ = catch(|| on_stack.waker.wake_by_ref());
}

// The stack frame of the poll owns the waker.
unsafe extern "C" fn stack_drop(_: *const abi::Waker) {}

unsafe extern "C" fn arc_clone(waker: *const abi::Waker) -> *const abi::Waker {
    // SAFETY: `ARC_VTABLE` belongs to an `ArcWaker`, and a valid waker has at least one reference count.
    unsafe { Arc::increment_strong_count(waker.cast::<ArcWaker>()) };
    waker
}

unsafe extern "C" fn arc_wake(waker: *const abi::Waker) {
    // SAFETY: `ARC_VTABLE` belongs to an `ArcWaker`, and the caller passes on the reference count that it owns.
    let waker = unsafe { Arc::from_raw(waker.cast::<ArcWaker>()) };
    let _ = catch(move || waker.waker.wake_by_ref());
}

unsafe extern "C" fn arc_wake_by_ref(waker: *const abi::Waker) {
    // SAFETY: `ARC_VTABLE` belongs to an `ArcWaker`, which is valid during the call.
    let waker = unsafe { &*waker.cast::<ArcWaker>() };
    let _ = catch(|| waker.waker.wake_by_ref());
}

unsafe extern "C" fn arc_drop(waker: *const abi::Waker) {
    // SAFETY: `ARC_VTABLE` belongs to an `ArcWaker`, and the caller passes on the reference count that it owns.
    let waker = unsafe { Arc::from_raw(waker.cast::<ArcWaker>()) };
    let _ = catch(move || drop(waker));
}

/// Runs `work` with a std waker that forwards to `waker`, a waker of the other side.
///
/// # Safety
///
/// `waker` is valid until this function returns.
pub(crate) unsafe fn with_waker<R>(waker: *const abi::Waker, work: impl FnOnce(&Waker) -> R) -> R {
    // SAFETY: the functions of `FOREIGN_VTABLE` expect a pointer to an ABI waker, and the contract of `WakerVtable`
    // includes that of `RawWaker`.
    let waker = unsafe { Waker::from_raw(RawWaker::new(waker.cast(), &FOREIGN_VTABLE)) };
    // `waker` is borrowed, so its destructor must not run: it would release a waker that this side does not own.
    work(&ManuallyDrop::new(waker))
}

/// The functions of a std waker that forwards to a waker of the other side.
static FOREIGN_VTABLE: RawWakerVTable = RawWakerVTable::new(
    foreign_clone,
    foreign_wake,
    foreign_wake_by_ref,
    foreign_drop,
);

/// Returns the table of an ABI waker.
///
/// # Safety
///
/// `waker` points to a valid ABI waker.
unsafe fn foreign_vtable<'a>(waker: *const ()) -> &'a abi::WakerVtable {
    // SAFETY: the caller guarantees that `waker` points to a valid ABI waker.
    let head = unsafe { &*waker.cast::<abi::Waker>() };
    // SAFETY: the table is never freed, because it is a static of a library that is never unloaded.
    unsafe { &*head.vtable }
}

unsafe fn foreign_clone(waker: *const ()) -> RawWaker {
    // SAFETY: std passes the data pointer of a `RawWaker` from this module, which is a valid ABI waker.
    let vtable = unsafe { foreign_vtable(waker) };
    // SAFETY: `waker` is a valid ABI waker with this table.
    let clone = unsafe { (vtable.clone)(waker.cast()) };
    RawWaker::new(clone.cast(), &FOREIGN_VTABLE)
}

unsafe fn foreign_wake(waker: *const ()) {
    // SAFETY: std passes the data pointer of a `RawWaker` from this module, which is a valid ABI waker.
    let vtable = unsafe { foreign_vtable(waker) };
    // SAFETY: std calls `wake` once, for an owned waker.
    unsafe { (vtable.wake)(waker.cast()) };
}

unsafe fn foreign_wake_by_ref(waker: *const ()) {
    // SAFETY: std passes the data pointer of a `RawWaker` from this module, which is a valid ABI waker.
    let vtable = unsafe { foreign_vtable(waker) };
    // SAFETY: `waker` is a valid ABI waker with this table.
    unsafe { (vtable.wake_by_ref)(waker.cast()) };
}

unsafe fn foreign_drop(waker: *const ()) {
    // SAFETY: std passes the data pointer of a `RawWaker` from this module, which is a valid ABI waker.
    let vtable = unsafe { foreign_vtable(waker) };
    // SAFETY: std calls `drop` once, for an owned waker.
    unsafe { (vtable.drop)(waker.cast()) };
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waker_that_crossed_wakes_and_is_given_back() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut poll_waker = PollWaker::default();
        let cross = |poll_waker: &mut PollWaker| {
            // SAFETY: the pointer is valid within the closure.
            poll_waker.with_abi(&waker, |pointer| unsafe {
                with_waker(pointer, |foreign| foreign.clone())
            })
        };
        let first = cross(&mut poll_waker);
        first.wake_by_ref();
        first.wake();
        let second = cross(&mut poll_waker);
        let third = cross(&mut poll_waker);
        // Under Miri, std's waker table of an `Arc` has several addresses, so `will_wake` is unreliable there.
        assert!(
            cfg!(miri) || second.will_wake(&third),
            "the same task is the same waker from the second poll on"
        );
        second.wake_by_ref();
        drop(second);
        third.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 4);
        drop(poll_waker);
        assert_eq!(Arc::strong_count(&count), 2, "this test's, and `waker`'s");
    }
}
