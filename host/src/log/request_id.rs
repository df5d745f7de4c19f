//! What identifies a request: on its lines, in its response, and to its app.

use std::{
    cell::RefCell,
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::HeaderValue;

/// An id of a request: 1 to 128 letters, digits and `-_.:/+=@~`.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// What the client says, when that is sane, or a number of ours.
    #[must_use]
    pub fn new(given: Option<&[u8]>) -> Self {
        let given = given.filter(|id| is_sane(id));
        let given = given.and_then(|id| HeaderValue::from_bytes(id).ok());
        Self(given.unwrap_or_else(made))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The id as the value of a header.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// It goes into lines and file names of others.
fn is_sane(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    (1..=128).contains(&id.len()) && id.iter().all(is_plain)
}

/// 16 hexadecimal digits, which do not come again in this process, and hardly in another.
fn made() -> HeaderValue {
    let made = MADE.with_borrow_mut(|made| {
        if made.is_empty() {
            let mut ids = Bytes::from(block());
            let ids = (0..BLOCK).map(|_| ids.split_to(LENGTH));
            made.extend(ids.flat_map(HeaderValue::from_maybe_shared));
        }
        made.pop()
    });
    made.unwrap_or_else(|| HeaderValue::from_static("-"))
}

thread_local! {
    /// What this thread has made at once, in one piece of memory.
    static MADE: RefCell<Vec<HeaderValue>> = const { RefCell::new(Vec::new()) };
}

/// Some ids, which differ in their last two digits.
fn block() -> Vec<u8> {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("request ids"));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Each step gives each number of 56 bits another one.
    const MASK: u64 = (1 << 56) - 1;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut bits = SEED.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) & MASK;
    bits ^= bits >> 28;
    bits = bits.wrapping_mul(0x94d0_49bb_1331_11eb) & MASK;
    bits ^= bits >> 28;
    let digits: [u8; LENGTH] =
        std::array::from_fn(|at| DIGITS[((bits << 8) >> (60 - 4 * at)) as usize & 15]);
    let mut ids = digits.repeat(BLOCK);
    for (number, id) in ids.chunks_exact_mut(LENGTH).enumerate() {
        id[LENGTH - 2] = DIGITS[number / 16 & 15];
        id[LENGTH - 1] = DIGITS[number & 15];
    }
    ids
}

/// How long an id of ours is, in bytes.
const LENGTH: usize = 16;

/// How many ids are made at once; at most 256, as two digits tell them apart.
const BLOCK: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_another_is_replaced() {
        let long = "x".repeat(129);
        for (given, kept) in [
            ("7f", true),
            ("0af7651916cd43dd/8448:eb", true),
            ("", false),
            ("two words", false),
            ("quo\"te", false),
            ("a{b}", false),
            (&long, false),
            (&long[1..], true),
        ] {
            let id = RequestId::new(Some(given.as_bytes()));
            assert_eq!(id.as_str() == given, kept, "{given:?}");
            assert_eq!(id.to_header(), id.as_str());
        }
        assert_eq!(RequestId::new(Some(b"\xff")).as_str().len(), 16);
    }

    #[test]
    fn ids_do_not_repeat() {
        let headers: Vec<_> = (0..10_000)
            .map(|_| RequestId::new(None).to_header())
            .collect();
        let ids: HashSet<_> = headers.iter().collect();
        assert_eq!(ids.len(), 10_000);
    }
}
