//! Random input for tests of code that reads bytes from outside. The same seed gives the same input at
//! every run, so a failure can be repeated.

/// A generator of random numbers and bytes (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Returns a number below `limit`, which is at least 1.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("the limit is a usize")
    }

    /// Returns one of the values.
    pub(crate) fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// Returns random bytes, fewer than `limit`.
    pub(crate) fn bytes(&mut self, limit: usize) -> Vec<u8> {
        let len = self.below(limit);
        std::iter::repeat_with(|| self.next().to_le_bytes()[0])
            .take(len)
            .collect()
    }

    /// Changes bytes in one place: flips a bit, replaces, inserts, removes or repeats a part, or cuts the
    /// end off.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = (at + self.below(8)).min(bytes.len());
        match self.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.pick(INTERESTING),
            2 => bytes.insert(at, self.pick(INTERESTING)),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            5 => {
                let part = self.bytes(8);
                bytes.splice(at..end, part);
            }
            _ => bytes.truncate(at),
        }
    }

    /// Returns an input for a parser: one of the samples, most often with a few changes, or random bytes.
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

    /// Returns an input that is text, as [`input`](Self::input) returns one of bytes.
    pub(crate) fn text(&mut self, samples: &[&str]) -> String {
        let samples: Vec<_> = samples.iter().map(|text| text.as_bytes()).collect();
        String::from_utf8_lossy(&self.input(&samples)).into_owned()
    }
}

/// Asserts that an error is one line of text that is not empty. Returns the text.
#[track_caller]
pub(crate) fn one_line(error: impl std::fmt::Display, input: impl std::fmt::Debug) -> String {
    let text = error.to_string();
    assert!(
        !text.trim().is_empty() && !text.contains(['\n', '\r']),
        "{input:?}: {text:?}"
    );
    text
}

/// Bytes with a meaning to parsers.
const INTERESTING: &[u8] = b"\0\x01\x7f\x80\xff\t\n\r \"'%&+,-./09:;=?@AZ[\\]_az{}~";
