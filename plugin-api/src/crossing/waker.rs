//! Wakers, both ways: a std waker handed across, and a foreign one used as a std waker.
//!
//! A waker may be the author's own, so its panics are caught.

use std::{
    mem::ManuallyDrop,
    sync::Arc,
    task::{RawWaker, RawWakerVTable, Waker},
};

use crate::{abi, panics::catch};

/// Hands the wakers of one task across, poll after poll.
///
/// The first poll lends the waker from the stack, without an allocation, because most calls end with their first poll.
/// From the second poll on the waker is in an `Arc`. The other side then sees the same address as long as the task is
/// the same, and std's `Waker::will_wake` compares addresses.
#[derive(Debug, Default)]
pub(crate) struct PollWaker {
    polled: bool,
    kept: Option<Arc<Kept>>,
}

impl PollWaker {
    /// Runs `poll` with a pointer that stands for `waker`, valid until `poll` returns.
    pub(crate) fn lend<R>(
        &mut self,
        waker: &Waker,
        poll: impl FnOnce(*const abi::Waker) -> R,
    ) -> R {
        if !self.polled {
            self.polled = true;
            let lent = Lent {
                head: abi::Waker { vtable: &LENT },
                waker,
            };
            return poll((&raw const lent).cast());
        }
        let kept = match &self.kept {
            Some(kept) if kept.waker.will_wake(waker) => kept,
            _ => self.kept.insert(Kept::new(waker)),
        };
        poll(Arc::as_ptr(kept).cast())
    }
}

/// A waker on the stack of the poller.
#[repr(C)]
struct Lent<'a> {
    head: abi::Waker,
    waker: &'a Waker,
}

/// A waker in an `Arc`. The other side owns some of its counts.
#[repr(C)]
#[derive(Debug)]
struct Kept {
    head: abi::Waker,
    waker: Waker,
}

// SAFETY: the head is a pointer to a static, and a `Waker` may be used on any thread.
unsafe impl Send for Kept {}
// SAFETY: as above.
unsafe impl Sync for Kept {}

impl Kept {
    fn new(waker: &Waker) -> Arc<Self> {
        Arc::new(Self {
            head: abi::Waker { vtable: &KEPT },
            waker: waker.clone(),
        })
    }
}

static LENT: abi::WakerVtable = abi::WakerVtable {
    size: size_of::<abi::WakerVtable>(),
    clone: lent_clone,
    wake: lent_wake,
    wake_by_ref: lent_wake,
    drop: lent_drop,
};

static KEPT: abi::WakerVtable = abi::WakerVtable {
    size: size_of::<abi::WakerVtable>(),
    clone: kept_clone,
    wake: kept_wake,
    wake_by_ref: kept_wake_by_ref,
    drop: kept_drop,
};

unsafe extern "C" fn lent_clone(waker: *const abi::Waker) -> *const abi::Waker {
    // SAFETY: this table goes with a `Lent`, which lives until the poll returns.
    let lent = unsafe { &*waker.cast::<Lent<'_>>() };
    let kept = catch(|| Kept::new(lent.waker));
    // A waker that cannot be cloned wakes nobody.
    let kept = kept.unwrap_or_else(|| Kept::new(Waker::noop()));
    Arc::into_raw(kept).cast()
}

unsafe extern "C" fn lent_wake(waker: *const abi::Waker) {
    // SAFETY: this table goes with a `Lent`, which lives until the poll returns.
    let lent = unsafe { &*waker.cast::<Lent<'_>>() };
    let _ = catch(|| lent.waker.wake_by_ref());
}

unsafe extern "C" fn lent_drop(_: *const abi::Waker) {}

unsafe extern "C" fn kept_clone(waker: *const abi::Waker) -> *const abi::Waker {
    // SAFETY: this table goes with a `Kept`, of which the caller has a count.
    unsafe { Arc::increment_strong_count(waker.cast::<Kept>()) };
    waker
}

unsafe extern "C" fn kept_wake(waker: *const abi::Waker) {
    // SAFETY: the caller gives its count back.
    let kept = unsafe { Arc::from_raw(waker.cast::<Kept>()) };
    let _ = catch(move || kept.waker.wake_by_ref());
}

unsafe extern "C" fn kept_wake_by_ref(waker: *const abi::Waker) {
    // SAFETY: this table goes with a `Kept`, of which the caller has a count.
    let kept = unsafe { &*waker.cast::<Kept>() };
    let _ = catch(|| kept.waker.wake_by_ref());
}

unsafe extern "C" fn kept_drop(waker: *const abi::Waker) {
    // SAFETY: the caller gives its count back.
    let kept = unsafe { Arc::from_raw(waker.cast::<Kept>()) };
    let _ = catch(move || drop(kept));
}

/// Runs `work` with a std waker that stands for a foreign one.
///
/// # Safety
///
/// `waker` is valid until this returns.
pub(crate) unsafe fn with_waker<R>(waker: *const abi::Waker, work: impl FnOnce(&Waker) -> R) -> R {
    // SAFETY: the functions of `FOREIGN` take pointers to foreign wakers, and keep the contract of
    // `RawWaker` because the other side's table does.
    let waker = unsafe { Waker::from_raw(RawWaker::new(waker.cast(), &FOREIGN)) };
    // The waker is borrowed, so its count must not be given back.
    work(&ManuallyDrop::new(waker))
}

static FOREIGN: RawWakerVTable = RawWakerVTable::new(
    foreign_clone,
    foreign_wake,
    foreign_wake_by_ref,
    foreign_drop,
);

unsafe fn foreign_vtable<'a>(waker: *const ()) -> &'a abi::WakerVtable {
    // SAFETY: std passes the pointer that the waker was made with, which is still valid.
    let head = unsafe { &*waker.cast::<abi::Waker>() };
    // SAFETY: tables of functions are static in libraries that are never unloaded.
    unsafe { &*head.vtable }
}

unsafe fn foreign_clone(waker: *const ()) -> RawWaker {
    // SAFETY: as std promises.
    let vtable = unsafe { foreign_vtable(waker) };
    // SAFETY: the pointer is valid, by the same promise.
    let clone = unsafe { (vtable.clone)(waker.cast()) };
    RawWaker::new(clone.cast(), &FOREIGN)
}

unsafe fn foreign_wake(waker: *const ()) {
    // SAFETY: as std promises.
    let vtable = unsafe { foreign_vtable(waker) };
    // SAFETY: the waker is owned, and given back here.
    unsafe { (vtable.wake)(waker.cast()) };
}

unsafe fn foreign_wake_by_ref(waker: *const ()) {
    // SAFETY: as std promises.
    let vtable = unsafe { foreign_vtable(waker) };
    // SAFETY: the pointer is valid, by the same promise.
    unsafe { (vtable.wake_by_ref)(waker.cast()) };
}

unsafe fn foreign_drop(waker: *const ()) {
    // SAFETY: as std promises.
    let vtable = unsafe { foreign_vtable(waker) };
    // SAFETY: the waker is owned, and given back here.
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
        let mut lend = PollWaker::default();
        let cross = |lend: &mut PollWaker| {
            // SAFETY: the pointer is used while it is lent.
            lend.lend(&waker, |lent| unsafe {
                with_waker(lent, |foreign| foreign.clone())
            })
        };
        let first = cross(&mut lend);
        first.wake_by_ref();
        first.wake();
        let second = cross(&mut lend);
        let third = cross(&mut lend);
        // Miri gives std's table for `Arc` one address here and another there.
        assert!(
            cfg!(miri) || second.will_wake(&third),
            "the same task is the same waker from the second poll on"
        );
        second.wake_by_ref();
        drop(second);
        third.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 4);
        drop(lend);
        assert_eq!(Arc::strong_count(&count), 2, "this test's, and `waker`'s");
    }
}
