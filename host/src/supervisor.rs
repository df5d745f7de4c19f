//! The supervisor decides which apps there are, which version of each serves, and which workers run.
//!
//! One task owns all state. Messages drive it: changes in the plugins folder, libraries that were read,
//! notices of workers, commands of operators ([`Handle`]), and the stop of the server. The task never
//! opens a library and never handles a request, so a plugin cannot bring it down.
//!
//! - [`catalog`] is a pure function from libraries and settings to a plan of apps; `plans` carries a plan out.
//! - [`app`] is a state machine for one app; `apply` carries out its actions.
//! - `fleet` knows the workers; `notices` handles the messages that they send.
//! - `deaths` and [`autopsy`] find out why a worker died, and which app is to blame.
//!
//! A load that fails anywhere is one line in the log. The version that serves goes on serving.

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
pub mod listeners;
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
    plans::Refused,
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
    control::socket::SocketFile,
    folder::{
        scan::FolderChange,
        store::{ContentHash, Store},
        watcher::FolderChanges,
    },
    worker::trial::Trial,
};

/// Where the outcome of a load is sent that an operator asked for.
type Reply = oneshot::Sender<Result<ReloadReport, CommandError>>;

/// The state of the supervisor. [`Supervisor::run`] is its main loop.
#[derive(Debug)]
pub struct Supervisor {
    settings: AppSettings,
    /// Whether a new generation goes through a probation (`--auto-rollback`).
    watches: bool,
    store: Arc<Store>,
    /// Asks the watcher to report a library again, because the file was not complete.
    retries: mpsc::UnboundedSender<PathBuf>,
    libraries: Libraries,
    /// The apps by name. An app exists as long as its library is in the plugins folder.
    apps: BTreeMap<String, App>,
    /// Apps that were removed. Their last generations may still drain in a worker.
    removed: BTreeMap<String, App>,
    /// The load counts of apps that an earlier image of this process removed. Generation numbers continue
    /// from these, so that a number is never used twice.
    loads_before: BTreeMap<String, u64>,
    /// The control socket, kept here to be handed to the next image at an upgrade.
    control: Option<Arc<SocketFile>>,
    /// Libraries that could not become an app, by path and app name. The app name is empty when the
    /// library itself is unusable.
    refused: BTreeMap<(PathBuf, String), Refused>,
    /// The pairs of apps that a warning named because both carry the same C library.
    warned_pairs: BTreeSet<[String; 2]>,
    replies: BTreeMap<ReplyId, Reply>,
    last_reply_id: ReplyId,
    queries: Queries,
    fleet: Fleet,
    /// Starts worker processes. `None` with `--workers=0`, where the worker is a task of this process.
    spawner: Option<WorkerSpawner>,
    /// The target number of workers. Replacements that run beside the old worker do not count.
    wanted_workers: usize,
    /// The most recent worker deaths, the latest first.
    deaths: VecDeque<WorkerDeath>,
    /// Whether systemd was notified that the server is ready.
    is_ready: bool,
    /// The number of workers whose start is delayed by [`Backoff`].
    delayed_starts: usize,
    recycling: Recycling,
    /// The age and memory at which a worker is recycled.
    limits: RecycleLimits,
    /// How long a worker that is told to stop may take to finish its requests.
    graceful_timeout: Duration,
    backoff: Backoff,
    crashes: Crashes<(String, ContentHash)>,
    /// Opens each library once in a process of its own before any worker does. `None` with `--workers=0`.
    trial: Option<Trial>,
    /// The hashes of libraries that passed the trial.
    opened: BTreeSet<ContentHash>,
    init_timeout: Duration,
    /// Limits how many libraries are read and copied at once, because each is held in memory as a whole.
    preparing: Arc<Semaphore>,
    /// Whether to warn, after the next plan, of apps in the settings that no library provides.
    checks_unknown_apps: bool,
    tasks: JoinSet<TaskOutcome>,
}

/// The channels that drive the supervisor.
#[derive(Debug)]
pub struct Inputs {
    /// Changes in the plugins folder, from the watcher.
    pub looks: mpsc::Receiver<FolderChanges>,
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
            watches: config.reload.auto_rollback,
            store,
            retries,
            libraries: Libraries::default(),
            apps: BTreeMap::new(),
            removed: BTreeMap::new(),
            loads_before: BTreeMap::new(),
            control: None,
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
            limits: RecycleLimits::of(&config.processes),
            graceful_timeout: config.graceful_timeout,
            backoff: Backoff::default(),
            crashes: Crashes::new(
                config.processes.crash_limit.into(),
                config.processes.crash_window,
            ),
            trial: None,
            opened: BTreeSet::new(),
            init_timeout: config.init_timeout,
            preparing: Arc::new(Semaphore::new(PREPARE_AT_ONCE)),
            checks_unknown_apps: true,
            tasks: JoinSet::new(),
        }
    }

    /// Adds a worker that is a task of this process and takes orders from `link`.
    pub fn add_worker(&mut self, link: Link) -> WorkerId {
        let id = self.fleet.next_id();
        self.fleet.add(id, link);
        id
    }

    /// Starts `count` worker processes, and keeps that number from now on.
    pub fn start_workers(&mut self, mut spawner: WorkerSpawner, count: usize) {
        // After an upgrade `count` is the number that an operator had scaled to, which the settings do not
        // know.
        spawner.many |= count > 1;
        self.trial = Some(Trial {
            executable: Arc::clone(&spawner.executable),
            children: spawner.children.clone(),
            limit: self.init_timeout,
            option: "--init-timeout",
        });
        self.spawner = Some(spawner);
        self.wanted_workers = count;
        self.start_missing_workers();
        self.check_later();
    }

    /// Runs until `stop` is sent or dropped, and then stops all workers. The value sent is the time that
    /// requests in flight get.
    ///
    /// Workers accept connections once every library that was in the folder at the start either serves
    /// or has failed, and after `first_loads` at the latest.
    ///
    /// Each turn handles one message. When no library is being read, the turn also makes a new plan and
    /// starts the next recycling, so that several changes of one moment become one plan. The `select!` is
    /// biased: a stop comes before everything else, and notices of workers before commands that depend on
    /// them.
    pub async fn run(
        mut self,
        parts: Inputs,
        first_loads: Duration,
        mut stop: oneshot::Receiver<Duration>,
    ) {
        let Inputs {
            mut looks,
            mut commands,
            mut events,
        } = parts;
        let latest = Instant::now() + first_loads;
        let timeout = loop {
            let overdue = self.libraries.next_read_timeout();
            let latest = (!self.fleet.accepts()).then_some(latest);
            tokio::select! {
                biased;
                timeout = &mut stop => break timeout.unwrap_or_default(),
                Some((worker, event)) = events.recv() => self.event(worker, event),
                Some(done) = self.tasks.join_next() => self.done(done),
                Some(command) = commands.recv() => self.command(command),
                Some(look) = looks.recv() => self.look(look),
                Some(()) = at(overdue) => {}
                Some(()) = at(latest) => self.fleet.accept(),
            }
            if self.libraries.is_ready_to_plan() {
                self.plan();
                self.warn_of_unknown_apps();
                if !self.fleet.accepts() && !self.is_loading() {
                    self.fleet.accept();
                }
                self.recycle_next();
            }
            if !self.is_ready && self.fleet.serves() {
                self.is_ready = true;
                systemd::ready();
            }
        };
        self.end(timeout, &mut events, &mut commands).await;
    }

    fn event(&mut self, worker: WorkerId, event: WorkerEvent) {
        match event {
            WorkerEvent::Exited(gone) => self.worker_exited(worker, *gone),
            WorkerEvent::Notice(notice) => self.notice(worker, notice),
        }
    }

    fn is_loading(&self) -> bool {
        self.apps.values().any(|app| app.loading().is_some())
    }

    fn look(&mut self, look: FolderChanges) {
        for change in look {
            match change {
                FolderChange::Present { path, attempt } => {
                    let read = self.libraries.start_read(path, attempt);
                    self.tasks
                        .spawn(async move { TaskOutcome::Read(read.await) });
                }
                FolderChange::Removed { path } => self.libraries.mark_removed(path),
                FolderChange::Listed => self.libraries.mark_listed(),
            }
        }
    }
}

/// Waits until `time`. Returns `None` at once without a time, which disables the branch of a `select!`.
async fn at(time: Option<Instant>) -> Option<()> {
    time::sleep_until(time?.into()).await;
    Some(())
}

/// The number of libraries that are read and copied at once.
const PREPARE_AT_ONCE: usize = 2;
