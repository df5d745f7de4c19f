//! A hash table that only grows, and is read without locks: what the host said of each callsite.
//!
//! Nothing in it is ever freed, as nothing in a library is: the places that log are a part of its
//! code.

use std::{
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
};

/// Values by hash. What makes two of them equal is up to the caller.
#[derive(Debug)]
pub(super) struct Table<T: 'static> {
    slots: AtomicPtr<Slots<T>>,
    /// How many values there are. Locked while a value is added.
    len: Mutex<usize>,
}

/// A power of two of slots, at least half of them free, so that a search ends.
type Slots<T> = Box<[AtomicPtr<Node<T>>]>;

#[derive(Debug)]
struct Node<T> {
    hash: usize,
    value: T,
}

impl<T: Sync> Table<T> {
    /// No values.
    pub(super) const fn new() -> Self {
        Self {
            slots: AtomicPtr::new(ptr::null_mut()),
            len: Mutex::new(0),
        }
    }

    /// The value with this hash that `is_it` accepts.
    pub(super) fn find(&self, hash: usize, is_it: impl Fn(&T) -> bool) -> Option<&'static T> {
        let slots = self.slots()?;
        let mut at = hash;
        loop {
            let node = node(&slots[at & (slots.len() - 1)])?;
            if node.hash == hash && is_it(&node.value) {
                return Some(&node.value);
            }
            at = at.wrapping_add(1);
        }
    }

    /// The value that is found, or else a new one of `make`. The table is locked meanwhile. `make` must not use the
    /// table.
    pub(super) fn find_or_insert(
        &self,
        hash: usize,
        is_it: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> &'static T {
        let mut len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = self.find(hash, is_it) {
            return known;
        }
        let value = make();
        *len += 1;
        let node: &'static Node<T> = Box::leak(Box::new(Node { hash, value }));
        let slots = match self.slots() {
            Some(slots) if *len * 2 <= slots.len() => slots,
            full => self.grow(full, *len * 4),
        };
        put(slots, node);
        &node.value
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        *self.len.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows `see` all values, while nobody adds one.
    pub(super) fn for_each(&self, see: impl FnMut(&'static T)) {
        let _len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = self.slots().map_or(&[][..], |slots| slots);
        slots
            .iter()
            .filter_map(node)
            .map(|node| &node.value)
            .for_each(see);
    }

    fn slots(&self) -> Option<&'static Slots<T>> {
        // SAFETY: it is null, or was leaked by `grow`.
        unsafe { self.slots.load(Ordering::Acquire).as_ref() }
    }

    /// More slots, with what was in the old ones: whoever still reads those finds less, and asks
    /// again under the lock.
    fn grow(&self, old: Option<&'static Slots<T>>, room: usize) -> &'static Slots<T> {
        let empty = || AtomicPtr::new(ptr::null_mut());
        let len = room.next_power_of_two().max(64);
        let slots = Box::leak(Box::new((0..len).map(|_| empty()).collect::<Slots<T>>()));
        for node in old.into_iter().flat_map(|old| old.iter()).filter_map(node) {
            put(slots, node);
        }
        self.slots.store(slots, Ordering::Release);
        slots
    }
}

fn node<T>(slot: &AtomicPtr<Node<T>>) -> Option<&'static Node<T>> {
    // SAFETY: it is null, or was leaked before it was put there.
    unsafe { slot.load(Ordering::Acquire).as_ref() }
}

fn put<T>(slots: &Slots<T>, node: &'static Node<T>) {
    let mut at = node.hash;
    loop {
        let slot = &slots[at & (slots.len() - 1)];
        if slot.load(Ordering::Relaxed).is_null() {
            return slot.store(ptr::from_ref(node).cast_mut(), Ordering::Release);
        }
        at = at.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn every_value_is_found_while_others_come() {
        static TABLE: Table<usize> = Table::new();
        // Miri is some thousand times as slow.
        const MANY: usize = if cfg!(miri) { 100 } else { 2000 };
        // Hashes that collide, as those of equal places with other targets do.
        let insert =
            |value: usize| *TABLE.find_or_insert(value / 3, |&other| other == value, || value);
        assert_eq!(TABLE.find(0, |_| true), None);
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for value in 0..MANY {
                        assert_eq!(insert(value), value, "{thread}");
                        assert_eq!(TABLE.find(value / 3, |&other| other == value), Some(&value));
                    }
                });
            }
        });
        let mut seen = Vec::new();
        TABLE.for_each(|&value| seen.push(value));
        seen.sort_unstable();
        assert_eq!(seen, (0..MANY).collect::<Vec<_>>());
        assert_eq!(TABLE.find(0, |&value| value == MANY), None);
    }
}
