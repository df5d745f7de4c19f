//! The watcher, the supervisor and the worker of a server that is one process.

use std::{fs, sync::Arc, time::Duration};

use tokio::{sync::mpsc, sync::oneshot, task::JoinHandle};
use tracing::warn;

use crate::{
    config::{Config, Watch},
    folder::{
        store::{Store, StoreError},
        watcher::{WatchOptions, Watcher},
    },
    supervisor::{Command, Link, Parts, Supervisor},
    worker::{
        life::{self, Worker},
        link::{Notices, Orders},
    },
};

/// A supervisor that runs.
pub(super) struct Running {
    stop: oneshot::Sender<Duration>,
    supervisor: JoinHandle<()>,
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

impl Running {
    /// Starts to follow the plugins folder, and to serve what is in it.
    pub(super) fn start(
        config: &Config,
        store: Store,
        worker: life::Parts,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let store = Arc::new(store);
        let (looks, looked) = mpsc::channel(16);
        let (retries, retried) = mpsc::unbounded_channel();
        let options = WatchOptions {
            quiet: config.quiet_time,
            rescan: config.rescan,
            events: config.reload.watch == Watch::Events,
        };
        tokio::spawn(Watcher::new(config.plugins.clone(), options, looks, retried).run());

        let mut supervisor = Supervisor::new(config, Arc::clone(&store), retries);
        let (orders, ordered) = mpsc::unbounded_channel();
        let id = supervisor.add_worker(Link::local(orders));
        let (notices, mut noticed) = mpsc::unbounded_channel();
        let (all_notices, notices_of_all) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(notice) = noticed.recv().await {
                if all_notices.send((id, notice)).is_err() {
                    return;
                }
            }
        });
        tokio::spawn(Worker::new(worker, Notices::new(notices)).run(Orders::new(ordered)));
        let parts = Parts {
            looks: looked,
            commands,
            notices: notices_of_all,
        };
        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(supervisor.run(parts, config.ready_timeout, stopped));
        Self {
            stop,
            supervisor,
            store,
        }
    }

    /// The private copies.
    pub(super) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Ends everything, giving requests that are in flight at most `patience`.
    pub(super) async fn stop(self, patience: Duration) {
        let _ = self.stop.send(patience);
        let _ = self.supervisor.await;
    }
}
