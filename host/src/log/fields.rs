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

/// The value of a field. An error is text with its sources, and so is a value that is given by `Debug` or
/// `Display`.
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

/// Calls `sink` with each field of an event, except its message. When two fields have one name, the later one
/// counts, so that each name comes once.
///
/// `scratch` is a buffer in which values are formatted.
pub fn visit(scratch: &mut String, event: &Event<'_>, sink: impl FnMut(&Field, Value<'_>)) {
    let fields = event.metadata().fields();
    // `tracing` records fields in order. To know whether a later field has the same name and a value, all of
    // them have to be seen first; `Option` fields may have no value.
    let later = if has_repeated_name(fields) {
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
        repeated: &later,
    });
}

/// Writes the message of an event to `writer`. Returns whether the event has one.
///
/// # Errors
///
/// When `writer` fails. A message whose own code fails does not fail the line.
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

/// Returns the index of the field that is the message of an event. The macros put the message into the first
/// field with the name `message`. A second field of that name is the author's, and like any other.
fn message_index(fields: &FieldSet) -> Option<usize> {
    fields.iter().position(|field| field.name() == MESSAGE)
}

/// Whether two of the fields have one name.
///
/// The names are hashed into a set of 128 bits first. Only if two hashes are equal, the names are compared
/// with each other. So the usual event costs one pass.
fn has_repeated_name(fields: &FieldSet) -> bool {
    let mut seen = 0_u128;
    let is_seen = |field: Field| {
        let name = name(&field).as_bytes();
        let first = name.first().copied().unwrap_or_default();
        let last = name.last().copied().unwrap_or_default();
        let sum = name.len() * 31 + usize::from(first) * 7 + usize::from(last) * 3;
        let bit = 1 << (sum % 128);
        let is_seen = seen & bit != 0;
        seen |= bit;
        is_seen
    };
    let are_equal = |(index, field): (usize, Field)| {
        let others = fields.iter().skip(index + 1);
        others.into_iter().any(|other| name(&other) == name(&field))
    };
    fields.iter().any(is_seen) && fields.iter().enumerate().any(are_equal)
}

/// Returns the name of a field, without the `r#` of a raw identifier.
#[must_use]
pub fn name(field: &Field) -> &'static str {
    let name = field.name();
    name.strip_prefix("r#").unwrap_or(name)
}

/// Converts the values that `tracing` records, and passes them to `sink`.
struct FieldVisitor<'a, F> {
    scratch: &'a mut String,
    sink: F,
    /// The index of the field that is the message.
    message: Option<usize>,
    /// The names and indices of all fields that have a value, if a name comes twice. Else empty.
    repeated: &'a [(&'static str, usize)],
}

impl<F: FnMut(&Field, Value<'_>)> FieldVisitor<'_, F> {
    /// Whether a field is neither the message nor followed by a field of the same name.
    fn is_wanted(&self, field: &Field) -> bool {
        let is_later =
            |&(other, index): &(&str, usize)| index > field.index() && other == name(field);
        self.message != Some(field.index()) && !self.repeated.iter().any(is_later)
    }

    /// Passes a value on, unless its field is not wanted.
    fn emit(&mut self, field: &Field, value: Value<'_>) {
        if self.is_wanted(field) {
            (self.sink)(field, value);
        }
    }

    /// Formats a value by `write`, and passes the text on. The value of a field that is not wanted is not formatted,
    /// because its code may be slow or log.
    fn emit_text(&mut self, field: &Field, write: impl FnOnce(&mut String)) {
        if self.is_wanted(field) {
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
                push(
                    text,
                    format_args!("{}{error}", if depth == 0 { "" } else { ": " }),
                );
            }
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.emit_text(field, |text| push(text, format_args!("{value:?}")));
    }
}

/// The names and indices of the fields that have a value.
#[derive(Default)]
struct FieldNames(Vec<(&'static str, usize)>);

impl Visit for FieldNames {
    fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
        self.0.push((name(field), field.index()));
    }
}

/// Writes the message of an event.
struct MessageVisitor<'a, W> {
    writer: &'a mut W,
    /// The index of the field that is the message.
    index: usize,
    /// Whether the message was written.
    written: Result<bool, fmt::Error>,
}

impl<W: Write> Visit for MessageVisitor<'_, W> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.index() == self.index {
            self.written = self.writer.write_str(value).map(|()| true);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.index() == self.index {
            // If the error is the writer's, and not the value's, writing the placeholder fails as well.
            let written = write!(self.writer, "{value:?}");
            self.written = written
                .or_else(|_| self.writer.write_str(UNPRINTABLE))
                .map(|()| true);
        }
    }
}

/// Appends a formatted value. If the code of the value fails, a placeholder is appended, because the rest of the
/// line is still of use.
fn push(text: &mut String, value: fmt::Arguments<'_>) {
    if text.write_fmt(value).is_err() {
        text.push_str(UNPRINTABLE);
    }
}

/// The fields of a span, stored for the lines of its events. Of two values of a field the later one counts.
#[derive(Debug, Default)]
pub struct SpanFields(Vec<(&'static str, StoredValue)>);

/// A [`Value`] that owns its text.
#[derive(Debug)]
enum StoredValue {
    Scalar(Value<'static>),
    Text(Box<str>),
}

impl SpanFields {
    /// Adds the fields that `record` gives. `scratch` is a buffer in which values are formatted.
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

    fn set(&mut self, name: &'static str, stored: StoredValue) {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, place)) => *place = stored,
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

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The name of the field into which the macros of `tracing` put the message of an event.
const MESSAGE: &str = "message";
/// Written in place of a value whose own code fails.
const UNPRINTABLE: &str = "<formatting failed>";
