//! The types with which a plugin logs: callsites, events, spans and panics.
//!
//! A plugin registers a callsite before it sends the callsite's first [`Entry`] (an event, a new span, or new values of a
//! span). The host creates the spans, and a number other than 0 identifies a span. The plugin itself tracks the spans
//! that each of its threads is in, and each `Entry` carries the number of its span. The host is therefore not called
//! when a thread enters or leaves a span.

use std::ffi::c_void;

use super::Slice;

/// A callsite: a place in a plugin's code that logs. Borrowed by [`Host::register`](super::Host::register) until that
/// function returns.
#[repr(C)]
#[derive(Debug)]
pub struct Callsite {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The level: 0 off, 1 critical, 2 error, 3 warn, 4 info, 5 debug, 6 trace.
    pub level: u32,
    /// [`Self::EVENT`] or [`Self::SPAN`].
    pub kind: u32,
    /// The name that the author set, or by default a name such as `event src/lib.rs:7`.
    pub name: Slice,
    /// The target that the author set, or by default the module path.
    pub target: Slice,
    /// The module path, or absent.
    pub module: Slice,
    /// The source file, or absent.
    pub file: Slice,
    /// An array with the names of the fields, in order.
    pub fields: *const Slice,
    /// The length of `fields`.
    pub fields_len: usize,
    /// The line in `file`; 0 if unknown.
    pub line: u32,
}

/// The result of [`Host::register`](super::Host::register).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    /// The host's handle of the callsite, for [`Entry::callsite`]. Never freed. A callsite that is registered again
    /// gets the same handle. Only the host may dereference this pointer. Null if the registration has failed.
    pub callsite: *const c_void,
    /// Whether the host wants the entries of the callsite: [`Self::NEVER`], [`Self::SOMETIMES`] or [`Self::ALWAYS`].
    /// Valid until the next [`Plugin::set_level`].
    ///
    /// [`Plugin::set_level`]: super::Plugin::set_level
    pub interest: u32,
}

/// An event, a new span, or values for an existing span. Borrowed by [`Host::event`](super::Host::event),
/// [`Host::new_span`](super::Host::new_span) or [`Host::record`](super::Host::record) until that function returns.
#[repr(C)]
#[derive(Debug)]
pub struct Entry {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The handle that [`Host::register`](super::Host::register) has returned. [`Host::record`](super::Host::record)
    /// ignores this field.
    pub callsite: *const c_void,
    /// For an event or a new span: the number of the parent span, [`Self::REQUEST_SPAN`] or [`Self::ROOT`]. For
    /// [`Host::record`](super::Host::record): the number of the span that receives the values.
    pub span: u64,
    /// An array of the fields that have a value.
    pub fields: *const Field,
    /// The length of `fields`.
    pub fields_len: usize,
    /// The name of the current thread, or absent.
    pub thread: Slice,
}

/// A field of an entry.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The index of the field in [`Callsite::fields`].
    pub index: usize,
    /// The value of the field.
    pub value: Value,
}

/// A typed value.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// The type of the value: [`Self::BOOL`] or another constant of this type. Each constant documents the field that
    /// holds the value.
    pub kind: u32,
    /// A scalar. `bits[0]` has the lower 64 bits; `bits[1]` has the upper 64 bits of a 128-bit number.
    pub bits: [u64; 2],
    /// A text.
    pub text: Slice,
    /// An array with the texts of an error's sources, outermost first.
    pub causes: *const Slice,
    /// The length of `causes`.
    pub causes_len: usize,
}

/// A panic in a plugin. Borrowed by [`Host::panicked`](super::Host::panicked) until that function returns.
#[repr(C)]
#[derive(Debug)]
pub struct Panic {
    /// The size of this struct in bytes.
    pub size: usize,
    /// The message of the panic.
    pub message: Slice,
    /// The source file, or absent.
    pub file: Slice,
    /// The name of the thread that panicked, or absent.
    pub thread: Slice,
    /// The backtrace as text. Absent unless `RUST_BACKTRACE` enables backtraces.
    pub backtrace: Slice,
    /// The line in `file`.
    pub line: u32,
    /// The column in `line`.
    pub column: u32,
    /// The number of the span in which the thread panicked, or one of the special numbers of [`Entry::span`].
    pub span: u64,
}

impl Callsite {
    /// A callsite of events.
    pub const EVENT: u32 = 0;
    /// A callsite of spans.
    pub const SPAN: u32 = 1;
}

impl Registered {
    /// The host wants no entry of the callsite.
    pub const NEVER: u32 = 0;
    /// The host wants all entries of the callsite.
    pub const ALWAYS: u32 = 1;
    /// The host wants the entries of certain requests. The plugin calls [`Host::enabled`](super::Host::enabled) for
    /// each entry.
    pub const SOMETIMES: u32 = 2;
}

impl Entry {
    /// The thread is in no span of the plugin. The host uses the span of the request on which the thread works, if
    /// there is such a request.
    pub const REQUEST_SPAN: u64 = 0;
    /// The entry has no parent span, because the author wrote `parent: None`.
    pub const ROOT: u64 = u64::MAX;
}

impl Value {
    /// A `bool`: `bits[0]` is 0 or 1.
    pub const BOOL: u32 = 1;
    /// A `u64` in `bits[0]`.
    pub const U64: u32 = 2;
    /// An `i64` in `bits[0]`, in two's complement.
    pub const I64: u32 = 3;
    /// A `u128` in `bits`.
    pub const U128: u32 = 4;
    /// An `i128` in `bits`, in two's complement.
    pub const I128: u32 = 5;
    /// An `f64` in `bits[0]`, in the binary64 format of IEEE 754.
    pub const F64: u32 = 6;
    /// A string in `text`.
    pub const STR: u32 = 7;
    /// A value that was formatted with `Debug` or `Display`; the result is in `text`.
    pub const DEBUG: u32 = 8;
    /// An error: its `Display` text is in `text`, and the texts of its sources are in `causes`.
    pub const ERROR: u32 = 9;
}
