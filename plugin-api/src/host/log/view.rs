//! Safe types for the ABI structs with which a plugin logs. They borrow from the plugin's memory.

use std::{ffi::c_void, fmt, slice};

use crate::{Level, abi};

/// The span of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The thread is in no span of the plugin. The span of the entry is the span of the request on which the thread
    /// works, if there is such a request.
    RequestSpan,
    /// The entry has no span, because the author wrote `parent: None`.
    Root,
    /// The number of a span that the plugin has created, or of the span of a request.
    Span(u64),
}

impl Parent {
    /// Converts the number in [`abi::Entry::span`].
    pub(super) fn of(span: u64) -> Self {
        match span {
            abi::Entry::REQUEST_SPAN => Self::RequestSpan,
            abi::Entry::ROOT => Self::Root,
            span => Self::Span(span),
        }
    }
}

/// The parts of an event or a new span that its callsite does not contain.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The parent span.
    pub parent: Parent,
    /// The fields that have a value.
    pub fields: Fields<'a>,
    /// The name of the current thread in the plugin's std.
    pub thread: Option<&'a str>,
}

/// A callsite: a place in a plugin's code that logs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Callsite<'a> {
    /// The level of the entries.
    pub level: Level,
    /// Whether the entries are spans. If false, they are events.
    pub is_span: bool,
    /// The name that the author set, or by default a name such as `event src/lib.rs:7`.
    pub name: &'a str,
    /// The target that the author set, or by default the module path.
    pub target: &'a str,
    /// The module path.
    pub module: Option<&'a str>,
    /// The source file.
    pub file: Option<&'a str>,
    /// The line in `file`.
    pub line: Option<u32>,
    /// The names of the fields, in order.
    pub fields: Vec<&'a str>,
}

/// An iterator over the fields of an entry that have a value. An item is the index of the field in
/// [`Callsite::fields`], and the value.
#[derive(Clone, Debug)]
pub struct Fields<'a>(slice::Iter<'a, abi::Field>);

impl<'a> Iterator for Fields<'a> {
    type Item = (usize, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.0.next()?;
        // SAFETY: only `entry_view` creates this type, and its caller guarantees that the entry outlives `'a`.
        Some((field.index, unsafe { value_view(&field.value) }))
    }
}

/// A typed value of a field.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names are those of the types")]
#[non_exhaustive]
pub enum Value<'a> {
    Bool(bool),
    U64(u64),
    I64(i64),
    U128(u128),
    I128(i128),
    F64(f64),
    Str(&'a str),
    /// A value as text, formatted with its `Debug` or `Display`.
    Debug(&'a str),
    /// The `Display` text of an error, and the texts of its sources.
    Error(&'a str, Causes<'a>),
}

/// The texts of an error's sources, outermost first.
#[derive(Clone, Copy)]
pub struct Causes<'a>(&'a [abi::Slice]);

impl<'a> Causes<'a> {
    /// Returns an iterator over the texts.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        // SAFETY: only `value_view` creates this type, and its caller guarantees that the texts outlive `'a`.
        self.0
            .iter()
            .map(|cause| unsafe { cause.text() }.unwrap_or_default())
    }
}

impl fmt::Debug for Causes<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

/// A panic in a plugin.
#[derive(Clone, Copy, Debug)]
pub struct Panic<'a> {
    /// The message of the panic.
    pub message: &'a str,
    /// The source file, the line, and the column.
    pub location: (Option<&'a str>, u32, u32),
    /// The name of the thread that panicked.
    pub thread: Option<&'a str>,
    /// The backtrace as text. `None` unless `RUST_BACKTRACE` enables backtraces.
    pub backtrace: Option<&'a str>,
    /// The span in which the thread panicked.
    pub parent: Parent,
}

/// Converts an ABI entry. Also returns the handle of its callsite, as `register` has returned it.
///
/// # Safety
///
/// `entry`, its arrays and its slices are valid and outlive `'a`.
pub(super) unsafe fn entry_view<'a>(entry: *const abi::Entry) -> (*const c_void, Entry<'a>) {
    // SAFETY: the caller guarantees that `entry` is valid.
    let entry = unsafe { &*entry };
    // SAFETY: the caller guarantees that the array of fields is valid and outlives `'a`.
    let fields = unsafe { array(entry.fields, entry.fields_len) };
    let view = Entry {
        parent: Parent::of(entry.span),
        fields: Fields(fields.iter()),
        // SAFETY: the caller guarantees that the slice is valid and outlives `'a`.
        thread: unsafe { entry.thread.text() },
    };
    (entry.callsite, view)
}

/// Converts an ABI callsite.
///
/// # Safety
///
/// The slices of `callsite` and its array of names are valid and outlive `'a`.
pub(super) unsafe fn callsite_view<'a>(callsite: &abi::Callsite) -> Callsite<'a> {
    // SAFETY: the caller guarantees that the slices are valid and outlive `'a`.
    let text = |slice: abi::Slice| unsafe { slice.text::<'a>() };
    // SAFETY: the caller guarantees that the array of names is valid and outlives `'a`.
    let fields = unsafe { array::<abi::Slice>(callsite.fields, callsite.fields_len) };
    Callsite {
        level: Level::from_number(callsite.level).unwrap_or(Level::Trace),
        is_span: callsite.kind == abi::Callsite::SPAN,
        name: text(callsite.name).unwrap_or_default(),
        target: text(callsite.target).unwrap_or_default(),
        module: text(callsite.module),
        file: text(callsite.file),
        line: (callsite.line != 0).then_some(callsite.line),
        fields: fields
            .iter()
            .map(|&name| text(name).unwrap_or_default())
            .collect(),
    }
}

/// Converts an ABI value.
///
/// # Safety
///
/// The text of `value` and the texts of its causes are valid and outlive `'a`.
unsafe fn value_view<'a>(value: &abi::Value) -> Value<'a> {
    let [low, high] = value.bits;
    let wide = u128::from(low) | u128::from(high) << 64;
    // SAFETY: the caller guarantees that the text is valid and outlives `'a`.
    let text = || unsafe { value.text.text::<'a>() }.unwrap_or_default();
    match value.kind {
        abi::Value::BOOL => Value::Bool(low != 0),
        abi::Value::U64 => Value::U64(low),
        abi::Value::I64 => Value::I64(low as i64),
        abi::Value::U128 => Value::U128(wide),
        abi::Value::I128 => Value::I128(wide as i128),
        abi::Value::F64 => Value::F64(f64::from_bits(low)),
        abi::Value::STR => Value::Str(text()),
        abi::Value::ERROR => {
            // SAFETY: the caller guarantees that the array of causes is valid and outlives `'a`.
            Value::Error(
                text(),
                Causes(unsafe { array(value.causes, value.causes_len) }),
            )
        }
        // `DEBUG`, or a type that a later version of the ABI has added. A value of such a type also sets `text`, for
        // hosts that do not know the type.
        _ => Value::Debug(text()),
    }
}

/// Returns the array of `len` values at `ptr` as a slice.
///
/// # Safety
///
/// `ptr` points to `len` valid values that outlive `'a`. If `len` is 0, `ptr` may be any pointer.
unsafe fn array<'a, T>(ptr: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        // A slice must not have a null pointer, and a plugin may pass one for an empty array.
        return &[];
    }
    // SAFETY: the caller guarantees that `ptr` points to `len` valid values that outlive `'a`.
    unsafe { slice::from_raw_parts(ptr, len) }
}
