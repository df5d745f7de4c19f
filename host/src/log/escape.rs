//! Text made fit for one log line: nothing in it can end the line, drive the terminal or reorder
//! what is shown.

use std::fmt::{self, Write};

/// A writer in front of another that escapes control characters, line breaks and marks of writing
/// direction.
#[derive(Debug)]
pub struct Escape<W>(pub W);

impl<W: Write> Write for Escape<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_escaped(&mut self.0, text, is_unfit)
    }

    fn write_char(&mut self, letter: char) -> fmt::Result {
        if is_unfit(letter) {
            return self.write_str(letter.encode_utf8(&mut [0; 4]));
        }
        self.0.write_char(letter)
    }
}

/// Writes `text` as the value of a field: as it is when it reads as one word, else in quotes with
/// escapes. Text with double quotes in it is in single ones, where it has none of those.
///
/// What is a string literal already, as `Debug` prints strings, is not quoted again.
///
/// # Errors
///
/// When `writer` fails.
pub fn write_value(writer: &mut impl Write, text: &str) -> fmt::Result {
    if is_word(text) || is_literal(text) {
        return write_escaped(writer, text, is_unfit);
    }
    let quote = if text.contains('"') && !text.contains('\'') {
        '\''
    } else {
        '"'
    };
    writer.write_char(quote)?;
    write_escaped(writer, text, |letter| {
        is_unfit(letter) || letter == quote || letter == '\\'
    })?;
    writer.write_char(quote)
}

fn write_escaped(writer: &mut impl Write, text: &str, unfit: impl Fn(char) -> bool) -> fmt::Result {
    // Most text is plain, which a glance at its bytes tells.
    if is_plain(text, |byte| unfit(char::from(byte))) {
        return writer.write_str(text);
    }
    let mut written = 0;
    for (start, letter) in text.char_indices().filter(|&(_, letter)| unfit(letter)) {
        writer.write_str(&text[written..start])?;
        match letter {
            '\n' => writer.write_str("\\n"),
            '\r' => writer.write_str("\\r"),
            '\t' => writer.write_str("\\t"),
            '"' | '\\' => write!(writer, "\\{letter}"),
            _ if letter.is_ascii() => write!(writer, "\\x{:02x}", u32::from(letter)),
            _ => write!(writer, "\\u{{{:x}}}", u32::from(letter)),
        }?;
        written = start + letter.len_utf8();
    }
    writer.write_str(&text[written..])
}

/// Whether `text` is visible ASCII, of which nothing is `unfit`.
fn is_plain(text: &str, unfit: impl Fn(u8) -> bool) -> bool {
    // Without a way out in the middle, so that many bytes are looked at together.
    let is_other = |byte: u8| !(b' '..=b'~').contains(&byte) | unfit(byte);
    !text
        .bytes()
        .fold(false, |other, byte| other | is_other(byte))
}

/// Control characters of ASCII and Latin-1, Unicode's line and paragraph separators, and its
/// direction marks: those can show a line other than it is (CVE-2021-42574).
fn is_unfit(letter: char) -> bool {
    !matches!(letter, ' '..='~')
        && (letter.is_control()
            || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

fn is_word(text: &str) -> bool {
    let in_word = |letter: char| {
        !letter.is_whitespace() && !is_unfit(letter) && !matches!(letter, '"' | '=' | '{' | '}')
    };
    let is_plain_word = || {
        is_plain(text, |byte| {
            matches!(byte, b' ' | b'"' | b'=' | b'{' | b'}')
        })
    };
    let is_quoted = text.starts_with(['\'', '"']);
    !text.is_empty() && !is_quoted && (is_plain_word() || text.chars().all(in_word))
}

fn is_literal(text: &str) -> bool {
    let Some(inner) = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    else {
        return false;
    };
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
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
    fn what_is_unfit_for_a_line_is_escaped() {
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
