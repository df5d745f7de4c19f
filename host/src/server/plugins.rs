//! The supervisor of a server, the watcher that pokes it, and its workers.

use std::{fs, net::TcpListener, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};
use tracing::info;

use super::StartError;
use crate::{
    config::{Config, WatchMode},
    control::SocketFile,
    folder::{
        scan::is_library,
        store::Store,
        watcher::{WatchOptions, Watcher},
    },
    log::{capture::Printed, filter::Filter},
    supervisor::{
        Command, Link, Parts, Supervisor,
        app::WorkerId,
        handover::Handover,
        process::{Children, Executable},
        upgrade::Adopted,
        workers::{Event, Workers},
    },
    worker::{
        life::{self, Worker},
        link::{Notices, Orders},
    },
};

/// A supervisor that runs.
pub(super) struct Running {
    stop: oneshot::Sender<Duration>,
    supervisor: JoinHandle<()>,
}

/// Looks at the plugins folder, and makes the place for private copies of libraries.
///
/// # Errors
///
/// When there is no folder that can be read, although the operator says that it is there: the name is
/// probably misspelled. Only the folder of the default is made when it is missing.
pub(super) fn open_store(config: &Config) -> Result<Store, StartError> {
    let folder = &config.plugins;
    if config.is_default_folder && fs::symlink_metadata(folder).is_err() {
        info!(folder = %folder.display(), "The plugins folder is missing, making one");
        // Whether that was possible is seen below.
        let _ = fs::create_dir(folder);
    }
    let entries = fs::read_dir(folder).map_err(|source| StartError::Folder {
        folder: folder.clone(),
        source,
    })?;
    if !entries
        .flatten()
        .any(|entry| is_library(&entry.file_name()))
    {
        info!(folder = %folder.display(), "No plugins yet: copy a library (NAME.so) into the folder to serve it");
    }
    Ok(Store::open(&config.state_dir())?)
}

/// What makes worker processes.
pub(super) fn processes(
    config: &Config,
    settings: std::collections::BTreeMap<String, String>,
    (filter, printed): (Filter, Printed),
    listeners: Vec<TcpListener>,
) -> Result<Processes, StartError> {
    let executable = Executable::of_this_process().map_err(StartError::Executable)?;
    let children = Children::default();
    if rustix::process::getpid().is_init() {
        children.reap_orphans().map_err(StartError::Signals)?;
    }
    let (events, happened) = mpsc::unbounded_channel();
    let workers = Workers {
        executable: Arc::new(executable),
        children,
        settings,
        filter,
        listeners,
        many: config.processes.workers > 1,
        printed,
        timeout: config.processes.worker_timeout,
        events,
    };
    Ok(Processes { workers, happened })
}

/// What makes worker processes, and where it comes out what happens to them.
pub(super) struct Processes {
    workers: Workers,
    happened: mpsc::UnboundedReceiver<(WorkerId, Event)>,
}

/// The workers of a server.
pub(super) enum Kind {
    /// One, as a task of this process.
    Task(Box<life::Parts>),
    /// Processes, so many.
    Processes(Processes, usize),
    /// The processes of an earlier image of this one, which are replaced.
    Adopted(Processes, Box<Adopted<Handover>>),
}

impl Running {
    /// Starts to follow the plugins folder, and to serve what is in it.
    pub(super) fn start(
        config: &Config,
        store: Arc<Store>,
        kind: Kind,
        control: Option<Arc<SocketFile>>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let (looks, looked) = mpsc::channel(16);
        let (retries, retried) = mpsc::unbounded_channel();
        let options = WatchOptions {
            quiet: config.quiet_time,
            rescan: config.rescan,
            events: config.reload.watch == WatchMode::Events,
        };
        tokio::spawn(Watcher::new(config.plugins.clone(), options, looks, retried).run());

        let mut supervisor = Supervisor::new(config, store, retries);
        supervisor.keep_control(control);
        let events = match kind {
            Kind::Task(parts) => start_task(&mut supervisor, *parts),
            Kind::Processes(Processes { workers, happened }, count) => {
                supervisor.start_workers(workers, count);
                happened
            }
            Kind::Adopted(Processes { workers, happened }, adopted) => {
                let Adopted { state, descriptors } = *adopted;
                supervisor.go_on(workers, state, descriptors);
                happened
            }
        };
        let parts = Parts {
            looks: looked,
            commands,
            events,
        };
        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(supervisor.run(parts, config.ready_timeout, stopped));
        Self { stop, supervisor }
    }

    /// Returns when the supervisor has ended by itself, which it does only by a fault of its own.
    pub(super) async fn failed(&mut self) -> Result<(), JoinError> {
        (&mut self.supervisor).await
    }

    /// Ends everything, giving requests that are in flight at most `patience`.
    pub(super) async fn stop(self, patience: Duration) {
        let _ = self.stop.send(patience);
        let _ = self.supervisor.await;
    }
}

/// Starts the worker of a server that is one process.
fn start_task(
    supervisor: &mut Supervisor,
    parts: life::Parts,
) -> mpsc::UnboundedReceiver<(WorkerId, Event)> {
    let (orders, ordered) = mpsc::unbounded_channel();
    let id = supervisor.add_worker(Link::local(orders));
    let (notices, mut noticed) = mpsc::unbounded_channel();
    let (events, happened) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(notice) = noticed.recv().await {
            if events.send((id, Event::Notice(notice))).is_err() {
                return;
            }
        }
    });
    tokio::spawn(Worker::new(parts, Notices::new(notices)).run(Orders::new(ordered)));
    happened
}
