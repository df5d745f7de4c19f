//! What a plugin logs, as safe values.

use std::{ffi::c_void, fmt, slice};

use super::call::Caught;
use crate::{
    Level,
    abi::{self, Registered},
    crossing::Guard,
};

/// Takes what one generation of a plugin logs. Any thread may call it, at any time, for the rest of
/// the process.
pub trait Logger: Send + Sync + 'static {
    /// What this logger keeps of a callsite.
    type Callsite: Sync + 'static;

    /// Takes note of a callsite, and says whether the level in force lets it through. Asked again
    /// by each [`Plugin::set_level`](super::Plugin::set_level).
    fn register(&self, callsite: &Callsite<'_>) -> (&'static Self::Callsite, Interest);

    /// Whether an entry of a callsite whose interest is [`Interest::Sometimes`] is wanted now.
    fn enabled(&self, callsite: &'static Self::Callsite, parent: Parent) -> bool;

    /// Logs an event.
    fn event(&self, callsite: &'static Self::Callsite, entry: Entry<'_>);

    /// Begins a span, and gives it a number: any but 0 and [`u64::MAX`].
    fn new_span(&self, callsite: &'static Self::Callsite, entry: Entry<'_>) -> u64;

    /// Gives a span values that came later.
    fn record(&self, span: u64, fields: Fields<'_>);

    /// Says that a span was caused by another.
    fn follows_from(&self, span: u64, cause: u64);

    /// One more handle to a span.
    fn clone_span(&self, span: u64);

    /// One handle less. Whether it was the last.
    fn close_span(&self, span: u64) -> bool;

    /// The span of the request that this thread works on.
    fn request_span(&self) -> Option<u64>;

    /// The callsite of a span of the plugin's.
    fn span_callsite(&self, span: u64) -> Option<&'static Self::Callsite>;

    /// Logs a panic.
    fn panicked(&self, panic: &Panic<'_>);
}

/// Whether a callsite is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Always.
    Always,
    /// Never.
    Never,
    /// Of some requests.
    Sometimes,
}

/// The span that an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// None of the plugin's: that of the request that the thread works on, if there is one.
    Current,
    /// None, as the author says.
    Root,
    /// One of the plugin's, or that of a request.
    Span(u64),
}

impl Parent {
    fn of(span: u64) -> Self {
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
#[derive(Clone, Debug)]
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
    /// What it said.
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

/// The functions that the host gives to a generation, and the logger behind them, which stays for
/// ever.
pub(super) fn table<L: Logger>(logger: L) -> abi::Host {
    abi::Host {
        size: size_of::<abi::Host>(),
        context: std::ptr::from_ref::<L>(Box::leak(Box::new(logger))).cast(),
        register: register::<L>,
        enabled: enabled::<L>,
        event: event::<L>,
        new_span: new_span::<L>,
        record: record::<L>,
        follows_from: follows_from::<L>,
        clone_span: clone_span::<L>,
        close_span: close_span::<L>,
        request_span: request_span::<L>,
        span_callsite: span_callsite::<L>,
        panicked: panicked::<L>,
    }
}

unsafe extern "C" fn register<L: Logger>(
    context: *const c_void,
    callsite: *const abi::Callsite,
) -> Registered {
    // SAFETY: the plugin gives back the context of its table, which is a leaked `L`.
    let logger = unsafe { &*context.cast::<L>() };
    // SAFETY: the plugin lends it for the call.
    let callsite = unsafe { &*callsite };
    let answer = Caught.run(|| {
        // SAFETY: as above.
        let callsite = unsafe { callsite_view(callsite) };
        logger.register(&callsite)
    });
    match answer {
        Some((callsite, interest)) => Registered {
            callsite: std::ptr::from_ref(callsite).cast(),
            interest: match interest {
                Interest::Always => Registered::ALWAYS,
                Interest::Never => Registered::NEVER,
                Interest::Sometimes => Registered::SOMETIMES,
            },
        },
        None => Registered {
            callsite: std::ptr::null(),
            interest: Registered::NEVER,
        },
    }
}

/// Runs `work` with the logger behind `context`. A panic of the host's own log has nowhere to go
/// but std's hook.
///
/// # Safety
///
/// `context` is that of a table that [`table`] made for an `L`.
unsafe fn with_logger<L: Logger, R>(
    context: *const c_void,
    work: impl FnOnce(&L) -> R,
) -> Option<R> {
    // SAFETY: the caller says that this is a leaked `L`.
    let logger = unsafe { &*context.cast::<L>() };
    Caught.run(|| work(logger))
}

/// # Safety
///
/// `callsite` is null, or what `register` gave.
unsafe fn site<L: Logger>(callsite: *const c_void) -> Option<&'static L::Callsite> {
    // SAFETY: `register` gives a `&'static L::Callsite`.
    unsafe { callsite.cast::<L::Callsite>().as_ref() }
}

/// An entry, and what `register` gave for its callsite.
///
/// # Safety
///
/// `entry` and what it borrows outlive `'a`.
unsafe fn entry_view<'a>(entry: *const abi::Entry) -> (*const c_void, Entry<'a>) {
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

unsafe extern "C" fn enabled<L: Logger>(
    context: *const c_void,
    callsite: *const c_void,
    span: u64,
) -> u32 {
    // SAFETY: the plugin gives back what `register` gave.
    let Some(callsite) = (unsafe { site::<L>(callsite) }) else {
        return 0;
    };
    let ask = |logger: &L| logger.enabled(callsite, Parent::of(span));
    // SAFETY: the plugin gives back the context of its table.
    u32::from(unsafe { with_logger(context, ask) } == Some(true))
}

unsafe extern "C" fn event<L: Logger>(context: *const c_void, event: *const abi::Entry) {
    // SAFETY: the plugin lends it for the call.
    let (callsite, entry) = unsafe { entry_view(event) };
    // SAFETY: the plugin gives back what `register` gave.
    let Some(callsite) = (unsafe { site::<L>(callsite) }) else {
        return;
    };
    // SAFETY: the plugin gives back the context of its table.
    let _ = unsafe { with_logger(context, |logger: &L| logger.event(callsite, entry)) };
}

unsafe extern "C" fn new_span<L: Logger>(context: *const c_void, span: *const abi::Entry) -> u64 {
    // SAFETY: the plugin lends it for the call.
    let (callsite, entry) = unsafe { entry_view(span) };
    // SAFETY: the plugin gives back what `register` gave.
    let Some(callsite) = (unsafe { site::<L>(callsite) }) else {
        return 0;
    };
    // SAFETY: the plugin gives back the context of its table.
    unsafe { with_logger(context, |logger: &L| logger.new_span(callsite, entry)) }.unwrap_or(0)
}

unsafe extern "C" fn record<L: Logger>(context: *const c_void, values: *const abi::Entry) {
    // SAFETY: the plugin lends it for the call.
    let (_, entry) = unsafe { entry_view(values) };
    if let Parent::Span(span) = entry.parent {
        // SAFETY: the plugin gives back the context of its table.
        let _ = unsafe { with_logger(context, |logger: &L| logger.record(span, entry.fields)) };
    }
}

unsafe extern "C" fn follows_from<L: Logger>(context: *const c_void, span: u64, cause: u64) {
    if let (Parent::Span(span), Parent::Span(cause)) = (Parent::of(span), Parent::of(cause)) {
        // SAFETY: the plugin gives back the context of its table.
        let _ = unsafe { with_logger(context, |logger: &L| logger.follows_from(span, cause)) };
    }
}

unsafe extern "C" fn clone_span<L: Logger>(context: *const c_void, span: u64) {
    if let Parent::Span(span) = Parent::of(span) {
        // SAFETY: the plugin gives back the context of its table.
        let _ = unsafe { with_logger(context, |logger: &L| logger.clone_span(span)) };
    }
}

unsafe extern "C" fn close_span<L: Logger>(context: *const c_void, span: u64) -> u32 {
    let Parent::Span(span) = Parent::of(span) else {
        return 0;
    };
    // SAFETY: the plugin gives back the context of its table.
    u32::from(unsafe { with_logger(context, |logger: &L| logger.close_span(span)) } == Some(true))
}

unsafe extern "C" fn request_span<L: Logger>(context: *const c_void) -> u64 {
    // SAFETY: the plugin gives back the context of its table.
    let span = unsafe { with_logger(context, |logger: &L| logger.request_span()) };
    span.flatten().unwrap_or(0)
}

unsafe extern "C" fn span_callsite<L: Logger>(context: *const c_void, span: u64) -> *const c_void {
    let Parent::Span(span) = Parent::of(span) else {
        return std::ptr::null();
    };
    // SAFETY: the plugin gives back the context of its table.
    let callsite = unsafe { with_logger(context, |logger: &L| logger.span_callsite(span)) };
    callsite.flatten().map_or(std::ptr::null(), |callsite| {
        std::ptr::from_ref(callsite).cast()
    })
}

unsafe extern "C" fn panicked<L: Logger>(context: *const c_void, panic: *const abi::Panic) {
    // SAFETY: the plugin gives back the context of its table, which is a leaked `L`.
    let logger = unsafe { &*context.cast::<L>() };
    // SAFETY: the plugin lends it for the call.
    let panic = unsafe { &*panic };
    // SAFETY: as above.
    let text = |slice: abi::Slice| unsafe { slice.text() };
    let _ = Caught.run(|| {
        logger.panicked(&Panic {
            message: text(panic.message).unwrap_or_default(),
            location: (text(panic.file), panic.line, panic.column),
            thread: text(panic.thread),
            backtrace: text(panic.backtrace),
            parent: Parent::of(panic.span),
        });
    });
}

/// # Safety
///
/// What `callsite` borrows outlives `'a`.
unsafe fn callsite_view<'a>(callsite: &abi::Callsite) -> Callsite<'a> {
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
        // What a later version adds has a text for those that do not know it.
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
