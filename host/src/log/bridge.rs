//! Makes what plugins log true `tracing` events of the host: level, target, place and typed fields
//! as they were.
//!
//! A plugin tells of each of its callsites once. The host keeps a callsite of its own for it, so
//! that filters, formats and layers see no difference between a plugin's event and the host's.
//! Callsites live as long as the process, so they are shared by all generations of a plugin:
//! reloading the same code adds none.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{
        Arc, LazyLock, Once, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use plugin_api::{
    Level,
    host::{self, Callsite, Entry, Fields, Logger, Panic, Parent, Value},
};
use smallvec::SmallVec;
use tracing::{
    Event, Metadata,
    callsite::{self, Identifier},
    dispatcher, error,
    field::{self, DebugValue, FieldSet, ValueSet},
    metadata::Kind,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};

use super::{
    origin::{self, Origin},
    request,
};
use crate::plugin::{faults::Faults, quarantine::PanicLimit};

/// Takes what one generation of a plugin logs.
#[derive(Clone, Debug)]
pub struct Bridge {
    origin: Origin,
    faults: Arc<Faults>,
}

impl Bridge {
    /// A bridge for the generation that `origin` names, whose panics are counted in `faults`.
    #[must_use]
    pub fn new(origin: Origin, faults: Arc<Faults>) -> Self {
        Self { origin, faults }
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
        let callsite = request::with_span(&Id::from_u64(span), callsite)?;
        let sites = SITES.read().unwrap_or_else(PoisonError::into_inner);
        sites.plugins.get(&callsite).map(|&(_, site)| site)
    }

    fn panicked(&self, panic: &Panic<'_>) {
        origin::scope(self.origin, || {
            let (file, line, column) = panic.location;
            let location = file.map(|file| format!("{file}:{line}:{column}"));
            error!(
                target: "panic",
                parent: span_of(panic.parent),
                location,
                thread = panic.thread,
                backtrace = panic.backtrace,
                "panicked: {}", panic.message
            );
        });
        if let Some(PanicLimit { panics, window }) = self.faults.panicked(Instant::now()) {
            let Origin { plugin, generation } = self.origin;
            error!(
                plugin,
                generation,
                panics,
                ?window,
                "Too many panics: requests are answered with 503 until the plugin is replaced"
            );
        }
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

/// The plugin that a callsite belongs to; none for the host's own.
#[must_use]
pub fn plugin_of(callsite: &Identifier) -> Option<&'static str> {
    SITES
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .plugins
        .get(callsite)
        .map(|&(plugin, _)| plugin)
}

/// A text that stays for ever, the same for the same text.
#[must_use]
pub fn intern(text: &str) -> &'static str {
    SITES
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .intern(text)
}

/// A callsite of a plugin, as the host's `tracing` knows it.
#[derive(Debug)]
pub struct Site {
    registered: Once,
    interest: AtomicU8,
    metadata: OnceLock<Metadata<'static>>,
}

impl Site {
    fn of(plugin: &'static str, callsite: &Callsite<'_>) -> &'static Self {
        let key = (plugin, Description::of(callsite));
        let known = |sites: &Sites| sites.sites.get(&key).copied();
        let site = known(&SITES.read().unwrap_or_else(PoisonError::into_inner));
        let site = site.unwrap_or_else(|| {
            let mut sites = SITES.write().unwrap_or_else(PoisonError::into_inner);
            known(&sites).unwrap_or_else(|| sites.add(plugin, callsite))
        });
        // Not under the lock: the filter asks whose callsite it is. Whoever finds the site waits
        // until it is known whether it is wanted, so that no first line is lost.
        site.registered.call_once(|| callsite::register(site));
        site
    }

    /// Whether the directives in force let it through, as far as the callsite tells.
    fn interest(&self) -> host::Interest {
        match self.interest.load(Ordering::Relaxed) {
            NEVER => host::Interest::Never,
            SOMETIMES => host::Interest::Sometimes,
            _ => host::Interest::Always,
        }
    }

    fn metadata(&'static self) -> &'static Metadata<'static> {
        self.metadata
            .get()
            .expect("it is set before anybody else sees the site")
    }
}

const NEVER: u8 = 0;
const SOMETIMES: u8 = 1;
const ALWAYS: u8 = 2;

impl tracing::Callsite for Site {
    fn set_interest(&self, interest: Interest) {
        let interest = match interest {
            interest if interest.is_never() => NEVER,
            interest if interest.is_always() => ALWAYS,
            _ => SOMETIMES,
        };
        self.interest.store(interest, Ordering::Relaxed);
    }

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata
            .get()
            .expect("it is set before anybody else sees the site")
    }
}

/// What tells one callsite of a plugin from another, across its generations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Description<'a> {
    level: Level,
    is_span: bool,
    name: &'a str,
    target: &'a str,
    module: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
    fields: Vec<&'a str>,
}

impl<'a> Description<'a> {
    fn of(callsite: &Callsite<'a>) -> Self {
        let Callsite {
            level,
            is_span,
            name,
            target,
            module,
            file,
            line,
            fields,
        } = callsite.clone();
        Self {
            level,
            is_span,
            name,
            target,
            module,
            file,
            line,
            fields,
        }
    }
}

/// All callsites of all plugins, and the texts in them. They only grow.
#[derive(Default)]
struct Sites {
    sites: HashMap<(&'static str, Description<'static>), &'static Site>,
    plugins: HashMap<Identifier, (&'static str, &'static Site)>,
    texts: HashMap<&'static str, ()>,
}

static SITES: LazyLock<RwLock<Sites>> = LazyLock::new(RwLock::default);

impl Sites {
    fn add(&mut self, plugin: &'static str, callsite: &Callsite<'_>) -> &'static Site {
        let fields: Vec<_> = callsite
            .fields
            .iter()
            .map(|name| self.intern(name))
            .collect();
        let description = Description {
            level: callsite.level,
            is_span: callsite.is_span,
            name: self.intern(callsite.name),
            target: self.intern(callsite.target),
            module: callsite.module.map(|module| self.intern(module)),
            file: callsite.file.map(|file| self.intern(file)),
            line: callsite.line,
            fields: fields.clone(),
        };
        let site: &'static Site = Box::leak(Box::new(Site {
            registered: Once::new(),
            interest: AtomicU8::new(NEVER),
            metadata: OnceLock::new(),
        }));
        let identifier = Identifier(site);
        let metadata = Metadata::new(
            description.name,
            description.target,
            level(callsite.level),
            description.file,
            description.line,
            description.module,
            FieldSet::new(fields.leak(), identifier.clone()),
            if callsite.is_span {
                Kind::SPAN
            } else {
                Kind::EVENT
            },
        );
        site.metadata.get_or_init(|| metadata);
        self.plugins.insert(identifier, (plugin, site));
        self.sites.insert((plugin, description), site);
        site
    }

    fn intern(&mut self, text: &str) -> &'static str {
        if let Some((&known, ())) = self.texts.get_key_value(text) {
            return known;
        }
        let text: &'static str = String::from(text).leak();
        self.texts.insert(text, ());
        text
    }
}

fn level(level: Level) -> tracing::Level {
    match level {
        Level::Off | Level::Critical | Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    }
}

/// A value of a plugin's event, as `tracing` takes it.
enum Typed<'a> {
    Bool(bool),
    U64(u64),
    I64(i64),
    U128(u128),
    I128(i128),
    F64(f64),
    Str(&'a str),
    Debug(DebugValue<Written<'a>>),
    Error(Box<dyn Error + 'static>),
}

impl Typed<'_> {
    fn value(&self) -> &dyn field::Value {
        match self {
            Self::Bool(value) => value,
            Self::U64(value) => value,
            Self::I64(value) => value,
            Self::U128(value) => value,
            Self::I128(value) => value,
            Self::F64(value) => value,
            Self::Str(value) => value,
            Self::Debug(value) => value,
            Self::Error(value) => value,
        }
    }
}

impl<'a> From<Value<'a>> for Typed<'a> {
    fn from(value: Value<'a>) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(value),
            Value::U64(value) => Self::U64(value),
            Value::I64(value) => Self::I64(value),
            Value::U128(value) => Self::U128(value),
            Value::I128(value) => Self::I128(value),
            Value::F64(value) => Self::F64(value),
            Value::Str(value) => Self::Str(value),
            Value::Debug(text) => Self::Debug(field::debug(Written(text))),
            Value::Error(text, causes) => {
                let causes: Vec<_> = causes.iter().collect();
                let source = causes.into_iter().rev().fold(None, |source, text| {
                    Some(Box::new(Failure {
                        text: text.to_owned(),
                        source,
                    }))
                });
                Self::Error(Box::new(Failure {
                    text: text.to_owned(),
                    source,
                }))
            }
            _ => Self::Str("(a kind of value that this host does not know)"),
        }
    }
}

/// What a value's `Debug` wrote in the plugin.
struct Written<'a>(&'a str);

impl fmt::Debug for Written<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// An error of a plugin, with its sources.
#[derive(Debug)]
struct Failure {
    text: String,
    source: Option<Box<Failure>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
