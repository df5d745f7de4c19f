//! The values of events and spans, with their types: what formats write, and what a span keeps.

use std::{
    error::Error,
    fmt::{self, Write},
    iter,
};

use tracing::{
    Event,
    field::{Field, FieldSet, Visit},
};

/// A value. Errors are text, with their sources; so is what `Debug` and `Display` write.
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

/// Gives `sink` each field of an event, but its text. Of two values of a field the later one counts, so
/// that each name comes once.
///
/// `scratch` is where texts are put together.
pub fn visit(scratch: &mut String, event: &Event<'_>, sink: impl FnMut(&Field, Value<'_>)) {
    let fields = event.metadata().fields();
    let later = if may_repeat(fields) {
        let mut names = Names::default();
        event.record(&mut names);
        names.0
    } else {
        Vec::new()
    };
    event.record(&mut Each {
        scratch,
        sink,
        text: text_of(fields),
        later: &later,
    });
}

/// Writes the text of an event to `writer`. Whether it has one.
///
/// # Errors
///
/// When `writer` fails. A text that fails to format does not fail the line.
pub fn write_message(writer: &mut impl Write, event: &Event<'_>) -> Result<bool, fmt::Error> {
    let Some(text) = text_of(event.metadata().fields()) else {
        return Ok(false);
    };
    let mut message = Message {
        writer,
        text,
        written: Ok(false),
    };
    event.record(&mut message);
    message.written
}

/// Which field is the text of an event: the first one called `message`, where the macros put it. A field
/// that an author calls so, beside a text, is one like others.
fn text_of(fields: &FieldSet) -> Option<usize> {
    fields.iter().position(|field| field.name() == MESSAGE)
}

/// Whether two of the fields have one name. Costs next to nothing where the names differ.
fn may_repeat(fields: &FieldSet) -> bool {
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
    // Names that only look alike are told apart when they are compared.
    let are_equal = |(index, field): (usize, Field)| {
        let others = fields.iter().skip(index + 1);
        others.into_iter().any(|other| name(&other) == name(&field))
    };
    fields.iter().any(is_seen) && fields.iter().enumerate().any(are_equal)
}

/// The name of a field, as authors know it.
#[must_use]
pub fn name(field: &Field) -> &'static str {
    let name = field.name();
    name.strip_prefix("r#").unwrap_or(name)
}

struct Each<'a, F> {
    scratch: &'a mut String,
    sink: F,
    /// The index of the field that is the text.
    text: Option<usize>,
    /// All names and indices of fields that have a value, where a name comes twice.
    later: &'a [(&'static str, usize)],
}

impl<F: FnMut(&Field, Value<'_>)> Each<'_, F> {
    fn is_wanted(&self, field: &Field) -> bool {
        let is_later =
            |&(other, index): &(&str, usize)| index > field.index() && other == name(field);
        self.text != Some(field.index()) && !self.later.iter().any(is_later)
    }

    fn give(&mut self, field: &Field, value: Value<'_>) {
        if self.is_wanted(field) {
            (self.sink)(field, value);
        }
    }

    fn give_text(&mut self, field: &Field, write: impl FnOnce(&mut String)) {
        if self.is_wanted(field) {
            self.scratch.clear();
            write(self.scratch);
            (self.sink)(field, Value::Str(self.scratch));
        }
    }
}

impl<F: FnMut(&Field, Value<'_>)> Visit for Each<'_, F> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.give(field, Value::Bool(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.give(field, Value::U64(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.give(field, Value::I64(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.give(field, Value::U128(value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.give(field, Value::I128(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.give(field, Value::F64(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.give(field, Value::Str(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.give_text(field, |text| {
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
        self.give_text(field, |text| push(text, format_args!("{value:?}")));
    }
}

/// The names and indices of the fields that have a value.
#[derive(Default)]
struct Names(Vec<(&'static str, usize)>);

impl Visit for Names {
    fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
        self.0.push((name(field), field.index()));
    }
}

struct Message<'a, W> {
    writer: &'a mut W,
    /// The index of the text.
    text: usize,
    written: Result<bool, fmt::Error>,
}

impl<W: Write> Visit for Message<'_, W> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.index() == self.text {
            self.written = self.writer.write_str(value).map(|()| true);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.index() == self.text {
            let written = write!(self.writer, "{value:?}");
            self.written = written
                .or_else(|_| self.writer.write_str(UNPRINTABLE))
                .map(|()| true);
        }
    }
}

/// Appends a value whose own code may fail: the rest of the line counts more.
fn push(text: &mut String, value: fmt::Arguments<'_>) {
    if text.write_fmt(value).is_err() {
        text.push_str(UNPRINTABLE);
    }
}

/// The fields of a span, kept for the lines in it. Of two values of a field the later one counts.
#[derive(Debug, Default)]
pub struct SpanFields(Vec<(&'static str, Kept)>);

#[derive(Debug)]
enum Kept {
    Scalar(Value<'static>),
    Text(Box<str>),
}

impl SpanFields {
    /// Keeps the fields that `record` gives.
    pub fn add(&mut self, scratch: &mut String, record: impl FnOnce(&mut dyn Visit)) {
        record(&mut Each {
            scratch,
            sink: |field: &Field, value: Value<'_>| {
                let kept = match value {
                    Value::Bool(value) => Kept::Scalar(Value::Bool(value)),
                    Value::U64(value) => Kept::Scalar(Value::U64(value)),
                    Value::I64(value) => Kept::Scalar(Value::I64(value)),
                    Value::U128(value) => Kept::Scalar(Value::U128(value)),
                    Value::I128(value) => Kept::Scalar(Value::I128(value)),
                    Value::F64(value) => Kept::Scalar(Value::F64(value)),
                    Value::Str(text) => Kept::Text(text.into()),
                };
                self.set(name(field), kept);
            },
            text: None,
            later: &[],
        });
    }

    /// Takes over fields that came later.
    pub fn extend(&mut self, later: Self) {
        later
            .0
            .into_iter()
            .for_each(|(name, kept)| self.set(name, kept));
    }

    fn set(&mut self, name: &'static str, kept: Kept) {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, place)) => *place = kept,
            None => self.0.push((name, kept)),
        }
    }

    /// The fields.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Value<'_>)> {
        self.0.iter().map(|(name, kept)| {
            let value = match kept {
                Kept::Scalar(value) => *value,
                Kept::Text(text) => Value::Str(text),
            };
            (*name, value)
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The field that the macros of `tracing` put the text of an event in.
const MESSAGE: &str = "message";
const UNPRINTABLE: &str = "<formatting failed>";
