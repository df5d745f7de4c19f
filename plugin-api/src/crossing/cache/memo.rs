//! A table of a few dozen values by the hashes of what they were made of.

/// Values by hash. A value that is offered twice in a row for its place is kept, until another one is.
#[derive(Debug)]
pub(super) struct Memo<T, const PLACES: usize> {
    places: [Place<T>; PLACES],
}

#[derive(Debug)]
struct Place<T> {
    /// The hash that was offered last.
    last: u64,
    kept: Option<T>,
}

impl<T, const PLACES: usize> Memo<T, PLACES> {
    /// An empty table.
    pub(super) const fn new() -> Self {
        Self {
            places: [const {
                Place {
                    last: 0,
                    kept: None,
                }
            }; PLACES],
        }
    }

    /// The value at the place of this hash. Another hash may have the same place: the caller compares.
    pub(super) fn get(&self, hash: u64) -> Option<&T> {
        self.places[Self::place(hash)].kept.as_ref()
    }

    /// As [`get`](Self::get), for a value that changes.
    pub(super) fn get_mut(&mut self, hash: u64) -> Option<&mut T> {
        self.places[Self::place(hash)].kept.as_mut()
    }

    /// Offers a value that was not found. When the last offer for this place had the same hash, the value is kept.
    pub(super) fn offer(&mut self, hash: u64, make: impl FnOnce() -> T) {
        let place = &mut self.places[Self::place(hash)];
        if place.last == hash {
            place.kept = Some(make());
        }
        place.last = hash;
    }

    fn place(hash: u64) -> usize {
        (hash >> 32) as usize % PLACES
    }
}

/// A hash of a text, of its length, its beginning and its end.
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

/// Adds a word to a hash (Fibonacci hashing).
pub(super) fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_twice_is_kept_and_what_is_offered_once_does_not_replace_it() {
        let mut memo = Memo::<_, 1>::new();
        let (one, other) = (hash(b"one"), hash(b"other"));
        memo.offer(one, || "one");
        assert_eq!(memo.get(one), None);
        memo.offer(one, || "one");
        assert_eq!(memo.get(one), Some(&"one"));
        memo.offer(other, || "other");
        assert_eq!(memo.get(other), Some(&"one"), "the caller compares");
        memo.offer(other, || "other");
        assert_eq!(memo.get(other), Some(&"other"));
    }
}
