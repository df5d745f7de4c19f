//! A cache with a fixed number of slots. The hash of a key selects the slot.

/// A cache whose hash selects one of `SLOTS` slots.
///
/// A slot stores a value only when the same hash is offered twice in a row. A key that occurs once therefore does not
/// replace the value of a key that occurs often.
#[derive(Debug)]
pub(super) struct FixedTable<T, const SLOTS: usize> {
    slots: [Slot<T>; SLOTS],
}

#[derive(Debug)]
struct Slot<T> {
    /// The hash of the last offer for this slot.
    last_offer: u64,
    value: Option<T>,
}

impl<T, const SLOTS: usize> FixedTable<T, SLOTS> {
    /// Returns an empty cache.
    pub(super) const fn new() -> Self {
        Self {
            slots: [const {
                Slot {
                    last_offer: 0,
                    value: None,
                }
            }; SLOTS],
        }
    }

    /// Returns the value in the slot of `hash`. The caller must compare the value with the key, because several hashes
    /// share a slot.
    pub(super) fn get(&self, hash: u64) -> Option<&T> {
        self.slots[Self::index(hash)].value.as_ref()
    }

    /// Like [`get`](Self::get), for a change of the value.
    pub(super) fn get_mut(&mut self, hash: u64) -> Option<&mut T> {
        self.slots[Self::index(hash)].value.as_mut()
    }

    /// Offers a value after a cache miss. Stores the result of `make` if the last offer for the slot had the same hash.
    pub(super) fn offer(&mut self, hash: u64, make: impl FnOnce() -> T) {
        let slot = &mut self.slots[Self::index(hash)];
        if slot.last_offer == hash {
            slot.value = Some(make());
        }
        slot.last_offer = hash;
    }

    fn index(hash: u64) -> usize {
        // The upper bits of a product depend on all bits of its factors, the lower bits do not.
        (hash >> 32) as usize % SLOTS
    }
}

/// Returns a hash of the length, the beginning and the end of `text`. Texts that differ only in the middle have the
/// same hash, so the user of a [`FixedTable`] must compare the whole text.
pub(super) fn hash(text: &[u8]) -> u64 {
    // Two words of 8 bytes; for a shorter text two words of 4 bytes; for up to 3 bytes one word with all of them.
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

/// Returns `hash` combined with `word` (Fibonacci hashing).
pub(super) fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_twice_is_kept_and_what_is_offered_once_does_not_replace_it() {
        let mut table = FixedTable::<_, 1>::new();
        let (one, other) = (hash(b"one"), hash(b"other"));
        table.offer(one, || "one");
        assert_eq!(table.get(one), None);
        table.offer(one, || "one");
        assert_eq!(table.get(one), Some(&"one"));
        table.offer(other, || "other");
        assert_eq!(table.get(other), Some(&"one"), "the caller compares");
        table.offer(other, || "other");
        assert_eq!(table.get(other), Some(&"other"));
    }
}
