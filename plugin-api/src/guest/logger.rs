//! Wires the plugin's `tracing` and `log` to the host, before any of the author's code runs.
//!
//! A library has its own copies of both, with no subscriber and no logger: without this it would be
//! silent. What is not wanted is found out at the callsite: `tracing` caches the host's answer
//! there, so that a disabled event is one load, and nothing crosses.

mod values;

use std::{
    collections::HashMap,
    sync::{
        OnceLock, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tracing_core::{
    Dispatch, Event, Interest, LevelFilter, Metadata, Subscriber, callsite, dispatcher, span,
};

use self::values::Values;
use crate::{
    Level,
    abi::{self, Callsite, Registered, Slice},
};

/// The host's functions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostLog(&'static abi::Host);

// SAFETY: the host lets any thread call its functions at any time, with its context.
unsafe impl Send for HostLog {}
// SAFETY: as above.
unsafe impl Sync for HostLog {}

impl HostLog {
    /// # Safety
    ///
    /// `host` points to a table that stays for ever.
    pub(crate) unsafe fn new(host: *const abi::Host) -> Self {
        // SAFETY: the caller says so.
        Self(unsafe { &*host })
    }

    fn register(self, callsite: &Callsite) -> Registered {
        // SAFETY: the table is the host's, its context goes with it, and the callsite is borrowed
        // for the call.
        unsafe { (self.0.register)(self.0.context, callsite) }
    }

    fn event(self, event: &abi::Event) {
        // SAFETY: as above.
        unsafe { (self.0.event)(self.0.context, event) }
    }

    pub(crate) fn panicked(self, panic: &abi::Panic) {
        // SAFETY: as above.
        unsafe { (self.0.panicked)(self.0.context, panic) }
    }
}

/// Sends what this library logs to the host.
#[derive(Debug)]
pub(crate) struct Logger {
    host: HostLog,
    /// What the host said of each callsite of `tracing`, by the address of its metadata.
    callsites: RwLock<HashMap<usize, Answer>>,
    /// What the host said of each place that uses `log`.
    places: RwLock<HashMap<Place, Vec<Targeted>>>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// The most verbose level in force.
static LEVEL: AtomicU32 = AtomicU32::new(Level::Info as u32);

/// Takes a new level, from the next log call on.
pub(crate) fn set_level(level: Level) {
    LEVEL.store(level as u32, Ordering::SeqCst);
    if let Some(logger) = LOGGER.get() {
        logger.ask_anew();
    }
}

fn level() -> Level {
    Level::from_number(LEVEL.load(Ordering::SeqCst)).unwrap_or(Level::Trace)
}

/// [`Registered`], as a value that threads may share.
#[derive(Clone, Copy, Debug)]
struct Answer {
    callsite: usize,
    wanted: bool,
}

/// Where a record of `log` comes from, but for its target: the address of its file's name, the
/// line, the level.
type Place = (usize, u32, log::Level);

/// What the host said of a place that uses `log` with one target.
type Targeted = (Box<str>, Answer);

impl Logger {
    /// Makes this the logger of the library: of `tracing` and of `log`. There is one a library,
    /// from the first call on.
    pub(crate) fn install(host: HostLog) {
        let logger = LOGGER.get_or_init(|| Self {
            host,
            callsites: RwLock::default(),
            places: RwLock::default(),
        });
        // Nothing of the author's has run yet, so nobody else can have installed one.
        let _ = dispatcher::set_global_default(Dispatch::new(logger));
        let _ = log::set_logger(logger);
        // It may have changed meanwhile, with nobody to follow it.
        logger.ask_anew();
    }

    /// Asks the host anew about every place.
    fn ask_anew(&self) {
        log::set_max_level(level().into());
        self.places
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        callsite::rebuild_interest_cache();
    }

    fn register(&self, callsite: &Callsite) -> Answer {
        let Registered { callsite, interest } = self.host.register(callsite);
        Answer {
            callsite: callsite as usize,
            wanted: interest != Registered::NEVER,
        }
    }

    fn register_metadata(&self, metadata: &'static Metadata<'static>) -> Answer {
        let answer = self.ask(metadata);
        let mut callsites = self
            .callsites
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        callsites.insert(address(metadata), answer);
        answer
    }

    fn ask(&self, metadata: &Metadata<'_>) -> Answer {
        let fields: Vec<_> = metadata
            .fields()
            .iter()
            .map(|field| Slice::new(field.name().as_bytes()))
            .collect();
        self.register(&Callsite {
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

    fn known(&self, metadata: &Metadata<'_>) -> Option<Answer> {
        let callsites = self
            .callsites
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        callsites.get(&address(metadata)).copied()
    }

    fn place(
        &self,
        record: &log::Metadata<'_>,
        file: Option<&'static str>,
        line: u32,
    ) -> Option<Answer> {
        let place = (
            file.map_or(0, |file| file.as_ptr() as usize),
            line,
            record.level(),
        );
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        let answers = places.get(&place)?;
        answers
            .iter()
            .find(|(target, _)| **target == *record.target())
            .map(|&(_, answer)| answer)
    }

    fn register_record(&self, record: &log::Record<'_>) -> Answer {
        let file = record.file_static();
        let line = record.line().unwrap_or(0);
        let fields = [Slice::new(b"message")];
        let answer = self.register(&Callsite {
            size: size_of::<Callsite>(),
            level: Level::from(record.level()) as u32,
            kind: Callsite::EVENT,
            name: Slice::new(b"log record"),
            target: Slice::new(record.target().as_bytes()),
            module: Slice::from_option(record.module_path()),
            file: Slice::from_option(record.file()),
            fields: fields.as_ptr(),
            fields_len: fields.len(),
            line,
        });
        let place = (
            file.map_or(0, |file| file.as_ptr() as usize),
            line,
            record.level(),
        );
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        let answers = places.entry(place).or_default();
        // A target made up anew for every record must not fill the memory.
        if answers.len() < 16 {
            answers.push((record.target().into(), answer));
        }
        answer
    }

    fn send(&self, answer: Answer, values: &mut Values) {
        values.with_fields(|fields| {
            self.host.event(&abi::Event {
                size: size_of::<abi::Event>(),
                callsite: answer.callsite as *const _,
                fields: fields.as_ptr(),
                fields_len: fields.len(),
            });
        });
    }
}

fn address(metadata: &Metadata<'_>) -> usize {
    std::ptr::from_ref(metadata).addr()
}

impl Subscriber for &'static Logger {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() && self.register_metadata(metadata).wanted {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    // Asked while another thread registers the callsite, and by `enabled!`.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && self
                .known(metadata)
                .unwrap_or_else(|| self.ask(metadata))
                .wanted
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(level().into())
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let answer = self.known(metadata);
        let answer = answer.unwrap_or_else(|| self.register_metadata(metadata));
        Values::collect(|values| {
            event.record(values);
            self.send(answer, values);
        });
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        let known = self.place(
            record.metadata(),
            record.file_static(),
            record.line().unwrap_or(0),
        );
        let answer = known.unwrap_or_else(|| self.register_record(record));
        if answer.wanted {
            Values::collect(|values| {
                values.push_debug(0, record.args());
                self.send(answer, values);
            });
        }
    }

    fn flush(&self) {}
}
