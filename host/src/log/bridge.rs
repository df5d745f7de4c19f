//! Makes what plugins log true `tracing` events of the host: level, target, place and typed fields
//! as they were.
//!
//! A plugin tells of each of its callsites once. The host keeps a callsite of its own for it, so
//! that filters, formats and layers see no difference between a plugin's event and the host's.
//! Callsites live as long as the process, so they are shared by all generations of a plugin:
//! reloading the same code adds none.

mod site;
mod value;

use std::{fmt, sync::Arc};

use plugin_api::host::{self, Callsite, Entry, Fields, Logger, Panic, Parent};
use smallvec::SmallVec;
use tracing::{
    Event, Metadata, dispatcher, error,
    field::ValueSet,
    span::{Attributes, Id, Record},
};

pub use self::site::{Site, intern, plugin_of};
use self::value::Typed;
use super::{
    origin::{self, Origin},
    recent, request,
};

/// Takes what one generation of a plugin logs.
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

    /// Runs `emit` as this generation, with the span of the host's that is the parent, if the entry
    /// is still wanted.
    fn emit<T>(
        &self,
        site: &'static Site,
        entry: &Entry<'_>,
        emit: impl FnOnce(Option<Id>) -> T,
    ) -> Option<T> {
        if !self.enabled(site, entry.parent) {
            return None;
        }
        if let Some(thread) = entry.thread {
            origin::name_thread(thread);
        }
        Some(origin::scope(self.origin, || emit(span_of(entry.parent))))
    }
}

impl Logger for Bridge {
    type Callsite = Site;

    fn register(&self, callsite: &Callsite<'_>) -> (&'static Site, host::Interest) {
        let site = Site::of(self.origin.plugin, callsite);
        (site, site.interest())
    }

    fn enabled(&self, site: &'static Site, parent: Parent) -> bool {
        match site.interest() {
            host::Interest::Always => true,
            host::Interest::Never => false,
            host::Interest::Sometimes => match parent {
                Parent::Span(span) => request::is_loud(Some(&Id::from_u64(span))),
                Parent::Current | Parent::Root => request::is_loud(None),
            },
        }
    }

    fn event(&self, site: &'static Site, entry: Entry<'_>) {
        self.emit(site, &entry, |parent| {
            with_values(site.metadata(), entry.fields.clone(), |values| {
                Event::child_of(parent, site.metadata(), values);
            });
        });
    }

    fn new_span(&self, site: &'static Site, entry: Entry<'_>) -> u64 {
        let span = self.emit(site, &entry, |parent| {
            with_values(site.metadata(), entry.fields.clone(), |values| {
                let attributes = match parent {
                    Some(parent) => Attributes::child_of(parent, site.metadata(), values),
                    None => Attributes::new_root(site.metadata(), values),
                };
                dispatcher::get_default(|dispatch| dispatch.new_span(&attributes))
            })
        });
        // A span that the level just ruled out is none.
        span.map_or(0, |span| span.into_u64())
    }

    fn record(&self, span: u64, fields: Fields<'_>) {
        let span = Id::from_u64(span);
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

    fn span_callsite(&self, span: u64) -> Option<&'static Site> {
        let callsite =
            |span: tracing_subscriber::registry::SpanRef<'_, _>| span.metadata().callsite();
        Site::find(&request::with_span(&Id::from_u64(span), callsite)?)
    }

    fn panicked(&self, panic: &Panic<'_>) {
        origin::scope(self.origin, || {
            let (file, line, column) = panic.location;
            let location = file.map(|file| format!("{file}:{line}:{column}"));
            if recent::is_on() {
                let known = recent::Panic {
                    message: panic.message.to_string(),
                    location: file.map(|file| (file.to_owned(), line, column)),
                    backtrace: panic.backtrace.map(str::to_owned),
                };
                request::with_current(|request| {
                    let id = request.map(|request| request.facts().id.as_str().to_owned());
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

/// The span of the host's that stands for where an entry is.
fn span_of(parent: Parent) -> Option<Id> {
    match parent {
        Parent::Current => request::current_span(),
        Parent::Root => None,
        Parent::Span(span) => Some(Id::from_u64(span)),
    }
}

/// Lends the values as those of a callsite.
fn with_values<T>(
    metadata: &'static Metadata<'static>,
    fields: Fields<'_>,
    work: impl FnOnce(&ValueSet<'_>) -> T,
) -> T {
    let mut typed: SmallVec<[Option<Typed<'_>>; USUAL_FIELDS]> = SmallVec::new();
    typed.resize_with(metadata.fields().len(), || None);
    for (index, value) in fields {
        if let Some(place) = typed.get_mut(index) {
            *place = Some(Typed::from(value));
        }
    }
    let values: SmallVec<[_; USUAL_FIELDS]> = typed
        .iter()
        .map(|typed| typed.as_ref().map(Typed::value))
        .collect();
    work(&metadata.fields().value_set_all(&values))
}

/// Up to how many fields an event takes no allocation.
const USUAL_FIELDS: usize = 16;
