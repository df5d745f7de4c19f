//! The filter of the log: decides which events and spans pass. The directives of the filter can change at any time.

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

/// A function that returns the name of the plugin that a callsite belongs to, or `None` for a callsite of the host's
/// own code.
///
/// The function must not log, because the filter calls the function while `tracing` registers the callsite.
pub type PluginOf = fn(&Identifier) -> Option<&'static str>;

/// The filter of the log, and the handle to change its directives. Clones share the same directives.
///
/// As a [`Layer`], the filter decides for the whole subscriber: once for each callsite, and again after
/// [`Filter::set`]. `tracing` stores the decision in the callsite, so that a disabled event costs only one load.
///
/// A plugin has its own copy of `tracing` with its own callsites, which store decisions, too. Therefore each plugin
/// [follows](Self::follow) the filter: the filter notifies the plugin after each change of the directives.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The directives in force.
    directives: Arc<ArcSwap<Directives>>,
    plugin_of: PluginOf,
    /// Whether some requests are logged at level debug even if the directives disable that level.
    has_forced_debug: bool,
    followers: Followers,
}

impl Filter {
    /// Returns a filter with these directives. `plugin_of` returns the plugin of a callsite.
    #[must_use]
    pub fn new(directives: Directives, plugin_of: PluginOf) -> Self {
        Self {
            directives: Arc::new(ArcSwap::from_pointee(directives)),
            plugin_of,
            has_forced_debug: false,
            followers: Followers::default(),
        }
    }

    /// Makes the filter also pass an event of level debug, or of a less verbose level, if the event belongs to a
    /// request for which [`request::is_debug_forced`] returns true. For a callsite that the directives disable,
    /// `tracing` then calls the filter for every event, which costs time.
    #[must_use]
    pub fn with_forced_debug(self) -> Self {
        Self {
            has_forced_debug: true,
            ..self
        }
    }

    /// Returns the directives in force.
    #[must_use]
    pub fn directives(&self) -> Arc<Directives> {
        self.directives.load_full()
    }

    /// Changes the directives. After this call, every thread and every follower uses the new directives. Returns the
    /// names of the followers that did not confirm in time, because a callback blocks.
    ///
    /// Must not be called from a layer, because `tracing` calls the layers again for every callsite of the process.
    pub async fn set(&self, directives: Directives) -> Vec<String> {
        // The directives are stored before the count changes. A callsite that is being registered at the same time
        // then either sees the new directives, or sees that the count has changed and calls the filter again.
        self.directives.store(Arc::new(directives));
        CHANGE_COUNT.fetch_add(1, Ordering::SeqCst);
        // Makes `tracing` call `register_callsite` and `max_level_hint` again.
        callsite::rebuild_interest_cache();
        self.followers.notify().await
    }

    /// Makes the filter decide again for every callsite of the process.
    ///
    /// When a callsite is registered, `tracing` calls the filter and then stores the decision, without a lock around
    /// both steps. If the directives change between the steps, the callsite stores the old decision. A call of this
    /// function some time after [`set`](Self::set) corrects such a callsite.
    pub fn recheck_callsites(&self) {
        callsite::rebuild_interest_cache();
    }

    /// Adds a follower. Calls `follower` now and after each change of the directives, until the process ends. The
    /// argument is the most verbose level in force. The follower must then get a new decision for each of its
    /// callsites.
    ///
    /// `follower` may block. `name` is the name of the follower in the warning about a follower that blocks.
    pub fn follow(&self, name: String, follower: impl Fn(Level) + Send + Sync + 'static) {
        let filter = self.clone();
        self.followers
            .add(name, move || follower(filter.max_level()));
    }

    /// Adds a follower that represents a group of others, such as the generations in a worker process. Calls `follower`
    /// at the same times as [`follow`](Self::follow). `follower` must return within `limit`, with the names of the
    /// members that did not confirm.
    pub fn follow_as_group(
        &self,
        name: String,
        limit: Duration,
        follower: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) {
        self.followers.add_group(name, limit, follower);
    }

    /// Returns the most verbose level at which an event may pass.
    fn max_level(&self) -> Level {
        let level = self.directives.load().max_level();
        if self.has_forced_debug {
            level.max(Level::Debug)
        } else {
            level
        }
    }

    /// Returns whether the directives enable a callsite.
    fn passes(&self, metadata: &Metadata<'_>) -> bool {
        // The span of a request contains the id of the request, which every line of the request needs.
        if request::is_request_span(metadata) {
            return self.max_level() != Level::Off;
        }
        let plugin = (self.plugin_of)(&metadata.callsite());
        Level::of(metadata) <= self.directives.load().level(plugin, metadata.target())
    }

    /// Returns whether a callsite is enabled in a request for which debug is forced.
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

    // `tracing` usually uses the stored decision of `register_callsite` and does not call `enabled`. `tracing` calls
    // `enabled` if the stored decision is `sometimes`, while another thread registers the callsite, or if two
    // subscribers decide differently. A `sometimes` of another layer replaces a `never` of this layer. Both functions
    // must therefore make the same decision.
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.passes(metadata) || (self.passes_if_forced(metadata) && request::is_debug_forced(None))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.max_level().into())
    }
}

/// Returns how often the directives of this process have changed. A decision of the filter is up to date if this number
/// is the same before the decision was made and after the decision was stored.
pub(super) fn change_count() -> u64 {
    CHANGE_COUNT.load(Ordering::SeqCst)
}

/// The number of changes of the directives of all filters in this process.
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

    /// A layer that makes `tracing` call the layers for every event: the interest of every callsite becomes
    /// `sometimes`.
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
    fn a_change_takes_effect_at_the_next_event() {
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
    fn followers_are_notified_at_once_and_after_each_change() {
        let filter = Filter::new("warn".parse().unwrap(), |_| None);
        let levels = Arc::new(Mutex::new(Vec::new()));
        let follower = Arc::clone(&levels);
        filter.follow("shop".to_owned(), move |level| {
            follower.lock().unwrap().push(level)
        });
        set(&filter, "off,shop=trace");
        assert_eq!(*levels.lock().unwrap(), [Level::Warn, Level::Trace]);
    }

    #[test]
    fn the_filter_works_beside_a_layer_that_is_called_for_every_event() {
        let (seen, filter) = (
            SeenLevels::default(),
            Filter::new("warn".parse().unwrap(), |_| None),
        );
        let subscriber = registry().with(filter).with(Undecided).with(seen.clone());
        tracing::subscriber::with_default(subscriber, log_at_every_level);
        assert_eq!(*seen.0.lock().unwrap(), WORST_FIRST[..3]);
    }

    #[test]
    fn directives_can_name_the_plugin_of_a_callsite() {
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
