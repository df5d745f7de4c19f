//! A hash table whose lookups take no lock, for the callsites of this library.
//!
//! Values are never removed or freed, so a lookup can return a `&'static` reference. The memory is bounded: callsites
//! of `tracing` belong to the code of the library, and the number of callsites of `log` is limited.

use std::{
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
};

/// A hash table with open addressing and linear probing. The callers compute the hashes and compare the values.
#[derive(Debug)]
pub(super) struct Table<T: 'static> {
    /// Null until the first value is inserted.
    slots: AtomicPtr<Slots<T>>,
    /// The number of values. Locked while a value is inserted.
    len: Mutex<usize>,
}

/// The slots of a table. Their number is a power of two. At least half of the slots are null, and a search ends at the
/// first null.
type Slots<T> = Box<[AtomicPtr<Node<T>>]>;

/// A value with its hash. Nodes are leaked, because old and new slots point to the same nodes.
#[derive(Debug)]
struct Node<T> {
    hash: usize,
    value: T,
}

impl<T: Sync> Table<T> {
    /// Creates an empty table.
    pub(super) const fn new() -> Self {
        Self {
            slots: AtomicPtr::new(ptr::null_mut()),
            len: Mutex::new(0),
        }
    }

    /// Returns the value that has this hash and for which `is_equal` returns true. Takes no lock. Returns `None` if the
    /// table has no such value. A value that another thread is inserting may not be found yet.
    pub(super) fn find(&self, hash: usize, is_equal: impl Fn(&T) -> bool) -> Option<&'static T> {
        let slots = self.slots()?;
        let mut index = hash;
        loop {
            let node = load_node(&slots[index & (slots.len() - 1)])?;
            if node.hash == hash && is_equal(&node.value) {
                return Some(&node.value);
            }
            index = index.wrapping_add(1);
        }
    }

    /// Returns the value that [`find`](Self::find) finds. If the table has no such value, inserts the value that `new`
    /// returns. The table is locked meanwhile, so `new` must call no method of the table except [`find`](Self::find).
    pub(super) fn find_or_insert(
        &self,
        hash: usize,
        is_equal: impl Fn(&T) -> bool,
        new: impl FnOnce() -> T,
    ) -> &'static T {
        let mut len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        // Searched under the lock, because another thread may have inserted the value since the caller's search.
        if let Some(known) = self.find(hash, is_equal) {
            return known;
        }
        let value = new();
        *len += 1;
        let node: &'static Node<T> = Box::leak(Box::new(Node { hash, value }));
        let slots = match self.slots() {
            Some(slots) if *len * 2 <= slots.len() => slots,
            full => self.grow(full, *len * 4),
        };
        insert_node(slots, node);
        &node.value
    }

    /// Returns the number of values.
    pub(super) fn len(&self) -> usize {
        *self.len.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `visit` for each value. The table is locked meanwhile, so `visit` must call no method of the table except
    /// [`find`](Self::find).
    pub(super) fn for_each(&self, visit: impl FnMut(&'static T)) {
        let _len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = self.slots().map_or(&[][..], |slots| slots);
        slots
            .iter()
            .filter_map(load_node)
            .map(|node| &node.value)
            .for_each(visit);
    }

    fn slots(&self) -> Option<&'static Slots<T>> {
        // Acquire pairs with the Release store in `grow`, so the new slots and their nodes are visible.
        // SAFETY: the pointer is null, or points to slots that `grow` has leaked.
        unsafe { self.slots.load(Ordering::Acquire).as_ref() }
    }

    /// Replaces the slots by at least `min_len` slots with the same nodes, and returns the new slots. The caller holds
    /// the lock of `len`.
    ///
    /// The old slots are leaked, because another thread may still search them. Such a search may miss a new value. The
    /// thread then calls [`find_or_insert`](Self::find_or_insert), which searches again under the lock.
    fn grow(&self, old: Option<&'static Slots<T>>, min_len: usize) -> &'static Slots<T> {
        let empty = || AtomicPtr::new(ptr::null_mut());
        let len = min_len.next_power_of_two().max(64);
        let slots = Box::leak(Box::new((0..len).map(|_| empty()).collect::<Slots<T>>()));
        let old_slots = old.into_iter().flat_map(|old| old.iter());
        for node in old_slots.filter_map(load_node) {
            insert_node(slots, node);
        }
        // The slots are published after all nodes are in them, so a search never misses an old value.
        self.slots.store(slots, Ordering::Release);
        slots
    }
}

/// Returns the node of a slot. Returns `None` if the slot is empty.
fn load_node<T>(slot: &AtomicPtr<Node<T>>) -> Option<&'static Node<T>> {
    // Acquire pairs with the Release store in `insert_node`, so the node's content is visible.
    // SAFETY: the pointer is null, or points to a node that `find_or_insert` has leaked.
    unsafe { slot.load(Ordering::Acquire).as_ref() }
}

/// Stores a node in the first empty slot of its probe sequence. The caller holds the lock of the table's `len`.
fn insert_node<T>(slots: &Slots<T>, node: &'static Node<T>) {
    let mut index = node.hash;
    loop {
        let slot = &slots[index & (slots.len() - 1)];
        // Relaxed is enough, because only this thread, which holds the lock, stores into slots.
        if slot.load(Ordering::Relaxed).is_null() {
            return slot.store(ptr::from_ref(node).cast_mut(), Ordering::Release);
        }
        index = index.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn every_value_is_found_while_others_come() {
        static TABLE: Table<usize> = Table::new();
        // Miri runs the test about a thousand times as slowly.
        const MANY: usize = if cfg!(miri) { 100 } else { 2000 };
        // Three values have the same hash, like callsites that differ only in the text of the target.
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
