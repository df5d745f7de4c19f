//! The interface of the supervisor for the rest of the host: a [`Handle`] sends a [`Command`] and waits for the
//! answer.

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
    deploy::{DeployReport, Upload},
    error::CommandError,
    outcome::ReloadReport,
    report::ServerReport,
    roster::Roster,
    scale::{Scale, ScaleReport},
    upgrading::UpgradeReply,
};
use crate::{
    config::{self, Mount},
    log::filter::Filter,
};

/// Sends commands to the supervisor. Clones send to the same supervisor.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Command>);

/// A command for the supervisor, with the channel for its answer.
#[derive(Debug)]
pub enum Command {
    /// Report all apps.
    Report(oneshot::Sender<ServerReport>),
    /// Load the app from its library again, even if the library did not change.
    Reload(String, oneshot::Sender<Result<ReloadReport, CommandError>>),
    /// Load the library that served before the current one.
    Rollback(String, oneshot::Sender<Result<ReloadReport, CommandError>>),
    /// Use these mounts and app tables from now on.
    Configure(Vec<Mount>, Vec<config::AppConfig>),
    /// Apply these log directives in all workers. The answer lists libraries that did not confirm in time.
    SetLevel(String, oneshot::Sender<Vec<String>>),
    /// Reopen the log files in all workers.
    Reopen,
    /// Replace one worker, or all workers, by fresh ones. The answer is the number of replaced workers.
    Recycle(Option<WorkerId>, oneshot::Sender<Result<usize, String>>),
    /// Replace this program in place by another build: the one at this path, or at this program's path.
    Upgrade(Option<PathBuf>, UpgradeReply),
    /// Log where the threads of all workers are. The answer comes when the lines are written.
    Dump(oneshot::Sender<()>),
    /// Kill all worker processes.
    Kill(oneshot::Sender<()>),
    /// List the workers.
    Workers(oneshot::Sender<Roster>),
    /// Change the number of workers.
    Scale(Scale, oneshot::Sender<Result<ScaleReport, CommandError>>),
    /// Load an uploaded library, and put it into the plugins folder once it serves.
    Deploy(
        Box<Upload>,
        oneshot::Sender<Result<DeployReport, CommandError>>,
    ),
}

impl Handle {
    /// Creates a handle, and the receiver for the supervisor's main loop.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, commands) = mpsc::channel(16);
        (Self(sender), commands)
    }

    /// Returns a report of all apps.
    ///
    /// # Errors
    ///
    /// When the host stops.
    pub async fn report(&self) -> Result<ServerReport, CommandError> {
        let (sender, report) = oneshot::channel();
        self.send(Command::Report(sender)).await?;
        report.await.map_err(|_| CommandError::Stopping)
    }

    /// Loads the app from its library again, as a new generation. Returns when the old generation has
    /// drained.
    ///
    /// # Errors
    ///
    /// When there is no such app, when it is not loaded, or when the host stops.
    pub async fn reload(&self, name: String) -> Result<ReloadReport, CommandError> {
        let (sender, proof) = oneshot::channel();
        self.send(Command::Reload(name, sender)).await?;
        proof.await.map_err(|_| CommandError::Stopping)?
    }

    /// Loads the library that served before, as a new generation. Returns when the old generation has
    /// drained.
    ///
    /// # Errors
    ///
    /// When there is no such app, when no other library served before, when the load fails, or when the
    /// host stops.
    pub async fn rollback(&self, name: String) -> Result<ReloadReport, CommandError> {
        let (sender, proof) = oneshot::channel();
        self.send(Command::Rollback(name, sender)).await?;
        proof.await.map_err(|_| CommandError::Stopping)?
    }

    /// Applies new mounts and app tables. Apps whose settings did not change are left alone.
    ///
    /// # Errors
    ///
    /// When the host stops.
    pub async fn configure(
        &self,
        mounts: Vec<Mount>,
        apps: Vec<config::AppConfig>,
    ) -> Result<(), CommandError> {
        self.send(Command::Configure(mounts, apps)).await
    }

    /// Makes the workers follow the level of `filter`. From now on a change of `filter` returns when all
    /// workers have applied the new directives, or after five seconds.
    pub fn follow_level(&self, filter: &Filter) {
        let commands = self.0.clone();
        let followed = filter.clone();
        // `follow_as_group` calls `tell` once at registration. No worker runs at that moment, and each
        // worker starts with the directives in force.
        let is_first = AtomicBool::new(true);
        let tell = move || {
            if is_first.swap(false, Ordering::Relaxed) {
                return Vec::new();
            }
            let (sender, set) = oneshot::channel();
            let directives = followed.directives().to_string();
            let command = Command::SetLevel(directives, sender);
            // A send error means that the host stops.
            let sent = commands.blocking_send(command).is_ok();
            let unconfirmed = sent.then(|| set.blocking_recv().ok()).flatten();
            unconfirmed.unwrap_or_default()
        };
        filter.follow_as_group("worker processes".to_owned(), LEVEL_TIMEOUT, tell);
    }

    /// Replaces one worker, or all workers, by fresh ones, one after the other. Returns the number of
    /// replaced workers when the old ones have drained.
    ///
    /// # Errors
    ///
    /// When there are no worker processes, no such worker, or the host stops.
    pub async fn recycle(&self, worker: Option<WorkerId>) -> Result<usize, String> {
        let (sender, recycled) = oneshot::channel();
        let stopping = || CommandError::Stopping.to_string();
        let sent = self.send(Command::Recycle(worker, sender)).await;
        sent.map_err(|_| stopping())?;
        recycled.await.map_err(|_| stopping())?
    }

    /// Replaces this program in place by another build: the one at `path`, or at the path of this program.
    /// Returns the name of the other build when that build has proved that it can take over.
    ///
    /// # Errors
    ///
    /// When the other build has not proved that, or while a load or a recycling is under way. This build
    /// goes on then.
    pub async fn upgrade(&self, path: Option<PathBuf>) -> Result<String, String> {
        let (sender, upgraded) = oneshot::channel();
        let stopping = || CommandError::Stopping.to_string();
        let sent = self.send(Command::Upgrade(path, sender)).await;
        sent.map_err(|_| stopping())?;
        upgraded.await.map_err(|_| stopping())?
    }

    /// Makes all workers reopen their log files.
    pub async fn reopen(&self) {
        // When the host stops, no log needs to be reopened.
        let _ = self.send(Command::Reopen).await;
    }

    /// Logs where the threads of all worker processes are. Returns after at most 5 s, also when some lines are
    /// not written yet.
    pub async fn dump(&self) {
        let (sender, dumped) = oneshot::channel();
        if self.send(Command::Dump(sender)).await.is_ok() {
            let _ = time::timeout(Duration::from_secs(5), dumped).await;
        }
    }

    /// Kills all worker processes.
    pub async fn kill(&self) {
        let (sender, killed) = oneshot::channel();
        if self.send(Command::Kill(sender)).await.is_ok() {
            let _ = time::timeout(Duration::from_millis(100), killed).await;
        }
    }

    /// Returns the list of the workers.
    ///
    /// # Errors
    ///
    /// When the host stops.
    pub async fn workers(&self) -> Result<Roster, CommandError> {
        let (sender, roster) = oneshot::channel();
        self.send(Command::Workers(sender)).await?;
        roster.await.map_err(|_| CommandError::Stopping)
    }

    /// Changes the number of workers. Returns when surplus workers were told to stop and missing ones were
    /// started.
    ///
    /// # Errors
    ///
    /// When there are no worker processes, when the number is out of range, or when the host stops.
    pub async fn scale(&self, scale: Scale) -> Result<ScaleReport, CommandError> {
        let (sender, scaled) = oneshot::channel();
        self.send(Command::Scale(scale, sender)).await?;
        scaled.await.map_err(|_| CommandError::Stopping)?
    }

    /// Loads an uploaded library and puts it into the plugins folder. Returns when the library serves in all
    /// workers and the old generations have drained.
    ///
    /// # Errors
    ///
    /// When the load fails or the host stops. The folder is unchanged then.
    pub async fn deploy(&self, upload: Upload) -> Result<DeployReport, CommandError> {
        let (sender, deployed) = oneshot::channel();
        self.send(Command::Deploy(Box::new(upload), sender)).await?;
        deployed.await.map_err(|_| CommandError::Stopping)?
    }

    async fn send(&self, command: Command) -> Result<(), CommandError> {
        self.0
            .send(command)
            .await
            .map_err(|_| CommandError::Stopping)
    }
}

/// How long workers may take to apply a level.
const LEVEL_TIMEOUT: Duration = Duration::from_secs(5);
