//! The records of `log`, key-values included, as the host takes them.
//!
//! `log` has no callsites, so this module makes them: a place is a file, line, level, target and list of keys. A program
//! has as many places as macros, unless it makes up targets or keys as it runs. So the number of places is bounded, and
//! records beyond that share one place a level.

mod pairs;

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use log::Record;

use self::pairs::{Pairs, collect, has_keys, keys};
use super::{
    host::{HostLog, HostSite},
    log_always, of_one_level, spans,
    table::Table,
    values::Values,
};
use crate::{
    Level,
    abi::{Callsite, Registered, Slice},
};

/// The logger of `log`.
#[derive(Debug)]
pub(super) struct Records {
    host: HostLog,
    places: Table<Place>,
    /// Places with a target and a level only, for `log_enabled!`.
    targets: Table<Place>,
    /// By level: the places of records for which there is no room in `places`.
    shared: [OnceLock<Place>; 6],
}

/// A callsite of `log`, and the host's interest in it.
#[derive(Debug)]
struct Place {
    file: Option<Box<str>>,
    line: Option<u32>,
    level: log::Level,
    target: Box<str>,
    module: Option<Box<str>>,
    /// The fields behind the message.
    keys: Vec<Box<str>>,
    /// Whether this is one of [`Records::shared`].
    is_shared: bool,
    site: HostSite,
    interest: AtomicU32,
}

impl Records {
    pub(super) fn new(host: HostLog) -> Self {
        Self {
            host,
            places: Table::new(),
            targets: Table::new(),
            shared: Default::default(),
        }
    }

    /// Asks the host anew about every place.
    pub(super) fn ask_anew(&self) {
        let ask = |place: &Place| {
            place
                .interest
                .store(of_one_level(|| place.ask(self.host)).1, Ordering::Relaxed)
        };
        self.places.for_each(ask);
        self.targets.for_each(ask);
        self.shared.iter().filter_map(OnceLock::get).for_each(ask);
    }

    fn place(&self, record: &Record<'_>) -> &Place {
        let hash = hash(record);
        match self.places.find(hash, |place| place.is_of(record)) {
            Some(place) => place,
            None if self.places.len() < MAX_PLACES => {
                // Collected before the table is locked, because the keys come from the author's code, which may log.
                let keys = keys(record);
                let is_it = |place: &Place| place.is_at(record) && place.keys == keys;
                let make = || Place::of(record, keys.clone(), self.host);
                self.places.find_or_insert(hash, is_it, make)
            }
            None => self.shared[record.level() as usize]
                .get_or_init(|| Place::shared(record.level(), self.host)),
        }
    }
}

impl Records {
    /// The place with this target and level only. None when there is no room for another one.
    fn target(&self, metadata: &log::Metadata<'_>) -> Option<&Place> {
        let hash = hash_of(metadata, 0, 0);
        let is_it =
            |place: &Place| place.level == metadata.level() && *place.target == *metadata.target();
        let known = self.targets.find(hash, is_it);
        if known.is_none() && self.targets.len() < MAX_PLACES {
            let make = || Place::of_target(metadata, self.host);
            return Some(self.targets.find_or_insert(hash, is_it, make));
        }
        known
    }

    fn wants(&self, place: &Place, span: u64) -> bool {
        match place.interest.load(Ordering::Relaxed) {
            Registered::NEVER => false,
            Registered::SOMETIMES => self.host.enabled(place.site, span),
            _ => true,
        }
    }
}

impl log::Log for Records {
    /// Whether records of a target and level are wanted, for `log_enabled!`. The maximum level of `log` is that of all
    /// targets, so the host is asked about this one.
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        if metadata.level() > log::max_level() {
            return false;
        }
        if log_always::is_probe(metadata.target()) {
            return true;
        }
        self.target(metadata)
            .is_none_or(|place| self.wants(place, spans::current()))
    }

    fn log(&self, record: &Record<'_>) {
        if log_always::is_double(record) {
            return;
        }
        let place = self.place(record);
        let span = spans::current();
        if self.wants(place, span) {
            Values::collect(|values| {
                place.collect(record, values);
                values.with_entry(place.site, span, |entry| self.host.event(entry));
            });
        }
    }

    fn flush(&self) {}
}

impl Place {
    fn of(record: &Record<'_>, keys: Vec<Box<str>>, host: HostLog) -> Self {
        Self {
            file: record.file().map(Into::into),
            line: record.line(),
            level: record.level(),
            target: record.target().into(),
            module: record.module_path().map(Into::into),
            keys,
            is_shared: false,
            site: HostSite::NONE,
            interest: AtomicU32::new(Registered::NEVER),
        }
        .asked(host)
    }

    /// A place that no record has.
    fn of_target(metadata: &log::Metadata<'_>, host: HostLog) -> Self {
        Self {
            file: None,
            line: None,
            level: metadata.level(),
            target: metadata.target().into(),
            module: None,
            keys: Vec::new(),
            is_shared: false,
            site: HostSite::NONE,
            interest: AtomicU32::new(Registered::NEVER),
        }
        .asked(host)
    }

    fn shared(level: log::Level, host: HostLog) -> Self {
        Self {
            file: None,
            line: None,
            level,
            target: "log".into(),
            module: None,
            keys: ["log.target", "log.fields"].map(Into::into).into(),
            is_shared: true,
            site: HostSite::NONE,
            interest: AtomicU32::new(Registered::NEVER),
        }
        .asked(host)
    }

    fn asked(mut self, host: HostLog) -> Self {
        let (site, interest) = of_one_level(|| self.ask(host));
        self.site = site;
        self.interest = AtomicU32::new(interest);
        self
    }

    fn ask(&self, host: HostLog) -> (HostSite, u32) {
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

    fn is_of(&self, record: &Record<'_>) -> bool {
        self.is_at(record) && has_keys(record, &self.keys)
    }

    fn is_at(&self, record: &Record<'_>) -> bool {
        self.line == record.line()
            && self.level == record.level()
            && *self.target == *record.target()
            && self.file.as_deref() == record.file()
    }

    fn collect(&self, record: &Record<'_>, values: &mut Values) {
        values.push_debug(0, record.args());
        if self.is_shared {
            values.push_str(1, record.target());
            values.push_debug(2, Pairs(record.key_values()));
        } else {
            collect(record, values);
        }
    }
}

fn hash(record: &Record<'_>) -> usize {
    let line = record.line().unwrap_or(0) as usize;
    hash_of(record.metadata(), line, record.file().map_or(0, str::len))
}

fn hash_of(metadata: &log::Metadata<'_>, line: usize, file: usize) -> usize {
    let lengths = metadata.target().len() + 31 * file;
    line.wrapping_mul(0x9e37_79b1) ^ lengths.wrapping_mul(0x85eb_ca6b) ^ metadata.level() as usize
}

/// How many places a library may have.
const MAX_PLACES: usize = 4096;
