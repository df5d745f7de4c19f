//! The fields of events and spans, with typed values.

use std::{
    error::Error,
    fmt::{self, Write},
    iter,
};

use tracing::{
    Event,
    field::{Field, FieldSet, Visit},
};

/// The value of a field. A value that `tracing` records as an error, or by `Debug` or `Display`, becomes a `Str`. The
/// text of an error includes its sources.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Value<'a> {
    Bool(bool),
    U64(u64),
    I64(i64),
    U128(u128),
    I128(i128),
    F64(f64),
    Str(&'a str),
}

/// Calls `sink` with each field of an event, except the message. If several fields have the same name, passes only the
/// last of them that has a value.
///
/// `scratch` is a buffer in which values are formatted.
pub fn visit(scratch: &mut String, event: &Event<'_>, sink: impl FnMut(&Field, Value<'_>)) {
    let fields = event.metadata().fields();
    // Records the event twice if a name is repeated. The first pass finds the fields that have a value, because a field
    // may have none (an `Option`). The second pass can then skip a field if a later field has the same name and a
    // value.
    let repeated = if has_repeated_name(fields) {
        let mut names = FieldNames::default();
        event.record(&mut names);
        names.0
    } else {
        Vec::new()
    };
    event.record(&mut FieldVisitor {
        scratch,
        sink,
        message: message_index(fields),
        repeated: &repeated,
    });
}

/// Writes the message of an event to `writer`. Returns whether the event has a message.
///
/// # Errors
///
/// When `writer` fails. If the `Display` or `Debug` code of the message fails, a placeholder is written instead.
pub fn write_message(writer: &mut impl Write, event: &Event<'_>) -> Result<bool, fmt::Error> {
    let Some(index) = message_index(event.metadata().fields()) else {
        return Ok(false);
    };
    let mut message = MessageVisitor {
        writer,
        index,
        written: Ok(false),
    };
    event.record(&mut message);
    message.written
}

/// Returns the index of the field that contains the message of an event, or `None` if the event has no message. The
/// macros of `tracing` store the message in the first field with the name `message`. The author of the event may add a
/// second field with that name, and the second field is an ordinary field.
fn message_index(fields: &FieldSet) -> Option<usize> {
    fields.iter().position(|field| field.name() == MESSAGE)
}

/// Returns whether two of the fields have the same name.
///
/// A hash of each name is added to a set of 128 bits. The names are compared with each other only if two hashes are
/// equal. For most events, one pass over the names is therefore enough.
fn has_repeated_name(fields: &FieldSet) -> bool {
    let mut seen_hashes = 0_u128;
    let is_hash_seen = |field: Field| {
        let name = name(&field).as_bytes();
        let first = name.first().copied().unwrap_or_default();
        let last = name.last().copied().unwrap_or_default();
        let sum = name.len() * 31 + usize::from(first) * 7 + usize::from(last) * 3;
        let bit = 1 << (sum % 128);
        let is_seen = seen_hashes & bit != 0;
        seen_hashes |= bit;
        is_seen
    };
    let is_repeated = |(index, field): (usize, Field)| {
        let later_fields = fields.iter().skip(index + 1);
        later_fields
            .into_iter()
            .any(|later| name(&later) == name(&field))
    };
    fields.iter().any(is_hash_seen) && fields.iter().enumerate().any(is_repeated)
}

/// Returns the name of a field, without the `r#` of a raw identifier.
#[must_use]
pub fn name(field: &Field) -> &'static str {
    let name = field.name();
    name.strip_prefix("r#").unwrap_or(name)
}

/// Converts the values that `tracing` records to [`Value`]s, and passes them to `sink`.
struct FieldVisitor<'a, F> {
    scratch: &'a mut String,
    sink: F,
    /// The index of the field that contains the message. `None` if no field is the message.
    message: Option<usize>,
    /// The names and indices of all fields that have a value. Empty if no name is repeated.
    repeated: &'a [(&'static str, usize)],
}

impl<F: FnMut(&Field, Value<'_>)> FieldVisitor<'_, F> {
    /// Returns whether a field is passed to `sink`. The message is not passed, and neither is a field that a later
    /// field with the same name replaces.
    fn is_passed(&self, field: &Field) -> bool {
        let replaces =
            |&(other, index): &(&str, usize)| index > field.index() && other == name(field);
        self.message != Some(field.index()) && !self.repeated.iter().any(replaces)
    }

    /// Passes a value to `sink`, unless the field is skipped.
    fn emit(&mut self, field: &Field, value: Value<'_>) {
        if self.is_passed(field) {
            (self.sink)(field, value);
        }
    }

    /// Formats a value by `write`, and passes the text to `sink`. Does not format the value of a skipped field, because
    /// the `Debug` code of the value may be slow or may log.
    fn emit_text(&mut self, field: &Field, write: impl FnOnce(&mut String)) {
        if self.is_passed(field) {
            self.scratch.clear();
            write(self.scratch);
            (self.sink)(field, Value::Str(self.scratch));
        }
    }
}

impl<F: FnMut(&Field, Value<'_>)> Visit for FieldVisitor<'_, F> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.emit(field, Value::Bool(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.emit(field, Value::U64(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.emit(field, Value::I64(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.emit(field, Value::U128(value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.emit(field, Value::I128(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.emit(field, Value::F64(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.emit(field, Value::Str(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.emit_text(field, |text| {
            for (depth, error) in iter::successors(Some(value), |&error| error.source()).enumerate()
            {
                append_formatted(
                    text,
                    format_args!("{}{error}", if depth == 0 { "" } else { ": " }),
                );
            }
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.emit_text(field, |text| {
            append_formatted(text, format_args!("{value:?}"))
        });
    }
}

/// Collects the names and the indices of the fields that have a value.
#[derive(Default)]
struct FieldNames(Vec<(&'static str, usize)>);

impl Visit for FieldNames {
    // The default methods of `Visit` pass values of all other types to `record_debug`.
    fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
        self.0.push((name(field), field.index()));
    }
}

/// Writes the message of an event.
struct MessageVisitor<'a, W> {
    writer: &'a mut W,
    /// The index of the field that contains the message.
    index: usize,
    /// Whether the message was written, or the error of the writer.
    written: Result<bool, fmt::Error>,
}

impl<W: Write> Visit for MessageVisitor<'_, W> {
    // A separate method for strings, because `record_debug` would write quotes.
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.index() == self.index {
            self.written = self.writer.write_str(value).map(|()| true);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.index() == self.index {
            // The error may come from the writer or from the code of the value. If the error came from the writer,
            // writing the placeholder fails, too.
            let written = write!(self.writer, "{value:?}");
            self.written = written
                .or_else(|_| self.writer.write_str(UNPRINTABLE))
                .map(|()| true);
        }
    }
}

/// Appends a formatted value to `text`. If the code of the value fails, appends a placeholder, because the rest of the
/// line is still useful.
fn append_formatted(text: &mut String, value: fmt::Arguments<'_>) {
    if text.write_fmt(value).is_err() {
        text.push_str(UNPRINTABLE);
    }
}

/// The fields of a span, stored for the lines of its events. A later value of a field replaces an earlier value.
#[derive(Debug, Default)]
pub struct SpanFields(Vec<(&'static str, StoredValue)>);

/// A [`Value`] that owns its text.
#[derive(Debug)]
enum StoredValue {
    Scalar(Value<'static>),
    Text(Box<str>),
}

impl SpanFields {
    /// Adds the fields that `record` passes to a visitor. `scratch` is a buffer in which values are formatted.
    pub fn add(&mut self, scratch: &mut String, record: impl FnOnce(&mut dyn Visit)) {
        record(&mut FieldVisitor {
            scratch,
            sink: |field: &Field, value: Value<'_>| {
                let stored = match value {
                    Value::Bool(value) => StoredValue::Scalar(Value::Bool(value)),
                    Value::U64(value) => StoredValue::Scalar(Value::U64(value)),
                    Value::I64(value) => StoredValue::Scalar(Value::I64(value)),
                    Value::U128(value) => StoredValue::Scalar(Value::U128(value)),
                    Value::I128(value) => StoredValue::Scalar(Value::I128(value)),
                    Value::F64(value) => StoredValue::Scalar(Value::F64(value)),
                    Value::Str(text) => StoredValue::Text(text.into()),
                };
                self.set(name(field), stored);
            },
            // A span has no message, and `set` replaces repeated fields.
            message: None,
            repeated: &[],
        });
    }

    /// Adds the fields of `later`, which replace fields of the same names.
    pub fn extend(&mut self, later: Self) {
        later
            .0
            .into_iter()
            .for_each(|(name, stored)| self.set(name, stored));
    }

    /// Adds a field, or replaces the field with the same name.
    fn set(&mut self, name: &'static str, stored: StoredValue) {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, value)) => *value = stored,
            None => self.0.push((name, stored)),
        }
    }

    /// Returns the names and values of all fields.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Value<'_>)> {
        self.0.iter().map(|(name, stored)| {
            let value = match stored {
                StoredValue::Scalar(value) => *value,
                StoredValue::Text(text) => Value::Str(text),
            };
            (*name, value)
        })
    }

    /// Returns whether the span has no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The name of the field in which the macros of `tracing` store the message of an event.
const MESSAGE: &str = "message";
/// Written instead of a value whose `Debug` or `Display` code fails.
const UNPRINTABLE: &str = "<formatting failed>";
