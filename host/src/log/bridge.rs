//! Emits the events and spans of plugins as `tracing` events and spans of the host, with the same level, target, source
//! location and typed fields.
//!
//! A plugin registers each of its callsites once. For each callsite of a plugin the host creates a callsite of its own.
//! Filters, formats and layers therefore treat the events of plugins and of the host alike. The host's callsites exist
//! as long as the process. All generations of a plugin share the same callsites, so that loading the same code again
//! creates no new callsites.

mod callsite;
mod value;

use std::{fmt, sync::Arc};

use plugin_api::host::{self, Callsite, Entry, Fields, Logger, Panic, Parent};
use smallvec::SmallVec;
use tracing::{
    Event, Metadata, dispatcher, error,
    field::ValueSet,
    span::{Attributes, Id, Record},
};

pub use self::callsite::{PluginCallsite, intern, plugin_of};
use self::value::FieldValue;
use super::{
    origin::{self, Origin},
    recent, request,
};

/// Emits the events and spans of one generation.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// The generation.
    origin: Origin,
    panic_counter: Arc<dyn PanicCounter>,
}

/// Counts the panics of a generation.
pub trait PanicCounter: fmt::Debug + Send + Sync {
    /// Counts a panic of the generation `origin`. The bridge calls this function after the panic was logged.
    fn count_panic(&self, origin: Origin);
}

impl Bridge {
    /// Returns a bridge for the generation `origin`. `panic_counter` counts the panics of the generation.
    #[must_use]
    pub fn new(origin: Origin, panic_counter: Arc<dyn PanicCounter>) -> Self {
        Self {
            origin,
            panic_counter,
        }
    }

    /// Runs `emit` with the parent span of an entry. While `emit` runs, the origin of this thread is this generation.
    /// Returns `None` and does not run `emit` if the filter rejects the entry now.
    fn emit<T>(
        &self,
        site: &'static PluginCallsite,
        entry: &Entry<'_>,
        emit: impl FnOnce(Option<Id>) -> T,
    ) -> Option<T> {
        // The plugin has checked the level a moment ago, but the level may have changed since then.
        if !self.enabled(site, entry.parent) {
            return None;
        }
        if let Some(thread) = entry.thread {
            origin::set_thread_name(thread);
        }
        Some(origin::scope(self.origin, || {
            emit(parent_span(entry.parent))
        }))
    }
}

impl Logger for Bridge {
    type Callsite = PluginCallsite;

    fn register(&self, callsite: &Callsite<'_>) -> (&'static PluginCallsite, host::Interest) {
        let site = PluginCallsite::of(self.origin.plugin, callsite);
        (site, site.interest())
    }

    fn enabled(&self, site: &'static PluginCallsite, parent: Parent) -> bool {
        match site.interest() {
            host::Interest::Always => true,
            host::Interest::Never => false,
            // The directives disable the callsite, but events in a request with forced debug pass.
            host::Interest::Sometimes => match parent {
                Parent::Span(span) => request::is_debug_forced(Some(&Id::from_u64(span))),
                Parent::RequestSpan | Parent::Root => request::is_debug_forced(None),
            },
        }
    }

    fn event(&self, site: &'static PluginCallsite, entry: Entry<'_>) {
        self.emit(site, &entry, |parent| {
            with_values(site.metadata(), entry.fields.clone(), |values| {
                Event::child_of(parent, site.metadata(), values);
            });
        });
    }

    fn new_span(&self, site: &'static PluginCallsite, entry: Entry<'_>) -> u64 {
        let span = self.emit(site, &entry, |parent| {
            with_values(site.metadata(), entry.fields.clone(), |values| {
                let attributes = match parent {
                    Some(parent) => Attributes::child_of(parent, site.metadata(), values),
                    None => Attributes::new_root(site.metadata(), values),
                };
                dispatcher::get_default(|dispatch| dispatch.new_span(&attributes))
            })
        });
        // 0 means no span: the filter rejects the span now, although the plugin has checked the level a moment ago.
        span.map_or(0, |span| span.into_u64())
    }

    fn record(&self, span: u64, fields: Fields<'_>) {
        let span = Id::from_u64(span);
        // The plugin passes only the index of each field. The metadata of the span contain the names.
        if let Some(metadata) = request::with_span(&span, |span| span.metadata()) {
            origin::scope(self.origin, || {
                with_values(metadata, fields, |values| {
                    dispatcher::get_default(|dispatch| {
                        dispatch.record(&span, &Record::new(values));
                    });
                });
            });
        }
    }

    fn follows_from(&self, span: u64, cause: u64) {
        let (span, cause) = (Id::from_u64(span), Id::from_u64(cause));
        dispatcher::get_default(|dispatch| dispatch.record_follows_from(&span, &cause));
    }

    fn clone_span(&self, span: u64) {
        dispatcher::get_default(|dispatch| dispatch.clone_span(&Id::from_u64(span)));
    }

    fn close_span(&self, span: u64) -> bool {
        dispatcher::get_default(|dispatch| dispatch.try_close(Id::from_u64(span)))
    }

    fn request_span(&self) -> Option<u64> {
        request::current_span().map(|span| span.into_u64())
    }

    fn span_callsite(&self, span: u64) -> Option<&'static PluginCallsite> {
        let callsite =
            |span: tracing_subscriber::registry::SpanRef<'_, _>| span.metadata().callsite();
        PluginCallsite::find(&request::with_span(&Id::from_u64(span), callsite)?)
    }

    fn panicked(&self, panic: &Panic<'_>) {
        origin::scope(self.origin, || {
            let (file, line, column) = panic.location;
            // The line comes from a callsite of the host, so that all panics have the same target and fields.
            let location = file.map(|file| format!("{file}:{line}:{column}"));
            // Only the server of a development session stores panics, for the page that explains a failure.
            if recent::is_on() {
                let panic = recent::Panic {
                    message: panic.message.to_string(),
                    location: file.map(|file| (file.to_owned(), line, column)),
                    backtrace: panic.backtrace.map(str::to_owned),
                };
                request::with_current(|request| {
                    let id = request.map(|request| request.meta().id.as_str().to_owned());
                    recent::add_panic(&id.unwrap_or_default(), panic);
                });
            }
            error!(
                target: "panic",
                parent: parent_span(panic.parent),
                location,
                thread = panic.thread,
                backtrace = panic.backtrace,
                "panicked: {}", panic.message
            );
        });
        self.panic_counter.count_panic(self.origin);
    }
}

/// Returns the span of the host that is the parent of an entry. Returns `None` if the entry has no parent.
fn parent_span(parent: Parent) -> Option<Id> {
    match parent {
        Parent::RequestSpan => request::current_span(),
        Parent::Root => None,
        Parent::Span(span) => Some(Id::from_u64(span)),
    }
}

/// Runs `work` with the values of an entry in the form that `tracing` expects: for each field of the callsite, in
/// order, a value or `None`.
fn with_values<T>(
    metadata: &'static Metadata<'static>,
    fields: Fields<'_>,
    work: impl FnOnce(&ValueSet<'_>) -> T,
) -> T {
    let mut converted: SmallVec<[Option<FieldValue<'_>>; INLINE_FIELDS]> = SmallVec::new();
    converted.resize_with(metadata.fields().len(), || None);
    // An index that is out of range is ignored, because the plugin may be newer than this host, or have a bug.
    for (index, value) in fields {
        if let Some(slot) = converted.get_mut(index) {
            *slot = Some(FieldValue::from(value));
        }
    }
    let values: SmallVec<[_; INLINE_FIELDS]> = converted
        .iter()
        .map(|value| value.as_ref().map(FieldValue::as_tracing))
        .collect();
    work(&metadata.fields().value_set_all(&values))
}

/// The values of an event with at most this number of fields are converted without an allocation.
const INLINE_FIELDS: usize = 16;
