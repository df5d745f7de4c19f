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
    fn register(&self, callsite: &Callsite<'_>) -> (&'static Self::Callsite, bool);

    /// Logs an event.
    fn event(&self, callsite: &'static Self::Callsite, fields: Fields<'_>);

    /// Logs a panic.
    fn panicked(&self, panic: &Panic<'_>);
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

/// The fields of an event that have a value: the index among the callsite's, and the value.
#[derive(Clone, Debug)]
pub struct Fields<'a>(slice::Iter<'a, abi::Field>);

impl<'a> Iterator for Fields<'a> {
    type Item = (usize, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.0.next()?;
        // SAFETY: the plugin lends the event, and `'a` with it, until the host's function returns.
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
        // SAFETY: the plugin lends the event, and `'a` with it, until the host's function returns.
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
}

/// The functions that the host gives to a generation, and the logger behind them, which stays for
/// ever.
pub(super) fn table<L: Logger>(logger: L) -> abi::Host {
    abi::Host {
        size: size_of::<abi::Host>(),
        context: std::ptr::from_ref::<L>(Box::leak(Box::new(logger))).cast(),
        register: register::<L>,
        event: event::<L>,
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
        Some((callsite, wanted)) => Registered {
            callsite: std::ptr::from_ref(callsite).cast(),
            interest: if wanted {
                Registered::ALWAYS
            } else {
                Registered::NEVER
            },
        },
        None => Registered {
            callsite: std::ptr::null(),
            interest: Registered::NEVER,
        },
    }
}

unsafe extern "C" fn event<L: Logger>(context: *const c_void, event: *const abi::Event) {
    // SAFETY: the plugin gives back the context of its table, which is a leaked `L`.
    let logger = unsafe { &*context.cast::<L>() };
    // SAFETY: the plugin lends it for the call.
    let event = unsafe { &*event };
    if event.callsite.is_null() {
        return;
    }
    // SAFETY: the plugin gives back what `register` gave, which is a `&'static L::Callsite`.
    let callsite = unsafe { &*event.callsite.cast::<L::Callsite>() };
    // SAFETY: the plugin lends the fields for the call.
    let fields = unsafe { array(event.fields, event.fields_len) };
    // A panic of the host's own log has nowhere to go but std's hook.
    let _ = Caught.run(|| logger.event(callsite, Fields(fields.iter())));
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
