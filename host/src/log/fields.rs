//! How the message and the fields of events and spans read in the text format: `message key=value`.

use std::{
    error::Error,
    fmt::{self, Write},
    iter,
};

use tracing::{
    Event,
    field::{Field, Visit},
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, format::Writer},
};

use crate::log::escape::{self, Escape};

/// Formats the fields of spans.
#[derive(Clone, Copy, Debug)]
pub struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut values = Values {
            writer: &mut writer,
            separator: "",
            skip: None,
            result: Ok(()),
        };
        fields.record(&mut values);
        values.result
    }
}

/// Writes the message of `event` after a space, or nothing when it has none.
///
/// # Errors
///
/// When `writer` fails. A value that fails to format does not fail the line.
pub fn write_message(writer: &mut impl Write, event: &Event<'_>) -> fmt::Result {
    let mut message = Message {
        writer,
        result: Ok(()),
    };
    event.record(&mut message);
    message.result
}

/// Writes the fields of `event` but its message, each after a space.
///
/// # Errors
///
/// As [`write_message`].
pub fn write_fields(writer: &mut impl Write, event: &Event<'_>) -> fmt::Result {
    let mut values = Values {
        writer,
        separator: " ",
        skip: Some(MESSAGE),
        result: Ok(()),
    };
    event.record(&mut values);
    values.result
}

/// Writes the message of an event, and nothing else, after a space.
struct Message<'a, W> {
    writer: &'a mut W,
    result: fmt::Result,
}

impl<W: Write> Visit for Message<'_, W> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.result = write!(Escape(&mut *self.writer), " {value:?}")
                .or_else(|_| self.writer.write_str(UNPRINTABLE));
        }
    }
}

/// Writes fields as `key=value`.
struct Values<'a, W> {
    writer: &'a mut W,
    /// Stands before the next field.
    separator: &'static str,
    skip: Option<&'static str>,
    result: fmt::Result,
}

impl<W: Write> Values<'_, W> {
    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        self.writer.write_str(self.separator)?;
        self.separator = " ";
        escape::write_value(self.writer, name.strip_prefix("r#").unwrap_or(name))?;
        self.writer.write_char('=')?;
        escape::write_value(self.writer, value)
    }
}

impl<W: Write> Visit for Values<'_, W> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if self.result.is_ok() && self.skip != Some(field.name()) {
            self.result = self.write(field.name(), value);
        }
    }

    /// The error with its causes.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = String::new();
        for (depth, error) in iter::successors(Some(value), |&error| error.source()).enumerate() {
            push(
                &mut text,
                format_args!("{}{error}", if depth == 0 { "" } else { ": " }),
            );
        }
        self.record_str(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.skip == Some(field.name()) {
            return;
        }
        let mut text = String::new();
        push(&mut text, format_args!("{value:?}"));
        self.record_str(field, &text);
    }
}

/// Appends a value whose own code may fail: the rest of the line counts more.
fn push(text: &mut String, value: fmt::Arguments<'_>) {
    if text.write_fmt(value).is_err() {
        text.push_str(UNPRINTABLE);
    }
}

/// The field that the macros of `tracing` put the text of an event in.
const MESSAGE: &str = "message";
const UNPRINTABLE: &str = "<formatting failed>";
