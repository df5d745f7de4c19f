//! The plugins of a server, from its start to its stop: who follows the folder, and who loads.

use std::{fs, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task,
};
use tracing::warn;

use crate::{
    config::{Config, Watch},
    log::filter::Filter,
    plugin::{
        probation::Terms,
        quarantine::PanicLimit,
        registry::Registry,
        reloader::{self, Options, Reloader},
        store::{Store, StoreError},
        watcher::{WatchOptions, Watcher},
    },
};

/// The plugins of a server that runs.
pub(super) struct Plugins {
    registry: Arc<Registry>,
    stop: oneshot::Sender<Duration>,
    reloader: tokio::task::JoinHandle<()>,
    store: Arc<Store>,
}

/// Makes the place for private copies of libraries, and the plugins folder if there is none.
pub(super) fn open_store(config: &Config) -> Result<Store, StoreError> {
    if !config.plugins.exists() {
        warn!(folder = %config.plugins.display(), "The plugins folder is missing, making one");
        // The watcher tells when it is not there.
        let _ = fs::create_dir_all(&config.plugins);
    }
    Store::open(&config.state_dir())
}

impl Plugins {
    /// Starts to follow the plugins folder. The receiver hears when the first load of each library
    /// that is there has succeeded or failed.
    pub(super) fn load(
        config: &Config,
        store: Store,
        filter: Filter,
        registry: Arc<Registry>,
        commands: mpsc::Receiver<reloader::Command>,
    ) -> (Self, oneshot::Receiver<()>) {
        let store = Arc::new(store);
        let (changes, changed) = mpsc::channel(64);
        let (retries, retried) = mpsc::unbounded_channel();
        let options = WatchOptions {
            quiet: config.quiet_time,
            rescan: config.rescan,
            events: config.reload.watch == Watch::Events,
        };
        tokio::spawn(Watcher::new(config.plugins.clone(), options, changes, retried).run());

        let reload = &config.reload;
        let options = Options {
            mounts: config.mount.clone(),
            apps: config.apps.clone(),
            init_timeout: config.init_timeout,
            handover_timeout: reload.handover_timeout,
            graceful_timeout: config.graceful_timeout,
            app_threads: config.app_threads().into(),
            panic_limit: PanicLimit {
                panics: config.panic_limit,
                window: config.panic_window,
            },
            probation: reload.auto_rollback.then_some(Terms {
                time: reload.probation,
                failures: reload.rollback_failures,
                percent: reload.rollback_percent,
            }),
        };
        let routes = Arc::clone(&registry);
        let reloader = Reloader::new(options, Arc::clone(&store), routes, filter, retries);
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let reloader = tokio::spawn(reloader.run(changed, commands, ready, stopped));
        let plugins = Self {
            registry,
            stop,
            reloader,
            store,
        };
        (plugins, is_ready)
    }

    /// The copies of libraries.
    pub(super) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Tells all apps that they are to finish what they have. They still get requests.
    pub(super) fn drain(&self) {
        for generation in self.registry.serving() {
            task::spawn_blocking(move || generation.app.drain());
        }
    }

    /// Ends all apps, giving the requests in them at most `patience`.
    pub(super) async fn stop(self, patience: Duration) {
        let _ = self.stop.send(patience);
        let _ = self.reloader.await;
        if let Err(error) = self.store.remove() {
            warn!(
                error = &error as &dyn std::error::Error,
                "Cannot remove the copies of libraries"
            );
        }
    }
}
