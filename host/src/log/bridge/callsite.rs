//! The host's callsites: one for each callsite of a plugin. The host's callsites are registered with the host's
//! `tracing`.

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

/// Returns the name of the plugin that a callsite belongs to. Returns `None` for a callsite of the host's own code.
#[must_use]
pub fn plugin_of(callsite: &Identifier) -> Option<&'static str> {
    find_with_plugin(callsite).map(|(plugin, _)| plugin)
}

/// Returns the callsite of a plugin with this identifier, and the name of the plugin. Returns `None` for a callsite of
/// the host's own code.
fn find_with_plugin(callsite: &Identifier) -> Option<(&'static str, &'static PluginCallsite)> {
    let sites = CALLSITES.read().unwrap_or_else(PoisonError::into_inner);
    sites.by_identifier.get(callsite).copied()
}

/// Returns a copy of `text` that exists as long as the process. Equal texts share one copy.
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
    /// Completed when the callsite is registered with `tracing`.
    registration: Once,
    /// The filter's decision: [`NEVER`], [`SOMETIMES`] or [`ALWAYS`].
    interest: AtomicU8,
    /// Set before any other code gets a reference to the callsite. In a `OnceLock`, because the metadata contain a
    /// reference to the callsite.
    metadata: OnceLock<Metadata<'static>>,
}

impl PluginCallsite {
    /// Returns the host's callsite for a callsite of `plugin`. Creates and registers the host's callsite at the first
    /// call. All generations of a plugin get the same callsite.
    pub(super) fn of(plugin: &'static str, callsite: &Callsite<'_>) -> &'static Self {
        let key = (plugin, callsite.clone());
        let find = |sites: &CallsiteTable| sites.by_content.get(&key).copied();
        let site = find(&CALLSITES.read().unwrap_or_else(PoisonError::into_inner));
        // Looks up again under the write lock, because another thread may have added the callsite between the two
        // locks.
        let site = site.unwrap_or_else(|| {
            let mut sites = CALLSITES.write().unwrap_or_else(PoisonError::into_inner);
            find(&sites).unwrap_or_else(|| sites.add(plugin, callsite))
        });
        // Registers without the lock, because the filter calls `plugin_of` during the registration, and `plugin_of`
        // locks the table. A second thread waits here until the filter has decided. Without the wait, the interest
        // would still be `NEVER`, and the first event of that thread would be lost.
        site.registration.call_once(|| site.register());
        site
    }

    /// Registers the callsite with `tracing`, which calls the filter and stores the filter's decision in the callsite.
    fn register(&'static self) {
        // Read before the registration, so that a change during the registration is noticed.
        let mut before = filter::change_count();
        callsite::register(self);
        // The directives may have changed after the filter has decided and before the decision was stored (see
        // `Filter::recheck_callsites`). Repeats the decision until the directives stay the same meanwhile.
        loop {
            let now = filter::change_count();
            if now == before {
                return;
            }
            before = now;
            let decide = |dispatch: &Dispatch| dispatch.register_callsite(Self::metadata(self));
            tracing::Callsite::set_interest(self, dispatcher::get_default(decide));
        }
    }

    /// Returns the callsite of a plugin with this identifier. Returns `None` for a callsite of the host's own code.
    pub(super) fn find(callsite: &Identifier) -> Option<&'static Self> {
        find_with_plugin(callsite).map(|(_, site)| site)
    }

    /// Returns the filter's stored decision: whether events of the callsite pass never, always, or only in some
    /// requests.
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

/// The values of [`PluginCallsite::interest`]. Each value is the number for a variant of `tracing`'s `Interest`, which
/// cannot be stored in an atomic.
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

/// The host's callsites for all plugins. Entries are never removed.
#[derive(Default)]
struct CallsiteTable {
    /// The callsites by plugin and content. A callsite has the same content in all generations.
    by_content: HashMap<(&'static str, Callsite<'static>), &'static PluginCallsite>,
    /// The callsites with the names of their plugins, by the identifier that `tracing` uses.
    by_identifier: HashMap<Identifier, (&'static str, &'static PluginCallsite)>,
    /// The texts that [`intern`] has copied.
    texts: HashSet<&'static str>,
}

static CALLSITES: LazyLock<RwLock<CallsiteTable>> = LazyLock::new(RwLock::default);

impl CallsiteTable {
    /// Creates a callsite and adds it to the table. Does not register the callsite.
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
        // Leaked, because `tracing` stores references to callsites for ever. Generations share callsites, so the leak
        // is bounded.
        let site: &'static PluginCallsite = Box::leak(Box::new(PluginCallsite {
            registration: Once::new(),
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
        // The metadata are set before the callsite is added to the tables, where other threads can find the callsite.
        site.metadata.get_or_init(|| metadata);
        self.by_identifier.insert(identifier, (plugin, site));
        self.by_content.insert((plugin, interned), site);
        site
    }

    /// Returns the shared copy of `text`, and creates the copy at the first call.
    fn intern(&mut self, text: &str) -> &'static str {
        if let Some(&interned) = self.texts.get(text) {
            return interned;
        }
        let text: &'static str = String::from(text).leak();
        self.texts.insert(text);
        text
    }
}

/// Returns the level of `tracing` for a level of a plugin. `tracing` has no level critical: a critical event has the
/// level error, and the name of its callsite marks the event as critical.
fn level(level: Level) -> tracing::Level {
    match level {
        Level::Off | Level::Critical | Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    }
}
