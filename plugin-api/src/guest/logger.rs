//! Wires the plugin's `tracing` and `log` to the host, before any of the author's code runs.
//!
//! A library has its own copies of both, with no subscriber and no logger: without this it would be
//! silent. What is not wanted is found out at the callsite: `tracing` caches the host's answer
//! there, so that a disabled event is one load, and nothing crosses. What is wanted takes no lock
//! and no allocation on this side: its callsite is found in a [`Table`], and its values are written
//! into buffers of the thread.

mod host;
mod log_always;
mod records;
mod rivals;
mod spans;
mod table;
mod values;

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use tracing_core::{
    Dispatch, Event, Interest, LevelFilter, Metadata, Subscriber, callsite, dispatcher,
    span::{Attributes, Current, Id, Record},
};

use self::{host::HostSite, records::Records, table::Table, values::Values};
use crate::{
    Level,
    abi::{Callsite, Entry, Registered, Slice},
};

pub(crate) use self::{
    host::HostLog, rivals::check as check_for_rivals, spans::current as current_span,
};

/// Sends what this library logs to the host.
#[derive(Debug)]
pub(crate) struct Logger {
    host: HostLog,
    /// The callsites of `tracing`, by the address of their metadata.
    callsites: Table<Known>,
    /// Those of spans, by the host's names for them.
    spans: Table<Known>,
    /// The places that use `log`.
    records: Records,
}

/// A callsite that the host knows.
#[derive(Debug)]
struct Known {
    metadata: &'static Metadata<'static>,
    site: HostSite,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// The most verbose level in force.
static LEVEL: AtomicU32 = AtomicU32::new(Level::Info as u32);

/// How often the level was changed. If this changes while the host is asked, the answer may be for the level before.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Locked while [`LEVEL`] and the maximum of the crate `log` are made the same, and while they are compared.
static CHANGING: Mutex<()> = Mutex::new(());

/// Takes a new level, from the next log call on.
pub(crate) fn set_level(level: Level) {
    {
        let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        LEVEL.store(level as u32, Ordering::SeqCst);
        CHANGES.fetch_add(1, Ordering::SeqCst);
        if LOGGER.get().is_some() {
            log::set_max_level(level.into());
        }
    }
    ask_anew();
}

/// Asks the host anew about every place that logs.
fn ask_anew() {
    if let Some(logger) = LOGGER.get() {
        logger.ask_anew();
    }
}

/// Asks the host something whose answer depends on the level. Asks again if the level changes meanwhile.
fn of_one_level<T>(ask: impl Fn() -> T) -> T {
    loop {
        let before = CHANGES.load(Ordering::SeqCst);
        let answer = ask();
        if CHANGES.load(Ordering::SeqCst) == before {
            return answer;
        }
    }
}

fn level() -> Level {
    Level::from_number(LEVEL.load(Ordering::SeqCst)).unwrap_or(Level::Trace)
}

impl Logger {
    /// Makes this the logger of the library: of `tracing` and of `log`. There is one a library,
    /// from the first call on; later ones do nothing.
    pub(crate) fn install(host: HostLog) {
        let mut is_first = false;
        let logger = LOGGER.get_or_init(|| {
            is_first = true;
            Self {
                host,
                callsites: Table::new(),
                spans: Table::new(),
                records: Records::new(host),
            }
        });
        if !is_first {
            return;
        }
        // Nothing of the author's has run yet, so nobody else can have installed one.
        let _ = dispatcher::set_global_default(Dispatch::new(logger));
        let _ = log::set_logger(&logger.records);
        log_always::find_out();
        // The level may have changed before there was a logger to apply it.
        logger.ask_anew();
        rivals::start_watching();
    }

    /// Asks the host anew about every place.
    fn ask_anew(&self) {
        {
            let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
            log::set_max_level(level().into());
        }
        self.records.ask_anew();
        rivals::run_own(callsite::rebuild_interest_cache);
    }

    /// Asks the host about a callsite.
    fn ask(&self, metadata: &Metadata<'_>) -> (HostSite, u32) {
        let fields: Vec<_> = metadata
            .fields()
            .iter()
            .map(|field| Slice::new(field.name().as_bytes()))
            .collect();
        self.host.register(&Callsite {
            size: size_of::<Callsite>(),
            level: Level::of(metadata) as u32,
            kind: if metadata.is_span() {
                Callsite::SPAN
            } else {
                Callsite::EVENT
            },
            name: Slice::new(metadata.name().as_bytes()),
            target: Slice::new(metadata.target().as_bytes()),
            module: Slice::from_option(metadata.module_path()),
            file: Slice::from_option(metadata.file()),
            fields: fields.as_ptr(),
            fields_len: fields.len(),
            line: metadata.line().unwrap_or(0),
        })
    }

    fn known(&self, metadata: &Metadata<'_>) -> Option<HostSite> {
        let known = self
            .callsites
            .find(hash(metadata), |known| same(known.metadata, metadata))?;
        Some(known.site)
    }

    /// The metadata of a span of this library.
    fn metadata_of(&self, span: u64) -> Option<&'static Metadata<'static>> {
        let site = self.host.span_callsite(span);
        let hash = hash_of(site.0.addr());
        let known = self.spans.find(hash, |known| known.site == site)?;
        Some(known.metadata)
    }

    /// The host's name for a callsite. The macros of `tracing` register each callsite before they use it; others are
    /// registered here.
    fn site(&self, metadata: &'static Metadata<'static>) -> HostSite {
        self.known(metadata)
            .unwrap_or_else(|| self.register(metadata, self.ask(metadata).0))
    }

    fn register(&self, metadata: &'static Metadata<'static>, site: HostSite) -> HostSite {
        let make = || Known { metadata, site };
        if metadata.is_span() {
            self.spans
                .find_or_insert(hash_of(site.0.addr()), |known| known.site == site, make);
        }
        self.callsites
            .find_or_insert(hash(metadata), |known| same(known.metadata, metadata), make)
            .site
    }

    /// Collects values by `record`, and sends them.
    fn with_entry<R>(
        &self,
        site: HostSite,
        span: u64,
        record: impl FnOnce(&mut Values),
        send: impl FnOnce(&Entry) -> R,
    ) -> R {
        Values::collect(|values| {
            record(values);
            values.with_entry(site, span, send)
        })
    }
}

fn hash(metadata: &Metadata<'_>) -> usize {
    hash_of(std::ptr::from_ref(metadata).addr())
}

fn hash_of(address: usize) -> usize {
    // Addresses are multiples of 8; a product's upper half depends on all of their bits.
    let product = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product >> 32) as usize
}

/// Whether both are the metadata of one callsite. Metadata is a static, so the addresses tell.
fn same(known: &'static Metadata<'static>, metadata: &Metadata<'_>) -> bool {
    std::ptr::addr_eq(known, metadata)
}

impl Subscriber for &'static Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        rivals::asked_about(metadata);
        if log_always::is_probe(metadata.target()) {
            return Interest::never();
        }
        let (site, interest) = of_one_level(|| self.ask(metadata));
        self.register(metadata, site);
        match interest {
            Registered::NEVER => Interest::never(),
            Registered::SOMETIMES => Interest::sometimes(),
            _ => Interest::always(),
        }
    }

    // `tracing` calls this where the answer depends on the request, while another thread registers the callsite, for
    // `enabled!`, and where another subscriber of the app's has another interest.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let site = self.known(metadata).unwrap_or_else(|| self.ask(metadata).0);
        self.host.enabled(site, spans::current())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(level().into())
    }

    fn event(&self, event: &Event<'_>) {
        let site = self.site(event.metadata());
        let span = spans::span_of(event.is_root(), event.parent());
        self.with_entry(
            site,
            span,
            |values| event.record(values),
            |entry| self.host.event(entry),
        );
        log_always::logged(event.metadata());
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let site = self.site(span.metadata());
        let parent = spans::span_of(span.is_root(), span.parent());
        let id = self.with_entry(
            site,
            parent,
            |values| span.record(values),
            |entry| self.host.new_span(entry),
        );
        log_always::logged(span.metadata());
        // The host may give no span. Then entries in it have no parent.
        Id::from_u64(if id == 0 { Entry::ROOT } else { id })
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.with_entry(
            HostSite::NONE,
            span.into_u64(),
            |collected| values.record(collected),
            |entry| self.host.record(entry),
        );
        if let Some(metadata) = log_always::is_on()
            .then(|| self.metadata_of(span.into_u64()))
            .flatten()
        {
            log_always::logged(metadata);
        }
    }

    fn record_follows_from(&self, span: &Id, cause: &Id) {
        self.host.follows_from(span.into_u64(), cause.into_u64());
    }

    fn enter(&self, span: &Id) {
        spans::enter(span);
    }

    fn exit(&self, span: &Id) {
        spans::exit(span);
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.host.clone_span(span.into_u64());
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        self.host.close_span(span.into_u64())
    }

    /// The span that `Span::current` gives. A task that is spawned in it stays in its request.
    fn current_span(&self) -> Current {
        let (span, metadata) = match spans::current() {
            Entry::CURRENT => (self.host.request_span(), Some(rivals::REQUEST)),
            Entry::ROOT => (0, None),
            span => (span, self.metadata_of(span)),
        };
        match metadata {
            Some(metadata) if span != 0 => Current::new(Id::from_u64(span), metadata),
            _ => Current::none(),
        }
    }
}
