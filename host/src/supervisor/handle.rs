//! Where the rest of the host asks the supervisor: a [`Handle`] sends a [`Command`] and waits for the answer.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use super::{
    app::WorkerId,
    deploy::{Deployed, Upload},
    error::AskError,
    outcome::Proof,
    report::Report,
    roster::Roster,
    scale::{Scale, Scaled},
    upgrading::UpgradeReply,
};
use crate::{
    config::{self, Mount},
    log::filter::Filter,
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
    Configure(Vec<Mount>, Vec<config::AppConfig>),
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
        apps: Vec<config::AppConfig>,
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

/// How long workers have to put a level in force.
const LEVEL_PATIENCE: Duration = Duration::from_secs(5);
