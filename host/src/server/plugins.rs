//! Starts the supervisor, the watcher of the plugins folder, and the workers.

use std::{fs, net::TcpListener, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};
use tracing::info;

use super::StartError;
use crate::{
    config::{Config, WatchMode},
    control_socket::SocketFile,
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

/// The running task of the supervisor.
pub(super) struct RunningSupervisor {
    /// Stops the supervisor. The value is the time that requests in flight have to end.
    stop: oneshot::Sender<Duration>,
    task: JoinHandle<()>,
}

/// Checks the plugins folder, and opens the store of private copies of libraries.
///
/// # Errors
///
/// When the folder cannot be read, or the store cannot be opened. Makes a missing folder only if the path is the
/// default. A missing folder that the operator has named is an error, because the name is probably misspelled.
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
/// When the file of the running program cannot be opened, or when this process is process 1 and the system refuses
/// the handler that reaps orphans.
pub(super) fn prepare_workers(
    config: &Config,
    settings: std::collections::BTreeMap<String, String>,
    (filter, print_targets): (Filter, PrintTargets),
    listeners: Vec<TcpListener>,
) -> Result<WorkerProcesses, StartError> {
    let executable = Executable::of_this_process().map_err(StartError::Executable)?;
    let children = Children::default();
    // Process 1, for instance in a container, becomes the parent of all orphans and must reap them.
    if rustix::process::getpid().is_init() {
        children.reap_orphans().map_err(StartError::Signals)?;
    }
    let (event_sender, events) = mpsc::unbounded_channel();
    let spawner = WorkerSpawner {
        executable: Arc::new(executable),
        children,
        settings,
        filter,
        listeners,
        has_several_workers: config.workers.count > 1,
        print_targets,
        timeout: config.workers.worker_timeout,
        events: event_sender,
    };
    Ok(WorkerProcesses { spawner, events })
}

/// The parts that the supervisor needs to start worker processes and to receive their events.
pub(super) struct WorkerProcesses {
    spawner: WorkerSpawner,
    events: mpsc::UnboundedReceiver<(WorkerId, WorkerEvent)>,
}

/// How the workers of a server run.
pub(super) enum WorkerMode {
    /// One worker runs as a task of this process.
    Task(Box<life::WorkerParts>),
    /// This number of workers run as processes.
    Processes(WorkerProcesses, usize),
    /// The workers of an earlier build of this server still run. Fresh worker processes replace them.
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
        // The watcher waits while this channel is full, so a busy supervisor limits the number of queued changes.
        let (changes_sender, folder_changes) = mpsc::channel(16);
        let (retry_sender, retries) = mpsc::unbounded_channel();
        let options = WatchOptions {
            quiet_time: config.quiet_time,
            rescan_interval: config.rescan,
            use_events: config.reload.watch == WatchMode::Events,
        };
        let folder = config.plugins.clone();
        tokio::spawn(Watcher::new(folder, options, changes_sender, retries).run());

        let mut supervisor = Supervisor::new(config, store, retry_sender);
        supervisor.set_control_socket(control);
        let events = match mode {
            WorkerMode::Task(parts) => start_task(&mut supervisor, *parts),
            WorkerMode::Processes(WorkerProcesses { spawner, events }, count) => {
                supervisor.start_workers(spawner, count);
                events
            }
            WorkerMode::Adopted(WorkerProcesses { spawner, events }, adopted) => {
                let Adopted { state, descriptors } = *adopted;
                supervisor.take_over(spawner, state, descriptors);
                events
            }
        };
        let parts = Inputs {
            folder_changes,
            commands,
            events,
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(supervisor.run(parts, config.ready_timeout, stopped));
        Self { stop, task }
    }

    /// Waits until the supervisor ends without a stop, which happens only when its task panics. Returns the panic.
    pub(super) async fn wait_failed(&mut self) -> Result<(), JoinError> {
        (&mut self.task).await
    }

    /// Stops the workers and the supervisor. Requests that are in flight have at most `timeout` to end.
    pub(super) async fn stop(self, timeout: Duration) {
        // Ignore the errors: they mean that the supervisor has ended already.
        let _ = self.stop.send(timeout);
        let _ = self.task.await;
    }
}

/// Starts the worker as a task of this process. Returns the events of the worker: its notices, in the same form as
/// the notices of a worker process.
fn start_task(
    supervisor: &mut Supervisor,
    parts: life::WorkerParts,
) -> mpsc::UnboundedReceiver<(WorkerId, WorkerEvent)> {
    let (order_sender, orders) = mpsc::unbounded_channel();
    let id = supervisor.add_worker(Link::local(order_sender));
    let (notice_sender, mut notices) = mpsc::unbounded_channel();
    let (event_sender, events) = mpsc::unbounded_channel();
    // The supervisor receives the events of all workers from one channel, so this task adds the worker's id to each
    // notice.
    tokio::spawn(async move {
        while let Some(notice) = notices.recv().await {
            if event_sender
                .send((id, WorkerEvent::Notice(notice)))
                .is_err()
            {
                return;
            }
        }
    });
    tokio::spawn(Worker::new(parts, Notices::new(notice_sender)).run(Orders::new(orders)));
    events
}
