//! Receives the log entries of a plugin: the trait [`Logger`], and safe types for the ABI structs.

mod table;
mod view;

pub(super) use self::table::host_table;
pub use self::view::{Callsite, Causes, Entry, Fields, Panic, Parent, Value};

/// Receives the log entries of one generation of a plugin. Any thread may call these methods at any time until the
/// process ends.
pub trait Logger: Send + Sync + 'static {
    /// The type that this logger stores for each callsite.
    type Callsite: Sync + 'static;

    /// Registers a callsite. Returns the stored callsite, and whether the logger wants its entries at the current
    /// level. The plugin registers each of its callsites again in each [`Plugin::set_level`](super::Plugin::set_level).
    fn register(&self, callsite: &Callsite<'_>) -> (&'static Self::Callsite, Interest);

    /// Returns whether the logger wants an entry now. Called for each entry of a callsite whose interest is
    /// [`Interest::Sometimes`].
    fn enabled(&self, callsite: &'static Self::Callsite, parent: Parent) -> bool;

    /// Logs an event.
    fn event(&self, callsite: &'static Self::Callsite, entry: Entry<'_>);

    /// Creates a span with one handle, and returns the number of the span: neither 0 nor [`u64::MAX`].
    fn new_span(&self, callsite: &'static Self::Callsite, entry: Entry<'_>) -> u64;

    /// Adds values to an existing span.
    fn record(&self, span: u64, fields: Fields<'_>);

    /// Records that the span `cause` has caused `span`.
    fn follows_from(&self, span: u64, cause: u64);

    /// Adds a handle to a span.
    fn clone_span(&self, span: u64);

    /// Releases a handle of a span. Returns whether this was the last handle and the span has ended.
    fn close_span(&self, span: u64) -> bool;

    /// Returns the span of the request on which this thread works. Returns `None` if there is no such request.
    fn request_span(&self) -> Option<u64>;

    /// Returns the callsite of a span. Returns `None` if the plugin did not create the span.
    fn span_callsite(&self, span: u64) -> Option<&'static Self::Callsite>;

    /// Logs a panic.
    fn panicked(&self, panic: &Panic<'_>);
}

/// Whether a logger wants the entries of a callsite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// The logger wants all entries.
    Always,
    /// The logger wants no entry.
    Never,
    /// The logger decides for each entry, by [`Logger::enabled`].
    Sometimes,
}
