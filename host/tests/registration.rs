//! A callsite of a plugin that is registered while the level changes.
//!
//! A program of its own: `tracing` asks all subscribers of a process about a callsite, also those of
//! other tests.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::{
    cell::Cell,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use host::{
    apps::{faults::Faults, quarantine::PanicLimit},
    log::{
        bridge::{Bridge, plugin_of},
        filter::Filter,
        origin::Origin,
    },
};
use plugin_api::{
    Level,
    host::{Callsite, Interest, Logger},
};
use tokio::runtime::Builder;
use tracing::{Metadata, Subscriber, subscriber};
use tracing_subscriber::{Layer, layer::SubscriberExt, registry};

thread_local! {
    /// Whether this thread stops in the middle of its next registration.
    static STOPS: Cell<bool> = const { Cell::new(false) };
}

/// A layer that is asked after the filter has decided, and before the decision is stored.
struct Stop(Arc<Barrier>);

impl<S: Subscriber> Layer<S> for Stop {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> subscriber::Interest {
        if STOPS.take() {
            self.0.wait();
            self.0.wait();
        }
        subscriber::Interest::always()
    }
}

#[test]
fn it_has_the_level_of_afterwards() {
    let stop = Arc::new(Barrier::new(2));
    let filter = Filter::new("info".parse().unwrap(), plugin_of);
    let subscriber = registry()
        .with(Stop(Arc::clone(&stop)))
        .with(filter.clone());
    subscriber::set_global_default(subscriber).unwrap();
    let registers = thread::spawn(|| {
        let origin = Origin {
            plugin: "shop",
            generation: 1,
        };
        let limit = PanicLimit {
            panics: 1,
            window: Duration::MAX,
        };
        let bridge = Bridge::new(origin, Arc::new(Faults::new(limit)));
        let callsite = Callsite {
            level: Level::Info,
            is_span: false,
            name: "event",
            target: "shop",
            module: None,
            file: None,
            line: None,
            fields: vec!["message"],
        };
        STOPS.set(true);
        let (site, told) = bridge.register(&callsite);
        (told, bridge.register(&callsite).1, site)
    });
    stop.wait();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let unconfirmed = runtime.block_on(filter.set("off".parse().unwrap()));
    assert_eq!(unconfirmed, [""; 0]);
    stop.wait();
    let (told, kept, _) = registers.join().unwrap();
    assert!(matches!((told, kept), (Interest::Never, Interest::Never)));
}
