//! A thread's slot in the scoreboard: had at first use, written when the thread enters or leaves an app, given back when
//! the thread ends.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use http::Method;

use super::{
    Doing, Label, Scoreboard,
    layout::{Slot, State, Words},
    serving, text,
};

/// The thread is in an app until this is dropped; then it does again what it did before.
#[must_use = "the thread leaves the app when this is dropped"]
#[derive(Debug)]
pub struct Entered {
    /// None where there is no scoreboard, or no slot left.
    slot: Option<&'static Slot>,
    /// What the thread did before, where that was something: hardly ever.
    outer: Option<Box<Note>>,
    /// The slot is this thread's.
    _thread: PhantomData<*const ()>,
}

/// What a thread noted of a request: for when the request goes on later, maybe on another thread.
#[derive(Clone, Copy, Debug)]
pub struct Note(Words);

/// This thread calls an app with a request. `id` and `path` are kept as far as there is room.
#[inline]
pub fn enter_request(label: Label, id: &[u8], method: &Method, path: &str) -> Entered {
    let Some(place) = place() else {
        return Entered::NOWHERE;
    };
    let (entered, state) = place.begin();
    let work = &place.slot.work;
    let id = text::store(&work.id, id) as u64;
    let method = text::store(&work.method, method.as_str().as_bytes()) as u64;
    let path = text::store(&work.path, path.as_bytes()) as u64;
    let lengths = path << 32 | method << 16 | id;
    work.lengths.store(lengths, Ordering::Relaxed);
    place.end(state.next(label.0, Doing::Request as u8));
    entered
}

/// This thread does something for an app, and not for a request.
pub fn enter(label: Label, doing: Doing) -> Entered {
    let Some(place) = place() else {
        return Entered::NOWHERE;
    };
    let (entered, state) = place.begin();
    place.slot.work.lengths.store(0, Ordering::Relaxed);
    place.end(state.next(label.0, doing as u8));
    entered
}

impl Entered {
    const NOWHERE: Self = Self {
        slot: None,
        outer: None,
        _thread: PhantomData,
    };

    /// What was noted on entering, to [enter](Note::enter) by again.
    #[must_use]
    pub fn note(&self) -> Option<Note> {
        self.slot.map(|slot| Note(slot.work.read()))
    }
}

impl Note {
    /// This thread goes on with the request.
    pub fn enter(&self, doing: Doing) -> Entered {
        let Some(place) = place() else {
            return Entered::NOWHERE;
        };
        let (entered, state) = place.begin();
        let words = Words {
            since: place.tick.load(Ordering::Relaxed),
            ..self.0
        };
        place.slot.work.write(&words);
        place.end(state.next(self.0.state.label(), doing as u8));
        entered
    }
}

/// Goes on with the request of a note, if there is one.
pub fn enter_again(note: Option<&Note>, doing: Doing) -> Entered {
    note.map_or(Entered::NOWHERE, |note| note.enter(doing))
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        if let Some(outer) = self.outer.take() {
            return restore(slot, &outer);
        }
        let state = &slot.work.state;
        let now = State(state.load(Ordering::Relaxed));
        state.store(now.next_idle().0, Ordering::Release);
    }
}

#[cold]
fn restore(slot: &Slot, Note(outer): &Note) {
    let state = State(slot.work.state.load(Ordering::Relaxed));
    let writing = state.next_writing();
    slot.work.state.store(writing.0, Ordering::Relaxed);
    fence(Ordering::Release);
    slot.work.write(outer);
    let state = writing.next(outer.state.label(), outer.state.doing());
    slot.work.state.store(state.0, Ordering::Release);
}

/// Where a thread writes, and what it reads the time from.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: &'static Slot,
    tick: &'static AtomicU64,
}

impl Place {
    /// Readers wait from now on until [`end`](Self::end).
    #[inline]
    fn begin(self) -> (Entered, State) {
        let work = &self.slot.work;
        let before = State(work.state.load(Ordering::Relaxed));
        let outer = if before.is_idle() {
            None
        } else {
            Some(self.outer())
        };
        let writing = before.next_writing();
        work.state.store(writing.0, Ordering::Relaxed);
        // A reader that sees a word from below sees the state from above as well, and knows that it has to look again.
        fence(Ordering::Release);
        work.since
            .store(self.tick.load(Ordering::Relaxed), Ordering::Relaxed);
        let entered = Entered {
            slot: Some(self.slot),
            outer,
            _thread: PhantomData,
        };
        (entered, writing)
    }

    #[cold]
    fn outer(self) -> Box<Note> {
        Box::new(Note(self.slot.work.read()))
    }

    #[inline]
    fn end(self, state: State) {
        self.slot.work.state.store(state.0, Ordering::Release);
    }
}

#[inline]
fn place() -> Option<Place> {
    CURRENT.get().or_else(claim)
}

/// The slot of this thread, if it has one. Safe in a signal handler: the thread-local has no destructor, and no code that
/// makes it.
pub(super) fn current() -> Option<&'static Slot> {
    CURRENT.get().map(|place| place.slot)
}

#[cold]
fn claim() -> Option<Place> {
    let board = serving().map(Scoreboard::board)?;
    // A thread that ends has no slot any more.
    OWNED.try_with(|_| ()).ok()?;
    let thread = u64::from(
        rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs(),
    );
    let (number, slot) = board.slots.iter().enumerate().find(|(_, slot)| {
        slot.thread
            .compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    })?;
    board
        .header
        .slots
        .fetch_max(number as u64 + 1, Ordering::Relaxed);
    let mut name = [0; 16];
    let named = rustix::thread::name().unwrap_or_default();
    for (to, from) in name.iter_mut().zip(named.as_bytes()) {
        *to = *from;
    }
    text::store(&slot.name, &name);
    let place = Place {
        slot,
        tick: &board.header.tick,
    };
    CURRENT.set(Some(place));
    Some(place)
}

struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        // A thread that is in an app does not end: it called `exit`, which drops its thread-locals first, and what it
        // did is still to be read.
        if let Some(Place { slot, .. }) = CURRENT.get()
            && State(slot.work.state.load(Ordering::Relaxed)).is_idle()
        {
            CURRENT.set(None);
            slot.thread.store(0, Ordering::Release);
        }
    }
}

thread_local! {
    static CURRENT: Cell<Option<Place>> = const { Cell::new(None) };
    /// Gives the slot back when the thread ends.
    static OWNED: GiveBack = const { GiveBack };
}
