//! Collects the values of one entry, and converts them to ABI structs.

use std::{
    cell::Cell,
    error::Error,
    fmt::{self, Write},
    ops::Range,
    thread::{self, Thread},
};

use tracing_core::{Field, field::Visit};

use super::host::CallsiteHandle;
use crate::abi::{self, Slice};

/// A buffer for the values of one entry. Each thread reuses its buffer for its next entry.
///
/// All texts are written into one string, which may move while it grows. The values therefore store ranges of the
/// string, and [`with_entry`](Self::with_entry) converts the ranges to pointers when all values are collected.
#[derive(Debug)]
pub(crate) struct Values {
    /// The texts of all values and causes.
    text: String,
    values: Vec<CollectedValue>,
    /// For each cause of an error, the range of its text in `text`.
    causes: Vec<Range<usize>>,
    /// The values as ABI structs. Empty except during [`with_entry`](Self::with_entry).
    fields: Vec<abi::Field>,
    /// The causes as ABI structs. Empty except during [`with_entry`](Self::with_entry).
    slices: Vec<Slice>,
    thread: Thread,
}

/// A value of a field.
#[derive(Debug)]
struct CollectedValue {
    /// The index of the field in the callsite.
    index: usize,
    /// The type: a constant of [`abi::Value`].
    kind: u32,
    /// A scalar, as in [`abi::Value::bits`].
    bits: [u64; 2],
    /// A range of [`Values::text`].
    text: Range<usize>,
    /// A range of [`Values::causes`].
    causes: Range<usize>,
}

impl Values {
    fn new() -> Self {
        Self {
            text: String::new(),
            values: Vec::new(),
            causes: Vec::new(),
            fields: Vec::new(),
            slices: Vec::new(),
            thread: thread::current(),
        }
    }

    /// Runs `work` with the buffer of this thread. The buffer is empty at the start of `work`.
    pub(super) fn collect<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        thread_local! {
            static BUFFER: Cell<Option<Box<Values>>> = const { Cell::new(None) };
        }
        // A new buffer is created in three cases: for the first entry of a thread; while the buffer is in use, because
        // the `Debug` code of a value logs; and while the thread ends, after its thread-locals were destroyed.
        let buffer = BUFFER.try_with(Cell::take).ok().flatten();
        let mut values = buffer.unwrap_or_else(|| Box::new(Self::new()));
        let result = work(&mut values);
        values.clear();
        let _ = BUFFER.try_with(|buffer| buffer.set(Some(values)));
        result
    }

    /// Converts the collected values to an entry, and runs `send` with the entry.
    pub(super) fn with_entry<R>(
        &mut self,
        callsite: CallsiteHandle,
        span: u64,
        send: impl FnOnce(&abi::Entry) -> R,
    ) -> R {
        let text = |range: &Range<usize>| Slice::new(self.text[range.clone()].as_bytes());
        self.slices.extend(self.causes.iter().map(text));
        self.fields
            .extend(self.values.iter().map(|value| abi::Field {
                index: value.index,
                value: abi::Value {
                    kind: value.kind,
                    bits: value.bits,
                    text: text(&value.text),
                    causes: self.slices[value.causes.clone()].as_ptr(),
                    causes_len: value.causes.len(),
                },
            }));
        send(&abi::Entry {
            size: size_of::<abi::Entry>(),
            callsite: callsite.0,
            span,
            fields: self.fields.as_ptr(),
            fields_len: self.fields.len(),
            thread: Slice::from_option(self.thread.name()),
        })
    }

    /// Adds the `Debug` text of `value`.
    pub(super) fn push_debug(&mut self, index: usize, value: impl fmt::Debug) {
        let text = self.write(format_args!("{value:?}"));
        self.push(index, abi::Value::DEBUG, [0; 2], text, 0..0);
    }

    pub(super) fn push_str(&mut self, index: usize, value: &str) {
        let start = self.text.len();
        self.text.push_str(value);
        let text = start..self.text.len();
        self.push(index, abi::Value::STR, [0; 2], text, 0..0);
    }

    /// Adds the texts of an error and of its sources.
    pub(super) fn push_error(&mut self, index: usize, value: &(dyn Error + 'static)) {
        let text = self.write(format_args!("{value}"));
        let first = self.causes.len();
        let mut cause = value.source();
        while let Some(error) = cause {
            let text = self.write(format_args!("{error}"));
            self.causes.push(text);
            cause = error.source();
        }
        let causes = first..self.causes.len();
        self.push(index, abi::Value::ERROR, [0; 2], text, causes);
    }

    pub(super) fn push_bool(&mut self, index: usize, value: bool) {
        self.push_scalar(index, abi::Value::BOOL, [value.into(), 0]);
    }

    pub(super) fn push_u64(&mut self, index: usize, value: u64) {
        self.push_scalar(index, abi::Value::U64, [value, 0]);
    }

    pub(super) fn push_i64(&mut self, index: usize, value: i64) {
        self.push_scalar(index, abi::Value::I64, [value as u64, 0]);
    }

    pub(super) fn push_u128(&mut self, index: usize, value: u128) {
        self.push_scalar(index, abi::Value::U128, halves(value));
    }

    pub(super) fn push_i128(&mut self, index: usize, value: i128) {
        self.push_scalar(index, abi::Value::I128, halves(value as u128));
    }

    pub(super) fn push_f64(&mut self, index: usize, value: f64) {
        self.push_scalar(index, abi::Value::F64, [value.to_bits(), 0]);
    }

    fn push_scalar(&mut self, index: usize, kind: u32, bits: [u64; 2]) {
        self.push(index, kind, bits, 0..0, 0..0);
    }

    fn push(
        &mut self,
        index: usize,
        kind: u32,
        bits: [u64; 2],
        text: Range<usize>,
        causes: Range<usize>,
    ) {
        self.values.push(CollectedValue {
            index,
            kind,
            bits,
            text,
            causes,
        });
    }

    /// Appends formatted text to the buffer, and returns its range.
    fn write(&mut self, arguments: fmt::Arguments<'_>) -> Range<usize> {
        let start = self.text.len();
        // If the formatting code of the author fails, the text before the error is used.
        let _ = self.text.write_fmt(arguments);
        start..self.text.len()
    }

    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(MAX_IDLE_CAPACITY);
        self.values.clear();
        self.causes.clear();
        self.fields.clear();
        self.slices.clear();
    }
}

/// The maximum capacity of the text buffer between entries, in bytes. Enough for any usual log line.
const MAX_IDLE_CAPACITY: usize = 4096;

/// Returns the lower and the upper half of a 128-bit number.
const fn halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

impl Visit for Values {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push_bool(field.index(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push_u64(field.index(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_i64(field.index(), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.push_u128(field.index(), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.push_i128(field.index(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push_f64(field.index(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push_str(field.index(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.push_error(field.index(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push_debug(field.index(), value);
    }
}
