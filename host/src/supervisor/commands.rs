//! What an operator asks, and what they are told.

use std::{
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
    asking::ReportTo,
    catalog::{Facts, Settings, Taken},
    deploy::{Deployed, Upload},
    libraries::{self, Purpose},
    report::{AskError, Failure, Proof, Report},
    roster::Roster,
    scale::{Scale, Scaled},
    upgrading::UpgradeReply,
};
use crate::{
    config::{self, Mount},
    folder::candidate::{Candidate, Rejected},
    log::filter::Filter,
    orders::Order,
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
    /// Replace a worker, or all when none is named, by fresh ones. The reply says how many.
    Recycle(Option<WorkerId>, oneshot::Sender<Result<usize, String>>),
    /// Execute another build in place: the one at this path, or at the path of this program.
    Upgrade(Option<PathBuf>, UpgradeReply),
    /// End all worker processes at once.
    Kill(oneshot::Sender<()>),
    /// Which workers are there?
    Workers(oneshot::Sender<Roster>),
    /// Have another number of workers.
    Scale(Scale, oneshot::Sender<Result<Scaled, AskError>>),
    /// Load a library that is not in the plugins folder yet, and put it there once it serves.
    Deploy(Box<Upload>, oneshot::Sender<Result<Deployed, AskError>>),
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

    /// Replaces a worker, or all when none is named, by fresh ones, one after the other. Returns how
    /// many, when the old ones have finished what they had.
    ///
    /// # Errors
    ///
    /// When there are no worker processes or not this one, or the host stops.
    pub async fn recycle(&self, worker: Option<WorkerId>) -> Result<usize, String> {
        let (sender, recycled) = oneshot::channel();
        let stopping = || AskError::Stopping.to_string();
        let sent = self.send(Command::Recycle(worker, sender)).await;
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

    /// Which workers there are.
    ///
    /// # Errors
    ///
    /// When the host stops.
    pub async fn workers(&self) -> Result<Roster, AskError> {
        let (sender, roster) = oneshot::channel();
        self.send(Command::Workers(sender)).await?;
        roster.await.map_err(|_| AskError::Stopping)
    }

    /// Has another number of workers from now on. Returns when the workers that are too many were
    /// told to end, and those that are missing were started.
    ///
    /// # Errors
    ///
    /// When there are no worker processes, when there would be none or too many, or when the host
    /// stops.
    pub async fn scale(&self, scale: Scale) -> Result<Scaled, AskError> {
        let (sender, scaled) = oneshot::channel();
        self.send(Command::Scale(scale, sender)).await?;
        scaled.await.map_err(|_| AskError::Stopping)?
    }

    /// Loads a library that is not in the plugins folder yet, and puts it there. Returns when it
    /// serves in all workers and the old generations have finished what they had.
    ///
    /// # Errors
    ///
    /// When it is not loaded, or the host stops: the folder is then as it was.
    pub async fn deploy(&self, upload: Upload) -> Result<Deployed, AskError> {
        let (sender, deployed) = oneshot::channel();
        self.send(Command::Deploy(Box::new(upload), sender)).await?;
        deployed.await.map_err(|_| AskError::Stopping)?
    }

    async fn send(&self, command: Command) -> Result<(), AskError> {
        self.0.send(command).await.map_err(|_| AskError::Stopping)
    }
}

impl Supervisor {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Report(reply) => self.ask_report(ReportTo::Apps(reply)),
            Command::Workers(reply) => self.ask_report(ReportTo::Workers(reply)),
            Command::Scale(scale, reply) => {
                // Who asked may be gone.
                let _ = reply.send(self.scale(scale));
            }
            Command::Deploy(upload, reply) => self.deploy(*upload, reply),
            Command::Configure(mounts, apps) => {
                self.settings = Settings { mounts, apps };
                self.checks_strangers = true;
                self.libraries.touch();
            }
            Command::Reload(name, reply) => self.ask_reload(name, reply),
            Command::Rollback(name, reply) => self.ask_rollback(name, reply),
            Command::SetLevel(directives, reply) => self.set_level(directives, reply),
            Command::Reopen => self.fleet.send_all(&Order::Reopen),
            Command::Recycle(worker, reply) => self.ask_recycle(worker, reply),
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
            Command::Scale(_, reply) => {
                let _ = reply.send(Err(AskError::Stopping));
            }
            Command::Deploy(_, reply) => {
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

    /// Keeps who waits for a load until the load is over.
    pub(super) fn ask(&mut self, reply: Reply) -> AskId {
        self.last_ask += 1;
        self.asks.insert(self.last_ask, reply);
        self.last_ask
    }
}

/// How long workers have to put a level in force.
const LEVEL_PATIENCE: Duration = Duration::from_secs(5);
