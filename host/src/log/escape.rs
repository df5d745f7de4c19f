//! Escapes text for a line of the log, so that the text can neither end the line, nor control the terminal, nor change
//! the order in which characters are displayed.

use std::fmt::{self, Write};

/// A writer that escapes control characters, line breaks and marks of writing direction, and writes the result to an
/// inner writer.
#[derive(Debug)]
pub struct Escape<W>(pub W);

impl<W: Write> Write for Escape<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_escaped(&mut self.0, text, is_control)
    }

    fn write_char(&mut self, letter: char) -> fmt::Result {
        if is_control(letter) {
            return self.write_str(letter.encode_utf8(&mut [0; 4]));
        }
        self.0.write_char(letter)
    }
}

/// Writes `text` as the value of a field. A single word is written without quotes. Other text is written in quotes,
/// with escapes: in single quotes if the text contains double quotes and no single quotes, and otherwise in double
/// quotes.
///
/// Text that is already a string literal, as `Debug` prints strings, gets no second quotes.
///
/// # Errors
///
/// When `writer` fails.
pub fn write_value(writer: &mut impl Write, text: &str) -> fmt::Result {
    if is_word(text) || is_literal(text) {
        return write_escaped(writer, text, is_control);
    }
    let quote = if text.contains('"') && !text.contains('\'') {
        '\''
    } else {
        '"'
    };
    writer.write_char(quote)?;
    write_escaped(writer, text, |letter| {
        is_control(letter) || letter == quote || letter == '\\'
    })?;
    writer.write_char(quote)
}

/// Writes `text`, with an escape instead of each character for which `needs_escape` returns true.
fn write_escaped(
    writer: &mut impl Write,
    text: &str,
    needs_escape: impl Fn(char) -> bool,
) -> fmt::Result {
    // The fast path: most texts need no escape, and one pass over the bytes shows that.
    if is_plain(text, |byte| needs_escape(char::from(byte))) {
        return writer.write_str(text);
    }
    // Writes the text between two escapes with one call.
    let mut written = 0;
    for (index, letter) in text
        .char_indices()
        .filter(|&(_, letter)| needs_escape(letter))
    {
        writer.write_str(&text[written..index])?;
        match letter {
            '\n' => writer.write_str("\\n"),
            '\r' => writer.write_str("\\r"),
            '\t' => writer.write_str("\\t"),
            '"' | '\\' => write!(writer, "\\{letter}"),
            _ if letter.is_ascii() => write!(writer, "\\x{:02x}", u32::from(letter)),
            _ => write!(writer, "\\u{{{:x}}}", u32::from(letter)),
        }?;
        written = index + letter.len_utf8();
    }
    writer.write_str(&text[written..])
}

/// Returns whether all bytes of `text` are printable ASCII and `needs_escape` returns false for each of them.
fn is_plain(text: &str, needs_escape: impl Fn(u8) -> bool) -> bool {
    // `fold` and `|` check all bytes without an early return, so that the compiler generates code that checks many
    // bytes at once.
    let is_special = |byte: u8| !(b' '..=b'~').contains(&byte) | needs_escape(byte);
    !text
        .bytes()
        .fold(false, |found, byte| found | is_special(byte))
}

/// Returns whether a character must not be written to a line: a control character of ASCII or Latin-1, a line or
/// paragraph separator of Unicode, or a direction mark of Unicode, because direction marks can make a terminal display
/// a line in another order (CVE-2021-42574).
fn is_control(letter: char) -> bool {
    !matches!(letter, ' '..='~')
        && (letter.is_control()
            || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

/// Returns whether a reader can recognize `text` as one value without quotes.
fn is_word(text: &str) -> bool {
    let in_word = |letter: char| {
        !letter.is_whitespace() && !is_control(letter) && !matches!(letter, '"' | '=' | '{' | '}')
    };
    // The fast path for ASCII, with the same characters as `in_word`.
    let is_plain_word = || {
        is_plain(text, |byte| {
            matches!(byte, b' ' | b'"' | b'=' | b'{' | b'}')
        })
    };
    let is_quoted = text.starts_with(['\'', '"']);
    !text.is_empty() && !is_quoted && (is_plain_word() || text.chars().all(in_word))
}

/// Returns whether `text` is a string literal in double quotes: each inner double quote has a backslash before it.
fn is_literal(text: &str) -> bool {
    let Some(inner) = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    else {
        return false;
    };
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        // `next` also skips the character after a backslash.
        if letter == '"' || (letter == '\\' && letters.next().is_none()) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_must_not_be_in_a_line_are_escaped() {
        let table = [
            ("plain, ünï ✓ 日本", "plain, ünï ✓ 日本"),
            (r#"C:\dir "x""#, r#"C:\dir "x""#),
            ("a\nb\r\n\tc", r"a\nb\r\n\tc"),
            ("\0\x1b[31m\x07\x7f", r"\x00\x1b[31m\x07\x7f"),
            ("\u{85}\u{9b}31m", r"\u{85}\u{9b}31m"),
            ("\u{2028}\u{2029}", r"\u{2028}\u{2029}"),
            (
                "\u{202e}\u{2066}\u{200f}\u{61c}",
                r"\u{202e}\u{2066}\u{200f}\u{61c}",
            ),
        ];
        for (text, escaped) in table {
            let mut line = Escape(String::new());
            line.write_str(text).unwrap();
            assert_eq!(line.0, escaped);
        }
    }

    #[test]
    fn values_are_quoted_when_they_need_it() {
        let table = [
            ("word", "word"),
            (r"C:\dir", r"C:\dir"),
            ("Some(1)", "Some(1)"),
            ("", r#""""#),
            ("two words", r#""two words""#),
            ("a=1", r#""a=1""#),
            ("id}", r#""id}""#),
            ("line\nbreak", r#""line\nbreak""#),
            (r#"say "hi" \n"#, r#"'say "hi" \\n'"#),
            (r#"say "it's""#, r#""say \"it's\"""#),
            ("it's", "it's"),
            ("'it'", r#""'it'""#),
            (r#""a \"literal\"""#, r#""a \"literal\"""#),
            (r#""a" b="c""#, r#"'"a" b="c"'"#),
            (r#""open\""#, r#"'"open\\"'"#),
            (r#"""#, r#"'"'"#),
            ("\"literal\u{202e}\"", r#""literal\u{202e}""#),
        ];
        for (text, written) in table {
            let mut line = String::new();
            write_value(&mut line, text).unwrap();
            assert_eq!(line, written, "{text:?}");
        }
    }
}
