//! The callsites that the host has for the callsites of plugins.

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

/// Returns the plugin that a callsite belongs to. None for the host's own callsites.
#[must_use]
pub fn plugin_of(callsite: &Identifier) -> Option<&'static str> {
    of_plugin(callsite).map(|(plugin, _)| plugin)
}

/// Returns the plugin of a callsite, and the callsite with its own type.
fn of_plugin(callsite: &Identifier) -> Option<(&'static str, &'static PluginCallsite)> {
    let sites = CALLSITES.read().unwrap_or_else(PoisonError::into_inner);
    sites.by_identifier.get(callsite).copied()
}

/// Returns a copy of `text` that lives as long as the process. Equal texts share one copy.
#[must_use]
pub fn intern(text: &str) -> &'static str {
    CALLSITES
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .intern(text)
}

/// The host's callsite for a callsite of a plugin.
#[derive(Debug)]
pub struct PluginCallsite {
    registered: Once,
    /// The filter's answer: [`NEVER`], [`SOMETIMES`] or [`ALWAYS`].
    interest: AtomicU8,
    /// Set before any other code sees the callsite.
    metadata: OnceLock<Metadata<'static>>,
}

impl PluginCallsite {
    /// Returns the host's callsite for a callsite of `plugin`, and makes it if need be. All generations of a
    /// plugin get the same one.
    pub(super) fn of(plugin: &'static str, callsite: &Callsite<'_>) -> &'static Self {
        let key = (plugin, callsite.clone());
        let known = |sites: &CallsiteTable| sites.by_content.get(&key).copied();
        let site = known(&CALLSITES.read().unwrap_or_else(PoisonError::into_inner));
        // Another thread may have added the callsite between the two locks.
        let site = site.unwrap_or_else(|| {
            let mut sites = CALLSITES.write().unwrap_or_else(PoisonError::into_inner);
            known(&sites).unwrap_or_else(|| sites.add(plugin, callsite))
        });
        // Not under the lock, because the filter asks `plugin_of` while the callsite registers. A second
        // thread waits here until the filter has answered. Otherwise its first event would be lost.
        site.registered.call_once(|| site.register());
        site
    }

    /// Asks the filter about this callsite, and stores the answer.
    fn register(&'static self) {
        let mut before = filter::change_count();
        callsite::register(self);
        // The directives may have changed between the filter's answer and the moment when it was stored (see
        // `Filter::recheck_callsites`). Ask again until they have not.
        loop {
            let now = filter::change_count();
            if now == before {
                return;
            }
            before = now;
            let ask = |dispatch: &Dispatch| dispatch.register_callsite(Self::metadata(self));
            tracing::Callsite::set_interest(self, dispatcher::get_default(ask));
        }
    }

    /// Returns the plugin's callsite with this identifier. None for the host's own callsites.
    pub(super) fn find(callsite: &Identifier) -> Option<&'static Self> {
        of_plugin(callsite).map(|(_, site)| site)
    }

    /// Whether the directives in force let the callsite pass.
    pub(super) fn interest(&self) -> host::Interest {
        match self.interest.load(Ordering::Relaxed) {
            NEVER => host::Interest::Never,
            SOMETIMES => host::Interest::Sometimes,
            _ => host::Interest::Always,
        }
    }

    /// Returns the metadata for `tracing`.
    pub(super) fn metadata(&self) -> &Metadata<'static> {
        self.metadata
            .get()
            .expect("the metadata is set before any other code sees the callsite")
    }
}

const NEVER: u8 = 0;
const SOMETIMES: u8 = 1;
const ALWAYS: u8 = 2;

impl tracing::Callsite for PluginCallsite {
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

/// All callsites of all plugins. The tables only grow.
#[derive(Default)]
struct CallsiteTable {
    /// By plugin and content, which are the same in all generations.
    by_content: HashMap<(&'static str, Callsite<'static>), &'static PluginCallsite>,
    /// By the identifier that `tracing` has, with the name of the plugin.
    by_identifier: HashMap<Identifier, (&'static str, &'static PluginCallsite)>,
    /// The interned texts.
    texts: HashSet<&'static str>,
}

static CALLSITES: LazyLock<RwLock<CallsiteTable>> = LazyLock::new(RwLock::default);

impl CallsiteTable {
    /// Makes a callsite, which is not registered yet.
    fn add(&mut self, plugin: &'static str, callsite: &Callsite<'_>) -> &'static PluginCallsite {
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
        // Leaked, because `tracing` keeps callsites for ever. The table keeps the number of them bounded.
        let site: &'static PluginCallsite = Box::leak(Box::new(PluginCallsite {
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
        self.by_identifier.insert(identifier, (plugin, site));
        self.by_content.insert((plugin, interned), site);
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

/// Returns `tracing`'s level. It has no critical level; the name of the callsite tells that.
fn level(level: Level) -> tracing::Level {
    match level {
        Level::Off | Level::Critical | Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    }
}
