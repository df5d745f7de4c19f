//! The live gate: which events and spans pass, by directives that can change at any time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use plugin_api::level::{Directives, Level};
use tracing::{
    Metadata, Subscriber,
    callsite::{self, Identifier},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::layer::{Context, Layer};

use super::{followers::Followers, request};

/// Says which plugin a callsite belongs to: `None` for the host's own.
///
/// It runs while `tracing` registers the callsite, so it must not log.
pub type PluginOf = fn(&Identifier) -> Option<&'static str>;

/// The gate in front of every log output, and the handle to change it. A clone is the same gate.
///
/// As a [`Layer`] it rules the whole subscriber. It decides once a callsite and again after
/// [`Filter::set`]; `tracing` keeps the answer with the callsite, so that a disabled event costs
/// one load. What has callsites that this process's `tracing` does not know, as each plugin has,
/// follows it.
#[derive(Clone, Debug)]
pub struct Filter {
    directives: Arc<ArcSwap<Directives>>,
    plugin_of: PluginOf,
    /// Whether there are requests that are logged at debug whatever the directives say.
    has_loud_requests: bool,
    followers: Followers,
}

impl Filter {
    /// A gate with these directives, for callsites whose plugin `plugin_of` knows.
    #[must_use]
    pub fn new(directives: Directives, plugin_of: PluginOf) -> Self {
        Self {
            directives: Arc::new(ArcSwap::from_pointee(directives)),
            plugin_of,
            has_loud_requests: false,
            followers: Followers::default(),
        }
    }

    /// The same gate, which also lets through what loud requests log, down to debug. It then has to
    /// be asked each time where it else would decide once a callsite.
    #[must_use]
    pub fn with_loud_requests(self) -> Self {
        Self {
            has_loud_requests: true,
            ..self
        }
    }

    /// The directives in force.
    #[must_use]
    pub fn directives(&self) -> Arc<Directives> {
        self.directives.load_full()
    }

    /// Puts other directives in force, on every thread and with everybody who follows, before it
    /// returns. The result names those that follow but did not confirm it in time: their code blocks.
    ///
    /// It asks again for every callsite of the process, so it must not be called from a layer.
    pub async fn set(&self, directives: Directives) -> Vec<String> {
        self.directives.store(Arc::new(directives));
        CHANGES.fetch_add(1, Ordering::SeqCst);
        callsite::rebuild_interest_cache();
        self.followers.tell().await
    }

    /// Asks again for every callsite of the process.
    ///
    /// `tracing` looks at the interest of a callsite that registers itself, and then stores it,
    /// without a lock: a callsite that does so while the directives change can store what held
    /// before. Called some time after [`set`](Self::set), this sets it right.
    pub fn ask_again(&self) {
        callsite::rebuild_interest_cache();
    }

    /// Tells `follower` the most verbose level in force, now and after each change, for ever: it
    /// then has to ask anew about each of its callsites. It may block; `name` is what it is called
    /// then.
    pub fn follow(&self, name: String, follower: impl Fn(Level) + Send + Sync + 'static) {
        let filter = self.clone();
        self.followers
            .add(name, move || follower(filter.max_level()));
    }

    /// Tells `follower` of each change, as [`follow`](Self::follow) does, where it stands for others:
    /// it returns the names of those that did not confirm, within `limit`.
    pub fn follow_as_group(
        &self,
        name: String,
        limit: Duration,
        follower: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) {
        self.followers.add_group(name, limit, follower);
    }

    /// The most verbose level of what may pass.
    fn max_level(&self) -> Level {
        let level = self.directives.load().max_level();
        if self.has_loud_requests {
            level.max(Level::Debug)
        } else {
            level
        }
    }

    /// Whether it passes by the directives.
    fn passes(&self, metadata: &Metadata<'_>) -> bool {
        if request::is_span(metadata) {
            return self.max_level() != Level::Off;
        }
        let plugin = (self.plugin_of)(&metadata.callsite());
        Level::of(metadata) <= self.directives.load().level(plugin, metadata.target())
    }

    /// Whether it passes in a loud request.
    fn passes_if_loud(&self, metadata: &Metadata<'_>) -> bool {
        self.has_loud_requests && Level::of(metadata) <= Level::Debug
    }
}

impl<S: Subscriber> Layer<S> for Filter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.passes(metadata) {
            Interest::always()
        } else if self.passes_if_loud(metadata) {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    // Seldom asked without loud requests, but must agree with the interest: while another thread
    // registers the callsite, when two subscribers differ, and when another layer wants to be asked
    // each time (its answer then stands above a `never` from here).
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.passes(metadata) || (self.passes_if_loud(metadata) && request::is_loud(None))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.max_level().into())
    }
}

/// How often directives of this process changed: what was computed without a change meanwhile is up to
/// date.
pub(super) fn changes() -> u64 {
    CHANGES.load(Ordering::SeqCst)
}

static CHANGES: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use plugin_api::level::CRITICAL;
    use tokio::runtime::Builder;
    use tracing::{Event, debug, error, info, trace, warn};
    use tracing_subscriber::{layer::SubscriberExt, registry};

    use super::*;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for Seen {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(Level::of(event.metadata()));
        }
    }

    /// A layer that asks to be asked: the interest of every callsite becomes `sometimes`.
    struct Undecided;

    impl<S: Subscriber> Layer<S> for Undecided {
        fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
            Interest::sometimes()
        }
    }

    fn log_at_every_level() {
        error!(name: CRITICAL, target: "shop::db", "critical");
        error!(target: "shop::db", "error");
        warn!(target: "shop::db", "warn");
        info!(target: "shop::db", "info");
        debug!(target: "shop::db", "debug");
        trace!(target: "shop::db", "trace");
    }

    fn set(filter: &Filter, text: &str) {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let unconfirmed = runtime.block_on(filter.set(text.parse().unwrap()));
        assert_eq!(unconfirmed, [""; 0]);
    }

    const WORST_FIRST: [Level; 6] = [
        Level::Critical,
        Level::Error,
        Level::Warn,
        Level::Info,
        Level::Debug,
        Level::Trace,
    ];

    const TABLE: [(&str, usize); 6] = [
        ("off", 0),
        ("critical", 1),
        ("trace,shop=error", 2),
        ("off,shop::db=info", 4),
        ("debug", 5),
        ("trace", 6),
    ];

    #[test]
    fn a_change_counts_from_the_next_event_on() {
        let (seen, filter) = (
            Seen::default(),
            Filter::new(Directives::default(), |_| None),
        );
        let subscriber = tracing_subscriber::registry()
            .with(seen.clone())
            .with(filter.clone());
        tracing::subscriber::with_default(subscriber, || {
            for (text, passed) in TABLE.into_iter().chain(TABLE.into_iter().rev()) {
                set(&filter, text);
                log_at_every_level();
                assert_eq!(*seen.0.lock().unwrap(), WORST_FIRST[..passed], "{text}");
                seen.0.lock().unwrap().clear();
            }
        });
        assert_eq!(filter.directives().to_string(), "off");
    }

    #[test]
    fn followers_are_told_now_and_after_each_change() {
        let filter = Filter::new("warn".parse().unwrap(), |_| None);
        let told = Arc::new(Mutex::new(Vec::new()));
        let follower = Arc::clone(&told);
        filter.follow("shop".to_owned(), move |level| {
            follower.lock().unwrap().push(level)
        });
        set(&filter, "off,shop=trace");
        assert_eq!(*told.lock().unwrap(), [Level::Warn, Level::Trace]);
    }

    #[test]
    fn the_gate_holds_beside_a_layer_that_is_asked_each_time() {
        let (seen, filter) = (
            Seen::default(),
            Filter::new("warn".parse().unwrap(), |_| None),
        );
        let subscriber = registry().with(filter).with(Undecided).with(seen.clone());
        tracing::subscriber::with_default(subscriber, log_at_every_level);
        assert_eq!(*seen.0.lock().unwrap(), WORST_FIRST[..3]);
    }

    #[test]
    fn the_plugin_of_a_callsite_counts() {
        let (seen, filter) = (
            Seen::default(),
            Filter::new("off,cart#=warn".parse().unwrap(), |_| Some("cart")),
        );
        tracing::subscriber::with_default(
            registry().with(seen.clone()).with(filter),
            log_at_every_level,
        );
        assert_eq!(*seen.0.lock().unwrap(), WORST_FIRST[..3]);
    }
}
