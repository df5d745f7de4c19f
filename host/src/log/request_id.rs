//! The id of a request. The id is written to the lines of the request, sent with its response, and passed to the app.

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

/// The id of a request: 1 to 128 letters, digits and `-_.:/+=@~`.
#[derive(Clone, Debug)]
pub enum RequestId {
    /// The client has sent the id.
    FromClient(HeaderValue),
    /// The host has generated the id: a number as 16 hexadecimal digits.
    Generated([u8; 16]),
}

impl RequestId {
    /// Returns the id that the client has sent (`client_id`). If the client has sent no id or an invalid id, returns a
    /// new id.
    #[must_use]
    pub fn new(client_id: Option<&[u8]>) -> Self {
        let client_id = client_id.filter(|id| is_valid(id));
        let client_id = client_id.and_then(|id| HeaderValue::from_bytes(id).ok());
        client_id.map_or_else(|| Self::Generated(generate()), Self::FromClient)
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Returns the id as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::FromClient(id) => id.as_bytes(),
            Self::Generated(id) => id,
        }
    }

    /// Returns the id as the value of a header field.
    ///
    /// The value of a generated id is marked as sensitive. HTTP/2 then does not store the value in its compression
    /// table, where the value would be useless, because the same id is never sent again. The values of a thread are
    /// slices of one block of memory, so that one allocation is enough for dozens of ids.
    #[must_use]
    pub fn to_header(&self) -> HeaderValue {
        let id = match self {
            Self::FromClient(id) => return id.clone(),
            Self::Generated(id) => id,
        };
        let bytes = BLOCK.with_borrow_mut(|block| {
            if block.capacity() < id.len() {
                *block = BytesMut::with_capacity(BLOCK_SIZE);
            }
            // A slice keeps the whole block alive, therefore a block is small.
            block.extend_from_slice(id);
            block.split().freeze()
        });
        let header = HeaderValue::from_maybe_shared(bytes);
        let mut header = header.unwrap_or_else(|_| HeaderValue::from_static("-"));
        // h2 sends a sensitive value as a literal that is never indexed (RFC 7541, section 6.2.3).
        header.set_sensitive(true);
        header
    }
}

thread_local! {
    /// The unused rest of the block from which the next ids are split off.
    static BLOCK: RefCell<BytesMut> = RefCell::default();
}

/// The size of a block of memory for ids, in bytes.
const BLOCK_SIZE: usize = 1024;

/// Returns whether an id from a client is accepted. Only few characters are allowed, because other programs write ids
/// to log lines and to names of files.
fn is_valid(id: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    (1..=128).contains(&id.len()) && id.iter().all(is_plain)
}

/// Returns a new id. The id is unique in this process, and almost certainly unique among all processes, because each
/// process has a random seed.
fn generate() -> [u8; 16] {
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("request ids"));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // SplitMix64: each number has a different result, because the step and the rounds are reversible.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut bits = SEED.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    hex(bits)
}

/// Returns the hexadecimal digits of `bits`.
///
/// Computes all digits at the same time, without a loop over bytes. The first step moves each group of four bits to a
/// separate byte. The second step adds the character `0` to every byte. To every byte above nine, the step also adds
/// the distance between the character after `9` and the character `a`.
fn hex(bits: u64) -> [u8; 16] {
    let mut digits = u128::from(bits);
    for (shift, mask) in [
        (32, 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff),
        (16, 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f),
    ] {
        digits = (digits | (digits << shift)) & mask;
    }
    // 1 in every byte. A multiple of this number has the same value in every byte.
    const ONES: u128 = u128::MAX / 0xff;
    // 1 in every byte above nine: adding 6 to such a byte sets the bit with the value 16.
    let letters = ((digits + 6 * ONES) >> 4) & ONES;
    (digits + u128::from(b'0') * ONES + letters * u128::from(b'a' - b'0' - 10)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::fuzz::Random;

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
    fn any_bytes_give_an_id_that_is_safe_in_lines_and_headers() {
        let mut random = Random::new(5);
        let long = [b'x'; 128];
        let samples: [&[u8]; 3] = [b"0af7651916cd43dd/8448:eb", b"a", &long];
        let mut kept = 0;
        for _ in 0..20_000 {
            let given = random.input(&samples);
            let id = RequestId::new(Some(&given));
            assert!(is_valid(id.as_bytes()), "{given:?}");
            assert_eq!(id.as_str().as_bytes(), id.as_bytes());
            assert_eq!(id.to_header().as_bytes(), id.as_bytes());
            // A valid id is kept, and any other one is replaced.
            assert_eq!(id.as_bytes() == given, is_valid(&given), "{given:?}");
            kept += usize::from(is_valid(&given));
        }
        assert!(kept > 1_000, "{kept}");
    }

    #[test]
    fn digits_are_as_everywhere() {
        for bits in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX, 0xa9b0_0f9a_c3d2_e1f7] {
            assert_eq!(hex(bits), *format!("{bits:016x}").as_bytes());
        }
    }

    #[test]
    fn ids_do_not_repeat() {
        let header = |_| RequestId::new(None).to_header();
        let headers: Vec<_> = (0..10_000).map(header).collect();
        let ids: HashSet<_> = headers.iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
