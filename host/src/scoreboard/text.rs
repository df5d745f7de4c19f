//! Short texts in shared memory: words that a thread stores and another process reads.
//!
//! In a room of up to 64 bytes a text is stored as its beginning and its end, which overlap where it is shorter: a
//! request's path then costs a few moves of fixed size, and no loop and no call of `memcpy`. In a larger room it is one
//! byte after the other, and zeros to the end of a word.

use std::sync::atomic::{AtomicU64, Ordering};

/// Room for a text of up to `8 * WORDS` bytes. Its length is kept elsewhere.
pub(super) type Text<const WORDS: usize> = [AtomicU64; WORDS];

/// Stores as much of `text` as there is room for, and returns how many bytes that is.
#[inline]
pub(super) fn store<const WORDS: usize>(room: &Text<WORDS>, text: &[u8]) -> usize {
    let text = text.get(..WORDS * 8).unwrap_or(text);
    if WORDS > 8 {
        for (word, bytes) in room.iter().zip(text.chunks(8)) {
            word.store(padded(bytes), Ordering::Relaxed);
        }
        return text.len();
    }
    match text.len() {
        0 => {}
        1..4 => {
            let mut word = 0;
            for &byte in text.iter().rev() {
                word = word << 8 | u64::from(byte);
            }
            room[0].store(word, Ordering::Relaxed);
        }
        4..8 => {
            if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
                let first = u64::from(u32::from_le_bytes(*first));
                let last = u64::from(u32::from_le_bytes(*last));
                room[0].store(last << 32 | first, Ordering::Relaxed);
            }
        }
        8..=16 => ends::<8, 1, WORDS>(room, text),
        17..=32 => ends::<16, 2, WORDS>(room, text),
        _ => ends::<32, 4, WORDS>(room, text),
    }
    text.len()
}

/// Reads a text of `len` bytes that [`store`] stored in a room of so many words. Another length than the stored one gives
/// other bytes, and no error.
pub(super) fn load(room: &[u64], len: usize) -> Vec<u8> {
    let len = len.min(room.len() * 8);
    let bytes: Vec<u8> = room.iter().flat_map(|word| word.to_le_bytes()).collect();
    let half = match len {
        0..4 => return bytes[..len].to_vec(),
        _ if room.len() > 8 || room.len() == 1 && len == 8 => {
            return bytes[..len].to_vec();
        }
        4..8 => 4,
        8..=16 => 8,
        17..=32 => 16,
        _ => 32,
    };
    let mut text = bytes[..half].to_vec();
    let overlap = 2 * half - len;
    text.extend_from_slice(&bytes[half + overlap..2 * half]);
    text
}

/// Whether a large room has this text, apart from its length.
pub(super) fn is<const WORDS: usize>(room: &Text<WORDS>, text: &[u8]) -> bool {
    const { assert!(WORDS > 8, "a smaller room has two copies of some bytes") };
    let words = room.iter().map(|word| word.load(Ordering::Relaxed));
    text.chunks(8)
        .map(padded)
        .eq(words.take(text.len().div_ceil(8)))
}

/// The words of a room.
pub(super) fn words<const WORDS: usize>(room: &Text<WORDS>) -> [u64; WORDS] {
    std::array::from_fn(|at| room[at].load(Ordering::Relaxed))
}

/// Stores the first and the last `HALF` bytes, which are `HALF_WORDS` words each.
#[inline(always)]
fn ends<const HALF: usize, const HALF_WORDS: usize, const WORDS: usize>(
    room: &Text<WORDS>,
    text: &[u8],
) {
    let (Some(first), Some(last)) = (text.first_chunk::<HALF>(), text.last_chunk::<HALF>()) else {
        return;
    };
    let (first, _) = first.as_chunks::<8>();
    let (last, _) = last.as_chunks::<8>();
    for (word, bytes) in room.iter().zip(first.iter().chain(last)) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
}

fn padded(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<const WORDS: usize>() -> Text<WORDS> {
        std::array::from_fn(|_| AtomicU64::new(0x2323_2323_2323_2323))
    }

    #[test]
    fn a_text_of_any_length_comes_back_cut_to_its_room() {
        let text: Vec<u8> = (0..600_u32).map(|at| (at % 251) as u8).collect();
        fn check<const WORDS: usize>(text: &[u8]) {
            for len in 0..text.len() {
                let room = room::<WORDS>();
                let stored = store(&room, &text[..len]);
                assert_eq!(stored, len.min(WORDS * 8));
                assert_eq!(
                    load(&words(&room), stored),
                    &text[..stored],
                    "{WORDS}, {len}"
                );
            }
        }
        check::<1>(&text);
        check::<2>(&text);
        check::<4>(&text);
        check::<8>(&text);
        check::<64>(&text);
    }

    #[test]
    fn a_length_that_was_never_stored_is_no_error() {
        for len in [0, 3, 7, 16, 64, 65, 1000] {
            assert!(load(&[0; 8], len).len() <= 64);
        }
    }
}
