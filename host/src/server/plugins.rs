//! Starts the supervisor of a server, the watcher of the plugins folder, and the workers.

use std::{fs, net::TcpListener, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};
use tracing::info;

use super::StartError;
use crate::{
    config::{Config, WatchMode},
    control::socket::SocketFile,
    folder::{
        scan::is_library,
        store::Store,
        watcher::{WatchOptions, Watcher},
    },
    log::{capture::PrintTargets, filter::Filter},
    supervisor::{
        Command, Inputs, Link, Supervisor,
        app::WorkerId,
        handover::Handover,
        process::{Children, Executable},
        upgrade::Adopted,
        workers::{WorkerEvent, WorkerSpawner},
    },
    worker::{
        life::{self, Worker},
        link::{Notices, Orders},
    },
};

/// The supervisor while it runs.
pub(super) struct RunningSupervisor {
    stop: oneshot::Sender<Duration>,
    supervisor: JoinHandle<()>,
}

/// Checks the plugins folder, and opens the store of private copies of libraries.
///
/// # Errors
///
/// When the folder cannot be read, or the store cannot be opened. A missing folder is made only if it is the
/// default one. If the operator has named the folder, its name is probably misspelled.
pub(super) fn open_store(config: &Config) -> Result<Store, StartError> {
    let folder = &config.plugins;
    if config.is_default_folder && fs::symlink_metadata(folder).is_err() {
        info!(folder = %folder.display(), "The plugins folder is missing, making one");
        // If this fails, `read_dir` below fails and reports it.
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

/// Prepares worker processes, which the supervisor starts later.
///
/// # Errors
///
/// When the program of this process cannot be found, or this is process 1 and cannot reap orphans.
pub(super) fn prepare_workers(
    config: &Config,
    settings: std::collections::BTreeMap<String, String>,
    (filter, printed): (Filter, PrintTargets),
    listeners: Vec<TcpListener>,
) -> Result<WorkerProcesses, StartError> {
    let executable = Executable::of_this_process().map_err(StartError::Executable)?;
    let children = Children::default();
    // Process 1, as in a container, inherits all orphans and has to reap them.
    if rustix::process::getpid().is_init() {
        children.reap_orphans().map_err(StartError::Signals)?;
    }
    let (events, happened) = mpsc::unbounded_channel();
    let workers = WorkerSpawner {
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
    Ok(WorkerProcesses { workers, happened })
}

/// Worker processes that are not started yet, and the receiver of their events.
pub(super) struct WorkerProcesses {
    workers: WorkerSpawner,
    happened: mpsc::UnboundedReceiver<(WorkerId, WorkerEvent)>,
}

/// How the workers of a server run.
pub(super) enum WorkerMode {
    /// One worker, as a task of this process.
    Task(Box<life::WorkerParts>),
    /// Processes, and how many.
    Processes(WorkerProcesses, usize),
    /// Processes that replace the workers of an earlier build of this server.
    Adopted(WorkerProcesses, Box<Adopted<Handover>>),
}

impl RunningSupervisor {
    /// Starts the watcher, the workers and the supervisor.
    pub(super) fn start(
        config: &Config,
        store: Arc<Store>,
        mode: WorkerMode,
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
        let events = match mode {
            WorkerMode::Task(parts) => start_task(&mut supervisor, *parts),
            WorkerMode::Processes(WorkerProcesses { workers, happened }, count) => {
                supervisor.start_workers(workers, count);
                happened
            }
            WorkerMode::Adopted(WorkerProcesses { workers, happened }, adopted) => {
                let Adopted { state, descriptors } = *adopted;
                supervisor.go_on(workers, state, descriptors);
                happened
            }
        };
        let parts = Inputs {
            looks: looked,
            commands,
            events,
        };
        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(supervisor.run(parts, config.ready_timeout, stopped));
        Self { stop, supervisor }
    }

    /// Waits until the supervisor ends by itself. That happens only when it panics.
    pub(super) async fn failed(&mut self) -> Result<(), JoinError> {
        (&mut self.supervisor).await
    }

    /// Stops the workers and the supervisor. Requests that are in flight have at most `timeout` to end.
    pub(super) async fn stop(self, timeout: Duration) {
        // Fails when the supervisor has ended already.
        let _ = self.stop.send(timeout);
        let _ = self.supervisor.await;
    }
}

/// Starts the worker as a task. Its notices become events, as those of a process do.
fn start_task(
    supervisor: &mut Supervisor,
    parts: life::WorkerParts,
) -> mpsc::UnboundedReceiver<(WorkerId, WorkerEvent)> {
    let (orders, ordered) = mpsc::unbounded_channel();
    let id = supervisor.add_worker(Link::local(orders));
    let (notices, mut noticed) = mpsc::unbounded_channel();
    let (events, happened) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(notice) = noticed.recv().await {
            if events.send((id, WorkerEvent::Notice(notice))).is_err() {
                return;
            }
        }
    });
    tokio::spawn(Worker::new(parts, Notices::new(notices)).run(Orders::new(ordered)));
    happened
}
