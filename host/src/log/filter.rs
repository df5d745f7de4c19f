//! Decides which events and spans pass, by directives that can change at any time.

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

/// Returns the plugin that a callsite belongs to, or None for the host's own callsites.
///
/// The function is called while `tracing` registers the callsite, so that it must not log.
pub type PluginOf = fn(&Identifier) -> Option<&'static str>;

/// The filter in front of every log output, and the handle to change it. Clones are one filter.
///
/// As a [`Layer`] it decides for the whole subscriber: once for each callsite, and again after
/// [`Filter::set`]. `tracing` stores the answer with the callsite, so that a disabled event costs one load. A
/// plugin has a `tracing` of its own, whose callsites this one does not know. So each plugin
/// [follows](Self::follow) the filter.
#[derive(Clone, Debug)]
pub struct Filter {
    directives: Arc<ArcSwap<Directives>>,
    plugin_of: PluginOf,
    /// Whether a request may ask to be logged at debug, whatever the directives say.
    has_forced_debug: bool,
    followers: Followers,
}

impl Filter {
    /// Returns a filter with these directives. `plugin_of` tells whose callsite is whose.
    #[must_use]
    pub fn new(directives: Directives, plugin_of: PluginOf) -> Self {
        Self {
            directives: Arc::new(ArcSwap::from_pointee(directives)),
            plugin_of,
            has_forced_debug: false,
            followers: Followers::default(),
        }
    }

    /// Returns the same filter, which also lets the events of some requests pass, down to debug: those for
    /// which [`request::is_debug_forced`] is true. For a callsite that the directives disable, `tracing` then
    /// has to ask at every event.
    #[must_use]
    pub fn with_forced_debug(self) -> Self {
        Self {
            has_forced_debug: true,
            ..self
        }
    }

    /// The directives in force.
    #[must_use]
    pub fn directives(&self) -> Arc<Directives> {
        self.directives.load_full()
    }

    /// Changes the directives. When this returns, every thread and every follower uses the new ones. Returns
    /// the names of followers that did not confirm in time, because their code blocks.
    ///
    /// `tracing` asks about every callsite of the process again, so that this must not be called from a
    /// layer.
    pub async fn set(&self, directives: Directives) -> Vec<String> {
        // In this order: a callsite that registers meanwhile either sees the new directives, or sees that
        // the count has changed and asks again.
        self.directives.store(Arc::new(directives));
        CHANGE_COUNT.fetch_add(1, Ordering::SeqCst);
        callsite::rebuild_interest_cache();
        self.followers.notify().await
    }

    /// Decides about every callsite of the process again.
    ///
    /// When a callsite registers itself, `tracing` asks for the answer and then stores it, without a lock
    /// around both. So a callsite that registers while the directives change may store the old answer. A
    /// call some time after [`set`](Self::set) corrects that.
    pub fn recheck_callsites(&self) {
        callsite::rebuild_interest_cache();
    }

    /// Calls `follower` with the most verbose level in force, now and after each change, for ever. The
    /// follower then has to ask again about each of its callsites. A follower may block; `name` is its name
    /// in the warning about that.
    pub fn follow(&self, name: String, follower: impl Fn(Level) + Send + Sync + 'static) {
        let filter = self.clone();
        self.followers
            .add(name, move || follower(filter.max_level()));
    }

    /// Calls `follower` as [`follow`](Self::follow) does, when it stands for several others, such as the
    /// generations of a worker process. It returns the names of those that did not confirm, and has `limit`
    /// for that.
    pub fn follow_as_group(
        &self,
        name: String,
        limit: Duration,
        follower: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) {
        self.followers.add_group(name, limit, follower);
    }

    /// Returns the most verbose level at which anything passes.
    fn max_level(&self) -> Level {
        let level = self.directives.load().max_level();
        if self.has_forced_debug {
            level.max(Level::Debug)
        } else {
            level
        }
    }

    /// Whether the directives let a callsite pass.
    fn passes(&self, metadata: &Metadata<'_>) -> bool {
        // The span of a request carries the request's id. It is needed whenever anything passes.
        if request::is_request_span(metadata) {
            return self.max_level() != Level::Off;
        }
        let plugin = (self.plugin_of)(&metadata.callsite());
        Level::of(metadata) <= self.directives.load().level(plugin, metadata.target())
    }

    /// Whether a callsite passes in a request that forces debug.
    fn passes_if_forced(&self, metadata: &Metadata<'_>) -> bool {
        self.has_forced_debug && Level::of(metadata) <= Level::Debug
    }
}

impl<S: Subscriber> Layer<S> for Filter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.passes(metadata) {
            Interest::always()
        } else if self.passes_if_forced(metadata) {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    // `tracing` usually has the answer of `register_callsite`. It calls this while another thread registers
    // the callsite, when two subscribers differ, and when another layer wants to be asked each time, whose
    // wish overrules `never`. So both answers must agree.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.passes(metadata) || (self.passes_if_forced(metadata) && request::is_debug_forced(None))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.max_level().into())
    }
}

/// Returns how often the directives of this process have changed. An answer is up to date if this number is
/// the same before and after the answer was computed.
pub(super) fn change_count() -> u64 {
    CHANGE_COUNT.load(Ordering::SeqCst)
}

static CHANGE_COUNT: AtomicU64 = AtomicU64::new(0);

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use plugin_api::level::CRITICAL;
    use tokio::runtime::Builder;
    use tracing::{Event, debug, error, info, trace, warn};
    use tracing_subscriber::{layer::SubscriberExt, registry};

    use super::*;

    #[derive(Clone, Default)]
    struct SeenLevels(Arc<Mutex<Vec<Level>>>);

    impl<S: Subscriber> Layer<S> for SeenLevels {
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
            SeenLevels::default(),
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
            SeenLevels::default(),
            Filter::new("warn".parse().unwrap(), |_| None),
        );
        let subscriber = registry().with(filter).with(Undecided).with(seen.clone());
        tracing::subscriber::with_default(subscriber, log_at_every_level);
        assert_eq!(*seen.0.lock().unwrap(), WORST_FIRST[..3]);
    }

    #[test]
    fn the_plugin_of_a_callsite_counts() {
        let (seen, filter) = (
            SeenLevels::default(),
            Filter::new("off,cart#=warn".parse().unwrap(), |_| Some("cart")),
        );
        tracing::subscriber::with_default(
            registry().with(seen.clone()).with(filter),
            log_at_every_level,
        );
        assert_eq!(*seen.0.lock().unwrap(), WORST_FIRST[..3]);
    }
}
