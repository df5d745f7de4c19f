//! What identifies a request: on its lines, in its response, and to its app.

use std::{
    cell::RefCell,
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::BytesMut;
use http::HeaderValue;
use smallvec::SmallVec;

/// An id of a request: 1 to 128 letters, digits and `-_.:/+=@~`.
#[derive(Clone, Debug)]
pub struct RequestId(SmallVec<[u8; MADE]>);

impl RequestId {
    /// What the client says, when that is sane, or a number of ours.
    #[must_use]
    pub fn new(given: Option<&[u8]>) -> Self {
        match given {
            Some(id) if is_sane(id) => Self(SmallVec::from_slice(id)),
            _ => Self(SmallVec::from_buf(made())),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The id as the value of a header. Those of one thread share their memory, dozens at a time.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        let bytes = BLOCK.with_borrow_mut(|block| {
            if block.capacity() < self.0.len() {
                *block = BytesMut::with_capacity(BLOCK_SIZE);
            }
            block.extend_from_slice(&self.0);
            block.split().freeze()
        });
        HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

thread_local! {
    static BLOCK: RefCell<BytesMut> = RefCell::default();
}

/// It goes into lines and file names of others.
fn is_sane(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    (1..=128).contains(&id.len()) && id.iter().all(is_plain)
}

/// 16 hexadecimal digits, which do not come again in this process, and hardly in another.
fn made() -> [u8; MADE] {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("request ids"));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // The step and the rounds of SplitMix64, which give each number one of its own.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut bits = SEED.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    std::array::from_fn(|at| DIGITS[(bits >> (60 - 4 * at)) as usize & 15])
}

/// How long an id of ours is, in bytes.
const MADE: usize = 16;

/// How much memory is made for ids at a time.
const BLOCK_SIZE: usize = 1024;

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
