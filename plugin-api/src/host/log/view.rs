//! What a plugin lends to its logger, as safe values.

use std::{ffi::c_void, fmt, slice};

use crate::{Level, abi};

/// The span that an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// None of the plugin's: that of the request that the thread works on, if there is one.
    Current,
    /// No span, because the author says so (`parent: None`).
    Root,
    /// One of the plugin's, or that of a request.
    Span(u64),
}

impl Parent {
    pub(super) fn of(span: u64) -> Self {
        match span {
            abi::Entry::CURRENT => Self::Current,
            abi::Entry::ROOT => Self::Root,
            span => Self::Span(span),
        }
    }
}

/// What an event or a new span has beside its callsite.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The span that it is in.
    pub parent: Parent,
    /// The values.
    pub fields: Fields<'a>,
    /// The name that the plugin knows the thread by.
    pub thread: Option<&'a str>,
}

/// A place in a plugin that logs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Callsite<'a> {
    /// Its level.
    pub level: Level,
    /// Whether it makes spans, not events.
    pub is_span: bool,
    /// Its name.
    pub name: &'a str,
    /// Its target.
    pub target: &'a str,
    /// The module that it is in.
    pub module: Option<&'a str>,
    /// The file that it is in.
    pub file: Option<&'a str>,
    /// The line that it is on.
    pub line: Option<u32>,
    /// The names of its fields.
    pub fields: Vec<&'a str>,
}

/// The fields of an entry that have a value: the index among the callsite's, and the value.
#[derive(Clone, Debug)]
pub struct Fields<'a>(slice::Iter<'a, abi::Field>);

impl<'a> Iterator for Fields<'a> {
    type Item = (usize, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.0.next()?;
        // SAFETY: the plugin lends the entry, and `'a` with it, until the host's function returns.
        Some((field.index, unsafe { value(&field.value) }))
    }
}

/// A value, with its type.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names say it")]
#[non_exhaustive]
pub enum Value<'a> {
    Bool(bool),
    U64(u64),
    I64(i64),
    U128(u128),
    I128(i128),
    F64(f64),
    Str(&'a str),
    /// What the value's `Debug` or `Display` wrote.
    Debug(&'a str),
    /// What the error's `Display` wrote, and its sources'.
    Error(&'a str, Causes<'a>),
}

/// The sources of an error, outermost first, as text.
#[derive(Clone, Copy)]
pub struct Causes<'a>(&'a [abi::Slice]);

impl<'a> Causes<'a> {
    /// The texts.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        // SAFETY: the plugin lends the entry, and `'a` with it, until the host's function returns.
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
    /// Its message.
    pub message: &'a str,
    /// `src/lib.rs:7:13`.
    pub location: (Option<&'a str>, u32, u32),
    /// The thread's name.
    pub thread: Option<&'a str>,
    /// Where it came from, when `RUST_BACKTRACE` asks for it.
    pub backtrace: Option<&'a str>,
    /// The span that it happened in.
    pub parent: Parent,
}

/// An entry, and what `register` gave for its callsite.
///
/// # Safety
///
/// `entry` and what it borrows outlive `'a`.
pub(super) unsafe fn entry_view<'a>(entry: *const abi::Entry) -> (*const c_void, Entry<'a>) {
    // SAFETY: the caller says so.
    let entry = unsafe { &*entry };
    // SAFETY: as above.
    let fields = unsafe { array(entry.fields, entry.fields_len) };
    let view = Entry {
        parent: Parent::of(entry.span),
        fields: Fields(fields.iter()),
        // SAFETY: as above.
        thread: unsafe { entry.thread.text() },
    };
    (entry.callsite, view)
}

/// # Safety
///
/// What `callsite` borrows outlives `'a`.
pub(super) unsafe fn callsite_view<'a>(callsite: &abi::Callsite) -> Callsite<'a> {
    // SAFETY: the caller says so.
    let text = |slice: abi::Slice| unsafe { slice.text::<'a>() };
    // SAFETY: the caller says so.
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

/// # Safety
///
/// What `value` borrows outlives `'a`.
unsafe fn value<'a>(value: &abi::Value) -> Value<'a> {
    let [low, high] = value.bits;
    let wide = u128::from(low) | u128::from(high) << 64;
    // SAFETY: the caller says so.
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
            // SAFETY: the caller says so.
            Value::Error(
                text(),
                Causes(unsafe { array(value.causes, value.causes_len) }),
            )
        }
        // A kind of a later version. Its text is for hosts that do not know the kind.
        _ => Value::Debug(text()),
    }
}

/// # Safety
///
/// Behind `ptr` are `len` values that outlive `'a`, unless `len` is 0.
unsafe fn array<'a, T>(ptr: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller says so.
    unsafe { slice::from_raw_parts(ptr, len) }
}
