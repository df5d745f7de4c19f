//! Emits the events and spans of plugins as `tracing` events and spans of the host, with the same level,
//! target, source location and typed fields.
//!
//! A plugin registers each of its callsites once. The host makes a callsite of its own for it, so that
//! filters, formats and layers see no difference between an event of a plugin and one of the host.
//! Callsites live as long as the process. All generations of a plugin share them, so that reloading the same
//! code adds none.

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
    origin: Origin,
    panics: Arc<dyn PanicCounter>,
}

/// Counts the panics of a generation.
pub trait PanicCounter: fmt::Debug + Send + Sync {
    /// Counts a panic of the generation that `origin` names. The bridge has logged the panic already.
    fn count_panic(&self, origin: Origin);
}

impl Bridge {
    /// Makes a bridge for the generation that `origin` names. Its panics are counted by `panics`.
    #[must_use]
    pub fn new(origin: Origin, panics: Arc<dyn PanicCounter>) -> Self {
        Self { origin, panics }
    }

    /// Runs `emit` with the parent span of an entry, as this generation. Returns None, and does not run `emit`,
    /// when the level no longer lets the entry pass.
    fn emit<T>(
        &self,
        site: &'static PluginCallsite,
        entry: &Entry<'_>,
        emit: impl FnOnce(Option<Id>) -> T,
    ) -> Option<T> {
        if !self.enabled(site, entry.parent) {
            return None;
        }
        // Also when the level has changed: the plugin asked a moment ago, but did not wait.
        if let Some(thread) = entry.thread {
            origin::name_thread(thread);
        }
        Some(origin::scope(self.origin, || emit(span_of(entry.parent))))
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
            host::Interest::Sometimes => match parent {
                Parent::Span(span) => request::is_debug_forced(Some(&Id::from_u64(span))),
                Parent::Current | Parent::Root => request::is_debug_forced(None),
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
        // The level may have changed since the plugin asked. 0 means that there is no span.
        span.map_or(0, |span| span.into_u64())
    }

    fn record(&self, span: u64, fields: Fields<'_>) {
        let span = Id::from_u64(span);
        // The plugin gives the index of each field, and the names are in the metadata of the span.
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
            // From a callsite of the host, so that all panics have the same target and fields.
            let location = file.map(|file| format!("{file}:{line}:{column}"));
            if recent::is_on() {
                let known = recent::Panic {
                    message: panic.message.to_string(),
                    location: file.map(|file| (file.to_owned(), line, column)),
                    backtrace: panic.backtrace.map(str::to_owned),
                };
                request::with_current(|request| {
                    let id = request.map(|request| request.meta().id.as_str().to_owned());
                    recent::add_panic(&id.unwrap_or_default(), known);
                });
            }
            error!(
                target: "panic",
                parent: span_of(panic.parent),
                location,
                thread = panic.thread,
                backtrace = panic.backtrace,
                "panicked: {}", panic.message
            );
        });
        self.panics.count_panic(self.origin);
    }
}

/// Returns the host's span that is the parent of an entry.
fn span_of(parent: Parent) -> Option<Id> {
    match parent {
        Parent::Current => request::current_span(),
        Parent::Root => None,
        Parent::Span(span) => Some(Id::from_u64(span)),
    }
}

/// Runs `work` with the values of an entry as `tracing` takes them: a value or None for each field of the
/// callsite, in order.
fn with_values<T>(
    metadata: &'static Metadata<'static>,
    fields: Fields<'_>,
    work: impl FnOnce(&ValueSet<'_>) -> T,
) -> T {
    let mut typed: SmallVec<[Option<FieldValue<'_>>; USUAL_FIELDS]> = SmallVec::new();
    typed.resize_with(metadata.fields().len(), || None);
    // An index out of range is ignored: the plugin may be newer than this host, or wrong.
    for (index, value) in fields {
        if let Some(place) = typed.get_mut(index) {
            *place = Some(FieldValue::from(value));
        }
    }
    let values: SmallVec<[_; USUAL_FIELDS]> = typed
        .iter()
        .map(|typed| typed.as_ref().map(FieldValue::as_tracing))
        .collect();
    work(&metadata.fields().value_set_all(&values))
}

/// Up to how many fields an event needs no allocation.
const USUAL_FIELDS: usize = 16;
