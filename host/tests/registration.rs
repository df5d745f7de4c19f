//! Test of a callsite of a plugin that is registered while the log level changes.
//!
//! The test is a program of its own, because `tracing` registers each callsite with all subscribers of a process, also
//! with those of other tests.

#![allow(clippy::unwrap_used, reason = "a panic makes the test fail")]

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
    /// Whether this thread pauses in the middle of its next registration.
    static PAUSES: Cell<bool> = const { Cell::new(false) };
}

/// A layer that pauses a registration: after the filter has decided, and before the decision is stored.
struct PausingLayer(Arc<Barrier>);

impl<S: Subscriber> Layer<S> for PausingLayer {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> subscriber::Interest {
        if PAUSES.take() {
            // The first wait shows the test that the thread has paused. The second wait ends the pause.
            self.0.wait();
            self.0.wait();
        }
        subscriber::Interest::always()
    }
}

#[test]
fn a_callsite_registered_during_a_change_has_the_new_level() {
    let pause = Arc::new(Barrier::new(2));
    let filter = Filter::new("info".parse().unwrap(), plugin_of);
    let subscriber = registry()
        .with(PausingLayer(Arc::clone(&pause)))
        .with(filter.clone());
    subscriber::set_global_default(subscriber).unwrap();
    let registration = thread::spawn(|| {
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
        PAUSES.set(true);
        let (_, first) = bridge.register(&callsite);
        let (_, second) = bridge.register(&callsite);
        (first, second)
    });
    pause.wait();
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let unconfirmed = runtime.block_on(filter.set("off".parse().unwrap()));
    assert_eq!(unconfirmed, [""; 0]);
    pause.wait();
    let interests = registration.join().unwrap();
    assert_eq!(interests, (Interest::Never, Interest::Never));
}
