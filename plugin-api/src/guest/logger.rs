//! Sends the entries of the plugin's `tracing` and `log` to the host. Installed before the author's code runs.
//!
//! A library has its own copies of the crates `tracing` and `log`, which at first have no subscriber and no logger.
//! Without this module, all entries would be lost.
//!
//! Logging is cheap. At each callsite, `tracing` caches whether the host wants the entries, so a disabled event costs
//! one load and does not call the host. An enabled event takes no lock and allocates nothing on the plugin side: a
//! [`Table`] has the host's handle of the callsite, and the values are written into buffers that the thread reuses.

mod host;
mod log_always;
mod other_loggers;
mod records;
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

use self::{host::CallsiteHandle, records::RecordLogger, table::Table, values::Values};
use crate::{
    Level,
    abi::{Callsite, Entry, Registered, Slice},
};

pub(crate) use self::{
    host::HostLog, other_loggers::check as check_for_other_loggers, spans::current as current_span,
};

/// The subscriber for `tracing` and the logger for `log` of this library.
#[derive(Debug)]
pub(crate) struct Logger {
    host: HostLog,
    /// All callsites of `tracing`, by the address of their metadata.
    callsites: Table<KnownCallsite>,
    /// The callsites of spans, by the address in the host's handle.
    span_callsites: Table<KnownCallsite>,
    records: RecordLogger,
}

/// A callsite of `tracing` that is registered with the host.
#[derive(Debug)]
struct KnownCallsite {
    metadata: &'static Metadata<'static>,
    handle: CallsiteHandle,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// The most verbose level in force.
static LEVEL: AtomicU32 = AtomicU32::new(Level::Info as u32);

/// The number of calls of [`set_level`]. A change shows that an answer of the host may be for an earlier level.
static LEVEL_CHANGES: AtomicU64 = AtomicU64::new(0);

/// Locked while [`LEVEL`] and `log::max_level` change together, and while they are compared.
static LEVEL_LOCK: Mutex<()> = Mutex::new(());

/// Sets the most verbose level in force, and registers all callsites with the host again.
pub(crate) fn set_level(level: Level) {
    {
        let _lock = LEVEL_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        LEVEL.store(level as u32, Ordering::SeqCst);
        LEVEL_CHANGES.fetch_add(1, Ordering::SeqCst);
        // Without an installed logger, `install` sets the level later.
        if LOGGER.get().is_some() {
            log::set_max_level(level.into());
        }
    }
    register_all_again();
}

/// Registers all callsites with the host again, because the host's interest depends on the level. Does nothing if the
/// logger is not installed.
fn register_all_again() {
    if let Some(logger) = LOGGER.get() {
        logger.register_all_again();
    }
}

/// Returns the result of `query`, a query to the host whose answer depends on the level. Repeats the query if the level
/// has changed meanwhile.
fn with_stable_level<T>(query: impl Fn() -> T) -> T {
    loop {
        let before = LEVEL_CHANGES.load(Ordering::SeqCst);
        let answer = query();
        if LEVEL_CHANGES.load(Ordering::SeqCst) == before {
            return answer;
        }
    }
}

/// Returns the most verbose level in force.
fn level() -> Level {
    Level::from_number(LEVEL.load(Ordering::SeqCst)).unwrap_or(Level::Trace)
}

impl Logger {
    /// Installs the logger of this library, for `tracing` and for `log`. Calls after the first do nothing.
    pub(crate) fn install(host: HostLog) {
        let mut is_first = false;
        let logger = LOGGER.get_or_init(|| {
            is_first = true;
            Self {
                host,
                callsites: Table::new(),
                span_callsites: Table::new(),
                records: RecordLogger::new(host),
            }
        });
        if !is_first {
            return;
        }
        // These two calls fail only if a subscriber or logger is already installed. The author's code has not run yet,
        // so none is installed, and the errors are ignored.
        let _ = dispatcher::set_global_default(Dispatch::new(logger));
        let _ = log::set_logger(&logger.records);
        log_always::detect();
        // The host has set the level before it starts the app. At that time, no logger was installed that could apply
        // the level.
        logger.register_all_again();
        other_loggers::start_detection();
    }

    /// Registers all callsites of `log` and `tracing` with the host again.
    fn register_all_again(&self) {
        {
            let _lock = LEVEL_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
            log::set_max_level(level().into());
        }
        self.records.register_all_again();
        // `tracing` then calls `register_callsite` for each of its callsites.
        other_loggers::run_own_rebuild(callsite::rebuild_interest_cache);
    }

    /// Registers a callsite with the host. Returns the host's handle, and the interest: a constant of [`Registered`].
    fn register(&self, metadata: &Metadata<'_>) -> (CallsiteHandle, u32) {
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

    /// Returns the host's handle of a callsite. Returns `None` if the callsite is not registered yet.
    fn find_handle(&self, metadata: &Metadata<'_>) -> Option<CallsiteHandle> {
        let known = self.callsites.find(hash_metadata(metadata), |known| {
            is_same(known.metadata, metadata)
        })?;
        Some(known.handle)
    }

    /// Returns the metadata of a span. Returns `None` if this library did not create the span.
    fn span_metadata(&self, span: u64) -> Option<&'static Metadata<'static>> {
        let handle = self.host.span_callsite(span);
        let hash = hash_address(handle.0.addr());
        let known = self
            .span_callsites
            .find(hash, |known| known.handle == handle)?;
        Some(known.metadata)
    }

    /// Returns the host's handle of a callsite. Registers the callsite if necessary: the macros of `tracing` register
    /// each callsite before its first entry, but other code may create entries without a registration.
    fn handle(&self, metadata: &'static Metadata<'static>) -> CallsiteHandle {
        self.find_handle(metadata)
            .unwrap_or_else(|| self.insert(metadata, self.register(metadata).0))
    }

    /// Adds a registered callsite to the tables, unless it is already there. Returns the handle in the table.
    fn insert(
        &self,
        metadata: &'static Metadata<'static>,
        handle: CallsiteHandle,
    ) -> CallsiteHandle {
        let new = || KnownCallsite { metadata, handle };
        if metadata.is_span() {
            let hash = hash_address(handle.0.addr());
            self.span_callsites
                .find_or_insert(hash, |known| known.handle == handle, new);
        }
        let is_equal = |known: &KnownCallsite| is_same(known.metadata, metadata);
        self.callsites
            .find_or_insert(hash_metadata(metadata), is_equal, new)
            .handle
    }

    /// Collects values with `record`, and sends them to the host with `send`, as an entry of `callsite`.
    fn with_entry<R>(
        &self,
        callsite: CallsiteHandle,
        span: u64,
        record: impl FnOnce(&mut Values),
        send: impl FnOnce(&Entry) -> R,
    ) -> R {
        Values::collect(|values| {
            record(values);
            values.with_entry(callsite, span, send)
        })
    }
}

fn hash_metadata(metadata: &Metadata<'_>) -> usize {
    hash_address(std::ptr::from_ref(metadata).addr())
}

fn hash_address(address: usize) -> usize {
    // The lowest bits of an address are always 0, because of its alignment, so the address itself would be a bad hash.
    // The upper half of the product depends on all bits of the address.
    let product = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product >> 32) as usize
}

/// Returns whether both are the metadata of the same callsite. The metadata of a callsite is a static, so the addresses
/// are compared.
fn is_same(known: &'static Metadata<'static>, metadata: &Metadata<'_>) -> bool {
    std::ptr::addr_eq(known, metadata)
}

impl Subscriber for &'static Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        other_loggers::note_registration(metadata);
        // The probe must not appear in the log. Only its record of `log` matters, see `log_always`.
        if log_always::is_probe(metadata.target()) {
            return Interest::never();
        }
        let (handle, interest) = with_stable_level(|| self.register(metadata));
        self.insert(metadata, handle);
        match interest {
            Registered::NEVER => Interest::never(),
            Registered::SOMETIMES => Interest::sometimes(),
            _ => Interest::always(),
        }
    }

    // `tracing` calls this method in four cases: the interest is `sometimes`; another thread is registering the
    // callsite at the same time; the author's code uses `enabled!`; or the app has another subscriber with a different
    // interest.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // A new handle is not inserted into the tables, because `tracing` does not guarantee here that the metadata is
        // a static.
        let handle = self
            .find_handle(metadata)
            .unwrap_or_else(|| self.register(metadata).0);
        self.host.enabled(handle, spans::current())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(level().into())
    }

    fn event(&self, event: &Event<'_>) {
        let callsite = self.handle(event.metadata());
        let span = spans::parent_number(event.is_root(), event.parent());
        self.with_entry(
            callsite,
            span,
            |values| event.record(values),
            |entry| self.host.event(entry),
        );
        log_always::set_last_logged(event.metadata());
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let callsite = self.handle(span.metadata());
        let parent = spans::parent_number(span.is_root(), span.parent());
        let id = self.with_entry(
            callsite,
            parent,
            |values| span.record(values),
            |entry| self.host.new_span(entry),
        );
        log_always::set_last_logged(span.metadata());
        // 0 means that the host has created no span. `ROOT` then stands for the span, so entries in the span have no
        // parent.
        Id::from_u64(if id == 0 { Entry::ROOT } else { id })
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.with_entry(
            CallsiteHandle::NULL,
            span.into_u64(),
            |collected| values.record(collected),
            |entry| self.host.record(entry),
        );
        if let Some(metadata) = log_always::is_enabled()
            .then(|| self.span_metadata(span.into_u64()))
            .flatten()
        {
            log_always::set_last_logged(metadata);
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

    /// Returns the span for `Span::current`. Outside of the plugin's own spans, this is the span of the request, so a
    /// task that the author instruments with `Span::current` stays in its request.
    fn current_span(&self) -> Current {
        let (span, metadata) = match spans::current() {
            Entry::REQUEST_SPAN => (
                self.host.request_span(),
                Some(other_loggers::REQUEST_METADATA),
            ),
            Entry::ROOT => (0, None),
            span => (span, self.span_metadata(span)),
        };
        match metadata {
            Some(metadata) if span != 0 => Current::new(Id::from_u64(span), metadata),
            _ => Current::none(),
        }
    }
}
