//! What a plugin tells the host's log: callsites once, then events and spans; and panics.
//!
//! A span is the host's, and named by a number other than 0. The plugin keeps for itself which
//! spans its threads are in, and tells the host with each entry: entering and leaving a span does
//! not cross.

use std::ffi::c_void;

use super::Slice;

/// A place in a plugin's code that logs. Borrowed by [`Host::register`](super::Host::register)
/// until that returns.
#[repr(C)]
#[derive(Debug)]
pub struct Callsite {
    /// The size of this struct in bytes.
    pub size: usize,
    /// 0 off, 1 critical, 2 error, 3 warn, 4 info, 5 debug, 6 trace.
    pub level: u32,
    /// [`Self::EVENT`] or [`Self::SPAN`].
    pub kind: u32,
    /// The name: `event src/lib.rs:7` unless the author gave one.
    pub name: Slice,
    /// The target: the module path unless the author gave one.
    pub target: Slice,
    /// The module path, or none.
    pub module: Slice,
    /// The source file, or none.
    pub file: Slice,
    /// The names of the fields, in order.
    pub fields: *const Slice,
    /// How many fields there are.
    pub fields_len: usize,
    /// The line in `file`; 0 for none.
    pub line: u32,
}

/// The host's answer to a callsite.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    /// Names the callsite in [`Entry`]. The host's, valid for ever, the same for the same place.
    pub callsite: *const c_void,
    /// [`Self::NEVER`], [`Self::SOMETIMES`], [`Self::ALWAYS`]: what the level in force says, until
    /// [`Plugin::set_level`] is called.
    ///
    /// [`Plugin::set_level`]: super::Plugin::set_level
    pub interest: u32,
}

/// A callsite and values: an event, a span that begins, or values that a span gets later. Borrowed
/// by the function that takes it until that returns.
#[repr(C)]
#[derive(Debug)]
pub struct Entry {
    /// The size of this struct in bytes.
    pub size: usize,
    /// As [`Host::register`](super::Host::register) gave it.
    pub callsite: *const c_void,
    /// The span that it is in: a span of the host's, [`Self::CURRENT`] or [`Self::ROOT`]. For
    /// values that come later, the span that gets them.
    pub span: u64,
    /// The values of the fields that have one.
    pub fields: *const Field,
    /// How many there are.
    pub fields_len: usize,
    /// The thread's name, or none.
    pub thread: Slice,
}

/// A field of an entry.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Which of the callsite's fields, from 0.
    pub index: usize,
    /// Its value.
    pub value: Value,
}

/// A typed value.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// One of the constants below, which says where the value is.
    pub kind: u32,
    /// Scalars: the lower 64 bits, then the upper 64 bits of 128.
    pub bits: [u64; 2],
    /// Texts.
    pub text: Slice,
    /// The causes of an error, outermost first, as text.
    pub causes: *const Slice,
    /// How many causes there are.
    pub causes_len: usize,
}

/// A panic in a plugin. Borrowed by [`Host::panicked`](super::Host::panicked) until that returns.
#[repr(C)]
#[derive(Debug)]
pub struct Panic {
    /// The size of this struct in bytes.
    pub size: usize,
    /// Its message.
    pub message: Slice,
    /// The source file, or none.
    pub file: Slice,
    /// The thread's name, or none.
    pub thread: Slice,
    /// The backtrace as text, or none where `RUST_BACKTRACE` does not ask for one.
    pub backtrace: Slice,
    /// The line in `file`.
    pub line: u32,
    /// The column in `line`.
    pub column: u32,
    /// The span that it happened in: as [`Entry::span`].
    pub span: u64,
}

impl Callsite {
    /// A callsite of events.
    pub const EVENT: u32 = 0;
    /// A callsite of spans.
    pub const SPAN: u32 = 1;
}

impl Registered {
    /// The host wants nothing from the callsite.
    pub const NEVER: u32 = 0;
    /// The host wants everything from the callsite.
    pub const ALWAYS: u32 = 1;
    /// The host wants entries of some requests: [`Host::enabled`](super::Host::enabled) is asked for each entry.
    pub const SOMETIMES: u32 = 2;
}

impl Entry {
    /// No span of the plugin's: it is in the request that the thread works on, if there is one.
    pub const CURRENT: u64 = 0;
    /// In no span, because the author says so (`parent: None`).
    pub const ROOT: u64 = u64::MAX;
}

impl Value {
    /// `bits[0]` is 0 or 1.
    pub const BOOL: u32 = 1;
    /// `bits[0]`.
    pub const U64: u32 = 2;
    /// `bits[0]` as two's complement.
    pub const I64: u32 = 3;
    /// `bits`.
    pub const U128: u32 = 4;
    /// `bits` as two's complement.
    pub const I128: u32 = 5;
    /// `bits[0]`, as IEEE 754 has them.
    pub const F64: u32 = 6;
    /// `text` is a string value.
    pub const STR: u32 = 7;
    /// `text` is what a value's `Debug` or `Display` wrote.
    pub const DEBUG: u32 = 8;
    /// `text` is an error's `Display`, `causes` are its sources.
    pub const ERROR: u32 = 9;
}
