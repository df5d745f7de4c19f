//! What a plugin logs, as safe values.

mod table;
mod view;

pub(super) use self::table::table;
pub use self::view::{Callsite, Causes, Entry, Fields, Panic, Parent, Value};

/// Takes what one generation of a plugin logs. Any thread may call it, at any time, for the rest of
/// the process.
pub trait Logger: Send + Sync + 'static {
    /// The logger's own record of a callsite.
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
    /// Some entries are wanted: [`Logger::enabled`] is asked for each.
    Sometimes,
}
