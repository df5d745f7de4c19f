//! The values of one event, as they cross.

use std::{
    cell::Cell,
    error::Error,
    fmt::{self, Write},
    ops::Range,
};

use tracing_core::{Field, field::Visit};

use crate::abi::{self, Slice};

/// Collects values. Texts are written one after the other into one buffer, which the next event
/// uses again.
#[derive(Debug, Default)]
pub(crate) struct Values {
    text: String,
    values: Vec<Collected>,
    causes: Vec<Range<usize>>,
}

#[derive(Debug)]
struct Collected {
    index: usize,
    kind: u32,
    bits: [u64; 2],
    text: Range<usize>,
    causes: Range<usize>,
}

impl Values {
    /// Lends the thread's buffer to `work`; a second one when a value logs while it is being
    /// written.
    pub(crate) fn collect(work: impl FnOnce(&mut Self)) {
        thread_local! {
            static BUFFER: Cell<Option<Values>> = const { Cell::new(None) };
        }
        // While a thread ends its locals are gone, and it may still log.
        let mut values = BUFFER
            .try_with(Cell::take)
            .ok()
            .flatten()
            .unwrap_or_default();
        work(&mut values);
        values.clear();
        let _ = BUFFER.try_with(|buffer| buffer.set(Some(values)));
    }

    /// Lends the values as they cross.
    pub(crate) fn with_fields(&self, send: impl FnOnce(&[abi::Field])) {
        let text = |range: &Range<usize>| Slice::new(self.text[range.clone()].as_bytes());
        let causes: Vec<_> = self.causes.iter().map(text).collect();
        let fields: Vec<_> = self
            .values
            .iter()
            .map(|value| abi::Field {
                index: value.index,
                value: abi::Value {
                    kind: value.kind,
                    bits: value.bits,
                    text: text(&value.text),
                    causes: causes[value.causes.clone()].as_ptr(),
                    causes_len: value.causes.len(),
                },
            })
            .collect();
        send(&fields);
    }

    /// Adds what `value` writes for people.
    pub(crate) fn push_debug(&mut self, index: usize, value: impl fmt::Debug) {
        let text = self.write(format_args!("{value:?}"));
        self.push(index, abi::Value::DEBUG, [0; 2], text, 0..0);
    }

    fn push_scalar(&mut self, field: &Field, kind: u32, bits: [u64; 2]) {
        self.push(field.index(), kind, bits, 0..0, 0..0);
    }

    fn push(
        &mut self,
        index: usize,
        kind: u32,
        bits: [u64; 2],
        text: Range<usize>,
        causes: Range<usize>,
    ) {
        self.values.push(Collected {
            index,
            kind,
            bits,
            text,
            causes,
        });
    }

    fn write(&mut self, arguments: fmt::Arguments<'_>) -> Range<usize> {
        let start = self.text.len();
        // A value whose formatting fails has what it wrote so far.
        let _ = self.text.write_fmt(arguments);
        start..self.text.len()
    }

    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEPT);
        self.values.clear();
        self.causes.clear();
    }
}

/// How much of the buffer stays between events, in bytes: enough for any usual line.
const KEPT: usize = 4096;

/// The lower and the upper half of a number of 128 bits.
const fn halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

impl Visit for Values {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push_scalar(field, abi::Value::BOOL, [value.into(), 0]);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push_scalar(field, abi::Value::U64, [value, 0]);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_scalar(field, abi::Value::I64, [value as u64, 0]);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.push_scalar(field, abi::Value::U128, halves(value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.push_scalar(field, abi::Value::I128, halves(value as u128));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push_scalar(field, abi::Value::F64, [value.to_bits(), 0]);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let text = self.write(format_args!("{value}"));
        self.push(field.index(), abi::Value::STR, [0; 2], text, 0..0);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let text = self.write(format_args!("{value}"));
        let first = self.causes.len();
        let mut cause = value.source();
        while let Some(error) = cause {
            let text = self.write(format_args!("{error}"));
            self.causes.push(text);
            cause = error.source();
        }
        self.push(
            field.index(),
            abi::Value::ERROR,
            [0; 2],
            text,
            first..self.causes.len(),
        );
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push_debug(field.index(), value);
    }
}
