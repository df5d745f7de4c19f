//! Random input for tests of parsers and of other code that reads untrusted bytes. The same seed produces the same
//! input in every run, so that a failure can be repeated.

/// A generator of random numbers, bytes and inputs for parsers (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 random bits.
    fn next(&mut self) -> u64 {
        // The step and the constants of SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Returns a number from 0 to `limit - 1`. `limit` must be at least 1.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("the limit is a usize")
    }

    /// Returns a random element of `values`, which must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// Returns random bytes: from 0 to `limit - 1` of them.
    pub(crate) fn bytes(&mut self, limit: usize) -> Vec<u8> {
        let len = self.below(limit);
        std::iter::repeat_with(|| self.next().to_le_bytes()[0])
            .take(len)
            .collect()
    }

    /// Changes `bytes` at one random position: flips a bit, replaces, inserts, removes or repeats a part, or truncates.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let start = self.below(bytes.len() + 1);
        let end = (start + self.below(8)).min(bytes.len());
        match self.below(7) {
            0 if start < bytes.len() => bytes[start] ^= 1 << self.below(8),
            1 if start < bytes.len() => bytes[start] = self.pick(SPECIAL_BYTES),
            2 => bytes.insert(start, self.pick(SPECIAL_BYTES)),
            3 => drop(bytes.drain(start..end)),
            4 => {
                let part = bytes[start..end].to_vec();
                bytes.splice(start..start, part);
            }
            5 => {
                let part = self.bytes(8);
                bytes.splice(start..end, part);
            }
            _ => bytes.truncate(start),
        }
    }

    /// Returns an input for a parser. One input in ten is random bytes. The others are samples with up to four changes.
    pub(crate) fn input(&mut self, samples: &[&[u8]]) -> Vec<u8> {
        if self.below(10) == 0 {
            return self.bytes(100);
        }
        let mut input = self.pick(samples).to_vec();
        for _ in 0..self.below(5) {
            self.mutate(&mut input);
        }
        input
    }

    /// Returns an input for a parser of text, made as [`input`](Self::input) makes bytes. Invalid UTF-8 is replaced.
    pub(crate) fn text(&mut self, samples: &[&str]) -> String {
        let samples: Vec<_> = samples.iter().map(|text| text.as_bytes()).collect();
        String::from_utf8_lossy(&self.input(&samples)).into_owned()
    }
}

/// Asserts that the message of an error is one line and not empty. Returns the message. `input` is shown if the
/// assertion fails.
#[track_caller]
pub(crate) fn one_line(error: impl std::fmt::Display, input: impl std::fmt::Debug) -> String {
    let text = error.to_string();
    assert!(
        !text.trim().is_empty() && !text.contains(['\n', '\r']),
        "{input:?}: {text:?}"
    );
    text
}

/// Bytes that have a special meaning in many formats, or that are the first or last of a range.
const SPECIAL_BYTES: &[u8] = b"\0\x01\x7f\x80\xff\t\n\r \"'%&+,-./09:;=?@AZ[\\]_az{}~";
