//! The slot of a thread in the scoreboard. A thread claims a slot when the thread first enters an app, writes to the
//! slot at each entry and exit, and frees the slot when the thread ends.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use http::Method;

use super::{
    Label, Scoreboard, WorkKind, active,
    layout::{Slot, SlotState, WorkCopy},
    text,
};

/// A guard: until the guard is dropped, the scoreboard shows this thread in an app. Afterwards the scoreboard shows the
/// earlier work of the thread again.
#[must_use = "the thread leaves the app when this is dropped"]
#[derive(Debug)]
pub struct AppScope {
    /// The slot of this thread. `None` if the process has no active scoreboard, or all slots are in use.
    slot: Option<&'static Slot>,
    /// The work in an app that the slot showed before. Nearly always `None`, because an app seldom calls another app.
    outer: Option<Box<SavedWork>>,
    /// Makes the guard `!Send`, because the slot belongs to this thread.
    _thread: PhantomData<*const ()>,
}

/// A copy of the work in a slot. When code of the app runs for the same request again, perhaps on another thread, the
/// copy is written to the slot of that thread.
#[derive(Clone, Copy, Debug)]
pub struct SavedWork(WorkCopy);

/// Shows that this thread calls an app with a request. Long texts are truncated.
#[inline]
pub fn enter_request(label: Label, id: &[u8], method: &Method, path: &str) -> AppScope {
    let Some(slot) = thread_slot() else {
        return AppScope::INACTIVE;
    };
    let (scope, state) = slot.begin();
    let work = &slot.slot.work;
    let id_len = text::store(&work.id, id) as u64;
    let method_len = text::store(&work.method, method.as_str().as_bytes()) as u64;
    let path_len = text::store(&work.path, path.as_bytes()) as u64;
    let lengths = path_len << 32 | method_len << 16 | id_len;
    work.lengths.store(lengths, Ordering::Relaxed);
    slot.end(state.next_working(label.0, WorkKind::Request as u8));
    scope
}

/// Shows that this thread does work in an app that belongs to no request.
pub fn enter(label: Label, kind: WorkKind) -> AppScope {
    let Some(slot) = thread_slot() else {
        return AppScope::INACTIVE;
    };
    let (scope, state) = slot.begin();
    // Lengths of 0 mean that the work belongs to no request. The old texts stay in the slot.
    slot.slot.work.lengths.store(0, Ordering::Relaxed);
    slot.end(state.next_working(label.0, kind as u8));
    scope
}

impl AppScope {
    /// A guard without a slot. Dropping this guard does nothing.
    const INACTIVE: Self = Self {
        slot: None,
        outer: None,
        _thread: PhantomData,
    };

    /// Returns a copy of the work in the slot, so that the app can be [entered](SavedWork::enter) again. Returns `None`
    /// if the guard has no slot.
    #[must_use]
    pub fn save(&self) -> Option<SavedWork> {
        self.slot.map(|slot| SavedWork(slot.work.read()))
    }
}

impl SavedWork {
    /// Shows that this thread runs code of the app again, for the same request.
    pub fn enter(&self, kind: WorkKind) -> AppScope {
        let Some(slot) = thread_slot() else {
            return AppScope::INACTIVE;
        };
        let (scope, state) = slot.begin();
        // The work begins now, not when the copy was made.
        let work = WorkCopy {
            since_ms: slot.clock_ms.load(Ordering::Relaxed),
            ..self.0
        };
        slot.slot.work.write(&work);
        slot.end(state.next_working(self.0.state.label(), kind as u8));
        scope
    }
}

/// Calls [`SavedWork::enter`], or does nothing if `saved_work` is `None`.
pub fn enter_again(saved_work: Option<&SavedWork>, kind: WorkKind) -> AppScope {
    saved_work.map_or(AppScope::INACTIVE, |saved_work| saved_work.enter(kind))
}

impl Drop for AppScope {
    #[inline]
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        if let Some(outer) = self.outer.take() {
            return restore(slot, &outer);
        }
        // Changes the state only: a reader ignores the other words of an idle slot.
        let state = &slot.work.state;
        let current = SlotState(state.load(Ordering::Relaxed));
        state.store(current.next_idle().0, Ordering::Release);
    }
}

/// Shows the outer work again, in the same order of writes as [`ThreadSlot::begin`] and [`ThreadSlot::end`].
#[cold]
fn restore(slot: &Slot, SavedWork(outer): &SavedWork) {
    let state = SlotState(slot.work.state.load(Ordering::Relaxed));
    let writing = state.next_writing();
    slot.work.state.store(writing.0, Ordering::Relaxed);
    fence(Ordering::Release);
    slot.work.write(outer);
    let state = writing.next_working(outer.state.label(), outer.state.kind());
    slot.work.state.store(state.0, Ordering::Release);
}

/// The slot of a thread, and the clock of the scoreboard.
#[derive(Clone, Copy, Debug)]
struct ThreadSlot {
    slot: &'static Slot,
    /// The current time in milliseconds, stored by [`Scoreboard::tick`].
    clock_ms: &'static AtomicU64,
}

impl ThreadSlot {
    /// Marks the words of the slot as being written, until [`end`](Self::end). Returns the guard, and the current
    /// state, from which the caller computes the state for `end`.
    #[inline]
    fn begin(self) -> (AppScope, SlotState) {
        let work = &self.slot.work;
        // Relaxed, because only this thread writes the state.
        let before = SlotState(work.state.load(Ordering::Relaxed));
        // The slot shows only the innermost app, so the work in the outer app is saved in the guard.
        let outer = if before.is_idle() {
            None
        } else {
            Some(self.save_outer())
        };
        let writing = before.next_writing();
        work.state.store(writing.0, Ordering::Relaxed);
        // The fence orders the store of the state above before the stores of the words that follow. A reader that sees
        // one of the new words therefore also sees that the state has changed, and reads again.
        fence(Ordering::Release);
        work.since_ms
            .store(self.clock_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        let scope = AppScope {
            slot: Some(self.slot),
            outer,
            _thread: PhantomData,
        };
        (scope, writing)
    }

    /// Returns a copy of the work that the slot shows now.
    #[cold]
    fn save_outer(self) -> Box<SavedWork> {
        Box::new(SavedWork(self.slot.work.read()))
    }

    /// Writes the state that completes a change.
    #[inline]
    fn end(self, state: SlotState) {
        // Release: a reader that sees the new state also sees all words that belong to the state.
        self.slot.work.state.store(state.0, Ordering::Release);
    }
}

/// Returns the slot of this thread. Claims a free slot if the thread has no slot yet. Returns `None` if the process has
/// no active scoreboard, or all slots are in use.
#[inline]
fn thread_slot() -> Option<ThreadSlot> {
    CURRENT.get().or_else(claim)
}

/// Returns the slot of this thread, or `None` if the thread has no slot. Can be called in a signal handler, because the
/// thread-local has neither a destructor nor an initializer that runs code.
pub(super) fn current() -> Option<&'static Slot> {
    CURRENT.get().map(|current| current.slot)
}

/// Claims a free slot for this thread. Returns `None` if the process has no active scoreboard, or all slots are in use.
#[cold]
fn claim() -> Option<ThreadSlot> {
    let board = active().map(Scoreboard::board)?;
    // The first access registers the destructor that frees the slot. The access fails on a thread that is ending and
    // has run the destructor already: a slot that such a thread claims would never be freed.
    SLOT_RELEASE.try_with(|_| ()).ok()?;
    let thread = u64::from(
        rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs(),
    );
    // Takes the first free slot, so that the slots in use stay near the beginning and readers check few slots.
    let (index, slot) = board.slots.iter().enumerate().find(|(_, slot)| {
        slot.thread
            // Acquire, because the previous owner of the slot frees it with a release store.
            .compare_exchange(0, thread, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    })?;
    board
        .header
        .slot_count
        .fetch_max(index as u64 + 1, Ordering::Relaxed);
    // Always stores 16 bytes, so that zeros replace the end of a longer name of an earlier thread.
    let mut padded_name = [0; 16];
    let name = rustix::thread::name().unwrap_or_default();
    for (to, from) in padded_name.iter_mut().zip(name.as_bytes()) {
        *to = *from;
    }
    text::store(&slot.name, &padded_name);
    let slot = ThreadSlot {
        slot,
        clock_ms: &board.header.clock_ms,
    };
    CURRENT.set(Some(slot));
    Some(slot)
}

/// Frees the slot of a thread when the thread ends.
struct SlotRelease;

impl Drop for SlotRelease {
    fn drop(&mut self) {
        // A thread ends inside an app only if the app calls `exit`, which drops the thread-locals of the calling thread
        // first. In that case the slot is not freed, because the supervisor needs to see the work of the thread.
        if let Some(ThreadSlot { slot, .. }) = CURRENT.get()
            && SlotState(slot.work.state.load(Ordering::Relaxed)).is_idle()
        {
            // Cleared first: after the next line, another thread may own the slot.
            CURRENT.set(None);
            slot.thread.store(0, Ordering::Release);
        }
    }
}

thread_local! {
    /// The slot of this thread.
    static CURRENT: Cell<Option<ThreadSlot>> = const { Cell::new(None) };
    /// Frees the slot when the thread ends.
    static SLOT_RELEASE: SlotRelease = const { SlotRelease };
}
