//! Short texts in shared memory, as words that a thread stores and another process reads.
//!
//! In a field of up to 64 bytes, a text is stored as two halves of fixed size: its beginning and its end. The halves
//! overlap when the text is shorter than the two. Storing the path of a request then costs a few moves of fixed size,
//! without a loop or a call of `memcpy`. In a larger field the bytes are stored one after the other, and the last word is
//! padded with zeros.

use std::sync::atomic::{AtomicU64, Ordering};

/// A field for a text of up to `8 * WORDS` bytes. The length of the text is stored elsewhere.
pub(super) type TextWords<const WORDS: usize> = [AtomicU64; WORDS];

/// Stores as much of `text` as fits, and returns how many bytes that is.
#[inline]
pub(super) fn store<const WORDS: usize>(field: &TextWords<WORDS>, text: &[u8]) -> usize {
    let text = text.get(..WORDS * 8).unwrap_or(text);
    if WORDS > 8 {
        for (word, bytes) in field.iter().zip(text.chunks(8)) {
            word.store(padded(bytes), Ordering::Relaxed);
        }
        return text.len();
    }
    // Each length class has halves of one size, so that the compiler makes moves of fixed size.
    match text.len() {
        0 => {}
        1..4 => {
            let mut word = 0;
            for &byte in text.iter().rev() {
                word = word << 8 | u64::from(byte);
            }
            field[0].store(word, Ordering::Relaxed);
        }
        4..8 => {
            if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
                let first = u64::from(u32::from_le_bytes(*first));
                let last = u64::from(u32::from_le_bytes(*last));
                field[0].store(last << 32 | first, Ordering::Relaxed);
            }
        }
        8..=16 => ends::<8, 1, WORDS>(field, text),
        17..=32 => ends::<16, 2, WORDS>(field, text),
        _ => ends::<32, 4, WORDS>(field, text),
    }
    text.len()
}

/// Reads a text of `len` bytes that [`store`] has stored in a field of as many words. A wrong length gives wrong bytes, but
/// no error.
pub(super) fn load(field: &[u64], len: usize) -> Vec<u8> {
    let len = len.min(field.len() * 8);
    let bytes: Vec<u8> = field.iter().flat_map(|word| word.to_le_bytes()).collect();
    let half = match len {
        0..4 => return bytes[..len].to_vec(),
        _ if field.len() > 8 || field.len() == 1 && len == 8 => {
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

/// Whether a large field has this text. The length is not compared.
pub(super) fn is<const WORDS: usize>(field: &TextWords<WORDS>, text: &[u8]) -> bool {
    const { assert!(WORDS > 8, "a smaller field has two copies of some bytes") };
    let words = field.iter().map(|word| word.load(Ordering::Relaxed));
    text.chunks(8)
        .map(padded)
        .eq(words.take(text.len().div_ceil(8)))
}

/// Reads the words of a field.
pub(super) fn words<const WORDS: usize>(field: &TextWords<WORDS>) -> [u64; WORDS] {
    std::array::from_fn(|at| field[at].load(Ordering::Relaxed))
}

/// Stores the first `HALF` bytes and the last `HALF` bytes, which are `HALF_WORDS` words each.
#[inline(always)]
fn ends<const HALF: usize, const HALF_WORDS: usize, const WORDS: usize>(
    field: &TextWords<WORDS>,
    text: &[u8],
) {
    let (Some(first), Some(last)) = (text.first_chunk::<HALF>(), text.last_chunk::<HALF>()) else {
        return;
    };
    let (first, _) = first.as_chunks::<8>();
    let (last, _) = last.as_chunks::<8>();
    for (word, bytes) in field.iter().zip(first.iter().chain(last)) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
}

/// Returns up to 8 bytes as a word, padded with zeros.
fn padded(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<const WORDS: usize>() -> TextWords<WORDS> {
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
