//! What was met before, and what was made of it: clients and apps repeat themselves.
//!
//! Each thread has a memory of its own. In the server it is the thread's. In a plugin, whose threads
//! are the server's and stay, it is one of the plugin's, and ends with the app.

use http::{HeaderMap, HeaderName, HeaderValue, uri::PathAndQuery};

#[cfg(not(feature = "host"))]
pub(crate) use self::of_app::forget;
#[cfg(not(feature = "host"))]
pub(super) use self::of_app::lend;
#[cfg(feature = "host")]
pub(super) use self::of_thread::lend;
use super::shape::Shape;

/// Runs `work` with what this thread met, where it can be lent.
pub(crate) fn with<R>(work: impl FnOnce(Option<&mut Met>) -> R) -> R {
    let mut work = Some(work);
    let lent = lend(|met| work.take().map(|work| work(Some(met)))).flatten();
    match (lent, work) {
        (Some(done), _) => done,
        (None, Some(work)) => work(None),
        (None, None) => unreachable!("what has run gave something"),
    }
}

/// What one thread met.
pub(crate) struct Met {
    pub(super) names: Memo<HeaderName, 64>,
    pub(super) values: Memo<HeaderValue, 64>,
    pub(super) shapes: Memo<Shape, 16>,
    pub(super) paths: Memo<PathAndQuery, 64>,
    /// Room for a few fields.
    pub(super) room: HeaderMap,
}

impl Met {
    /// What is here, or nothing yet.
    fn of(met: &mut Option<Box<Self>>) -> &mut Self {
        match met {
            Some(met) => met,
            None => met.insert(Self::new()),
        }
    }

    // Apart: it is made on the stack first, and room for that would be made ready at every look.
    #[cold]
    #[inline(never)]
    fn new() -> Box<Self> {
        Box::new(Self {
            names: Memo::new(),
            values: Memo::new(),
            shapes: Memo::new(),
            paths: Memo::new(),
            room: HeaderMap::new(),
        })
    }
}

/// The server's.
#[cfg(feature = "host")]
mod of_thread {
    use std::cell::RefCell;

    use super::Met;

    thread_local! {
        static MET: RefCell<Option<Box<Met>>> = const { RefCell::new(None) };
    }

    /// Lends what this thread met. None while the thread ends, or has it lent already.
    pub(crate) fn lend<R>(work: impl FnOnce(&mut Met) -> R) -> Option<R> {
        let lend = |met: &RefCell<Option<Box<Met>>>| {
            let mut met = met.try_borrow_mut().ok()?;
            Some(work(Met::of(&mut met)))
        };
        MET.try_with(lend).ok()?
    }
}

/// A plugin's.
#[cfg(not(feature = "host"))]
mod of_app {
    use std::{
        cell::Cell,
        sync::{
            Mutex, PoisonError, TryLockError,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use super::Met;

    static MET: [Mutex<Option<Box<Met>>>; THREADS] = [const { Mutex::new(None) }; THREADS];

    /// How many threads have a memory of their own; more have to share.
    const THREADS: usize = 32;

    /// Lends what this thread met. None when another thread has it right now, or this one already.
    pub(crate) fn lend<R>(work: impl FnOnce(&mut Met) -> R) -> Option<R> {
        let mut met = match MET[place()].try_lock() {
            Ok(met) => met,
            // What a panic left behind are whole values.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(work(Met::of(&mut met)))
    }

    /// Which memory is this thread's.
    fn place() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
        }
        PLACE.get().unwrap_or_else(|| {
            let place = NEXT.fetch_add(1, Ordering::Relaxed) % THREADS;
            PLACE.set(Some(place));
            place
        })
    }

    /// Forgets all, when an app ends.
    pub(crate) fn forget() {
        for met in &MET {
            *met.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// A few dozen things by their hashes. What is met twice in a row at its place is kept, until
/// something else is.
#[derive(Debug)]
pub(super) struct Memo<T, const PLACES: usize> {
    places: [Place<T>; PLACES],
}

#[derive(Debug)]
struct Place<T> {
    met: u64,
    kept: Option<T>,
}

impl<T, const PLACES: usize> Memo<T, PLACES> {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            places: [const { Place { met: 0, kept: None } }; PLACES],
        }
    }

    /// What may be kept for this hash: the caller compares.
    pub(super) fn get(&self, hash: u64) -> Option<&T> {
        self.places[Self::place(hash)].kept.as_ref()
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, hash: u64) -> Option<&mut T> {
        self.places[Self::place(hash)].kept.as_mut()
    }

    /// What was not there is met: when that is not the first time, what `make` gives is kept.
    pub(super) fn meet(&mut self, hash: u64, make: impl FnOnce() -> T) {
        let place = &mut self.places[Self::place(hash)];
        if place.met == hash {
            place.kept = Some(make());
        }
        place.met = hash;
    }

    fn place(hash: u64) -> usize {
        (hash >> 32) as usize % PLACES
    }
}

/// A hash of a text, by its length, its beginning and its end.
pub(super) fn hash(text: &[u8]) -> u64 {
    let (first, last) = if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        let [first, last] = [first, last].map(|end| u32::from_le_bytes(*end));
        (first.into(), last.into())
    } else {
        let add = |word, &byte| (word << 8) | u64::from(byte);
        (text.iter().fold(0, add), 0)
    };
    mix(mix(text.len() as u64, first), last)
}

/// A step of a hash (Fibonacci hashing).
pub(super) fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// How long a text that is kept may be, in bytes: what a client sends must not stay at its size.
pub(super) const LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_met_twice_is_kept_and_what_comes_once_does_not_replace_it() {
        let mut memo = Memo::<_, 1>::new();
        let (one, other) = (hash(b"one"), hash(b"other"));
        memo.meet(one, || "one");
        assert_eq!(memo.get(one), None);
        memo.meet(one, || "one");
        assert_eq!(memo.get(one), Some(&"one"));
        memo.meet(other, || "other");
        assert_eq!(memo.get(other), Some(&"one"), "the caller compares");
        memo.meet(other, || "other");
        assert_eq!(memo.get(other), Some(&"other"));
    }
}
