//! The callsites of plugins, as the host's `tracing` knows them.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        LazyLock, Once, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
};

use plugin_api::{
    Level,
    host::{self, Callsite},
};
use tracing::{
    Dispatch, Metadata,
    callsite::{self, Identifier},
    dispatcher,
    field::FieldSet,
    metadata::Kind,
    subscriber::Interest,
};

use crate::log::filter;

/// The plugin that a callsite belongs to; none for the host's own.
#[must_use]
pub fn plugin_of(callsite: &Identifier) -> Option<&'static str> {
    of_plugin(callsite).map(|(plugin, _)| plugin)
}

fn of_plugin(callsite: &Identifier) -> Option<(&'static str, &'static Site)> {
    let sites = SITES.read().unwrap_or_else(PoisonError::into_inner);
    sites.plugins.get(callsite).copied()
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
    /// That of a callsite, which is the same for all generations of a plugin.
    pub(super) fn of(plugin: &'static str, callsite: &Callsite<'_>) -> &'static Self {
        let key = (plugin, callsite.clone());
        let known = |sites: &Sites| sites.sites.get(&key).copied();
        let site = known(&SITES.read().unwrap_or_else(PoisonError::into_inner));
        let site = site.unwrap_or_else(|| {
            let mut sites = SITES.write().unwrap_or_else(PoisonError::into_inner);
            known(&sites).unwrap_or_else(|| sites.add(plugin, callsite))
        });
        // Not under the lock: the filter asks whose callsite it is. Whoever finds the site waits
        // until it is known whether it is wanted, so that no first line is lost.
        site.registered.call_once(|| site.register());
        site
    }

    fn register(&'static self) {
        let mut before = filter::changes();
        callsite::register(self);
        // A change of the directives may have been between their look at this site and what was
        // stored of it (see `Filter::ask_again`).
        loop {
            let now = filter::changes();
            if now == before {
                return;
            }
            before = now;
            let ask = |dispatch: &Dispatch| dispatch.register_callsite(Self::metadata(self));
            tracing::Callsite::set_interest(self, dispatcher::get_default(ask));
        }
    }

    /// The one that this is, unless it is the host's own.
    pub(super) fn find(callsite: &Identifier) -> Option<&'static Self> {
        of_plugin(callsite).map(|(_, site)| site)
    }

    /// Whether the directives in force let it through, as far as the callsite tells.
    pub(super) fn interest(&self) -> host::Interest {
        match self.interest.load(Ordering::Relaxed) {
            NEVER => host::Interest::Never,
            SOMETIMES => host::Interest::Sometimes,
            _ => host::Interest::Always,
        }
    }

    /// What `tracing` knows it by.
    pub(super) fn metadata(&self) -> &Metadata<'static> {
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
        Self::metadata(self)
    }
}

/// All callsites of all plugins, by what tells one from another across generations, and the texts in
/// them. They only grow.
#[derive(Default)]
struct Sites {
    sites: HashMap<(&'static str, Callsite<'static>), &'static Site>,
    plugins: HashMap<Identifier, (&'static str, &'static Site)>,
    texts: HashSet<&'static str>,
}

static SITES: LazyLock<RwLock<Sites>> = LazyLock::new(RwLock::default);

impl Sites {
    fn add(&mut self, plugin: &'static str, callsite: &Callsite<'_>) -> &'static Site {
        let fields: Vec<_> = callsite
            .fields
            .iter()
            .map(|name| self.intern(name))
            .collect();
        let interned = Callsite {
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
            interned.name,
            interned.target,
            level(callsite.level),
            interned.file,
            interned.line,
            interned.module,
            FieldSet::new(fields.leak(), identifier.clone()),
            if callsite.is_span {
                Kind::SPAN
            } else {
                Kind::EVENT
            },
        );
        site.metadata.get_or_init(|| metadata);
        self.plugins.insert(identifier, (plugin, site));
        self.sites.insert((plugin, interned), site);
        site
    }

    fn intern(&mut self, text: &str) -> &'static str {
        if let Some(&known) = self.texts.get(text) {
            return known;
        }
        let text: &'static str = String::from(text).leak();
        self.texts.insert(text);
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
