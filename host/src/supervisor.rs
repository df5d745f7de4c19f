//! What decides: which apps there are, which version of each serves, and which workers there are.
//!
//! One task owns the state and is driven by messages: the watcher looked at the folder, a library was
//! read, a worker tells something, an operator asks ([`Handle`]), the server stops. It never opens a
//! library and never reads a request. [`catalog`] decides from all libraries and settings which apps
//! there are; each [`app`] is a state machine; `fleet` knows the workers. A failure anywhere leaves
//! what serves as it is, and is one line in the log.

pub mod app;
mod apply;
mod asking;
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
pub mod last_words;
mod libraries;
mod limits;
pub mod listeners;
mod notices;
pub mod outcome;
mod plans;
pub mod process;
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
    app::{App, AskId, WorkerId},
    asking::Asking,
    backoff::{Backoff, Crashes},
    catalog::Settings,
    fleet::Fleet,
    libraries::Libraries,
    limits::Limits,
    outcome::Proof,
    plans::Refused,
    recycle::Recycling,
    tasks::Done,
    workers::{Event, Workers},
};
pub use self::{
    deploy::{Deployed, Outcome, Upload},
    error::AskError,
    fleet::Link,
    handle::{Command, Handle},
    roster::{Died, Roster, Told, WorkerView},
    scale::{Scale, Scaled},
};
use crate::{
    config::Config,
    control::SocketFile,
    folder::{
        scan::Change,
        store::{Hash, Store},
        watcher::Look,
    },
    worker::trial::Trial,
};

/// Who waits for a load.
type Reply = oneshot::Sender<Result<Proof, AskError>>;

/// The supervisor.
#[derive(Debug)]
pub struct Supervisor {
    settings: Settings,
    /// Whether new generations are watched, and the ones before kept.
    watches: bool,
    store: Arc<Store>,
    /// Where to ask for another look at a library.
    retries: mpsc::UnboundedSender<PathBuf>,
    libraries: Libraries,
    /// The apps by name. They come with a library and go with it.
    apps: BTreeMap<String, App>,
    /// Those that went: something of them may still be at work.
    removed: BTreeMap<String, App>,
    /// How often apps were loaded that an earlier image of this process has removed.
    loads_before: BTreeMap<String, u64>,
    /// The control socket, for the next image of this process.
    control: Option<Arc<SocketFile>>,
    /// Libraries that are no app, by path and app.
    refused: BTreeMap<(PathBuf, String), Refused>,
    asks: BTreeMap<AskId, Reply>,
    last_ask: AskId,
    asking: Asking,
    fleet: Fleet,
    /// What starts worker processes; none when the worker is a task of this process.
    workers: Option<Workers>,
    /// How many workers there are to be.
    wanted_workers: usize,
    /// The last workers that died, the latest first.
    died: VecDeque<Died>,
    /// Whether systemd was told that the server serves.
    is_ready: bool,
    /// How many workers will be started after a wait.
    hiring: usize,
    recycling: Recycling,
    /// When workers are recycled by themselves.
    limits: Limits,
    /// How long the requests of a worker that is told to end may take.
    graceful_timeout: Duration,
    backoff: Backoff,
    crashes: Crashes<(String, Hash)>,
    /// What opens libraries for the first time; none when there are no processes.
    trial: Option<Trial>,
    /// The contents that were opened.
    opened: BTreeSet<Hash>,
    init_timeout: Duration,
    /// How many libraries may be read and copied at once: each takes memory for its whole size.
    preparing: Arc<Semaphore>,
    /// Whether to look, once all is read, for apps that the operator speaks of and that are not
    /// there.
    checks_strangers: bool,
    tasks: JoinSet<Done>,
}

/// What a supervisor is driven by.
#[derive(Debug)]
pub struct Parts {
    /// What the watcher found.
    pub looks: mpsc::Receiver<Look>,
    /// What operators ask.
    pub commands: mpsc::Receiver<Command>,
    /// What the workers tell.
    pub events: mpsc::UnboundedReceiver<(WorkerId, Event)>,
}

impl Supervisor {
    /// A supervisor that knows of no app yet.
    #[must_use]
    pub fn new(
        config: &Config,
        store: Arc<Store>,
        retries: mpsc::UnboundedSender<PathBuf>,
    ) -> Self {
        Self {
            settings: Settings {
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
            asks: BTreeMap::new(),
            last_ask: 0,
            asking: Asking::default(),
            fleet: Fleet::default(),
            workers: None,
            wanted_workers: 0,
            died: VecDeque::new(),
            is_ready: false,
            hiring: 0,
            recycling: Recycling::default(),
            limits: Limits::of(&config.processes),
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
            checks_strangers: true,
            tasks: JoinSet::new(),
        }
    }

    /// Adds a worker that is a task of this process, and takes orders by `link`.
    pub fn add_worker(&mut self, link: Link) -> WorkerId {
        let id = self.fleet.next_id();
        self.fleet.add(id, link);
        id
    }

    /// Has `count` worker processes from now on, which `workers` starts.
    pub fn start_workers(&mut self, mut workers: Workers, count: usize) {
        // An upgrade goes on with the number that an operator has asked for.
        workers.many |= count > 1;
        self.trial = Some(Trial {
            executable: Arc::clone(&workers.executable),
            children: workers.children.clone(),
            limit: self.init_timeout,
            option: "--init-timeout",
        });
        self.workers = Some(workers);
        self.wanted_workers = count;
        self.hire();
        self.check_later();
    }

    /// Follows what happens until `stop` is sent or dropped; then ends all workers, giving what is in
    /// them the time sent.
    ///
    /// Connections are accepted when all that was in the folder at the start serves or failed to, or
    /// after `first_loads`.
    pub async fn run(
        mut self,
        parts: Parts,
        first_loads: Duration,
        mut stop: oneshot::Receiver<Duration>,
    ) {
        let Parts {
            mut looks,
            mut commands,
            mut events,
        } = parts;
        let latest = Instant::now() + first_loads;
        let patience = loop {
            let overdue = self.libraries.overdue();
            let latest = (!self.fleet.accepts()).then_some(latest);
            tokio::select! {
                biased;
                patience = &mut stop => break patience.unwrap_or_default(),
                Some((worker, event)) = events.recv() => self.event(worker, event),
                Some(done) = self.tasks.join_next() => self.done(done),
                Some(command) = commands.recv() => self.command(command),
                Some(look) = looks.recv() => self.look(look),
                Some(()) = at(overdue) => {}
                Some(()) = at(latest) => self.fleet.accept(),
            }
            if self.libraries.is_settled() {
                self.plan();
                self.check_for_strangers();
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
        self.end(patience, &mut events, &mut commands).await;
    }

    fn event(&mut self, worker: WorkerId, event: Event) {
        match event {
            Event::Gone(gone) => self.gone(worker, *gone),
            Event::Notice(notice) => self.notice(worker, notice),
        }
    }

    fn is_loading(&self) -> bool {
        self.apps.values().any(|app| app.loading().is_some())
    }

    fn look(&mut self, look: Look) {
        for change in look {
            match change {
                Change::Present { path, attempt } => {
                    let read = self.libraries.present(path, attempt);
                    self.tasks.spawn(async move { Done::Read(read.await) });
                }
                Change::Removed { path } => self.libraries.removed(path),
                Change::Listed => self.libraries.listed(),
            }
        }
    }
}

/// Waits until `time`; without one, there is nothing to wait for.
async fn at(time: Option<Instant>) -> Option<()> {
    time::sleep_until(time?.into()).await;
    Some(())
}

/// How many libraries are read and copied at once.
const PREPARE_AT_ONCE: usize = 2;
