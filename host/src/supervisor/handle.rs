//! The interface of the supervisor for the other parts of the host: a [`Handle`] sends a [`Command`] and waits for the
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
    /// Load the app with this name from its library again, even if the library did not change.
    Reload(String, oneshot::Sender<Result<ReloadReport, CommandError>>),
    /// Load the library of the app with this name that served before the current one.
    Rollback(String, oneshot::Sender<Result<ReloadReport, CommandError>>),
    /// Use these mounts and app tables from now on.
    Configure(Vec<Mount>, Vec<config::AppConfig>),
    /// Apply these log directives in all workers. The answer lists the libraries that did not confirm in time.
    SetLevel(String, oneshot::Sender<Vec<String>>),
    /// Reopen the log files in all workers.
    Reopen,
    /// Replace one worker, or all workers, by fresh ones. The answer is the number of replaced workers.
    Recycle(Option<WorkerId>, oneshot::Sender<Result<usize, String>>),
    /// Replace this program in place by another build: the one at this path, or at this program's path.
    Upgrade(Option<PathBuf>, UpgradeReply),
    /// Log the backtraces of the threads of all worker processes. The answer is sent when the lines are written.
    Dump(oneshot::Sender<()>),
    /// Kill all worker processes.
    Kill(oneshot::Sender<()>),
    /// List the workers.
    Workers(oneshot::Sender<Roster>),
    /// Change the number of workers.
    Scale(Scale, oneshot::Sender<Result<ScaleReport, CommandError>>),
    /// Load an uploaded library, and move it into the plugins folder after it serves.
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
    /// When no app has this name, when the load fails, or when the host stops.
    pub async fn reload(&self, name: String) -> Result<ReloadReport, CommandError> {
        let (sender, report) = oneshot::channel();
        self.send(Command::Reload(name, sender)).await?;
        report.await.map_err(|_| CommandError::Stopping)?
    }

    /// Loads the library that served before, as a new generation. Returns when the old generation has
    /// drained.
    ///
    /// # Errors
    ///
    /// When no app has this name, when no other library served before, when the load fails, or when the host stops.
    pub async fn rollback(&self, name: String) -> Result<ReloadReport, CommandError> {
        let (sender, report) = oneshot::channel();
        self.send(Command::Rollback(name, sender)).await?;
        report.await.map_err(|_| CommandError::Stopping)?
    }

    /// Applies new mounts and app tables. Apps whose settings did not change are not loaded again.
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

    /// Makes all workers apply the directives of `filter` after each change. From now on, a change of `filter` returns
    /// when all workers have applied the new directives, or after five seconds.
    pub fn follow_level(&self, filter: &Filter) {
        let commands = self.0.clone();
        let followed = filter.clone();
        // `follow_as_group` calls `apply_level` once at the registration. That call must not wait for the supervisor,
        // and need not: no worker runs at that moment, and each worker starts with the directives in force.
        let is_registration = AtomicBool::new(true);
        let apply_level = move || {
            if is_registration.swap(false, Ordering::Relaxed) {
                return Vec::new();
            }
            let (sender, set) = oneshot::channel();
            let directives = followed.directives().to_string();
            let command = Command::SetLevel(directives, sender);
            // The filter calls this function on a separate thread, so it may block. A send error means that the host
            // stops.
            let sent = commands.blocking_send(command).is_ok();
            let unconfirmed = sent.then(|| set.blocking_recv().ok()).flatten();
            unconfirmed.unwrap_or_default()
        };
        filter.follow_as_group("worker processes".to_owned(), LEVEL_TIMEOUT, apply_level);
    }

    /// Replaces one worker by a fresh worker, or all workers one after the other. Returns the number of replaced
    /// workers after the old workers have drained.
    ///
    /// # Errors
    ///
    /// When the server has no worker processes, when no worker has this number, or when the host stops.
    pub async fn recycle(&self, worker: Option<WorkerId>) -> Result<usize, String> {
        let (sender, recycled) = oneshot::channel();
        let stopping = || CommandError::Stopping.to_string();
        let sent = self.send(Command::Recycle(worker, sender)).await;
        sent.map_err(|_| stopping())?;
        recycled.await.map_err(|_| stopping())?
    }

    /// Replaces this program in place by the build at `path`, or at the path of this program if `path` is `None`.
    /// Returns the name of the other build after that build has proved that it can take over, and before it is
    /// executed.
    ///
    /// # Errors
    ///
    /// When the other build has not proved that it can take over, while a load or a recycling is under way, or when the
    /// host stops. After an error this build continues to serve.
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

    /// Logs the backtraces of the threads of all worker processes. Returns when the lines are written, and at the
    /// latest after 5 s.
    pub async fn dump(&self) {
        let (sender, dumped) = oneshot::channel();
        if self.send(Command::Dump(sender)).await.is_ok() {
            // On a timeout, the missing lines follow later, unless the server ends before.
            let _ = time::timeout(Duration::from_secs(5), dumped).await;
        }
    }

    /// Kills all worker processes. Returns when the signals are sent, and at the latest after 100 ms, because the
    /// supervisor may not respond.
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

    /// Changes the number of workers. Returns after surplus workers got the order to stop or missing workers were
    /// started.
    ///
    /// # Errors
    ///
    /// When the server has no worker processes, when the number is out of range, or when the host stops.
    pub async fn scale(&self, scale: Scale) -> Result<ScaleReport, CommandError> {
        let (sender, scaled) = oneshot::channel();
        self.send(Command::Scale(scale, sender)).await?;
        scaled.await.map_err(|_| CommandError::Stopping)?
    }

    /// Loads an uploaded library and moves it into the plugins folder. Returns when the library serves in all workers
    /// and the old generations have drained.
    ///
    /// # Errors
    ///
    /// When the load fails, when the file cannot be moved, or when the host stops. After an error the plugins folder is
    /// unchanged. If only the move fails, the library serves nevertheless.
    pub async fn deploy(&self, upload: Upload) -> Result<DeployReport, CommandError> {
        let (sender, deployed) = oneshot::channel();
        self.send(Command::Deploy(Box::new(upload), sender)).await?;
        deployed.await.map_err(|_| CommandError::Stopping)?
    }

    /// Sends a command. Waits while the queue of commands is full.
    async fn send(&self, command: Command) -> Result<(), CommandError> {
        self.0
            .send(command)
            .await
            .map_err(|_| CommandError::Stopping)
    }
}

/// How long workers may take to apply a level.
const LEVEL_TIMEOUT: Duration = Duration::from_secs(5);
