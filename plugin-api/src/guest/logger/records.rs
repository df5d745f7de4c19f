//! The logger for the crate `log`: sends records, with their key-value pairs, to the host as events.
//!
//! The host needs a callsite for each event, but `log` has no callsites. This module creates them: a callsite is a
//! combination of file, line, level, target and list of keys. Most programs have about one callsite for each use of a
//! logging macro, but a program can also compute targets or keys at run time. The number of callsites is therefore
//! limited. Beyond the limit, all records of a level share one callsite.

mod pairs;

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use log::Record;

use self::pairs::{FormattedPairs, collect_keys, collect_values, has_keys};
use super::{
    host::{CallsiteHandle, HostLog},
    log_always, spans,
    table::Table,
    values::Values,
    with_stable_level,
};
use crate::{
    Level,
    abi::{Callsite, Registered, Slice},
};

/// The logger for the crate `log`.
#[derive(Debug)]
pub(super) struct RecordLogger {
    host: HostLog,
    /// The callsites of records. About [`MAX_CALLSITES`] at most.
    callsites: Table<RecordCallsite>,
    /// Callsites that have only a target and a level, for `log_enabled!`. About [`MAX_CALLSITES`] at most.
    targets: Table<RecordCallsite>,
    /// One callsite for each level, for the records beyond the limit of `callsites`. The index is the level.
    shared: [OnceLock<RecordCallsite>; 6],
}

/// A callsite for records of `log`, registered with the host.
#[derive(Debug)]
struct RecordCallsite {
    file: Option<Box<str>>,
    line: Option<u32>,
    level: log::Level,
    target: Box<str>,
    module: Option<Box<str>>,
    /// The names of the fields after the message.
    keys: Vec<Box<str>>,
    /// Whether this callsite belongs to [`RecordLogger::shared`].
    is_shared: bool,
    /// The host's handle. Null until the registration.
    handle: CallsiteHandle,
    /// The host's interest: a constant of [`Registered`].
    interest: AtomicU32,
}

impl RecordLogger {
    pub(super) fn new(host: HostLog) -> Self {
        Self {
            host,
            callsites: Table::new(),
            targets: Table::new(),
            shared: Default::default(),
        }
    }

    /// Registers all callsites with the host again, because the host's interest depends on the level.
    pub(super) fn register_all_again(&self) {
        let register = |callsite: &RecordCallsite| {
            let (_, interest) = with_stable_level(|| callsite.register(self.host));
            callsite.interest.store(interest, Ordering::Relaxed);
        };
        self.callsites.for_each(register);
        self.targets.for_each(register);
        let shared = self.shared.iter().filter_map(OnceLock::get);
        shared.for_each(register);
    }

    /// Returns the callsite of a record, and creates it if necessary. Returns a shared callsite beyond the limit.
    fn callsite(&self, record: &Record<'_>) -> &RecordCallsite {
        let hash = hash_record(record);
        match self
            .callsites
            .find(hash, |callsite| callsite.matches(record))
        {
            Some(callsite) => callsite,
            // The lock of `len` is released before the insertion, so threads that insert at the same time can exceed
            // the limit by a few callsites.
            None if self.callsites.len() < MAX_CALLSITES => {
                // Collected before the table is locked, because the author's code provides the keys and may log. A log
                // call under the lock would deadlock.
                let keys = collect_keys(record);
                let is_equal = |callsite: &RecordCallsite| {
                    callsite.has_location_of(record) && callsite.keys == keys
                };
                let new = || RecordCallsite::of_record(record, keys.clone(), self.host);
                self.callsites.find_or_insert(hash, is_equal, new)
            }
            None => self.shared[record.level() as usize]
                .get_or_init(|| RecordCallsite::shared(record.level(), self.host)),
        }
    }
}

impl RecordLogger {
    /// Returns the callsite for the target and level of `metadata`, and creates it if necessary. Returns `None` beyond
    /// the limit.
    fn target_callsite(&self, metadata: &log::Metadata<'_>) -> Option<&RecordCallsite> {
        let hash = hash_metadata(metadata, 0, 0);
        let is_equal = |callsite: &RecordCallsite| {
            callsite.level == metadata.level() && *callsite.target == *metadata.target()
        };
        let known = self.targets.find(hash, is_equal);
        if known.is_none() && self.targets.len() < MAX_CALLSITES {
            let new = || RecordCallsite::of_target(metadata, self.host);
            return Some(self.targets.find_or_insert(hash, is_equal, new));
        }
        known
    }

    /// Returns whether the host wants a record of `callsite` in the span `span`.
    fn is_enabled(&self, callsite: &RecordCallsite, span: u64) -> bool {
        match callsite.interest.load(Ordering::Relaxed) {
            Registered::NEVER => false,
            Registered::SOMETIMES => self.host.enabled(callsite.handle, span),
            _ => true,
        }
    }
}

impl log::Log for RecordLogger {
    /// Returns whether the host wants records with this target and level, for `log_enabled!`. The maximum level of
    /// `log` is not enough, because it applies to all targets.
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        if metadata.level() > log::max_level() {
            return false;
        }
        // `tracing` calls `enabled` before it emits the record of the probe event.
        if log_always::is_probe(metadata.target()) {
            return true;
        }
        self.target_callsite(metadata)
            .is_none_or(|callsite| self.is_enabled(callsite, spans::current()))
    }

    fn log(&self, record: &Record<'_>) {
        if log_always::is_duplicate(record) {
            return;
        }
        let callsite = self.callsite(record);
        let span = spans::current();
        if self.is_enabled(callsite, span) {
            Values::collect(|values| {
                callsite.collect_values(record, values);
                values.with_entry(callsite.handle, span, |entry| self.host.event(entry));
            });
        }
    }

    // Records are not buffered on the plugin side.
    fn flush(&self) {}
}

impl RecordCallsite {
    /// Creates and registers the callsite of `record`. `keys` are the keys of the record.
    fn of_record(record: &Record<'_>, keys: Vec<Box<str>>, host: HostLog) -> Self {
        Self {
            file: record.file().map(Into::into),
            line: record.line(),
            level: record.level(),
            target: record.target().into(),
            module: record.module_path().map(Into::into),
            keys,
            is_shared: false,
            handle: CallsiteHandle::NULL,
            interest: AtomicU32::new(Registered::NEVER),
        }
        .registered(host)
    }

    /// Creates and registers a callsite for `log_enabled!`. No record has this callsite.
    fn of_target(metadata: &log::Metadata<'_>, host: HostLog) -> Self {
        Self {
            file: None,
            line: None,
            level: metadata.level(),
            target: metadata.target().into(),
            module: None,
            keys: Vec::new(),
            is_shared: false,
            handle: CallsiteHandle::NULL,
            interest: AtomicU32::new(Registered::NEVER),
        }
        .registered(host)
    }

    /// Creates and registers the shared callsite of a level. Its fields contain the target and the pairs of a record.
    fn shared(level: log::Level, host: HostLog) -> Self {
        Self {
            file: None,
            line: None,
            level,
            target: "log".into(),
            module: None,
            keys: ["log.target", "log.fields"].map(Into::into).into(),
            is_shared: true,
            handle: CallsiteHandle::NULL,
            interest: AtomicU32::new(Registered::NEVER),
        }
        .registered(host)
    }

    /// Registers a new callsite, and sets its handle and its interest.
    fn registered(mut self, host: HostLog) -> Self {
        let (handle, interest) = with_stable_level(|| self.register(host));
        self.handle = handle;
        self.interest = AtomicU32::new(interest);
        self
    }

    /// Registers the callsite with the host. Returns the host's handle and interest.
    fn register(&self, host: HostLog) -> (CallsiteHandle, u32) {
        let names = ["message"]
            .into_iter()
            .chain(self.keys.iter().map(|key| &**key));
        let fields: Vec<_> = names.map(|name| Slice::new(name.as_bytes())).collect();
        host.register(&Callsite {
            size: size_of::<Callsite>(),
            level: Level::from(self.level) as u32,
            kind: Callsite::EVENT,
            name: Slice::new(b"log record"),
            target: Slice::new(self.target.as_bytes()),
            module: Slice::from_option(self.module.as_deref()),
            file: Slice::from_option(self.file.as_deref()),
            fields: fields.as_ptr(),
            fields_len: fields.len(),
            line: self.line.unwrap_or(0),
        })
    }

    fn matches(&self, record: &Record<'_>) -> bool {
        self.has_location_of(record) && has_keys(record, &self.keys)
    }

    /// Returns whether line, level, target and file are those of `record`.
    fn has_location_of(&self, record: &Record<'_>) -> bool {
        self.line == record.line()
            && self.level == record.level()
            && *self.target == *record.target()
            && self.file.as_deref() == record.file()
    }

    /// Adds the message and the other fields of `record` to `values`. The indexes are those of the fields in
    /// [`register`](Self::register).
    fn collect_values(&self, record: &Record<'_>, values: &mut Values) {
        values.push_debug(0, record.args());
        if self.is_shared {
            values.push_str(1, record.target());
            values.push_debug(2, FormattedPairs(record.key_values()));
        } else {
            collect_values(record, values);
        }
    }
}

fn hash_record(record: &Record<'_>) -> usize {
    let line = record.line().unwrap_or(0) as usize;
    hash_metadata(record.metadata(), line, record.file().map_or(0, str::len))
}

/// Hashes the lengths of the texts, not the texts themselves. Callsites with the same hash are distinguished by
/// comparison.
fn hash_metadata(metadata: &log::Metadata<'_>, line: usize, file_len: usize) -> usize {
    let lengths = metadata.target().len() + 31 * file_len;
    line.wrapping_mul(0x9e37_79b1) ^ lengths.wrapping_mul(0x85eb_ca6b) ^ metadata.level() as usize
}

/// The limit for the number of callsites in each table, see [`RecordLogger::callsite`].
const MAX_CALLSITES: usize = 4096;
