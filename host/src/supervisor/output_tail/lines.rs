//! Splits a stream of bytes into lines.

/// Splits bytes into lines, and stores the incomplete last line.
#[derive(Debug, Default)]
pub(super) struct LineSplitter {
    /// The bytes after the last line break.
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Creates a splitter that continues an incomplete line.
    pub(super) fn after(partial: Vec<u8>) -> Self {
        Self { partial }
    }

    /// Returns the bytes of the incomplete line.
    pub(super) fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Adds bytes. Calls `line` with each line that these bytes complete.
    pub(super) fn feed(&mut self, bytes: &[u8], line: &mut impl FnMut(&str)) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend(part);
            if self.partial.ends_with(b"\n") {
                self.partial.pop();
                self.emit(line);
            }
            // A line that never ends must not fill the memory, so a long line is split.
            while self.partial.len() >= MAX_LINE_BYTES {
                let rest = self.partial.split_off(MAX_LINE_BYTES);
                self.emit(line);
                self.partial = rest;
            }
        }
    }

    /// Calls `line` with the bytes after the last line break, unless there are no such bytes.
    pub(super) fn finish(&mut self, line: &mut impl FnMut(&str)) {
        if !self.partial.is_empty() {
            self.emit(line);
        }
    }

    /// Calls `line` with the stored bytes, and clears them.
    fn emit(&mut self, line: &mut impl FnMut(&str)) {
        line(&String::from_utf8_lossy(&self.partial));
        self.partial.clear();
    }
}

/// The maximum length of a line. A longer line is split.
const MAX_LINE_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut seen) = (LineSplitter::default(), Vec::new());
        let mut note = |line: &str| seen.push(line.to_owned());
        pieces.iter().for_each(|piece| lines.feed(piece, &mut note));
        lines.finish(&mut note);
        seen
    }

    #[test]
    fn bytes_become_lines_wherever_they_are_cut() {
        let table: [(&[&[u8]], &[&str]); 5] = [
            (&[], &[]),
            (&[b"a\nb\n"], &["a", "b"]),
            (&[b"a", b"b", b"\n", b"\nc"], &["ab", "", "c"]),
            (&[b"\xc3", b"\xa9\n"], &["\u{e9}"]),
            (&[b"a\r\n"], &["a\r"]),
        ];
        for (pieces, expected) in table {
            assert_eq!(split(pieces), expected);
        }
    }

    #[test]
    fn a_line_without_an_end_becomes_several() {
        let endless = vec![b'x'; 2 * MAX_LINE_BYTES + 5];
        let lens: Vec<_> = split(&[&endless[..9], &endless[9..]])
            .iter()
            .map(String::len)
            .collect();
        assert_eq!(lens, [MAX_LINE_BYTES, MAX_LINE_BYTES, 5]);
        // One that is just as long as a line may be ends once.
        let mut exact = vec![b'x'; MAX_LINE_BYTES - 1];
        exact.push(b'\n');
        assert_eq!(split(&[&exact]).len(), 1);
    }
}
