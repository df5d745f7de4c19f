//! The slot of a thread in the scoreboard. A thread claims one at first use, writes to it when it enters or leaves an app,
//! and gives it back when it ends.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use http::Method;

use super::{
    Label, Scoreboard, WorkKind,
    layout::{Slot, SlotState, Words},
    serving, text,
};

/// The scoreboard shows this thread in an app until this is dropped, and then what the thread was doing before.
#[must_use = "the thread leaves the app when this is dropped"]
#[derive(Debug)]
pub struct AppScope {
    /// None when the process has no scoreboard, or no slot is left.
    slot: Option<&'static Slot>,
    /// The work that the thread was doing in an app before. Nearly always None: an app seldom calls into another one.
    outer: Option<Box<WorkNote>>,
    /// Keeps this from being sent to another thread, because the slot belongs to this one.
    _thread: PhantomData<*const ()>,
}

/// A copy of a thread's entry for a request, for when code of the app runs for the request again, perhaps on another
/// thread.
#[derive(Clone, Copy, Debug)]
pub struct WorkNote(Words);

/// Shows that this thread calls an app with a request. Long texts are cut off.
#[inline]
pub fn enter_request(label: Label, id: &[u8], method: &Method, path: &str) -> AppScope {
    let Some(slot) = thread_slot() else {
        return AppScope::NOWHERE;
    };
    let (entered, state) = slot.begin();
    let work = &slot.slot.work;
    let id = text::store(&work.id, id) as u64;
    let method = text::store(&work.method, method.as_str().as_bytes()) as u64;
    let path = text::store(&work.path, path.as_bytes()) as u64;
    let lengths = path << 32 | method << 16 | id;
    work.lengths.store(lengths, Ordering::Relaxed);
    slot.end(state.next(label.0, WorkKind::Request as u8));
    entered
}

/// Shows that this thread works in an app, but not for a request.
pub fn enter(label: Label, kind: WorkKind) -> AppScope {
    let Some(slot) = thread_slot() else {
        return AppScope::NOWHERE;
    };
    let (entered, state) = slot.begin();
    slot.slot.work.lengths.store(0, Ordering::Relaxed);
    slot.end(state.next(label.0, kind as u8));
    entered
}

impl AppScope {
    const NOWHERE: Self = Self {
        slot: None,
        outer: None,
        _thread: PhantomData,
    };

    /// Returns what is stored about the request, to [enter](WorkNote::enter) the app again.
    #[must_use]
    pub fn note(&self) -> Option<WorkNote> {
        self.slot.map(|slot| WorkNote(slot.work.read()))
    }
}

impl WorkNote {
    /// Shows that this thread runs code of the app for the request again.
    pub fn enter(&self, kind: WorkKind) -> AppScope {
        let Some(slot) = thread_slot() else {
            return AppScope::NOWHERE;
        };
        let (entered, state) = slot.begin();
        let words = Words {
            since: slot.tick.load(Ordering::Relaxed),
            ..self.0
        };
        slot.slot.work.write(&words);
        slot.end(state.next(self.0.state.label(), kind as u8));
        entered
    }
}

/// Calls [`WorkNote::enter`] if there is a note.
pub fn enter_again(note: Option<&WorkNote>, kind: WorkKind) -> AppScope {
    note.map_or(AppScope::NOWHERE, |note| note.enter(kind))
}

impl Drop for AppScope {
    #[inline]
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        if let Some(outer) = self.outer.take() {
            return restore(slot, &outer);
        }
        let state = &slot.work.state;
        let now = SlotState(state.load(Ordering::Relaxed));
        state.store(now.next_idle().0, Ordering::Release);
    }
}

/// Shows again what the thread was doing before.
#[cold]
fn restore(slot: &Slot, WorkNote(outer): &WorkNote) {
    let state = SlotState(slot.work.state.load(Ordering::Relaxed));
    let writing = state.next_writing();
    slot.work.state.store(writing.0, Ordering::Relaxed);
    fence(Ordering::Release);
    slot.work.write(outer);
    let state = writing.next(outer.state.label(), outer.state.kind());
    slot.work.state.store(state.0, Ordering::Release);
}

/// The slot of a thread, and the clock for it.
#[derive(Clone, Copy, Debug)]
struct ThreadSlot {
    slot: &'static Slot,
    /// The current time, see [`Scoreboard::tick`].
    tick: &'static AtomicU64,
}

impl ThreadSlot {
    /// Marks the words as being written, until [`end`](Self::end). Returns the guard, and the state to continue from.
    #[inline]
    fn begin(self) -> (AppScope, SlotState) {
        let work = &self.slot.work;
        let before = SlotState(work.state.load(Ordering::Relaxed));
        let outer = if before.is_idle() {
            None
        } else {
            Some(self.outer())
        };
        let writing = before.next_writing();
        work.state.store(writing.0, Ordering::Relaxed);
        // Orders the state above before the words below: a reader that sees one of these words also sees the state, and
        // knows that it has to read again.
        fence(Ordering::Release);
        work.since
            .store(self.tick.load(Ordering::Relaxed), Ordering::Relaxed);
        let entered = AppScope {
            slot: Some(self.slot),
            outer,
            _thread: PhantomData,
        };
        (entered, writing)
    }

    /// Copies what the thread is doing in an app now.
    #[cold]
    fn outer(self) -> Box<WorkNote> {
        Box::new(WorkNote(self.slot.work.read()))
    }

    /// Writes the state that completes a change.
    #[inline]
    fn end(self, state: SlotState) {
        self.slot.work.state.store(state.0, Ordering::Release);
    }
}

/// Returns the slot of this thread, and claims one if need be. None when there is none.
#[inline]
fn thread_slot() -> Option<ThreadSlot> {
    CURRENT.get().or_else(claim)
}

/// Returns the slot of this thread, if it has one. Can be called in a signal handler, because the thread-local has neither
/// a destructor nor an initializer that runs code.
pub(super) fn current() -> Option<&'static Slot> {
    CURRENT.get().map(|current| current.slot)
}

/// Claims a free slot for this thread.
#[cold]
fn claim() -> Option<ThreadSlot> {
    let board = serving().map(Scoreboard::board)?;
    // The first access registers the destructor that gives the slot back. It fails on a thread that ends and
    // has given its slot back already.
    OWNED.try_with(|_| ()).ok()?;
    let thread = u64::from(
        rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs(),
    );
    // Slots near the beginning are used again first, so that readers look at few.
    let (number, slot) = board.slots.iter().enumerate().find(|(_, slot)| {
        slot.thread
            .compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    })?;
    board
        .header
        .slots
        .fetch_max(number as u64 + 1, Ordering::Relaxed);
    // 16 bytes in any case, so that zeros replace the end of an earlier name.
    let mut name = [0; 16];
    let named = rustix::thread::name().unwrap_or_default();
    for (to, from) in name.iter_mut().zip(named.as_bytes()) {
        *to = *from;
    }
    text::store(&slot.name, &name);
    let slot = ThreadSlot {
        slot,
        tick: &board.header.tick,
    };
    CURRENT.set(Some(slot));
    Some(slot)
}

/// Gives the slot of a thread back when it is dropped.
struct SlotReturn;

impl Drop for SlotReturn {
    fn drop(&mut self) {
        // A thread does not end inside an app, unless it called `exit` there, which drops thread-locals first. Then the
        // slot stays, because the supervisor has to see what the thread was doing.
        if let Some(ThreadSlot { slot, .. }) = CURRENT.get()
            && SlotState(slot.work.state.load(Ordering::Relaxed)).is_idle()
        {
            CURRENT.set(None);
            slot.thread.store(0, Ordering::Release);
        }
    }
}

thread_local! {
    /// The slot of this thread.
    static CURRENT: Cell<Option<ThreadSlot>> = const { Cell::new(None) };
    /// Gives the slot back when the thread ends.
    static OWNED: SlotReturn = const { SlotReturn };
}
