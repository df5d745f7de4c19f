//! Short texts in shared memory: a thread stores a text as atomic words, and another process reads the words.
//!
//! In a field of up to 64 bytes, a text is stored as two halves of fixed size: the first bytes and the last bytes of
//! the text. The halves overlap if the text is shorter than both together. Storing the path of a request then costs a
//! few moves of fixed size, without a loop or a call of `memcpy`. In a larger field the bytes are stored one after the
//! other, and the last word is padded with zeros.

use std::sync::atomic::{AtomicU64, Ordering};

/// A field for a text of up to `8 * WORDS` bytes. The length of the text is stored elsewhere.
pub(super) type TextField<const WORDS: usize> = [AtomicU64; WORDS];

/// Stores as much of `text` as fits into the field. Returns the number of stored bytes.
#[inline]
pub(super) fn store<const WORDS: usize>(field: &TextField<WORDS>, text: &[u8]) -> usize {
    let text = text.get(..WORDS * 8).unwrap_or(text);
    if WORDS > 8 {
        for (word, bytes) in field.iter().zip(text.chunks(8)) {
            word.store(padded_word(bytes), Ordering::Relaxed);
        }
        return text.len();
    }
    // All lengths of a range have halves of the same size, so that the compiler generates moves of fixed size.
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
            // Both halves have four bytes, so that both fit into one word.
            if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
                let first = u64::from(u32::from_le_bytes(*first));
                let last = u64::from(u32::from_le_bytes(*last));
                field[0].store(last << 32 | first, Ordering::Relaxed);
            }
        }
        8..=16 => store_halves::<8, WORDS>(field, text),
        17..=32 => store_halves::<16, WORDS>(field, text),
        _ => store_halves::<32, WORDS>(field, text),
    }
    text.len()
}

/// Returns the text of `len` bytes that [`store`] has stored in a field. `words` are the words of the whole field. If
/// `len` or the words are wrong, returns wrong bytes.
pub(super) fn decode(words: &[u64], len: usize) -> Vec<u8> {
    let len = len.min(words.len() * 8);
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let half = match len {
        0..4 => return bytes[..len].to_vec(),
        // In a field of one word, both halves of 8 bytes are the same bytes, which the word contains once.
        _ if words.len() > 8 || words.len() == 1 && len == 8 => {
            return bytes[..len].to_vec();
        }
        4..8 => 4,
        8..=16 => 8,
        17..=32 => 16,
        _ => 32,
    };
    let mut text = bytes[..half].to_vec();
    // The number of bytes that both halves contain.
    let overlap = 2 * half - len;
    text.extend_from_slice(&bytes[half + overlap..2 * half]);
    text
}

/// Returns whether a field of more than 64 bytes holds `text`. The caller must also compare the lengths, because the
/// field does not contain the length. Can be called in a signal handler.
pub(super) fn equals<const WORDS: usize>(field: &TextField<WORDS>, text: &[u8]) -> bool {
    const { assert!(WORDS > 8, "a smaller field has two copies of some bytes") };
    let words = field.iter().map(|word| word.load(Ordering::Relaxed));
    text.chunks(8)
        .map(padded_word)
        .eq(words.take(text.len().div_ceil(8)))
}

/// Reads the words of a field.
pub(super) fn read_words<const WORDS: usize>(field: &TextField<WORDS>) -> [u64; WORDS] {
    std::array::from_fn(|index| field[index].load(Ordering::Relaxed))
}

/// Stores the first `HALF` bytes and the last `HALF` bytes of the text.
#[inline(always)]
fn store_halves<const HALF: usize, const WORDS: usize>(field: &TextField<WORDS>, text: &[u8]) {
    let (Some(first), Some(last)) = (text.first_chunk::<HALF>(), text.last_chunk::<HALF>()) else {
        return;
    };
    let (first, _) = first.as_chunks::<8>();
    let (last, _) = last.as_chunks::<8>();
    for (word, bytes) in field.iter().zip(first.iter().chain(last)) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
}

/// Returns up to 8 bytes as one word, padded with zeros.
fn padded_word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that has other bytes in it already.
    fn used_field<const WORDS: usize>() -> TextField<WORDS> {
        std::array::from_fn(|_| AtomicU64::new(0x2323_2323_2323_2323))
    }

    #[test]
    fn a_text_of_any_length_is_read_as_it_was_stored_and_a_long_one_is_truncated() {
        let text: Vec<u8> = (0..600_u32).map(|index| (index % 251) as u8).collect();
        fn check<const WORDS: usize>(text: &[u8]) {
            for len in 0..text.len() {
                let field = used_field::<WORDS>();
                let stored = store(&field, &text[..len]);
                assert_eq!(stored, len.min(WORDS * 8));
                assert_eq!(
                    decode(&read_words(&field), stored),
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
            assert!(decode(&[0; 8], len).len() <= 64);
        }
    }
}
