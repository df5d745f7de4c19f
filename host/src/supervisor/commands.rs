//! What an operator asks, and what they are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use super::{
    Done, Reply, Supervisor,
    app::{AskId, Source, Wanted, Why, WorkerId},
    catalog::{Facts, Settings, Taken},
    libraries::{self, Purpose},
    recycle::Reason,
    report::{self, AskError, Failure, Known, Proof, Report},
    upgrading::UpgradeReply,
};
use crate::{
    config::{self, Mount},
    folder::candidate::{Candidate, Rejected},
    log::filter::Filter,
    orders::{Order, WorkerReport},
    worker::load::LoadError,
};

/// Where the supervisor is asked. A clone leads to the same supervisor.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Command>);

/// A question, and who waits for the answer.
#[derive(Debug)]
pub enum Command {
    /// What is there?
    Report(oneshot::Sender<Report>),
    /// Load the app from its library again, even if that did not change.
    Reload(String, oneshot::Sender<Result<Proof, AskError>>),
    /// Load the library that served before.
    Rollback(String, oneshot::Sender<Result<Proof, AskError>>),
    /// Where apps are mounted, and the apps that the operator describes, from now on.
    Configure(Vec<Mount>, Vec<config::App>),
    /// Put these directives in force in all workers.
    SetLevel(String, oneshot::Sender<Vec<String>>),
    /// Open the log files anew in all workers.
    Reopen,
    /// Replace all workers by fresh ones. The reply says how many.
    Recycle(oneshot::Sender<Result<usize, String>>),
    /// Execute another build in place: the one at this path, or at the path of this program.
    Upgrade(Option<PathBuf>, UpgradeReply),
    /// End all worker processes at once.
    Kill(oneshot::Sender<()>),
}

/// Questions that workers have not answered yet.
#[derive(Debug, Default)]
pub(super) struct Asking {
    last: u64,
    reports: BTreeMap<u64, Reporting>,
    levels: BTreeMap<u64, Setting>,
}

#[derive(Debug)]
struct Reporting {
    waiting: BTreeSet<WorkerId>,
    reports: Vec<(WorkerId, WorkerReport)>,
    reply: oneshot::Sender<Report>,
}

#[derive(Debug)]
struct Setting {
    waiting: BTreeSet<WorkerId>,
    /// The libraries that did not confirm in time.
    unconfirmed: BTreeSet<String>,
    reply: oneshot::Sender<Vec<String>>,
}

impl Handle {
    /// A handle, and where what is asked comes out.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, commands) = mpsc::channel(16);
        (Self(sender), commands)
    }

    /// What is there.
    ///
    /// # Errors
    ///
    /// When the host stops.
    pub async fn report(&self) -> Result<Report, AskError> {
        let (sender, report) = oneshot::channel();
        self.send(Command::Report(sender)).await?;
        report.await.map_err(|_| AskError::Stopping)
    }

    /// Loads the app from its library again, as a new generation. Returns when the old one has
    /// finished what it had.
    ///
    /// # Errors
    ///
    /// When there is no such app, when it is not loaded, or when the host stops.
    pub async fn reload(&self, name: String) -> Result<Proof, AskError> {
        let (sender, proof) = oneshot::channel();
        self.send(Command::Reload(name, sender)).await?;
        proof.await.map_err(|_| AskError::Stopping)?
    }

    /// Loads the library that served before, as a new generation. Returns as
    /// [`reload`](Self::reload).
    ///
    /// # Errors
    ///
    /// As there, and when none served before.
    pub async fn rollback(&self, name: String) -> Result<Proof, AskError> {
        let (sender, proof) = oneshot::channel();
        self.send(Command::Rollback(name, sender)).await?;
        proof.await.map_err(|_| AskError::Stopping)?
    }

    /// Has apps be where the operator says now, with the configuration that they have now. Apps of which
    /// the same is said as before are left alone.
    ///
    /// # Errors
    ///
    /// When the host stops.
    pub async fn configure(
        &self,
        mounts: Vec<Mount>,
        apps: Vec<config::App>,
    ) -> Result<(), AskError> {
        self.send(Command::Configure(mounts, apps)).await
    }

    /// Has the workers follow `filter` from now on: a change of it returns when the new directives
    /// are in force in all of them, or a worker does not answer in time.
    pub fn follow_level(&self, filter: &Filter) {
        let commands = self.0.clone();
        let followed = filter.clone();
        // The first call comes at once, before there are workers; those start with what is in force.
        let is_first = AtomicBool::new(true);
        let tell = move || {
            if is_first.swap(false, Ordering::Relaxed) {
                return Vec::new();
            }
            let (sender, set) = oneshot::channel();
            let directives = followed.directives().to_string();
            let command = Command::SetLevel(directives, sender);
            // An error means that the host stops.
            let sent = commands.blocking_send(command).is_ok();
            let unconfirmed = sent.then(|| set.blocking_recv().ok()).flatten();
            unconfirmed.unwrap_or_default()
        };
        filter.follow_as_group("worker processes".to_owned(), LEVEL_PATIENCE, tell);
    }

    /// Replaces all workers by fresh ones, one after the other, and returns how many, when the old
    /// ones have finished what they had.
    ///
    /// # Errors
    ///
    /// When there are no worker processes, or the host stops.
    pub async fn recycle(&self) -> Result<usize, String> {
        let (sender, recycled) = oneshot::channel();
        let stopping = || AskError::Stopping.to_string();
        let sent = self.send(Command::Recycle(sender)).await;
        sent.map_err(|_| stopping())?;
        recycled.await.map_err(|_| stopping())?
    }

    /// Executes another build of the host in this process: the one at `path`, or at the path of this
    /// program. Returns which build that is, when it has proved that it can take over.
    ///
    /// # Errors
    ///
    /// When it has not, or when something is under way: this build goes on.
    pub async fn upgrade(&self, path: Option<PathBuf>) -> Result<String, String> {
        let (sender, upgraded) = oneshot::channel();
        let stopping = || AskError::Stopping.to_string();
        let sent = self.send(Command::Upgrade(path, sender)).await;
        sent.map_err(|_| stopping())?;
        upgraded.await.map_err(|_| stopping())?
    }

    /// Has all workers open their log files anew.
    pub async fn reopen(&self) {
        // When the host stops, nothing needs to be opened any more.
        let _ = self.send(Command::Reopen).await;
    }

    /// Ends all worker processes at once.
    pub async fn kill(&self) {
        let (sender, killed) = oneshot::channel();
        if self.send(Command::Kill(sender)).await.is_ok() {
            let _ = time::timeout(Duration::from_millis(100), killed).await;
        }
    }

    async fn send(&self, command: Command) -> Result<(), AskError> {
        self.0.send(command).await.map_err(|_| AskError::Stopping)
    }
}

impl Supervisor {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Report(reply) => self.ask_report(reply),
            Command::Configure(mounts, apps) => {
                self.settings = Settings { mounts, apps };
                self.checks_strangers = true;
                self.libraries.touch();
            }
            Command::Reload(name, reply) => self.ask_reload(name, reply),
            Command::Rollback(name, reply) => self.ask_rollback(name, reply),
            Command::SetLevel(directives, reply) => self.set_level(directives, reply),
            Command::Reopen => self.fleet.send_all(&Order::Reopen),
            Command::Recycle(reply) => self.recycle_all(Reason::Operator, reply),
            Command::Upgrade(path, reply) => self.upgrade(path, reply),
            Command::Kill(reply) => {
                self.fleet.kill_all(Signal::KILL);
                // Who asked may be gone.
                let _ = reply.send(());
            }
        }
    }

    /// What is asked while the server stops: nothing is loaded any more.
    pub(super) fn last_command(&mut self, command: Command) {
        match command {
            Command::Reload(_, reply) | Command::Rollback(_, reply) => {
                // Who asked may be gone.
                let _ = reply.send(Err(AskError::Stopping));
            }
            Command::Configure(..) | Command::Upgrade(..) => {}
            command => self.command(command),
        }
    }

    fn ask_reload(&mut self, name: String, reply: Reply) {
        let library = match self.apps.get(&name) {
            Some(app) => app.library.clone(),
            None => return self.not_found(name, reply),
        };
        self.forgive(&name);
        let ask = self.ask(reply);
        let read = libraries::read(library, Purpose::Reload { app: name, ask });
        self.tasks.spawn(async move { Done::Read(read.await) });
    }

    fn ask_rollback(&mut self, name: String, reply: Reply) {
        let Some(app) = self.apps.get(&name) else {
            return self.not_found(name, reply);
        };
        let Some(previous) = &app.previous else {
            // Who asked may be gone.
            let _ = reply.send(Err(AskError::NoPrevious(name)));
            return;
        };
        let copy = previous.copy.clone();
        let ask = self.ask(reply);
        let read = libraries::read(copy, Purpose::Rollback { app: name, ask });
        self.tasks.spawn(async move { Done::Read(read.await) });
    }

    /// The library that served before was read: it is loaded with the settings of now.
    pub(super) fn roll_back(
        &mut self,
        name: &str,
        ask: AskId,
        examined: Result<Candidate, Rejected>,
    ) {
        let Some(app) = self.apps.get(name) else {
            return self.answer(ask, Err(AskError::Superseded));
        };
        let library = app.library.clone();
        let wanted = examined.and_then(|candidate| {
            let facts = Facts::of(&candidate);
            let spec = self.settings.spec(name, &facts);
            match self.taken(name, &spec.mounts) {
                Some(taken) => Err(candidate.rejected(LoadError::Taken(Box::new(taken)))),
                None => Ok(Wanted {
                    spec,
                    source: Source::Candidate(candidate.into()),
                    why: Why::Rollback,
                    ask: Some(ask),
                }),
            }
        });
        let Some(app) = self.apps.get_mut(name) else {
            return;
        };
        match wanted {
            Ok(wanted) => {
                let actions = app.want(wanted);
                self.apply(name, actions);
            }
            Err(rejected) => {
                let failure = Failure::new(&library, rejected.hash, &rejected.error);
                let error = failure.error.clone();
                app.say_failed(failure);
                self.answer(ask, Err(AskError::Failed(error)));
            }
        }
    }

    /// A mount that another app has.
    fn taken(&self, name: &str, mounts: &[Arc<str>]) -> Option<Taken> {
        let others = self.apps.values().filter(|app| app.name != name);
        for other in others {
            let has = other.holding().mounts;
            if let Some(mount) = mounts.iter().find(|mount| has.contains(mount)) {
                return Some(Taken::Mount {
                    app: name.to_owned(),
                    mount: mount.clone(),
                    by: format!("{} ({})", other.name, other.library.display()),
                });
            }
        }
        None
    }

    fn not_found(&self, name: String, reply: Reply) {
        let known: Vec<_> = self.apps.keys().cloned().collect();
        let known = known.join(", ");
        // Who asked may be gone.
        let _ = reply.send(Err(AskError::NotFound { name, known }));
    }

    fn ask(&mut self, reply: Reply) -> AskId {
        self.last_ask += 1;
        self.asks.insert(self.last_ask, reply);
        self.last_ask
    }

    fn ask_report(&mut self, reply: oneshot::Sender<Report>) {
        self.asking.last += 1;
        let number = self.asking.last;
        let waiting: BTreeSet<_> = self.fleet.taking_part().into_iter().collect();
        self.fleet.send_all(&Order::Report { number });
        let reporting = Reporting {
            waiting,
            reports: Vec::new(),
            reply,
        };
        self.asking.reports.insert(number, reporting);
        self.tasks.spawn(async move {
            time::sleep(REPORT_PATIENCE).await;
            Done::ReportTimedOut(number)
        });
        self.report_if_complete(number);
    }

    pub(super) fn reported(&mut self, worker: WorkerId, number: u64, report: WorkerReport) {
        if let Some(reporting) = self.asking.reports.get_mut(&number) {
            reporting.waiting.remove(&worker);
            reporting.reports.push((worker, report));
        }
        self.report_if_complete(number);
    }

    /// A worker did not answer in time: the report is of those that did.
    pub(super) fn report_timed_out(&mut self, number: u64) {
        if let Some(reporting) = self.asking.reports.get_mut(&number) {
            reporting.waiting.clear();
        }
        self.report_if_complete(number);
    }

    /// A worker is gone, and will not answer.
    pub(super) fn forget_asked(&mut self, worker: WorkerId) {
        for number in self.asking.reports.keys().copied().collect::<Vec<_>>() {
            if let Some(reporting) = self.asking.reports.get_mut(&number) {
                reporting.waiting.remove(&worker);
            }
            self.report_if_complete(number);
        }
        for number in self.asking.levels.keys().copied().collect::<Vec<_>>() {
            self.in_force(worker, number, Vec::new());
        }
    }

    fn report_if_complete(&mut self, number: u64) {
        let reporting = self.asking.reports.get(&number);
        if reporting.is_none_or(|reporting| !reporting.waiting.is_empty()) {
            return;
        }
        let Some(reporting) = self.asking.reports.remove(&number) else {
            return;
        };
        let mut apps: Vec<_> = self.apps.values().map(|app| (app, false)).collect();
        apps.extend(self.removed.values().map(|app| (app, true)));
        apps.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        let refused = self.refused.values();
        let known = Known {
            apps,
            refused: refused.map(|refused| refused.failure.clone()).collect(),
            copies: self.store.folder(),
        };
        let report = report::report(known, &reporting.reports);
        // Who asked may be gone.
        let _ = reporting.reply.send(report);
    }

    fn set_level(&mut self, directives: String, reply: oneshot::Sender<Vec<String>>) {
        self.asking.last += 1;
        let number = self.asking.last;
        let waiting = self.fleet.taking_part().into_iter().collect();
        self.fleet.send_all(&Order::SetLevel { number, directives });
        self.asking.levels.insert(
            number,
            Setting {
                waiting,
                unconfirmed: BTreeSet::new(),
                reply,
            },
        );
        self.tell_if_in_force(number);
    }

    pub(super) fn in_force(&mut self, worker: WorkerId, number: u64, unconfirmed: Vec<String>) {
        if let Some(setting) = self.asking.levels.get_mut(&number) {
            setting.waiting.remove(&worker);
            setting.unconfirmed.extend(unconfirmed);
        }
        self.tell_if_in_force(number);
    }

    fn tell_if_in_force(&mut self, number: u64) {
        let setting = self.asking.levels.get(&number);
        if setting.is_some_and(|setting| setting.waiting.is_empty())
            && let Some(setting) = self.asking.levels.remove(&number)
        {
            // Who asked may be gone.
            let _ = setting
                .reply
                .send(setting.unconfirmed.into_iter().collect());
        }
    }
}

/// How long workers have to put a level in force.
const LEVEL_PATIENCE: Duration = Duration::from_secs(5);

/// How long workers have to answer.
const REPORT_PATIENCE: Duration = Duration::from_secs(2);
