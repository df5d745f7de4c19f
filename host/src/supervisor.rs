//! The supervisor decides which apps exist, which version of each app serves, and which workers run.
//!
//! One task owns all state and handles one message at a time: changes in the plugins folder, libraries that were
//! read, notices of workers, commands of operators ([`Handle`]), and the stop of the server. The task never opens a
//! library and never handles a request, so a plugin cannot crash the task.
//!
//! - [`catalog`] is a pure function from libraries and settings to a plan of apps; `plans` carries a plan out.
//! - [`app`] is a state machine for one app; `apply` carries out its actions.
//! - `fleet` knows the workers; `notices` handles the messages that they send.
//! - `deaths` and [`autopsy`] find out why a worker died, and which app is to blame.
//!
//! A load that fails in any worker writes one line to the log. The version that serves continues to serve.

pub mod app;
mod apply;

pub mod autopsy;
pub mod backoff;
pub mod catalog;
mod commands;
mod deaths;
mod deploy;
mod error;
mod fleet;
mod handle;
pub mod handover;
mod libraries;
mod limits;
mod notices;
pub mod outcome;
pub mod output_tail;
mod plans;
pub mod process;
mod queries;
mod reading;
pub mod recycle;
mod replacing;
pub mod report;
mod roster;
mod scale;
mod stopping;
pub mod systemd;
mod tasks;
pub mod trial;
pub mod upgrade;
mod upgrading;
pub mod workers;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time,
};

use self::{
    app::{App, ReplyId, WorkerId},
    backoff::{Backoff, Crashes},
    catalog::AppSettings,
    fleet::Fleet,
    libraries::Libraries,
    limits::RecycleLimits,
    outcome::ReloadReport,
    plans::RefusedLibrary,
    queries::Queries,
    recycle::Recycling,
    tasks::TaskOutcome,
    workers::{WorkerEvent, WorkerSpawner},
};
pub use self::{
    deploy::{DeployOutcome, DeployReport, Upload},
    error::CommandError,
    fleet::Link,
    handle::{Command, Handle},
    roster::{Roster, WorkerDeath, WorkerStats, WorkerView},
    scale::{Scale, ScaleReport},
};
use crate::{
    config::Config,
    control_socket::SocketFile,
    folder::{
        scan::FolderChange,
        store::{ContentHash, Store},
        watcher::FolderChanges,
    },
    supervisor::trial::Trial,
};

/// The channel on which an operator receives the outcome of a requested load.
type Reply = oneshot::Sender<Result<ReloadReport, CommandError>>;

/// The state of the supervisor. [`Supervisor::run`] is its main loop.
#[derive(Debug)]
pub struct Supervisor {
    settings: AppSettings,
    /// Whether a new generation goes through a probation (`--auto-rollback`).
    uses_probation: bool,
    store: Arc<Store>,
    /// Sends the paths of incomplete libraries to the watcher, which reports each library again later.
    retries: mpsc::UnboundedSender<PathBuf>,
    libraries: Libraries,
    /// The apps by name. An app exists as long as its library is in the plugins folder.
    apps: BTreeMap<String, App>,
    /// Apps that were removed. Their last generations may still drain in a worker.
    removed: BTreeMap<String, App>,
    /// The load count of each app that was removed before the last upgrade of the host. The generation numbers of an
    /// app that is added again continue from its load count, so that no number is used twice.
    loads_before_upgrade: BTreeMap<String, u64>,
    /// The control socket. The supervisor does not use the socket, but hands it to the next image at an upgrade.
    control_socket: Option<Arc<SocketFile>>,
    /// Libraries that could not become an app, by path and app name. The app name is empty if the file is not a
    /// usable library.
    refused: BTreeMap<(PathBuf, String), RefusedLibrary>,
    /// The pairs of apps that a warning has named because both contain the same C library. Each pair is warned of
    /// only once.
    warned_pairs: BTreeSet<[String; 2]>,
    /// The operators who wait for the outcome of a load.
    replies: BTreeMap<ReplyId, Reply>,
    last_reply_id: ReplyId,
    queries: Queries,
    fleet: Fleet,
    /// Starts worker processes. `None` with `--workers=0`, where the worker is a task of this process.
    spawner: Option<WorkerSpawner>,
    /// The target number of workers. A new worker that runs beside the old worker that it replaces does not count.
    wanted_workers: usize,
    /// The most recent worker deaths, the latest first.
    deaths: VecDeque<WorkerDeath>,
    /// Whether systemd was notified that the server is ready.
    is_ready: bool,
    /// The number of workers whose start is delayed by [`Backoff`].
    delayed_starts: usize,
    recycling: Recycling,
    /// The age, memory and disk space at which a worker is recycled.
    limits: RecycleLimits,
    /// How long a worker may take to finish its requests after the order to stop.
    graceful_timeout: Duration,
    /// Delays the start of workers after crashes that no app is blamed for.
    backoff: Backoff,
    /// Counts crashes by the blamed app and the content of its library.
    crashes: Crashes<(String, ContentHash)>,
    /// Opens each new library once in a separate process, before any worker opens the library. `None` with
    /// `--workers=0`.
    trial: Option<Trial>,
    /// The contents that were prepared once. They need no further trial.
    passed_trial: BTreeSet<ContentHash>,
    /// How long opening a library and starting an app may take (`--init-timeout`).
    init_timeout: Duration,
    /// Limits how many libraries are read and copied at once, because the whole library is in memory meanwhile.
    preparation_permits: Arc<Semaphore>,
    /// Whether the next plan is followed by a warning about apps in the settings that no library provides.
    checks_unknown_apps: bool,
    /// The background tasks. The main loop receives the outcome of each task.
    tasks: JoinSet<TaskOutcome>,
}

/// The channels that drive the supervisor.
#[derive(Debug)]
pub struct Inputs {
    /// Changes in the plugins folder, from the watcher.
    pub folder_changes: mpsc::Receiver<FolderChanges>,
    /// Commands of operators, from a [`Handle`].
    pub commands: mpsc::Receiver<Command>,
    /// Notices and exits of workers.
    pub events: mpsc::UnboundedReceiver<(WorkerId, WorkerEvent)>,
}

impl Supervisor {
    /// Creates a supervisor without apps and workers.
    #[must_use]
    pub fn new(
        config: &Config,
        store: Arc<Store>,
        retries: mpsc::UnboundedSender<PathBuf>,
    ) -> Self {
        Self {
            settings: AppSettings {
                mounts: config.mount.clone(),
                apps: config.apps.clone(),
            },
            uses_probation: config.reload.auto_rollback,
            store,
            retries,
            libraries: Libraries::default(),
            apps: BTreeMap::new(),
            removed: BTreeMap::new(),
            loads_before_upgrade: BTreeMap::new(),
            control_socket: None,
            refused: BTreeMap::new(),
            warned_pairs: BTreeSet::new(),
            replies: BTreeMap::new(),
            last_reply_id: 0,
            queries: Queries::default(),
            fleet: Fleet::default(),
            spawner: None,
            wanted_workers: 0,
            deaths: VecDeque::new(),
            is_ready: false,
            delayed_starts: 0,
            recycling: Recycling::default(),
            limits: RecycleLimits::of(&config.workers),
            graceful_timeout: config.graceful_timeout,
            backoff: Backoff::default(),
            crashes: Crashes::new(
                config.workers.crash_limit.into(),
                config.workers.crash_window,
            ),
            trial: None,
            passed_trial: BTreeSet::new(),
            init_timeout: config.init_timeout,
            preparation_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_PREPARATIONS)),
            checks_unknown_apps: true,
            tasks: JoinSet::new(),
        }
    }

    /// Adds a worker that is a task of this process and receives its orders through `link`. Returns the worker's
    /// number.
    pub fn add_worker(&mut self, link: Link) -> WorkerId {
        let id = self.fleet.next_id();
        self.fleet.add(id, link);
        id
    }

    /// Starts `count` worker processes. From now on that is the target number: a worker that exits is replaced.
    pub fn start_workers(&mut self, mut spawner: WorkerSpawner, count: usize) {
        // The spawner takes `has_several_workers` from the settings. After an upgrade, `count` is the number that an
        // operator had scaled to, and the settings do not contain that number.
        spawner.has_several_workers |= count > 1;
        self.trial = Some(Trial {
            executable: Arc::clone(&spawner.executable),
            children: spawner.children.clone(),
            timeout: self.init_timeout,
            timeout_option: "--init-timeout",
        });
        self.spawner = Some(spawner);
        self.wanted_workers = count;
        self.start_missing_workers();
        self.schedule_check();
    }

    /// Runs until a value is sent on `stop` or `stop` is dropped, and then stops all workers. The value is the time
    /// that requests in flight have to end.
    ///
    /// Workers accept connections after every library that was in the folder at the start serves or has failed, and
    /// at the latest after `first_load_timeout`.
    ///
    /// Each iteration of the loop handles one message. If the input of the plan has changed and no library is being
    /// read, the iteration also makes a new plan and starts the next recycling. So changes that arrive together become
    /// one plan.
    pub async fn run(
        mut self,
        inputs: Inputs,
        first_load_timeout: Duration,
        mut stop: oneshot::Receiver<Duration>,
    ) {
        let Inputs {
            mut folder_changes,
            mut commands,
            mut events,
        } = inputs;
        let accept_deadline = Instant::now() + first_load_timeout;
        let timeout = loop {
            let read_deadline = self.libraries.next_read_timeout();
            let accept_deadline = (!self.fleet.may_accept()).then_some(accept_deadline);
            // The order of the branches is their priority. The stop comes first. Notices come before commands,
            // because a command must see the state after all earlier notices, for example which workers are ready.
            tokio::select! {
                biased;
                // If the sender was dropped, requests in flight get no time.
                timeout = &mut stop => break timeout.unwrap_or_default(),
                Some((worker, event)) = events.recv() => self.handle_event(worker, event),
                Some(outcome) = self.tasks.join_next() => self.handle_task_outcome(outcome),
                Some(command) = commands.recv() => self.handle_command(command),
                Some(changes) = folder_changes.recv() => self.handle_folder_changes(changes),
                // A read takes too long. The loop continues below without a message, and plans without that library.
                Some(()) = sleep_until(read_deadline) => {}
                Some(()) = sleep_until(accept_deadline) => self.fleet.allow_accepting(),
            }
            if self.libraries.is_ready_to_plan() {
                self.plan();
                self.warn_of_unknown_apps();
                // The plan has requested the loads of all libraries. If none is under way any more, the first loads
                // have ended.
                if !self.fleet.may_accept() && !self.is_loading() {
                    self.fleet.allow_accepting();
                }
                self.recycle_next();
            }
            if !self.is_ready && self.fleet.serves() {
                self.is_ready = true;
                systemd::ready();
            }
        };
        self.stop(timeout, &mut events, &mut commands).await;
    }

    /// Handles a notice or the exit of a worker.
    fn handle_event(&mut self, worker: WorkerId, event: WorkerEvent) {
        match event {
            WorkerEvent::Exited(exit) => self.worker_exited(worker, *exit),
            WorkerEvent::Notice(notice) => self.handle_notice(worker, notice),
        }
    }

    /// Returns whether any app is being loaded.
    fn is_loading(&self) -> bool {
        self.apps.values().any(|app| app.loading().is_some())
    }

    /// Starts to read new and changed libraries, and records removed libraries.
    fn handle_folder_changes(&mut self, changes: FolderChanges) {
        for change in changes {
            match change {
                FolderChange::Present { path, attempt } => {
                    let read = self.libraries.start_read(path, attempt);
                    self.tasks
                        .spawn(async move { TaskOutcome::Read(read.await) });
                }
                FolderChange::Removed { path } => self.libraries.mark_removed(path),
                FolderChange::InitialListingDone => self.libraries.mark_listed(),
            }
        }
    }
}

/// Waits until `time`. Returns `None` at once if `time` is `None`: then `select!` disables the branch, because the
/// pattern `Some(())` does not match.
async fn sleep_until(time: Option<Instant>) -> Option<()> {
    time::sleep_until(time?.into()).await;
    Some(())
}

/// How many generations may be prepared at once: their libraries are read and copied, and opened in a trial process.
const MAX_CONCURRENT_PREPARATIONS: usize = 2;
